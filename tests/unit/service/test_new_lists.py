"""A heartbeat list begun anew without revocations of grants that have ended."""

import hashlib
import itertools
from collections.abc import Iterable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from authd.core import limits
from authd.core.grants import Grant
from authd.core.identity import StatementId
from authd.core.revocations import KeyView
from authd.core.statements import Heartbeat, ListEnd, Revoke, sign_heartbeat
from authd.errors import ReasonCode
from authd.service import ends, knowledge
from authd.service.desk import GossipDesk
from authd.service.heartbeats import Restored
from tests.unit.service.scenes import DEVICE, GATEWAY, OTHER, TEMP, gossip, revoke
from tests.unit.service.test_restored import tell
from tests.world import DAY, START, Domain, Ether, FakeClock, Site, make_key, scope

NAMES = ("hb-1", "hb-2", "hb-3")
MONTH = limits.NEW_LIST_EVERY_S


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MIN_CLOSED_ENTRIES", 4)
    # Here time is passed in one jump; how long something stayed needed no more has tests below.
    monkeypatch.setattr(limits, "SPENT_FOR_S", 0)


def view_of(site: Site, name: str = "hb-1") -> KeyView:
    key = site.domain.heartbeat(name).public
    return site.service.authority.heartbeats.domains[site.domain.id].view(key)


def fresh(site: Site) -> bool:
    until = site.service.authority.heartbeats.freshness().get(site.domain.id, 0)
    return until > site.clock.now()


def brief(site: Site, count: int, *, ends_in: int = DAY, name: str = "brief") -> list[Grant]:
    """Make grants that end soon, known here."""
    made = [
        site.domain.grant(
            make_key(f"{name} {number}").public,
            TEMP,
            issued_at=site.clock.now() - 10,
            expires_at=site.clock.now() + ends_in,
        )
        for number in range(count)
    ]
    site.learn(*made)
    return made


def revoked(site: Site, grants: Iterable[Grant]) -> list[StatementId]:
    return [revoke(site, one.statement_id).statement_id for one in grants]


def of_keys(site: Site, count: int, name: str = "key") -> list[StatementId]:
    return [revoke(site, make_key(f"{name} {n}").public).statement_id for n in range(count)]


def sign(site: Site) -> None:
    site.clock.advance(2)
    site.service.authority.beat()


def pass_turn(site: Site, seconds: int) -> None:
    """Let time pass without a head, and then a turn of the only key."""
    site.clock.advance(seconds)
    while (site.clock.now() // limits.NEW_LIST_SLOT_S) % 2:
        site.clock.advance(60)
    for _ in range(3):
        site.clock.advance(1)
        site.service.authority.beat()


def forget(site: Site) -> None:
    site.clock.advance(3_600)
    site.service.authority.beat()
    for _ in range(3):
        site.service.authority.forget_ended(now=site.clock.now())


def figures(site: Site) -> tuple[int, int]:
    domain = site.service.operator.status()["domains"][0]  # type: ignore[index]  # a list of them
    key = domain["heartbeat_keys"][0]
    own = site.service.authority.heartbeats.own_figures()
    assert own == (key["revocations"], key["ended"])
    return own


# --- one key ----------------------------------------------------------------------------------


def test_what_ended_is_left_off_the_new_list_and_forgotten(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    kept, gone = list[StatementId](), list[StatementId]()
    for number in range(4):
        kept += of_keys(site, 1, name=f"key {number}")
        gone += revoked(site, brief(site, 2, name=f"brief {number}"))
        sign(site)
    kept += revoked(site, brief(site, 1, ends_in=90 * DAY, name="long"))
    kept.append(revoke(site, bytes(16)).statement_id)
    sign(site)
    before = view_of(site)
    assert figures(site) == (14, 0)
    with capture_logs() as logs:
        pass_turn(site, MONTH)
    after = view_of(site)
    assert after.newest is not None
    assert after.newest.previous == before.chain.end
    assert after.chain.epoch > before.chain.epoch
    # In the order in which they were listed.
    assert after.chain.ids == tuple(one for one in before.chain.ids if one in kept)
    assert after.closed_heads[-1].head == before.chain.head
    assert figures(site) == (6, 0)
    assert [(one["entries_before"], one["entries"]) for one in logs] == [(14, 6)]
    authority = site.service.authority
    assert all(authority.in_force(one) for one in (*gone, *kept))
    forget(site)
    assert sorted(authority.state.revocations) == sorted(kept)
    assert len(site.store.load_statements()) < 30
    site.close()
    site.open()
    assert sorted(site.service.authority.state.revocations) == sorted(kept)
    assert view_of(site).chain == after.chain
    assert fresh(site)
    assert site.service.authority.alarms == []


def test_an_entry_that_has_not_ended_for_a_day_stays(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    revoked(site, brief(site, 6, ends_in=MONTH - DAY // 2))
    sign(site)
    pass_turn(site, MONTH)
    assert not view_of(site).closed_heads
    assert figures(site) == (6, 0)
    pass_turn(site, DAY)
    assert figures(site) == (0, 0)


@pytest.mark.parametrize("why", ["none", "too young", "too short", "half", "behind"])
def test_a_list_is_not_begun_anew_without_need_or_certainty(tmp_path: Path, why: str) -> None:
    site = Site(tmp_path, Domain())
    revoked(site, brief(site, 3 if why == "too short" else 5))
    if why == "half":
        of_keys(site, 5)
    sign(site)
    if why == "behind":
        site.clock.behind = limits.HEARTBEAT_AHEAD_S + 1
    pass_turn(site, 5 * DAY if why == "too young" else MONTH)
    assert bool(view_of(site).closed_heads) is (why == "none")
    forget(site)
    listed = len(view_of(site).chain.ids)
    assert len(site.service.authority.state.revocations) == listed


def test_nobody_begins_a_list_while_it_is_anothers_turn(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    revoked(site, brief(site, 5))
    sign(site)
    site.clock.advance(MONTH)
    while (site.clock.now() // limits.NEW_LIST_SLOT_S) % 2 == 0:
        site.clock.advance(60)
    for _ in range(3):
        site.clock.advance(1)
        site.service.authority.beat()
    assert not view_of(site).closed_heads
    pass_turn(site, 0)
    assert view_of(site).closed_heads


def test_the_grant_is_kept_to_say_when_it_ended_and_goes_with_its_revocation(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, Domain())
    grants = brief(site, 3)
    revoked(site, grants)
    sign(site)
    pass_turn(site, 40 * DAY)
    forget(site)
    assert not view_of(site).closed_heads, "too short to be worth it"
    site.close()
    site.open()
    revoked(site, brief(site, 3, name="more"))
    sign(site)
    pass_turn(site, 35 * DAY)
    assert view_of(site).closed_heads
    assert not view_of(site).chain.ids
    forget(site)
    assert not site.service.authority.state.revocations
    site.clock.advance(5 * DAY)
    site.service.authority.forget_ended(now=site.clock.now())
    site.service.authority.forget_ended(now=site.clock.now())
    assert not any(site.service.authority.state.grants.values())


def test_a_revocation_takes_its_grant_along_where_device_grants_do_not_travel(
    tmp_path: Path,
) -> None:
    first = Site(tmp_path, Domain(), name="first", replicate=False)
    other = Site(tmp_path, first.domain, name="other", heartbeat=None, replicate=False)
    grant = brief(first, 1)[0]
    assert grant.statement_id not in first.service.authority.held()
    signed = revoke(first, grant.statement_id)
    assert grant.statement_id in first.service.authority.held()
    items = first.service.authority.with_evidence(signed)
    assert len(items) == 2
    for some in (items, items[::-1]):
        other.service.authority.receive(some, source="gossip")
    assert other.service.authority.statement(grant.statement_id)
    other.clock.advance(3 * DAY)
    assert other.service.authority.in_force(signed.statement_id), "it has ended, and that is known"


async def test_a_dropped_revocation_revives_nothing_whatever_the_clock_says(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, Domain())
    grant = site.domain.grant(DEVICE.public, TEMP, expires_at=START + DAY)
    site.learn(grant)
    revoked(site, [grant, *brief(site, 5)])
    sign(site)
    pass_turn(site, MONTH)
    forget(site)
    assert not site.service.authority.state.revocations
    site.learn(grant)
    decision = await site.connect(DEVICE)
    assert decision.reason is ReasonCode.EXPIRED
    # The host's clock falls back to when the grant lived: time goes on from what is on disk.
    site.clock.behind = MONTH + DAY
    assert not (await site.connect(DEVICE)).allowed
    forget(site)
    site.close()
    site.open(restored=Restored(alone=True, done=lambda: None))
    assert not (await site.connect(DEVICE)).allowed


def test_nothing_is_dropped_of_a_branch_that_holds_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REVOCATIONS_PER_BRANCH", (40, 4, 3, 2))
    site = Site(tmp_path, Domain())
    site.learn(
        site.domain.grant(GATEWAY.public, scope(pub="site/#"), depth=2, expires_at=START + 90 * DAY)
    )
    made = [
        site.domain.grant(make_key(f"s {n}").public, TEMP, by=GATEWAY, expires_at=START + DAY)
        for n in range(5)
    ]
    site.learn(*made)
    for one in made:
        revoke(site, one.statement_id, by=GATEWAY)
    missed = revoke(site, OTHER.public, by=GATEWAY)
    sign(site)
    assert site.service.authority.state.flooded
    assert missed.statement_id not in site.service.authority.state.revocations
    pass_turn(site, MONTH)
    forget(site)
    assert not view_of(site).closed_heads
    assert len(view_of(site).chain.ids) == 5
    assert site.service.authority.state.flooded, "or what was missed would be missing"


def test_a_full_list_signs_nothing_until_something_on_it_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_CHAIN_ENTRIES", 6)
    monkeypatch.setattr(limits, "NEARLY_FULL_ENTRIES", 5)
    site = Site(tmp_path, Domain())
    first = revoked(site, brief(site, 2, ends_in=3 * DAY))
    more = of_keys(site, 4)
    site.clock.advance(1)
    site.service.authority.beat()
    assert len(view_of(site).chain.ids) == 6
    surplus = revoke(site, make_key("one more").public)
    site.clock.advance(61)
    assert site.service.authority.beat() == []
    assert not fresh(site), "a head without it would say that there is none"
    assert ["is full" in one for one in site.service.authority.alarms] == [True]
    site.clock.advance(61)
    site.service.authority.beat()
    assert not fresh(site)
    pass_turn(site, 5 * DAY)
    assert view_of(site).closed_heads
    assert fresh(site)
    assert {*view_of(site).chain.ids} == {*more, surplus.statement_id}
    assert not {*first} & {*view_of(site).chain.ids}


def test_a_list_that_is_nearly_full_is_begun_anew_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_CHAIN_ENTRIES", 6)
    monkeypatch.setattr(limits, "NEARLY_FULL_ENTRIES", 5)
    site = Site(tmp_path, Domain())
    revoked(site, brief(site, 1, ends_in=DAY))
    of_keys(site, 4)
    sign(site)
    pass_turn(site, 2 * DAY + 3_600)
    assert len(view_of(site).closed_heads) == 1
    assert len(view_of(site).chain.ids) == 4
    of_keys(site, 1, name="late")
    site.clock.advance(1)
    assert site.service.authority.beat()
    assert fresh(site)


def test_a_new_list_is_on_disk_with_its_head_or_not_at_all(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    revoked(site, brief(site, 5))
    of_keys(site, 2)
    site.clock.advance(2)
    site.service.authority.beat()
    before = view_of(site)
    key = site.domain.heartbeat("hb-1").public
    site.store._durable.execute(
        "CREATE TRIGGER full BEFORE INSERT ON statements BEGIN SELECT RAISE(FAIL, 'no room'); END"
    )
    pass_turn(site, MONTH)
    assert "no room" in site.service.authority.store_problem
    assert site.store.load_chain(site.domain.id, key) == (before.chain.epoch, [*before.chain.ids])
    assert view_of(site).chain == before.chain
    site.store._durable.execute("DROP TRIGGER full")
    site.close()
    site.open()
    pass_turn(site, 1)
    assert view_of(site).closed_heads[-1].head == before.chain.head
    epoch, ids = site.store.load_chain(site.domain.id, key)
    assert (epoch, len(ids)) == (view_of(site).chain.epoch, 2)
    assert site.store.load_closed(site.domain.id, key) == []


# --- others' lists ----------------------------------------------------------------------------


def beat(
    domain: Domain,
    name: str,
    ids: Iterable[StatementId],
    *,
    at: int,
    epoch: int,
    previous: ListEnd | None = None,
) -> Heartbeat:
    listed, digest = tuple(ids), bytes(32)
    for one in listed:
        digest = hashlib.sha256(digest + one).digest()
    return sign_heartbeat(
        domain.heartbeat(name),
        domain=domain.id,
        root_version=domain.roots[-1].version,
        epoch=epoch,
        count=len(listed),
        head=digest,
        recent=listed[-16:],
        issued_at=at,
        previous=previous,
    )


def observer(directory: Path) -> tuple[Site, Grant, list[StatementId]]:
    """Return a daemon that knows a list of a grant's revocation and of a key's."""
    site = Site(directory, Domain(), heartbeat=None)
    grant = brief(site, 1)[0]
    return site, grant, [*revoked(site, [grant]), *of_keys(site, 1)]


def test_a31_a_key_that_forgets_what_has_not_ended_never_counts_again(tmp_path: Path) -> None:
    for place in (0, 1):
        directory = tmp_path / str(place)
        directory.mkdir()
        site, _, ids = observer(directory)
        first = beat(site.domain, "hb-1", ids, at=START, epoch=START - 9)
        gossip(site, first)
        assert fresh(site)
        left = ids[:place] + ids[place + 1 :]
        second = beat(site.domain, "hb-1", left, at=START + 1, epoch=START + 1, previous=first.end)
        site.clock.advance(1)
        gossip(site, second)
        assert not fresh(site)
        site.service.authority.beat()
        assert "have not ended" in site.service.authority.alarms[0]
        site.close()
        site.open()
        site.service.authority.beat()
        assert "have not ended" in site.service.authority.alarms[0]
        assert view_of(site).equivocated
        assert not fresh(site)
        assert gossip(site, beat(site.domain, "hb-1", ids, at=START + 2, epoch=START + 1)) == []


def test_a_key_may_leave_out_what_has_ended_even_a_moment_ago(tmp_path: Path) -> None:
    site, grant, ids = observer(tmp_path)
    first = beat(site.domain, "hb-1", ids, at=START, epoch=START - 9)
    gossip(site, first)
    site.clock.time = float(grant.expires_at)
    at = grant.expires_at
    second = beat(site.domain, "hb-1", ids[1:], at=at, epoch=at, previous=first.end)
    gossip(site, second)
    assert fresh(site)
    assert not view_of(site).equivocated
    assert set(site.service.authority.state.revocations) == set(ids), "held on for a day"


def test_a_grant_that_is_not_known_here_accuses_nobody_and_stays_revoked(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain(), heartbeat=None)
    unknown = revoke(site, bytes(16)).statement_id
    first = beat(site.domain, "hb-1", [unknown], at=START, epoch=START - 9)
    gossip(site, first)
    second = beat(site.domain, "hb-1", [], at=START + 1, epoch=START + 1, previous=first.end)
    gossip(site, second)
    assert fresh(site)
    site.clock.advance(MONTH)
    site.service.authority.forget_ended(now=site.clock.now())
    assert unknown in site.service.authority.state.revocations


def test_a31_a_second_new_list_under_one_head_convicts_also_after_a_restart(
    tmp_path: Path,
) -> None:
    site, _, ids = observer(tmp_path)
    first = beat(site.domain, "hb-1", ids, at=START, epoch=START - 9)
    more = revoke(site, OTHER.public).statement_id
    second = beat(site.domain, "hb-1", ids, at=START, epoch=START - 8, previous=first.end)
    longer = beat(
        site.domain, "hb-1", [*ids, more], at=START + 1, epoch=START - 8, previous=first.end
    )
    fork = beat(site.domain, "hb-1", ids[::-1], at=START + 2, epoch=START - 7, previous=first.end)
    gossip(site, first, second, longer)
    assert view_of(site).newest == longer
    gossip(site, fork)
    for _ in range(2):
        assert view_of(site).equivocated
        assert not fresh(site)
        assert "contradict each other" in site.service.authority.alarms[0]
        one, other = site.service.authority.heartbeats.newest_items()
        assert one.data in (second.encoded, longer.encoded)
        assert other.data == fork.encoded
        site.close()
        site.open()


def test_a31_a_list_that_goes_on_after_it_was_closed_convicts(tmp_path: Path) -> None:
    site, _, ids = observer(tmp_path)
    first = beat(site.domain, "hb-1", ids[:1], at=START, epoch=START - 9)
    second = beat(site.domain, "hb-1", ids, at=START, epoch=START - 8, previous=first.end)
    gossip(site, first, second)
    assert not view_of(site).equivocated
    gossip(site, beat(site.domain, "hb-1", ids, at=START + 1, epoch=START - 9))
    assert view_of(site).equivocated


def test_a_list_that_is_closed_before_it_could_be_proven_leaves_no_trace(tmp_path: Path) -> None:
    site, _, ids = observer(tmp_path)
    key = site.domain.heartbeat("hb-1").public
    first = beat(site.domain, "hb-1", ids, at=START, epoch=START - 9)
    lost = StatementId(b"?" * 16)
    second = beat(
        site.domain, "hb-1", [*ids, lost], at=START + 1, epoch=START - 8, previous=first.end
    )
    third = beat(
        site.domain, "hb-1", [lost, *ids], at=START + 2, epoch=START - 7, previous=second.end
    )
    fourth = beat(site.domain, "hb-1", ids, at=START + 3, epoch=START - 6, previous=third.end)
    gossip(site, first, second)
    assert site.service.authority.heartbeats.lacks(lost)
    assert site.store.load_closed(site.domain.id, key) == ids
    gossip(site, third)
    assert site.store.load_closed(site.domain.id, key) == ids, "not those of the second, too"
    assert site.store.load_chain(site.domain.id, key) == (START - 7, [lost, *ids])
    gossip(site, fourth)
    assert not site.service.authority.heartbeats.lacks(lost)
    assert site.store.load_closed(site.domain.id, key) == []
    assert view_of(site).proven == fourth
    site.close()
    site.open()
    epochs = [one.epoch for one in view_of(site).closed_heads]
    assert epochs == [START - 9, START - 8, START - 7]


def test_what_was_dropped_is_declined_and_taken_again_if_a_list_names_it(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain(heartbeat_names=NAMES))
    others = ("hb-2", "hb-3")
    grants = brief(site, 5)
    gone = revoked(site, grants)
    items = [site.service.authority.statement(one) for one in gone]
    sign(site)

    def hear(at: int, ids: Iterable[StatementId], version: int) -> None:
        for name in others:
            gossip(site, beat(site.domain, name, ids, at=at, epoch=START + version))

    site.clock.advance(MONTH)
    while (site.clock.now() // limits.NEW_LIST_SLOT_S) % 6:
        site.clock.advance(60)
    for _ in range(3):
        site.clock.advance(1)
        hear(site.clock.now(), (), 1)
        site.service.authority.beat()
    assert view_of(site).closed_heads
    authority = site.service.authority
    authority.held()
    authority.forget_ended(now=site.clock.now())
    assert not authority.state.revocations
    assert set(gone) <= set(authority.held()), "they need not be offered again"
    named = gone[:1]
    site.clock.advance(1)
    hear(site.clock.now(), named, 1)
    assert authority.heartbeats.lacks(gone[0])
    authority.receive([one for one in items if one], source="gossip")
    assert gone[0] in authority.state.revocations
    hear(site.clock.now(), named, 1)
    assert view_of(site, "hb-2").proven == view_of(site, "hb-2").newest


# --- several daemons --------------------------------------------------------------------------


def country(directory: Path) -> tuple[FakeClock, list[Site]]:
    clock, ether = FakeClock(), Ether()
    domain = Domain(heartbeat_names=NAMES)
    sites = [
        Site(directory, domain, name=name, heartbeat=name, clock=clock, ether=ether)
        for name in NAMES
    ]
    return clock, sites


def fill_gaps(sites: list[Site]) -> None:
    for site in sites:
        desk = GossipDesk(site.service.authority)
        for domain, key, epoch, start, end in desk.gaps():
            for other in sites:
                ids = other.service.authority.heartbeats.chain_ids(domain, key, epoch, start, end)
                if ids:
                    desk.fill(domain, key, epoch, start, ids)


async def spread(sites: list[Site], of: Site, signed: Revoke) -> None:
    items = of.service.authority.with_evidence(signed)
    for site in sites:
        await GossipDesk(site.service.authority).receive(items, peer="test")


class Tale:
    """Sites at which grants and keys are revoked all the time."""

    def __init__(self, sites: list[Site]) -> None:
        self.sites = sites
        self.clock = sites[0].clock
        self.for_ever: list[StatementId] = []
        self.brief: list[tuple[int, StatementId]] = []
        self.begun: dict[str, list[int]] = {name: [] for name in NAMES}

    async def go_on(self, second: int) -> None:
        at = self.sites[second % 3]
        if second % 12 == 5:
            grant = brief(at, 1, ends_in=200, name=f"brief {second}")[0]
            signed = revoke(at, grant.statement_id)
            self.brief.append((self.clock.now(), signed.statement_id))
            await spread(self.sites, at, signed)
        if second % 60 == 7:
            signed = revoke(at, make_key(f"thief {second}").public)
            self.for_ever.append(signed.statement_id)
            await spread(self.sites, at, signed)
        for site in self.sites:
            await site.beat()
            fill_gaps(self.sites)
            site.service.authority.forget_ended(now=self.clock.now())

    def check(self, second: int) -> None:
        living = {one for when, one in self.brief if when + 200 > self.clock.now()}
        for site in self.sites:
            held = set(site.service.authority.state.revocations)
            assert second < 25 or fresh(site), (second, site.name)
            assert held >= living.union(self.for_ever), (second, site.name)
        for name, begun in self.begun.items():
            epoch = view_of(self.sites[0], name).chain.epoch
            if epoch > START + 60 and epoch not in begun:
                begun.append(epoch)


async def test_three_keys_begin_anew_one_after_the_other_while_revocations_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (
        ("NEW_LIST_EVERY_S", 600),
        ("NEW_LIST_SLOT_S", 60),
        ("REVOCATION_KEPT_S", 60),
        ("SPENT_FOR_S", 20),
    ):
        monkeypatch.setattr(limits, name, value)
    monkeypatch.setattr(ends, "_LOOK_EVERY_S", 20)
    monkeypatch.setattr(knowledge, "_FORGET_EVERY_S", 30.0)
    clock, sites = country(tmp_path)
    late = Site(tmp_path, sites[0].domain, name="late", heartbeat=None, clock=clock)
    tale = Tale(sites)
    for second in range(1_900):
        clock.advance(1)
        if second == 500:
            await tell(sites, late)
        await tale.go_on(second)
        tale.check(second)
    assert all(len(begun) >= 2 for begun in tale.begun.values()), "each key began anew twice"
    moments = sorted(epoch for begun in tale.begun.values() for epoch in begun)
    assert min(b - a for a, b in itertools.pairwise(moments)) >= 60
    ended = {one for when, one in tale.brief if when + 200 + 900 < clock.now()}
    assert len(ended) > 60
    for site in sites:
        authority = site.service.authority
        assert authority.alarms == []
        assert not ended & set(authority.state.revocations), "memory and disk are free of them"
        assert all(authority.in_force(one) for one in tale.for_ever)
    # Who was away for several lists, and who is new, follow.
    new = Site(tmp_path, sites[0].domain, name="new", heartbeat=None, clock=clock)
    for site in (late, new):
        for _ in range(3):
            await tell(sites, site)
        assert fresh(site), site.name
        assert site.service.authority.alarms == []
        assert set(tale.for_ever) <= set(site.service.authority.state.revocations)
