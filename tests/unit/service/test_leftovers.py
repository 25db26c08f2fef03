"""What clients leave behind: bounds on what a broker says, and who is shown what."""

from pathlib import Path
from typing import Any

import pytest

from authd.core.identity import PublicKey
from authd.service import leftovers
from authd.service.leftovers import (
    MAX_KEYS,
    MAX_MORE,
    MAX_TOPICS,
    NOTHING,
    Leftover,
    Leftovers,
    Retained,
    check_retained,
)
from authd.service.ports import SessionReport
from tests.unit.service.scenes import DEVICE, DEVICE_ID, GATEWAY, TEMP, revoke, site_with_device
from tests.world import START, Domain, Site

KEY, OTHER_KEY = PublicKey(b"k" * 32), PublicKey(b"o" * 32)


def note(
    kept: Leftovers, *topics: str, more: int = 0, key: PublicKey = KEY, client_id: str = "c"
) -> None:
    kept.note(key, Retained(topics, more), broker="m", client_id=client_id)


def topics_of(kept: Leftovers, key: PublicKey = KEY) -> list[str]:
    return [one.topic for one in kept.of([key], most=1_000)[0]]


# --- what a report may say ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "more", "taken"),
    [
        ([], 0, NOTHING),
        (["a", "b"], 0, Retained(("a", "b"), 0)),
        (["a", "b", "a"], 2, Retained(("a", "b"), 2)),
        (["", "a/#", "+", "a\x00", "a\x1b[2J", "\ud800", "x" * 257, "ok"], 1, Retained(("ok",), 8)),
        (["é" * 128, "é" * 129], 0, Retained(("é" * 128,), 1)),
        ([], 10**40, Retained((), MAX_MORE)),
        ([], -5, NOTHING),
    ],
)
def test_only_distinct_topic_names_are_taken_and_the_rest_is_counted(
    named: list[str], more: int, taken: Retained
) -> None:
    assert check_retained(named, more) == taken


def test_of_too_many_topics_the_last_are_taken() -> None:
    named = [f"t/{number}" for number in range(40)]
    assert check_retained(named, 1) == Retained(tuple(named[8:]), 9)


# --- what is kept ------------------------------------------------------------------------------


def test_reports_add_up_and_the_newest_topics_stay() -> None:
    kept = Leftovers()
    note(kept, *(f"old/{number}" for number in range(MAX_TOPICS)))
    note(kept, "old/0", "new")
    shown = topics_of(kept)
    assert len(shown) == MAX_TOPICS
    assert shown[-2:] == ["old/0", "new"]
    assert "old/1" not in shown
    assert kept.of([KEY], most=1_000)[1] == 1


def test_saying_the_same_again_counts_nothing_twice() -> None:
    kept = Leftovers()
    for _ in range(3):
        note(kept, *(f"t/{number}" for number in range(MAX_TOPICS)), more=8)
    assert kept.of([KEY], most=1_000)[1] == 8


def test_a_later_report_that_names_less_takes_nothing_back() -> None:
    kept = Leftovers()
    note(kept, "a", more=500)
    note(kept, "b")
    note(kept)
    assert (topics_of(kept), kept.of([KEY], most=9)[1]) == (["a", "b"], 500)


def test_the_same_topic_of_two_clients_is_two_lines() -> None:
    kept = Leftovers()
    note(kept, "a", client_id="one")
    note(kept, "a", client_id="two")
    assert kept.of([KEY], most=9)[0] == [Leftover("m", "one", "a"), Leftover("m", "two", "a")]


def test_what_does_not_fit_an_answer_is_counted() -> None:
    kept = Leftovers()
    note(kept, "a", "b", "c", more=4)
    note(kept, "d", key=OTHER_KEY)
    left, more = kept.of([KEY, PublicKey(b"x" * 32), OTHER_KEY], most=2)
    assert ([one.topic for one in left], more) == (["a", "b"], 6)


def test_the_key_that_was_not_heard_of_for_longest_makes_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert MAX_KEYS == 10_000
    monkeypatch.setattr(leftovers, "MAX_KEYS", 2)
    kept = Leftovers()
    third = PublicKey(b"3" * 32)
    for key in (KEY, OTHER_KEY, KEY, third):
        kept.note(key, Retained(("a",)), broker="m", client_id="c", rested_on=[b"grant"])
    assert kept.resting_on(b"grant") == sorted([KEY, third])
    assert topics_of(kept, OTHER_KEY) == []


def test_what_a_session_no_longer_rests_on_is_let_go() -> None:
    kept = Leftovers()
    kept.note(KEY, Retained(("a",)), broker="m", client_id="c", rested_on=[b"old", b"root"])
    kept.note(KEY, Retained(("b",)), broker="m", client_id="c", rested_on=[b"new", b"root"])
    assert (kept.resting_on(b"old"), kept.resting_on(b"new")) == ([], [KEY])
    assert kept._resting_on.keys() == {b"new", b"root"}


# --- what the operator is shown ----------------------------------------------------------------


def report(
    site: Site,
    session: str,
    what: str,
    *topics: str,
    broker: str = "m",
    client_id: str = DEVICE_ID,
) -> None:
    site.service.enforcement.report(
        broker,
        SessionReport(
            client_id=client_id, session_id=session, what=what, retained=Retained(topics, 1)
        ),
    )


def line(topic: str, *, broker: str = "m") -> dict[str, str]:
    return {"broker": broker, "client_id": DEVICE_ID, "topic": topic}


async def test_a_revocation_shows_what_a_session_left_before_and_when_it_was_cut(
    tmp_path: Path,
) -> None:
    site = site_with_device(tmp_path)
    first = await site.connect(DEVICE)
    report(site, first.session, "offline", "site/old")
    second = await site.connect(DEVICE)
    signed = revoke(site, DEVICE.public)
    report(site, second.session, "kicked", "site/temp")
    answer = site.service.operator.revocation(signed.statement_id)
    assert answer["retained"] == [line("site/old"), line("site/temp")]
    assert answer["retained_more"] == 1
    assert site.service.operator.revocations() == {"revocations": [answer]}


async def test_a_will_that_is_told_after_the_cut_is_shown_and_changes_nothing_else(
    tmp_path: Path,
) -> None:
    site = site_with_device(tmp_path)
    allowed = await site.connect(DEVICE)
    report(site, allowed.session, "retained", "site/temp")
    assert [one.live for one in site.service.sessions.all()] == [True]
    signed = revoke(site, DEVICE.public)
    report(site, allowed.session, "retained", "site/will")
    answer: Any = site.service.operator.revocation(signed.statement_id)
    assert [one["topic"] for one in answer["retained"]] == ["site/temp", "site/will"]
    assert [one["outcome"] for one in answer["cut"]] == ["sent"]


async def test_the_key_is_the_sessions_whatever_the_report_says(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    allowed = await site.connect(DEVICE)
    signed = revoke(site, DEVICE.public)
    report(site, "no such id", "kicked", "forged")
    report(site, allowed.session, "kicked", "of another broker", broker="e")
    report(site, allowed.session, "kicked", "site/temp", client_id="somebody else")
    answer = site.service.operator.revocation(signed.statement_id)
    assert answer["retained"] == [line("site/temp")]


async def test_a_revoked_gateway_shows_what_devices_below_it_left_that_are_away(
    tmp_path: Path,
) -> None:
    domain = Domain()
    site = Site(tmp_path, domain)
    above = domain.grant(GATEWAY.public, TEMP, depth=1)
    site.learn(above, domain.grant(DEVICE.public, TEMP, by=GATEWAY))
    allowed = await site.connect(DEVICE, broker="e")
    report(site, allowed.session, "offline", "site/temp", broker="e")
    assert site.service.sessions.all() == []
    signed = revoke(site, above.statement_id)
    answer = site.service.operator.revocation(signed.statement_id)
    assert (answer["cut"], answer["retained"]) == ([], [line("site/temp", broker="e")])


async def test_a_device_that_still_has_a_session_is_not_shown(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    second = site.domain.grant(DEVICE.public, TEMP, issued_at=START - 1)
    site.learn(second)
    first = await site.connect(DEVICE, broker="m")
    report(site, first.session, "retained", "site/temp")
    signed = revoke(site, second.statement_id)
    assert [one.live for one in site.service.sessions.all()] == [True]
    assert site.service.operator.revocation(signed.statement_id)["retained"] == []


async def test_an_answer_names_so_many_topics_and_counts_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authd.service.operator._MAX_NAMED", 3)
    site = site_with_device(tmp_path)
    allowed = await site.connect(DEVICE)
    report(site, allowed.session, "offline", "a", "b")
    revoke(site, DEVICE.public)
    revoke(site, DEVICE.public, by=DEVICE)
    listed: Any = site.service.operator.revocations()["revocations"]
    assert [len(one["retained"]) for one in listed] == [2, 1]
    assert [one["retained_more"] for one in listed] == [1, 2]


async def test_a_restart_forgets(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    allowed = await site.connect(DEVICE)
    report(site, allowed.session, "offline", "site/temp")
    signed = revoke(site, DEVICE.public)
    site.close()
    site.open()
    answer = site.service.operator.revocation(signed.statement_id)
    assert (answer["retained"], answer["retained_more"]) == ([], 0)
    site.close()
