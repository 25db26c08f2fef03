"""A daemon brought back from a backup: a new list under the old one's last head, nothing lost."""

import shutil
from pathlib import Path

from authd.core.claims import Kind
from authd.core.identity import PublicKey
from authd.core.revocations import Chain, KeyView
from authd.core.statements import ListEnd, Revoke, sign_heartbeat
from authd.service.desk import GossipDesk
from authd.service.heartbeats import RESTORE_WAIT_S, Restored
from authd.service.ports import Item
from tests.unit.service.scenes import DEVICE, OTHER, TEMP, revoke
from tests.world import Domain, Ether, FakeClock, Site, make_key


def view_of(site: Site, key: PublicKey) -> KeyView:
    return site.service.authority.heartbeats.domains[site.domain.id].view(key)


def pair(directory: Path, names: tuple[str, ...]) -> tuple[FakeClock, Ether, list[Site]]:
    clock, ether, domain = FakeClock(), Ether(), Domain(heartbeat_names=names)
    sites = [
        Site(
            directory,
            domain,
            name=f"S{number}",
            heartbeat=names[number] if number < len(names) else None,
            clock=clock,
            ether=ether,
        )
        for number in range(3)
    ]
    return clock, ether, sites


async def pass_time(clock: FakeClock, sites: list[Site], seconds: int) -> None:
    for _ in range(seconds):
        clock.advance(1)
        for site in sites:
            await site.beat()


async def tell(sites: list[Site], to: Site) -> None:
    """Do what streams begin with: heads, missing entries of lists, and what is not held."""
    for site in sites:
        other, own = site.service.authority, to.service.authority
        desk = GossipDesk(own)
        await desk.receive(other.heartbeats.newest_items(), peer="test")
        for domain, key, epoch, start, end in desk.gaps():
            ids = other.heartbeats.chain_ids(domain, key, epoch, start, end)
            desk.fill(domain, key, epoch, start, ids or [])
        lacking = [one for one in other.held() if one not in own.held()]
        items = [item for one in lacking if (item := other.statement(one)) is not None]
        await desk.receive(items, peer="test")


def waits(site: Site) -> bool:
    return site.service.authority.heartbeats.waits_for_peers


def back_up(site: Site) -> Path:
    copy = site.directory / "backup.db"
    site.store._durable.execute("VACUUM INTO ?", (str(copy),))
    return copy


def bring_back(site: Site, copy: Path, *, alone: bool = False) -> list[str]:
    done: list[str] = []
    for suffix in ("", "-wal", "-shm"):
        (site.directory / f"{site.name}.db{suffix}").unlink(missing_ok=True)
    shutil.copy(copy, site.directory / f"{site.name}.db")
    site.open(restored=Restored(alone=alone, done=lambda: done.append("done")))
    return done


def some(site: Site, count: int, name: str) -> list[Revoke]:
    return [revoke(site, make_key(f"{name} {number}").public) for number in range(count)]


async def test_a_restored_daemon_says_nothing_until_it_knows_how_its_list_ended(
    tmp_path: Path,
) -> None:
    clock, ether, sites = pair(tmp_path, ("hb-1",))
    lost, *others = sites
    lost.learn(lost.domain.grant(DEVICE.public, TEMP))
    key = lost.domain.heartbeat("hb-1").public
    some(lost, 3, "before")
    await pass_time(clock, sites, 25)
    copy = back_up(lost)
    acknowledged = [revoke(lost, DEVICE.public), *some(lost, 40, "after")]
    await pass_time(clock, sites, 25)
    for site in others:
        for one in acknowledged:
            site.service.authority.receive(
                lost.service.authority.with_evidence(one), source="gossip"
            )
    await pass_time(clock, sites, 25)
    await tell([lost], others[0])
    await tell([lost], others[1])
    last = view_of(others[0], key).proven
    assert last is not None
    assert last.count == 44
    assert all(lost.service.authority.in_force(one.statement_id) for one in acknowledged)
    lost.close()

    clock.advance(600)
    ether.down = True
    done = bring_back(lost, copy)
    assert waits(lost)
    await pass_time(clock, [lost], 120)
    assert view_of(lost, key).newest != last, "nobody has told it anything"
    assert not lost.service.authority.heartbeats.freshness().get(lost.domain.id, 0) > clock.now()
    ether.down = False
    await tell(others, lost)
    await pass_time(clock, sites, int(RESTORE_WAIT_S) - 1)
    assert done == []
    await pass_time(clock, sites, 2)
    assert done == ["done"]
    newest = view_of(lost, key).newest
    assert newest is not None
    assert (newest.previous, newest.epoch > last.epoch) == (last.end, True)
    assert newest.count == 44, "nothing acknowledged is lost"
    await tell([lost], others[0])
    for site in sites[:2]:
        authority = site.service.authority
        assert authority.alarms == []
        assert authority.heartbeats.freshness()[site.domain.id] > clock.now()
        assert all(authority.in_force(one.statement_id) for one in acknowledged)
    assert not waits(lost)
    assert not (await lost.connect(DEVICE)).allowed

    # Whoever slept through all of it follows from the old list's last head, also by way of others.
    late = Site(tmp_path, lost.domain, name="late", heartbeat=None, clock=clock)
    late.learn(lost.domain.grant(OTHER.public, TEMP))
    others[0].close()
    others[0].open()
    await tell([others[0]], late)
    await tell([others[0]], late)
    assert late.service.authority.alarms == []
    assert late.service.authority.heartbeats.freshness()[late.domain.id] > clock.now()


async def test_with_three_keys_the_others_keep_the_domain_fresh_meanwhile(tmp_path: Path) -> None:
    clock, _, sites = pair(tmp_path, ("hb-1", "hb-2", "hb-3"))
    lost = sites[0]
    await pass_time(clock, sites, 25)
    copy = back_up(lost)
    some(lost, 3, "after")
    await pass_time(clock, sites, 25)
    for site in sites[1:]:
        await tell([lost], site)
    lost.close()
    done = bring_back(lost, copy)
    for site in sites[1:]:
        site.ether.sites = sites  # type: ignore[union-attr]  # they have one
    await tell(sites[1:], lost)
    await pass_time(clock, sites, int(RESTORE_WAIT_S) + 25)
    assert done == ["done"]
    assert len(lost.service.authority.state.revocations) == 3
    for site in sites:
        assert site.service.authority.alarms == []
        view = view_of(site, lost.domain.heartbeat("hb-1").public)
        assert view.proven == view.newest
        assert view.live_until > clock.now()


async def test_a_lone_daemon_begins_at_once_and_again_after_a_crash_in_between(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, Domain())
    key = site.domain.heartbeat("hb-1").public
    some(site, 2, "before")
    site.clock.advance(2)
    await site.beat()
    before = view_of(site, key).newest
    assert before is not None
    copy = back_up(site)
    site.close()
    site.clock.advance(100)
    done = bring_back(site, copy, alone=True)
    assert done == ["done"], "with the first head, at the start"
    first = view_of(site, key).newest
    assert first is not None
    assert (first.previous, first.count) == (before.end, 2)
    site.close()
    # The note that it is done was lost.
    site.clock.advance(100)
    site.open(restored=Restored(alone=True, done=lambda: done.append("again")))
    second = view_of(site, key).newest
    assert second is not None
    assert (second.previous, done) == (first.end, ["done", "again"])
    assert view_of(site, key).closed == first
    site.close()
    site.open()
    assert view_of(site, key).closed == first, "kept for whoever is behind"
    third = view_of(site, key).newest
    assert third is not None
    assert third.previous == first.end, "every head of a list names the list before"
    items = site.service.authority.heartbeats.newest_items()
    heads = [before.encoded, first.encoded, third.encoded]
    assert [one.data for one in items] == heads, "whoever missed several lists can follow"


async def test_a_restored_daemon_whose_clock_is_behind_begins_no_list_until_it_is_right(
    tmp_path: Path,
) -> None:
    clock, _, sites = pair(tmp_path, ("hb-1", "hb-2", "hb-3"))
    lost, *others = sites
    key = lost.domain.heartbeat("hb-1").public
    some(lost, 1, "before")
    await pass_time(clock, sites, 30)
    copy = back_up(lost)
    acknowledged = some(lost, 1, "after")
    await pass_time(clock, sites, 700)
    for other in others:
        await tell([lost], other)
    lost.close()
    slow = FakeClock(clock.now() - 650)
    lost.clock = slow
    done = bring_back(lost, copy)
    for _ in range(2 * int(RESTORE_WAIT_S)):
        slow.advance(1)
        clock.advance(1)
        for other in others:
            await other.beat()
        await tell(others, lost)
        await lost.beat()
    assert waits(lost)
    assert ["dated ahead" in one for one in lost.service.authority.alarms] == [True]
    slow.time = clock.time
    for _ in range(int(RESTORE_WAIT_S) + 10):
        slow.advance(1)
        clock.advance(1)
        for site in sites:
            await site.beat()
        await tell(others, lost)
        for other in others:
            await tell([lost], other)
    assert done == ["done"]
    assert lost.service.authority.alarms == []
    for site in sites:
        view = view_of(site, key)
        assert view.proven == view.newest
        assert view.live_until > clock.now()
        assert view.chain.epoch == view_of(lost, key).chain.epoch
        assert acknowledged[0].statement_id in view.chain.ids


async def test_a_copy_from_which_nothing_leads_to_the_newest_list_is_never_gone_on_with(
    tmp_path: Path,
) -> None:
    clock, _, sites = pair(tmp_path, ("hb-1", "hb-2", "hb-3"))
    lost, *others = sites
    await pass_time(clock, sites, 30)
    copy = back_up(lost)
    lost.close()
    clock.advance(60)
    # Several lists were begun and closed while the copy lay in a drawer.
    head = sign_heartbeat(
        lost.domain.heartbeat("hb-1"),
        domain=lost.domain.id,
        root_version=1,
        epoch=clock.now() - 40,
        count=0,
        head=bytes(32),
        recent=(),
        issued_at=clock.now() - 40,
        previous=ListEnd(clock.now() - 50, 0, bytes(range(32))),
    )
    for other in others:
        known = other.service.authority.heartbeats
        domain = known.domains[other.domain.id]
        known.domains[other.domain.id] = domain.with_view(
            head.issuer, KeyView(chain=Chain(epoch=head.epoch), newest=head, proven=head)
        )
    done = bring_back(lost, copy)
    for _ in range(3 * int(RESTORE_WAIT_S)):
        clock.advance(1)
        for site in sites:
            await site.beat()
        await tell(others, lost)
    assert done == []
    assert waits(lost)
    assert any("does not go on from what the copy" in one for one in lost.service.authority.alarms)


async def test_a_head_that_the_copy_knows_is_enough_to_hear(tmp_path: Path) -> None:
    clock, _, sites = pair(tmp_path, ("hb-1",))
    lost, other, _ = sites
    await pass_time(clock, sites, 30)
    await tell([lost], other)
    copy = back_up(lost)
    lost.close()
    done = bring_back(lost, copy)
    await tell([other], lost)
    await pass_time(clock, [lost], int(RESTORE_WAIT_S) + 1)
    assert done == ["done"], "it was the only key: nobody can tell it anything newer"


def lose(site: Site) -> None:
    """Begin with an empty store and the same keys, as after a disk was replaced."""
    site.close()
    for suffix in ("", "-wal", "-shm"):
        (site.directory / f"{site.name}.db{suffix}").unlink(missing_ok=True)
    site.open()


async def test_a_store_that_was_lost_and_then_brought_back_from_a_copy_is_no_lie(
    tmp_path: Path,
) -> None:
    clock, _, sites = pair(tmp_path, ("hb-1", "hb-2", "hb-3"))
    lost, *others = sites
    key = lost.domain.heartbeat("hb-1").public
    some(lost, 3, "before")
    await pass_time(clock, sites, 45)
    for other in others:
        await tell([lost], other)
    copy = back_up(lost)
    lose(lost)
    clock.advance(60)
    lost.service.authority.submit(Item(Kind.ROOT, one.encoded) for one in lost.domain.roots)
    await pass_time(clock, sites, 3)
    begun = view_of(lost, key).newest
    assert begun is not None
    assert begun.previous is None
    for other in others:
        await tell([lost], other)
    lost.close()
    bring_back(lost, copy)
    for _ in range(3):
        await tell(others, lost)
        await pass_time(clock, sites, int(RESTORE_WAIT_S))
        for other in others:
            await tell([lost], other)
    for site in sites:
        assert not view_of(site, key).equivocated
        assert site.service.authority.alarms == []
        newest = view_of(site, key).proven
        assert newest is not None
        assert newest.count == 3


async def test_a_lost_list_is_gone_on_with_only_once_it_is_known_whole(tmp_path: Path) -> None:
    clock, ether, sites = pair(tmp_path, ("hb-1", "hb-2", "hb-3"))
    lost, other, _ = sites
    key = lost.domain.heartbeat("hb-1").public
    acknowledged = some(lost, 20, "before")
    await pass_time(clock, sites, 25)
    await tell([lost], other)
    last = view_of(other, key).proven
    assert last is not None
    ether.down = True
    lose(lost)
    clock.advance(60)
    # Roots and heads come before anything is signed; entries and revocations do later.
    roots = [Item(Kind.ROOT, one.encoded) for one in lost.domain.roots]
    lost.service.authority.receive(
        [*roots, *other.service.authority.heartbeats.newest_items()], source="gossip"
    )
    lost.service.authority.receive(
        [Item(Kind.REVOKE, one.encoded) for one in acknowledged[:3]], source="gossip"
    )
    await pass_time(clock, [lost], 5)
    assert view_of(lost, key).newest == last, "nothing is signed meanwhile"
    assert any("not known whole" in one for one in lost.service.authority.alarms)
    ether.down = False
    await tell([other], lost)
    await pass_time(clock, sites, 25)
    await tell([lost], other)
    for site in (lost, other):
        assert not view_of(site, key).equivocated
        newest = view_of(site, key).proven
        assert newest is not None
        assert (newest.epoch, newest.count) == (last.epoch, 20)
        assert newest.issued_at > last.issued_at
    assert lost.service.authority.alarms == []
