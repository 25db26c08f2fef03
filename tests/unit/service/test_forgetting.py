"""What may be forgotten: not too early, not because of one key, and never all at once."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from authd.core import limits
from authd.core.identity import StatementId
from authd.core.statements import Heartbeat
from authd.service import knowledge
from authd.service.heartbeats import Heartbeats
from authd.service.quotas import DECLINED_FOR_S
from tests.unit.service.scenes import DEVICE, TEMP, gossip, revoke
from tests.unit.service.test_new_lists import (
    MONTH,
    NAMES,
    beat,
    brief,
    forget,
    fresh,
    of_keys,
    pass_turn,
    revoked,
    sign,
    view_of,
)
from tests.world import DAY, START, Domain, Site, make_key


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MIN_CLOSED_ENTRIES", 4)


def held(site: Site) -> int:
    return len(site.service.authority.state.revocations)


def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SPENT_FOR_S", 0)


# --- certain ----------------------------------------------------------------------------------


async def test_a_clock_that_is_ahead_for_an_hour_destroys_no_revocation(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    grant = site.domain.grant(DEVICE.public, TEMP, expires_at=START + 30 * DAY)
    site.learn(grant)
    revoked(site, [grant, *brief(site, 5)])
    sign(site)
    pass_turn(site, 40 * DAY)
    forget(site)
    assert fresh(site), "by the heads of its own key, as far as it can tell"
    assert held(site) == 6
    assert len(view_of(site).chain.ids) == 6
    site.close()
    site.clock.time = START + 3_600.0
    site.open()
    site.clock.advance(1)
    assert not (await site.connect(DEVICE)).allowed


def test_what_stayed_over_for_a_day_is_left_out_and_forgotten(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    revoked(site, brief(site, 5))
    sign(site)
    pass_turn(site, MONTH)
    assert len(view_of(site).chain.ids) == 5
    pass_turn(site, DAY)
    assert view_of(site).chain.ids == ()
    forget(site)
    assert held(site) == 0


def test_what_one_list_left_out_is_not_listed_again_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once(monkeypatch)
    site = Site(tmp_path, Domain(heartbeat_names=NAMES))
    ids = revoked(site, brief(site, 5))
    sign(site)
    pass_turn_of_three(site, ids, MONTH)
    assert view_of(site).chain.ids == ()
    assert held(site) == 5, "another list names them"
    monkeypatch.undo()
    site.close()
    site.open()
    sign(site)
    assert view_of(site).chain.ids == ()


def hear(site: Site, name: str, ids: Iterable[StatementId], *, epoch: int = START) -> Heartbeat:
    signed = beat(site.domain, name, ids, at=site.clock.now(), epoch=epoch)
    gossip(site, signed)
    return signed


def pass_turn_of_three(site: Site, ids: Iterable[StatementId], seconds: int) -> None:
    """Let time pass, and then a turn of the first key, while the second signs ``ids``."""
    site.clock.advance(seconds)
    while (site.clock.now() // limits.NEW_LIST_SLOT_S) % 6:
        site.clock.advance(60)
    for _ in range(3):
        site.clock.advance(1)
        hear(site, "hb-2", ids)
        site.service.authority.beat()


# --- other keys -------------------------------------------------------------------------------


def test_entries_that_nobody_has_stop_nobody_from_forgetting_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once(monkeypatch)
    site = Site(tmp_path, Domain(heartbeat_names=NAMES))
    revoked(site, brief(site, 5))
    sign(site)
    pass_turn_of_three(site, (), MONTH)
    unknown = [StatementId(bytes([number]) * 16) for number in range(40)]
    hear(site, "hb-3", unknown)
    forgets = site.service.authority.forget_revocations
    for part in range(2):
        assert forgets() == 0, part
        site.clock.advance(limits.KEY_AMISS_S / 2)
        # It says something new all the time.
        hear(site, "hb-3", unknown[: 30 + part], epoch=START + 1 + part)
        hear(site, "hb-2", ())
        site.service.authority.beat()
    assert fresh(site)
    assert forgets() == 5
    assert held(site) == 0


def test_a_key_that_left_out_too_much_does_not_count_after_a_restart_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once(monkeypatch)
    site = Site(tmp_path, Domain(heartbeat_names=NAMES))
    ids = revoked(site, brief(site, 4))
    sign(site)
    first = hear(site, "hb-3", ids)
    site.clock.advance(2)
    liar = beat(site.domain, "hb-3", [], at=START + 4, epoch=START + 4, previous=first.end)
    gossip(site, liar)
    assert view_of(site, "hb-3").equivocated
    pass_turn_of_three(site, (), MONTH)
    assert view_of(site).chain.ids == ()
    site.service.authority.forget_revocations()
    site.close()
    site.open()
    site.service.authority.beat()
    assert view_of(site, "hb-3").equivocated
    assert ["have not ended" in one for one in site.service.authority.alarms] == [True]


# --- bit by bit -------------------------------------------------------------------------------


def test_they_are_forgotten_a_few_at_a_time_and_not_if_named_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once(monkeypatch)
    monkeypatch.setattr(knowledge, "_FORGOTTEN_AT_ONCE", 2)
    site = Site(tmp_path, Domain(heartbeat_names=NAMES))
    ids = revoked(site, brief(site, 7))
    sign(site)
    pass_turn_of_three(site, (), MONTH)
    forgets = site.service.authority.forget_revocations
    assert forgets(most=2) == 2
    left = [one for one in ids if one in site.service.authority.state.revocations]
    assert len(left) == 5
    hear(site, "hb-3", left[:2])
    assert [forgets(most=2) for _ in range(3)] == [2, 1, 0]
    assert set(site.service.authority.state.revocations) == set(left[:2])
    # What is new is on the own list as before, though much else was forgotten.
    new = of_keys(site, 1)
    hear(site, "hb-2", ())
    sign(site)
    assert list(view_of(site).chain.ids) == new


def test_a_tick_forgets_a_slice_and_lists_are_looked_through_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once(monkeypatch)
    site = Site(tmp_path, Domain())
    at_a_time = knowledge._FORGOTTEN_AT_ONCE
    revoked(site, brief(site, 2 * at_a_time + 1))
    sign(site)
    pass_turn(site, MONTH)
    assert view_of(site).chain.ids == ()
    looked, look = list[int](), Heartbeats._unnamed

    def count(self: Heartbeats, revocations: frozenset[StatementId]) -> list[StatementId]:
        looked.append(len(revocations))
        return look(self, revocations)

    monkeypatch.setattr(Heartbeats, "_unnamed", count)
    left = []
    while held(site):
        site.service.authority.forget_ended(now=site.clock.now())
        left.append(held(site))
    assert left == [at_a_time + 1, 1, 0]
    assert looked == [2 * at_a_time + 1]


# --- what comes back --------------------------------------------------------------------------


def test_what_was_forgotten_is_not_taken_again_from_whoever_still_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once(monkeypatch)
    site = Site(tmp_path, Domain())
    grants = brief(site, 6)
    items = [site.service.authority.statement(one) for one in revoked(site, grants)]
    sign(site)
    pass_turn(site, 40 * DAY)
    forget(site)
    assert held(site) == 0
    for again in range(2):
        site.clock.advance(DECLINED_FOR_S + 10)
        sign(site)
        site.service.authority.held()
        gossip(site, *grants)
        site.service.authority.receive([one for one in items if one], source="gossip")
        sign(site)
        assert held(site) == 0, again
        assert view_of(site).chain.ids == ()
        site.close()
        site.open()
        sign(site)


def test_what_comes_back_because_a_list_names_it_is_not_listed_here_and_goes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once(monkeypatch)
    site = Site(tmp_path, Domain(heartbeat_names=NAMES))
    ids = revoked(site, brief(site, 5))
    items = [site.service.authority.statement(one) for one in ids]
    sign(site)
    pass_turn_of_three(site, (), 40 * DAY)
    forget(site)
    hear(site, "hb-2", ())
    assert site.service.authority.forget_revocations() == 5
    for _ in range(2):
        site.service.authority.forget_ended(now=site.clock.now())
    assert not any(site.service.authority.state.grants.values()), (
        "nothing here says when they ended"
    )
    site.close()
    site.open()
    first = hear(site, "hb-3", ids)
    site.service.authority.receive([one for one in items if one], source="gossip")
    assert held(site) == 5, "or the list could not be proven"
    assert view_of(site, "hb-3").proven == first
    hear(site, "hb-2", ())
    sign(site)
    assert view_of(site).chain.ids == ()
    site.clock.advance(3_600)
    at = site.clock.now()
    gossip(site, beat(site.domain, "hb-3", [], at=at, epoch=at, previous=first.end))
    sign(site)
    assert site.service.authority.forget_revocations() == 5


def test_a_revoked_grant_that_newer_ones_push_out_still_says_when_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once(monkeypatch)
    site = Site(tmp_path, Domain())
    key = make_key("renewed").public
    old = site.domain.grant(key, TEMP, issued_at=START - 10, expires_at=START + DAY)
    site.learn(old)
    ids = revoked(site, [old])
    for number in range(limits.MAX_GRANTS_PER_PAIR + 1):
        site.learn(
            site.domain.grant(
                key, TEMP, issued_at=START - 5 + number, expires_at=START + 300 * DAY + number
            )
        )
    assert site.service.authority.statement(old.statement_id) is None
    sign(site)
    site.close()
    site.open()
    site.clock.advance(2 * DAY - 61)
    heartbeats, state = site.service.authority.heartbeats, site.service.authority.state
    assert not heartbeats.spent(state)
    site.clock.advance(3_600)
    assert heartbeats.spent(state) == set(ids)


def test_nothing_is_forgotten_of_which_the_end_cannot_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once(monkeypatch)
    site = Site(tmp_path, Domain())
    ids = revoked(site, brief(site, 5))
    unknown = revoke(site, bytes(16)).statement_id
    sign(site)
    pass_turn(site, MONTH)
    site.store._durable.execute(
        "CREATE TRIGGER full BEFORE INSERT ON ended BEGIN SELECT RAISE(FAIL, 'no room'); END"
    )
    forget(site)
    assert "no room" in site.service.authority.store_problem
    assert set(site.service.authority.state.revocations) == {*ids, unknown}
    site.store._durable.execute("DROP TRIGGER full")
    forget(site)
    assert list(site.service.authority.state.revocations) == [unknown]


# --- lists in excess --------------------------------------------------------------------------


def test_a_full_list_is_no_longer_reported_once_it_was_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once(monkeypatch)
    monkeypatch.setattr(limits, "MAX_CHAIN_ENTRIES", 6)
    monkeypatch.setattr(limits, "NEARLY_FULL_ENTRIES", 5)
    site = Site(tmp_path, Domain())
    revoked(site, brief(site, 2, ends_in=3 * DAY))
    of_keys(site, 4)
    sign(site)
    revoke(site, make_key("one more").public)
    site.clock.advance(61)
    site.service.authority.beat()
    assert ["is full" in one for one in site.service.authority.alarms] == [True]
    pass_turn(site, 5 * DAY)
    assert fresh(site)
    assert site.service.authority.alarms == []


def test_a_key_that_begins_lists_without_end_is_put_off(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain(), heartbeat=None)
    burst = int(limits.NEW_LISTS_BURST)
    heads = [beat(site.domain, "hb-1", [], at=START, epoch=START - 90)]
    for number in range(burst + 2):
        heads.append(
            beat(
                site.domain,
                "hb-1",
                [],
                at=START,
                epoch=START - 89 + number,
                previous=heads[-1].end,
            )
        )
    gossip(site, *heads)
    assert view_of(site).newest == heads[burst]
    assert site.service.authority.refused == 0, "it is told again"
    site.clock.advance(3_601)
    assert ["begins too many" in one for one in site.service.authority.alarms] == [True]
    gossip(site, *heads)
    assert view_of(site).newest == heads[burst + 1]
    gossip(site, heads[-1])
    assert view_of(site).newest == heads[burst + 1]


def test_a_key_whose_heads_cannot_be_followed_for_long_is_reported_until_they_can(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, Domain(), heartbeat=None)
    first = beat(site.domain, "hb-1", [], at=START, epoch=START)
    more = of_keys(site, 1)
    between = beat(site.domain, "hb-1", more, at=START + 1, epoch=START)
    gossip(site, first)
    site.clock.advance(2)
    last = beat(site.domain, "hb-1", [], at=START + 2, epoch=START + 2, previous=between.end)
    gossip(site, last)
    site.clock.advance(limits.KEY_AMISS_S - 1)
    assert site.service.authority.alarms == []
    site.clock.advance(1)
    assert ["are not taken" in one for one in site.service.authority.alarms] == [True]
    gossip(site, between)
    assert site.service.authority.alarms == []
