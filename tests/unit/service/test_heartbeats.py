"""Freshness at one daemon: majorities, hand-over, gaps, equivocation, clocks."""

import hashlib
from pathlib import Path

import pytest

from authd.core.identity import PublicKey, StatementId
from authd.core.statements import Revoke, sign_heartbeat, sign_revoke
from authd.errors import ReasonCode, StoreError
from authd.service.issuing import next_root
from tests.unit.service.scenes import (
    DEVICE,
    DEVICE_ID,
    OTHER,
    TEMP,
    can_publish,
    gossip,
    head,
    item,
    pass_time,
    revoke,
    site_with_device,
)
from tests.unit.service.test_disk_full import fill, no_space
from tests.world import START, Domain, Ether, FakeClock, Site, make_key

NAMES = ("hb-1", "hb-2", "hb-3", "hb-4", "hb-5")


def fresh_until(site: Site) -> int:
    return site.service.authority.heartbeats.freshness().get(site.domain.id, 0)


def digest(*ids: StatementId) -> bytes:
    value = bytes(32)
    for one in ids:
        value = hashlib.sha256(value + one).digest()
    return value


def three_sites(directory: Path, count: int = 3) -> tuple[FakeClock, Ether, list[Site]]:
    clock, ether = FakeClock(), Ether()
    domain = Domain(heartbeat_names=NAMES[:count])
    sites = [
        Site(directory, domain, name=name, heartbeat=name, clock=clock, ether=ether)
        for name in NAMES[:count]
    ]
    return clock, ether, sites


async def beat_all(clock: FakeClock, sites: list[Site]) -> None:
    for _ in range(21):
        clock.advance(1)
        for site in sites:
            await site.beat()


# --- majorities -------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_domain_is_fresh_exactly_when_more_than_half_of_its_keys_live(
    tmp_path: Path,
    count: int,
) -> None:
    domain = Domain(heartbeat_names=NAMES[:count])
    site = Site(tmp_path, domain, heartbeat=None)
    # The key of version 1 hands over first.
    gossip(site, head(domain, "hb-1", at=START))
    for number in range(1, count + 1):
        gossip(site, head(domain, NAMES[number - 1], at=START + 1))
        assert bool(fresh_until(site)) is (2 * number > count), number


def test_freshness_ends_a_heads_life_after_it_was_signed_and_received(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain(), heartbeat=None)
    gossip(site, head(site.domain, "hb-1", at=START - 20))
    assert fresh_until(site) == START + 40
    gossip(site, head(site.domain, "hb-1", at=START - 10, life_s=15))
    assert fresh_until(site) == START + 40, "a shorter life takes nothing back"


def test_a28_without_news_connects_are_refused_after_the_grace(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain(), heartbeat=None, grace_s=100)
    site.learn(site.domain.grant(DEVICE.public, TEMP))
    gossip(site, head(site.domain, "hb-1", at=START))

    def reason() -> ReasonCode:
        return site.service.decider.explain_key(
            DEVICE.public,
            broker="m",
            client_id=DEVICE_ID,
            form=next(iter(site.domain.grant(DEVICE.public, TEMP).forms)),
            asked=None,
        ).reason

    site.clock.advance(159)
    assert reason() is ReasonCode.OK
    site.clock.advance(1)
    assert reason() is ReasonCode.STALE


def test_a29_an_old_head_after_a_newer_one_changes_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain(), heartbeat=None)
    newer = head(site.domain, "hb-1", at=START)
    gossip(site, newer)
    assert gossip(site, head(site.domain, "hb-1", at=START - 5)) == []
    assert gossip(site, newer) == []
    assert fresh_until(site) == START + 60


def test_heads_ahead_of_the_clock_are_refused(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain(), heartbeat=None)
    assert gossip(site, head(site.domain, "hb-1", at=START + 6)) == []
    assert site.service.authority.refused == 1
    assert gossip(site, head(site.domain, "hb-1", at=START + 5))


def test_heads_of_keys_and_domains_that_are_not_listed_count_for_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain(), heartbeat=None)
    stranger = Domain(name="stranger")
    assert gossip(site, head(site.domain, "nobody", at=START)) == []
    assert gossip(site, head(stranger, "hb-1", at=START)) == []
    assert fresh_until(site) == 0


# --- pending, in force ------------------------------------------------------------------------


async def test_a_revocation_is_pending_until_a_majority_signed_it(tmp_path: Path) -> None:
    clock, ether, sites = three_sites(tmp_path)
    await beat_all(clock, sites)
    first = sites[0]
    ether.down = True
    signed = revoke(first, OTHER.public)
    await first.beat()
    answer = first.service.operator.revocation(signed.statement_id)
    assert answer["state"] == "pending", "one of three keys holds it"
    ether.down = False
    gossip(sites[1], signed)
    await sites[1].beat()
    assert first.service.operator.revocation(signed.statement_id)["state"] == "in force"


async def test_a_daemon_that_lacks_a_revocation_is_not_fresh_by_the_heads_that_hold_it(
    tmp_path: Path,
) -> None:
    clock, ether, sites = three_sites(tmp_path)
    await beat_all(clock, sites)
    last = sites[2]
    signed = sign_revoke(sites[0].domain.authority, target=OTHER.public, issued_at=clock.now())
    ether.down = True
    for site in sites[:2]:
        gossip(site, signed)
    ether.down = False
    before = fresh_until(last)
    for _ in range(3):
        await beat_all(clock, sites)
    assert fresh_until(last) == before, "heads it cannot prove do not count"
    gossip(last, signed)
    assert fresh_until(last) > clock.now()


# --- gaps -------------------------------------------------------------------------------------


def many_revocations(site: Site, count: int) -> list[Revoke]:
    return [
        sign_revoke(site.domain.authority, target=bytes([place]) * 16, issued_at=START)
        for place in range(count)
    ]


def test_a_gap_in_a_list_is_named_and_filled(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain(), heartbeat=None)
    signed = many_revocations(site, 40)
    ids = [one.statement_id for one in signed]
    gossip(site, *signed)
    newest = head(site.domain, "hb-1", at=START, count=40, digest=digest(*ids), recent=ids[-16:])
    gossip(site, newest)
    heartbeats = site.service.authority.heartbeats
    key = site.domain.heartbeat("hb-1").public
    assert heartbeats.gaps() == [(site.domain.id, key, newest.epoch, 0, 40)]
    assert fresh_until(site) == 0
    for wrong in (ids[:39], [*ids[:39], StatementId(bytes(16))], list(reversed(ids))):
        site.service.authority.fill(site.domain.id, key, newest.epoch, 0, wrong)
        assert fresh_until(site) == 0
    site.service.authority.fill(site.domain.id, key, newest.epoch, 0, ids)
    assert fresh_until(site) == START + 60
    assert heartbeats.gaps() == []
    assert heartbeats.chain_ids(site.domain.id, key, newest.epoch, 10, 12) == ids[10:12]
    site.close()
    site.open()
    reloaded = site.service.authority.heartbeats
    assert reloaded.chain_ids(site.domain.id, key, newest.epoch, 0, 40) == ids


@pytest.mark.parametrize(
    ("epoch", "start", "end"),
    [(0, 0, 0), (START - 100, -1, 0), (START - 100, 1, 0), (START - 100, 0, 1)],
)
def test_ranges_that_are_not_known_are_not_answered(
    tmp_path: Path,
    epoch: int,
    start: int,
    end: int,
) -> None:
    site = Site(tmp_path, Domain(), heartbeat=None)
    gossip(site, head(site.domain, "hb-1", at=START))
    key = site.domain.heartbeat("hb-1").public
    heartbeats = site.service.authority.heartbeats
    assert heartbeats.chain_ids(site.domain.id, key, START - 100, 0, 0) == []
    assert heartbeats.chain_ids(site.domain.id, key, epoch, start, end) is None


def test_filling_for_a_key_or_domain_that_is_not_listed_does_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain(), heartbeat=None)
    heartbeats = site.service.authority.heartbeats
    before = dict(heartbeats.domains)
    heartbeats.fill(Domain(name="stranger").id, OTHER.public, 1, 0, [StatementId(bytes(16))])
    heartbeats.fill(site.domain.id, OTHER.public, 1, 0, [StatementId(bytes(16))])
    assert heartbeats.domains == before
    assert heartbeats.chain_ids(Domain(name="stranger").id, OTHER.public, 1, 0, 0) is None


def test_a_list_that_cannot_be_written_leaves_no_hole(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain(), heartbeat=None)
    signed = many_revocations(site, 2)
    ids = [one.statement_id for one in signed]
    gossip(site, *signed)
    first = head(site.domain, "hb-1", at=START, count=1, digest=digest(ids[0]), recent=ids[:1])
    second = head(site.domain, "hb-1", at=START + 1, count=2, digest=digest(*ids), recent=ids)
    site.store._fast.execute("ALTER TABLE chains RENAME TO broken")
    with pytest.raises(StoreError):
        gossip(site, first)
    site.store._fast.execute("ALTER TABLE broken RENAME TO chains")
    gossip(site, second)
    key = site.domain.heartbeat("hb-1").public
    assert site.store.load_chain(site.domain.id, key) == (START - 100, ids)
    assert fresh_until(site) == START + 60


def test_a_burst_of_revocations_dates_no_head_too_far_ahead(tmp_path: Path) -> None:
    clock = FakeClock()
    site = Site(tmp_path, Domain(), clock=clock)
    authority = site.service.authority
    newest = 0
    for number in range(20):
        authority.submit([item(revoke_of(site, number))])
        authority.beat()
        view = authority.heartbeats.domains[site.domain.id].view(
            site.domain.heartbeat("hb-1").public
        )
        assert view.newest is not None
        assert view.newest.issued_at <= clock.now() + 2
        newest = view.newest.count
    assert newest < 20
    clock.advance(1)
    authority.beat()
    assert all(authority.in_force(one) for one in authority.state.revocations), "a second later"


def revoke_of(site: Site, number: int) -> Revoke:
    target = make_key(f"victim {number}").public
    return sign_revoke(site.domain.authority, target=target, issued_at=START)


# --- equivocation -----------------------------------------------------------------------------


def equivocate(site: Site) -> PublicKey:
    ids = [StatementId(bytes([place]) * 16) for place in (1, 2)]
    for one in ids:
        gossip(
            site,
            head(site.domain, "hb-1", at=START, count=1, digest=digest(one), recent=[one]),
        )
    return site.domain.heartbeat("hb-1").public


def test_a31_two_lists_of_one_length_raise_an_alarm_and_the_key_never_counts_again(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, Domain(), heartbeat=None)
    gossip(site, head(site.domain, "hb-1", at=START - 1))
    assert fresh_until(site)
    key = equivocate(site)
    assert fresh_until(site) == 0
    assert len(site.service.authority.alarms) == 1
    assert "signed two lists" in site.service.authority.alarms[0]
    assert gossip(site, head(site.domain, "hb-1", at=START + 4, epoch=START)) == []
    for _ in range(2):
        view = site.service.authority.heartbeats.domains[site.domain.id].view(key)
        assert view.equivocated
        assert fresh_until(site) == 0
        assert len(site.service.authority.alarms) == 1
        site.close()
        site.open()


async def test_a31_sessions_of_a_domain_whose_only_key_equivocated_end(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain(), heartbeat=None, grace_s=0)
    site.learn(site.domain.grant(DEVICE.public, TEMP))
    gossip(site, head(site.domain, "hb-1", at=START - 1))
    assert (await site.connect(DEVICE)).allowed
    equivocate(site)
    site.service.enforcement.tick()
    assert not can_publish(site, DEVICE, "site/temp").allowed
    assert site.service.sessions.all() == []


def test_a31_the_proof_of_two_lists_is_passed_on_and_convinces_whoever_comes_later(
    tmp_path: Path,
) -> None:
    domain = Domain()
    site = Site(tmp_path, domain, name="A", heartbeat=None)
    later = Site(tmp_path, domain, name="B", heartbeat=None)
    equivocate(site)
    proof = site.service.authority.heartbeats.newest_items()
    assert len(proof) == 2
    site.close()
    site.open()
    assert len(site.service.authority.heartbeats.newest_items()) == 2
    assert len(later.service.authority.receive(proof, source="gossip")) == 2, "both travel on"
    assert later.service.authority.alarms == site.service.authority.alarms


def test_a31_a_head_that_is_no_longer_the_newest_convicts_as_well(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain(), heartbeat=None)
    ids = [StatementId(bytes([place]) * 16) for place in range(20)]
    one = head(site.domain, "hb-1", at=START, count=1, digest=digest(ids[0]), recent=ids[:1])
    two = head(site.domain, "hb-1", at=START + 1, count=20, digest=digest(*ids), recent=ids[-16:])
    rival = head(site.domain, "hb-1", at=START, count=1, digest=digest(ids[2]), recent=ids[2:3])
    gossip(site, one, two)
    assert not site.service.authority.alarms
    gossip(site, rival)
    for _ in range(2):
        assert len(site.service.authority.alarms) == 1
        assert fresh_until(site) == 0
        # The first had left the disk, because the second had replaced it.
        proof = {item.data for item in site.service.authority.heartbeats.newest_items()}
        assert proof == {one.encoded, rival.encoded}
        site.close()
        site.open()


def test_a31_old_heads_told_again_drive_out_none_that_convicts(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain(), heartbeat=None)
    ids = [StatementId(bytes([place]) * 16) for place in range(3)]
    taken = head(site.domain, "hb-1", at=START, count=2, digest=digest(*ids[:2]), recent=ids[:2])
    gossip(site, taken)
    # They are refused, each, as they name no list before theirs.
    gossip(site, *(head(site.domain, "hb-1", at=START, epoch=START + n) for n in range(300)))
    gossip(
        site, head(site.domain, "hb-1", at=START, count=2, digest=digest(*ids[1:]), recent=ids[1:])
    )
    assert "two lists" in site.service.authority.alarms[0]
    assert fresh_until(site) == 0


def test_a31_somebody_else_who_signs_with_the_own_key_is_found_out(tmp_path: Path) -> None:
    site = site_with_device(tmp_path, grace_s=0)
    pass_time(site, 2)
    authority, signer = site.service.authority, site.domain.heartbeat("hb-1")
    own = authority.heartbeats.domains[site.domain.id].view(signer.public).newest
    assert own is not None
    ahead = site.clock.now() + 30
    stolen = sign_heartbeat(
        signer,
        domain=site.domain.id,
        root_version=1,
        epoch=ahead,
        count=0,
        head=bytes(32),
        recent=(),
        issued_at=ahead,
        previous=own.end,
    )
    gossip(site, stolen)
    assert authority.alarms == [], "it does not count before its time, and might be true then"
    revoke(site, OTHER.public)
    site.clock.advance(1)
    told = authority.beat()
    for _ in range(2):
        assert "two lists" in site.service.authority.alarms[0]
        assert fresh_until(site) == 0
        assert stolen.encoded in {one.data for one in told}
        site.close()
        site.open()
        told = site.service.authority.heartbeats.newest_items()


def test_a31_a_proof_that_the_disk_has_no_room_for_is_put_there_later(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain(), heartbeat=None)
    gossip(site, head(site.domain, "hb-1", at=START - 1))
    with no_space(site):
        fill(site)
        equivocate(site)
        assert fresh_until(site) == 0
        assert "cannot write" in site.service.authority.store_problem
        site.service.authority.beat()
    site.service.authority.beat()
    site.close()
    site.open()
    assert "two lists" in site.service.authority.alarms[0]
    assert fresh_until(site) == 0


# --- hand-over --------------------------------------------------------------------------------


def test_a_new_root_counts_only_once_most_old_keys_have_signed_for_it(tmp_path: Path) -> None:
    domain = Domain()
    site = Site(tmp_path, domain, heartbeat=None, grace_s=0)
    gossip(site, head(domain, "hb-1", at=START - 30))
    keys = tuple(domain.heartbeat(name).public for name in ("hb-2", "hb-3", "hb-4"))
    second = next_root(domain.roots[0], [domain.root_key], heartbeat_keys=keys)
    gossip(site, second)
    domain.roots.append(second)
    assert fresh_until(site) == START + 30, "what was fresh stays so, no longer"
    for name in ("hb-2", "hb-3", "hb-4"):
        gossip(site, head(domain, name, at=START))
    assert fresh_until(site) == START + 30, "the old key has not handed over"
    gossip(site, head(domain, "hb-1", at=START))
    assert fresh_until(site) == START + 60


async def test_a_new_root_does_not_cut_sessions_that_stand_under_it_too(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    assert (await site.connect(DEVICE)).allowed
    keys = tuple(site.domain.heartbeat(name).public for name in NAMES[:3])
    second = next_root(site.domain.roots[0], [site.domain.root_key], heartbeat_keys=keys)
    site.service.authority.submit([item(second)])
    assert can_publish(site, DEVICE, "site/temp").allowed
    assert site.service.sessions.cuts == []


async def test_without_a_hand_over_sessions_end_a_life_and_grace_after_the_new_root(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, Domain(), grace_s=0)
    site.learn(site.domain.grant(DEVICE.public, TEMP))
    assert (await site.connect(DEVICE)).allowed
    keys = tuple(site.domain.heartbeat(name).public for name in NAMES[:3])
    gossip(site, next_root(site.domain.roots[0], [site.domain.root_key], heartbeat_keys=keys))
    pass_time(site, 61)
    assert site.service.sessions.all() == []


# --- our own ----------------------------------------------------------------------------------


def test_a_daemon_signs_at_a_third_of_a_life_and_at_once_after_a_revocation(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, Domain())
    assert site.service.authority.beat() == []
    site.clock.advance(19)
    assert site.service.authority.beat() == []
    site.clock.advance(1)
    assert len(site.service.authority.beat()) == 1
    signed = revoke(site, OTHER.public)
    assert len(site.service.authority.beat()) == 1
    assert site.service.authority.in_force(signed.statement_id)


def test_a_daemon_whose_key_is_not_listed_signs_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain(), heartbeat="nobody")
    assert site.service.authority.beat() == []
    site.service.authority.heartbeats.wake()
    assert site.service.authority.beat() == []


def test_a_restart_continues_the_list_and_never_forks_it(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    for target in (OTHER.public, make_key("third").public):
        site.clock.advance(1)
        revoke(site, target)
        site.service.authority.beat()
        site.close()
        site.open()
    key = site.domain.heartbeat("hb-1").public
    view = site.service.authority.heartbeats.domains[site.domain.id].view(key)
    assert len(view.chain.ids) == 2
    assert not view.equivocated
    assert site.service.authority.alarms == []


def test_a_list_is_on_disk_before_the_head_that_promises_it_leaves(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    revoke(site, OTHER.public)
    site.store._fast.execute("ALTER TABLE chains RENAME TO broken")
    assert site.service.authority.beat() == []
    assert "chains" in site.service.authority.store_problem
    key = site.domain.heartbeat("hb-1").public
    view = site.service.authority.heartbeats.domains[site.domain.id].view(key)
    assert view.newest is not None
    assert view.newest.count == 0


# --- clocks -----------------------------------------------------------------------------------


async def test_a28_a_host_clock_that_was_set_back_counts_as_stale(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    assert (await site.connect(DEVICE)).allowed
    site.clock.behind = 6
    decision = await site.connect(DEVICE)
    assert decision.reason is ReasonCode.STALE
    assert decision.temporary
    assert site.service.operator.status()["clock_behind_s"] == 6
    site.clock.behind = 5
    assert (await site.connect(DEVICE)).allowed


def test_heads_dated_after_the_clock_of_a_restarted_host_do_not_stop_the_start(
    tmp_path: Path,
) -> None:
    # The floor is persisted now and then: after a power cut a host without a battery begins there.
    site = site_with_device(tmp_path)
    site.clock.advance(29)
    site.service.authority.beat()
    site.close()
    site.clock.time = START
    site.clock.behind = 29
    site.open()
    assert fresh_until(site) == 0
    site.clock.behind = 0
    site.clock.advance(40)
    site.service.authority.beat()
    assert fresh_until(site) > site.clock.now()


def test_freshness_after_a_restart_is_no_longer_than_before_it(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain(), heartbeat=None)
    gossip(site, head(site.domain, "hb-1", at=START))
    site.close()
    site.clock.advance(50)
    site.open()
    assert fresh_until(site) == START + 60
