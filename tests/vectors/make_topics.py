"""Write ``topics.txt``: what filters match, cover and share, judged by an oracle of its own.

The oracle knows nothing of the code under test: a filter is a regular expression, and a question
about two filters is a question about the sets of topic names they match among all names of up to
four levels over the words at hand. Run this file to write the vectors anew.

One line a claim, four fields with a tab between: function, first argument, second argument,
result. ``matches`` and ``covers`` and ``overlaps`` say ``true`` or ``false``; ``meet`` gives a
filter, or ``-`` for none. Lines that begin with ``# `` are comments.
"""

import hashlib
import itertools
import re
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Final

PATH: Final = Path(__file__).with_name("topics.txt")
MAX_BYTES: Final = 256
WORDS: Final = ("a", "b", "", "$x")
# `z` stands for every word that no filter names.
NAME_WORDS: Final = (*WORDS, "z")
# True by MQTT's semantics, and still refused: the walk level by level cannot see it.
NOT_SEEN: Final = frozenset({("+/#", "#"), ("+/+/#", "/#"), ("/+/#", "/#")})

_FILTER = re.compile(r"(?:(?:[^/+#]*|\+)/)*(?:[^/+#]*|\+|#)")
_SHARE = re.compile(r"\$share/[^/+#]+/(.+)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def is_filter(text: str) -> bool:
    """Say whether MQTT 5 §4.7.1 allows the filter, within our length."""
    sized = 1 <= len(text.encode()) <= MAX_BYTES
    return sized and not _CONTROL.search(text) and _FILTER.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Say whether MQTT 5 §4.7 allows the topic name, within our length."""
    return is_filter(text) and not re.search(r"[+#]", text) and not text.startswith("$share")


@cache
def _pattern(topic_filter: str) -> re.Pattern[str]:
    if topic_filter == "#":
        return re.compile(r".*")
    body, tail = topic_filter, ""
    if topic_filter.endswith("/#"):
        body, tail = topic_filter[:-2], r"(?:/.*)?"
    levels = ("[^/]*" if level == "+" else re.escape(level) for level in body.split("/"))
    return re.compile("/".join(levels) + tail)


def is_under(topic_filter: str, name: str) -> bool:
    """Say whether a well-formed name is under a well-formed filter."""
    if name.startswith("$") and topic_filter[0] in "+#":
        return False
    return _pattern(topic_filter).fullmatch(name) is not None


def spell(words: tuple[str, ...], *, most_levels: int) -> Iterator[str]:
    """Spell everything of 1 to ``most_levels`` levels over the words, but the empty text."""
    for count in range(1, most_levels + 1):
        for levels in itertools.product(words, repeat=count):
            if levels != ("",):
                yield "/".join(levels)


FILTERS: Final = tuple(text for text in spell((*WORDS, "+", "#"), most_levels=3) if is_filter(text))
NAMES: Final = tuple(spell(NAME_WORDS, most_levels=4))


def mask(topic_filter: str, names: tuple[str, ...] = NAMES) -> int:
    """Return the set of names under a filter, one bit a name."""
    return sum(1 << bit for bit, name in enumerate(names) if is_under(topic_filter, name))


@lru_cache(maxsize=1)
def masks() -> dict[str, int]:
    """Return the names under every filter of up to three levels."""
    return {topic_filter: mask(topic_filter) for topic_filter in FILTERS}


def matches(topic_filter: str, name: str) -> bool:
    """Answer for any two texts."""
    granted = is_filter(topic_filter) and not topic_filter.startswith("$share")
    return granted and is_name(name) and is_under(topic_filter, name)


def covers(granted: str, requested: str) -> bool:
    """Answer for any two texts; ``$share/<group>/`` before the second is taken away."""
    if requested.startswith("$share"):
        share = _SHARE.fullmatch(requested)
        requested = share[1] if share else ""
    usable = all(is_filter(text) and not text.startswith("$share") for text in (granted, requested))
    if not usable or (granted, requested) in NOT_SEEN:
        return False
    words = {word for text in (granted, requested) for word in text.split("/")} - {"+", "#"}
    levels = 1 + max(granted.count("/"), requested.count("/"))
    names = tuple(spell((*sorted(words), "", "~")[:6], most_levels=levels + 1))
    return not mask(requested, names) & ~mask(granted, names)


def meet(first: str, second: str) -> str | None:
    """Find the one filter for the names under both; None if there is no name, or no such one."""
    wanted = masks()[first] & masks()[second]
    found = [text for text, names in masks().items() if names == wanted]
    return found[0] if wanted and len(found) == 1 else None


def sampled(function: str, first: str, second: str, *, one_in: int) -> bool:
    """Choose about one of ``one_in`` pairs, the same ones every time."""
    digest = hashlib.sha256(f"{function}\t{first}\t{second}".encode()).digest()
    return int.from_bytes(digest[:4], "big") % one_in == 0


LONG: Final = "l" * MAX_BYTES
CHOSEN_MATCHES: Final = [
    ("home/kitchen/temp", "home/kitchen/temp"),
    ("home/kitchen/temp", "home/kitchen/temp/"),
    ("home/kitchen/temp", "/home/kitchen/temp"),
    ("home/kitchen/temp", "home/kitchen/Temp"),
    ("home/+/temp", "home/kitchen/temp"),
    ("home/+/temp", "home//temp"),
    ("home/+/temp", "home/kitchen/oven/temp"),
    ("home/+", "home"),
    ("home/+", "home/"),
    ("home/#", "home"),
    ("home/#", "home/"),
    ("home/#", "homestead"),
    ("home/#", "home/a/b/c/d/e/f/g"),
    ("#", "home"),
    ("#", "/"),
    ("+", "/"),
    ("+/+", "/"),
    ("/+", "/"),
    ("/#", "+"),
    ("#", "$SYS/broker/uptime"),
    ("+/broker/uptime", "$SYS/broker/uptime"),
    ("$SYS/#", "$SYS/broker/uptime"),
    ("$SYS/#", "$SYS"),
    ("$SYS/+", "$SYS/broker"),
    ("#", "$CONTROL/dynamic-security/v1"),
    ("+/dynamic-security/v1", "$CONTROL/dynamic-security/v1"),
    ("$CONTROL/#", "$CONTROL/dynamic-security/v1"),
    ("a/#", "a/$SYS"),
    ("a/+", "a/$SYS"),
    ("#", "$share/g/a"),
    ("a", "$share/g/a"),
    ("$share/g/a", "$share/g/a"),
    ("$share/g/a", "a"),
    ("#", "$shared/a"),
    ("#", "a/+"),
    ("#", "a/#"),
    ("a/+", "a/+"),
    ("#", ""),
    ("+", ""),
    ("", "a"),
    ("", ""),
    ("a/#/b", "a/x/b"),
    ("#/a", "x/a"),
    ("a#", "a"),
    ("a+", "ab"),
    ("größe/+", "größe/süd"),
    ("größe/+", "große/süd"),
    ("a/b", "a/b\u200b"),
    ("caf\u00e9", "cafe\u0301"),
    ("#", "a\x01b"),
    ("#", "a\x7f"),
    ("#", LONG),
    (LONG, LONG),
    ("#", LONG + "l"),
]
CHOSEN_COVERS: Final = [
    ("home/#", "home/#"),
    ("home/#", "home"),
    ("home/#", "home/+"),
    ("home/#", "home/+/temp"),
    ("home/#", "#"),
    ("home/#", "+"),
    ("home/#", "+/temp"),
    ("home/+", "home/#"),
    ("home/+", "home/+"),
    ("home/+", "home/x"),
    ("home/x", "home/+"),
    ("home/+/temp", "home/+/+"),
    ("home/+/+", "home/+/temp"),
    ("+/+", "home/+"),
    ("+", "#"),
    ("#", "+"),
    ("+/#", "#"),
    ("+/+/#", "/#"),
    ("/+/#", "/#"),
    ("#", "+/#"),
    ("#", "#"),
    ("#", "$SYS/#"),
    ("+/#", "$SYS/#"),
    ("#", "$CONTROL/#"),
    ("+/+/#", "$CONTROL/+/#"),
    ("$SYS/#", "$SYS/#"),
    ("$SYS/#", "+/#"),
    ("$SYS/+", "$SYS/#"),
    ("home/#", "$share/g/home/#"),
    ("home/#", "$share/g/home"),
    ("home/#", "$share/g/#"),
    ("home/#", "$share/g/secret/#"),
    ("#", "$share/g/home"),
    ("#", "$share/g/$SYS/x"),
    ("$SYS/#", "$share/g/$SYS/x"),
    ("#", "$share"),
    ("#", "$share/"),
    ("#", "$share/g"),
    ("#", "$share/g/"),
    ("#", "$share//a"),
    ("#", "$share/+/a"),
    ("#", "$share/#/a"),
    ("#", "$share/#"),
    ("#", "$share/g+/a"),
    ("#", "$share/g#/a"),
    ("#", "$shareX/a"),
    ("#", "$shared/g/a"),
    ("#", "$share/g/$share/h/a"),
    ("#", "$share/g/$share"),
    ("#", "$SHARE/g/a"),
    ("#", "$share/$g/a"),
    ("#", "$share/g//a"),
    ("/#", "$share/g//a"),
    ("a", "$share/g/a/"),
    ("$share/g/a", "$share/g/a"),
    ("$share/g/a", "a"),
    ("$share/#", "$share/g/a"),
    ("#", "$share/g/a/#/b"),
    ("#", "a/#/b"),
    ("#", "a#"),
    ("#", "a+"),
    ("#", "+a"),
    ("#", "##"),
    ("#", "++"),
    ("#", "#/"),
    ("#", "/#"),
    ("#", "a//b"),
    ("#", ""),
    ("", "a"),
    ("a/#/b", "a/x/b"),
    ("#/a", "x/a"),
    ("a/#/b", "a/#/b"),
    ("a#", "a#"),
    ("a/b+", "a/b+"),
    ("größe/#", "größe/+"),
    ("#", "a\x01"),
    ("#", "a\x7f/#"),
    ("#", LONG),
    ("#", LONG + "l"),
    ("#", f"$share/g/{LONG}"),
    ("#", f"$share/g/{LONG}l"),
]


def _line(*fields: str | bool | None) -> str:
    written = {True: "true", False: "false", None: "-"}
    return "\t".join(field if isinstance(field, str) else written[field] for field in fields)


def _chosen() -> Iterator[str]:
    yield "# chosen"
    for first, second in CHOSEN_MATCHES:
        yield _line("matches", first, second, matches(first, second))
    for first, second in CHOSEN_COVERS:
        yield _line("covers", first, second, covers(first, second))


def _sampled_matches() -> Iterator[str]:
    yield "# sampled: filters of up to three levels, names of up to four"
    for first, second in itertools.product(FILTERS, NAMES):
        result = matches(first, second)
        if sampled("matches", first, second, one_in=80 if result else 600):
            yield _line("matches", first, second, result)


def _sampled_pairs() -> Iterator[str]:
    yield "# sampled: pairs of filters of up to three levels"
    for first, second in itertools.product(FILTERS, FILTERS):
        under, asked = masks()[first], masks()[second]
        covered = not asked & ~under and (first, second) not in NOT_SEEN
        if sampled("covers", first, second, one_in=8 if covered else 120):
            yield _line("covers", first, second, covered)
            if covered:
                yield _line("covers", first, f"$share/group/{second}", covered)
        if sampled("overlaps", first, second, one_in=20 if under & asked else 150):
            yield _line("overlaps", first, second, bool(under & asked))
        met = meet(first, second) if sampled("meet", first, second, one_in=30) else None
        if met is not None or (not under & asked and sampled("meet", first, second, one_in=300)):
            yield _line("meet", first, second, met)


def render() -> str:
    """Return the whole file."""
    lines = ["# written by make_topics.py", *_chosen(), *_sampled_matches(), *_sampled_pairs()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PATH.write_text(render(), encoding="utf-8", newline="\n")
