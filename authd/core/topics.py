"""MQTT topic names and filters (MQTT 5 §4.7): what a filter matches, covers and shares.

Four questions, each answered by one function:

- `matches(filter, name)`: is the topic name under the filter?
- `covers(granted, requested)`: is everything the requested filter can match under the granted one?
- `meet(f, g)`: the filter for what both allow, if anything.
- `overlaps(f, g)`: is there a topic name under both?

A topic name is a filter without wildcards, so one walk serves all. A wildcard never reaches a
first level that begins with ``$``, and ``a/#`` covers ``a``. `covers` is exact but for three
shapes it refuses although it could allow (``+/#`` over ``#``, ``+/+/#`` over ``/#``, ``/+/#`` over
``/#``): it never over-grants.
"""

import enum
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from authd.core import limits
from authd.errors import FormatError

SHARE_PREFIX: Final = "$share/"
AUTHD_PREFIX: Final = "$authd/"
POWER_ADMIN: Final = "$authd/admin"
POWER_NODE: Final = "$authd/node"
POWER_REVOKE: Final = "$authd/revoke"
# A wildcard fills its level, and `#` is the last one.
_LEVELS: Final = re.compile(r"(?:(?:\+|[^/+#]*)/)*(?:\+|#|[^/+#]*)")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class Action(enum.IntFlag):
    """What may be done on a filter; a bit set."""

    PUB = 1
    SUB = 2
    SERVE = 4


ACTION_NAMES: Final = {"pub": Action.PUB, "serve": Action.SERVE, "sub": Action.SUB}
NO_ACTION: Final = Action(0)


@dataclass(frozen=True, slots=True, order=True)
class ScopeEntry:
    """One filter and what may be done on it."""

    topic_filter: str
    actions: Action


Scope = tuple[ScopeEntry, ...]
"""Entries strictly ascending by filter."""


def is_topic_name(text: str) -> bool:
    """Say whether ``text`` is a topic name: no wildcards, no control characters, not empty."""
    return _is_topic_text(text) and "+" not in text and "#" not in text


def is_topic_filter(text: str) -> bool:
    """Say whether ``text`` is a topic filter (MQTT 5 §4.7.1)."""
    if not _is_topic_text(text):
        return False
    return _LEVELS.fullmatch(text) is not None


def _is_topic_text(text: str) -> bool:
    if not text or _CONTROL.search(text):
        return False
    try:
        return len(text.encode("utf-8")) <= limits.MAX_FILTER_BYTES
    except UnicodeEncodeError:
        return False


def check_granted_filter(text: str) -> str:
    """Accept a filter that may stand in a scope.

    Raises:
        FormatError: Not a filter, or one that begins with ``$share``.
    """
    if not is_topic_filter(text) or text.split("/", 1)[0].startswith("$share"):
        msg = f"`{text}` is not a topic filter that can be granted"
        raise FormatError(msg)
    return text


def unwrap_share(requested: str) -> str | None:
    """Remove ``$share/<group>/`` from a subscribe request (MQTT 5 §4.8.2).

    Returns:
        The filter inside; ``requested`` itself if it is not shared; None if it is malformed.
    """
    if not requested.startswith("$share"):
        return requested
    _, separator, rest = requested.partition("/")
    group, separator, inner = rest.partition("/")
    well_formed = (
        requested.startswith(SHARE_PREFIX)
        and separator
        and inner
        and group
        and "+" not in group
        and "#" not in group
    )
    return inner if well_formed else None


def matches(topic_filter: str, name: str) -> bool:
    """Say whether the topic name is under the filter; malformed or ``$share`` names never are."""
    return reaches(topic_filter, name_levels(name))


def name_levels(name: str) -> list[str]:
    """Split a topic name for `reaches`; empty if it is malformed or begins with ``$share``."""
    if not is_topic_name(name) or name.startswith("$share"):
        return []
    return name.split("/")


def covers(granted: str, requested: str) -> bool:
    """Say whether everything the requested filter can match is under the granted one.

    Args:
        granted: A filter of a scope.
        requested: Untrusted subscribe request; ``$share/<group>/`` is unwrapped first.
    """
    return reaches(granted, request_levels(requested))


def request_levels(requested: str) -> list[str]:
    """Split a subscribe request without its ``$share/<group>/`` for `reaches`; empty if malformed.

    Args:
        requested: Untrusted.
    """
    inner = unwrap_share(requested)
    if inner is None or not is_topic_filter(inner) or inner.startswith("$share"):
        return []
    return inner.split("/")


def reaches(topic_filter: str, levels: list[str]) -> bool:
    """Say whether everything that split levels can match is under a filter of a scope.

    Args:
        topic_filter: A filter of a scope.
        levels: From `name_levels` or `request_levels`; nothing reaches what is malformed.
    """
    return bool(levels) and _covers_levels(topic_filter.split("/"), levels)


def _covers_levels(granted: list[str], requested: list[str]) -> bool:
    if granted[0] in ("+", "#") and requested[0].startswith("$"):
        return False
    for index, level in enumerate(granted):
        if level == "#":
            # Nothing may stand behind it; a filter that has more is malformed and covers nothing.
            return index == len(granted) - 1
        if index == len(requested) or requested[index] == "#":
            return False
        if level != "+" and (requested[index] == "+" or level != requested[index]):
            return False
    return len(granted) == len(requested)


def meet(first: str, second: str) -> str | None:
    """Compute the filter for what both filters allow; None if nothing is under both."""
    f, g = first.split("/"), second.split("/")
    if (f[0] in ("+", "#") and g[0].startswith("$")) or (
        g[0] in ("+", "#") and f[0].startswith("$")
    ):
        return None
    levels: list[str] = []
    for index in range(max(len(f), len(g))):
        # Only the empty text can be under `/#` and `+`, and that is no topic name.
        if f[index : index + 1] == ["#"]:
            return "/".join(levels + g[index:]) or None
        if g[index : index + 1] == ["#"]:
            return "/".join(levels + f[index:]) or None
        if index >= len(f) or index >= len(g):
            return None
        level = _meet_level(f[index], g[index])
        if level is None:
            return None
        levels.append(level)
    return "/".join(levels)


def _meet_level(first: str, second: str) -> str | None:
    if first == "+":
        return second
    if second in ("+", first):
        return first
    return None


def overlaps(first: str, second: str) -> bool:
    """Say whether some topic name is under both filters."""
    return meet(first, second) is not None


def meet_scopes(first: Scope, second: Scope) -> Scope:
    """Compute the scope for what both scopes allow, entries merged and ascending."""
    return _meet_scopes(first, second)


# What policy and a root entry have in common is asked for with every path, and devices that were
# made of one template have one scope.
@lru_cache(maxsize=128)
def _meet_scopes(first: Scope, second: Scope) -> Scope:
    met: dict[str, int] = {}
    for one in first:
        # As plain numbers: a set of flags takes a microsecond for every `&`.
        bits = int(one.actions)
        for other in second:
            actions = bits & int(other.actions)
            if not actions:
                continue
            topic_filter = _meet_entry(one.topic_filter, other.topic_filter)
            if topic_filter is not None:
                met[topic_filter] = met.get(topic_filter, 0) | actions
    return make_scope({name: Action(bits) for name, bits in met.items()})


def _meet_entry(first: str, second: str) -> str | None:
    # Powers under `$authd/` count only where every statement on the path names them literally.
    if first.startswith(AUTHD_PREFIX) or second.startswith(AUTHD_PREFIX):
        return first if first == second else None
    # What an authority may give is mostly everything.
    if first == "#" and not second.startswith("$"):
        return second
    return meet(first, second)


def make_scope(entries: dict[str, Action]) -> Scope:
    """Order entries as a scope must be."""
    return tuple(ScopeEntry(name, actions) for name, actions in sorted(entries.items()))


def has_power(scope: Scope, power: str) -> bool:
    """Say whether a scope names a ``$authd/…`` power literally."""
    return any(entry.topic_filter == power and entry.actions for entry in scope)
