"""A full disk: nothing new is taken, nothing is half applied, what is known goes on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from authd.core.decision import Decision
from authd.core.statements import sign_revoke
from authd.errors import ReasonCode, StoreError
from authd.service.desk import GossipDesk
from authd.service.ports import Item
from authd.service.waiting import MAX_WAITING
from tests.unit.service.scenes import (
    DEVICE,
    OTHER,
    TEMP,
    can_publish,
    item,
    pass_time,
    site_with_device,
)
from tests.world import START, Site, make_key


@contextmanager
def no_space(site: Site) -> Iterator[None]:
    """Let the file grow no further: SQLite then fails as it does where a disk is full."""
    connections = (site.store._fast, site.store._durable)
    for one in connections:
        one.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        pages = one.execute("PRAGMA page_count").fetchone()[0]
        one.execute(f"PRAGMA max_page_count = {pages}")
    try:
        yield
    finally:
        for one in connections:
            one.execute("PRAGMA max_page_count = 1000000000")


def grant_items(site: Site, count: int, name: str = "more") -> list[Item]:
    return [item(site.domain.grant(make_key(f"{name} {n}").public, TEMP)) for n in range(count)]


def fill(site: Site) -> str:
    """Submit statements until there is no more room; return what was said."""
    for number in range(500):
        try:
            site.service.authority.submit(grant_items(site, 5, f"fill {number}"))
        except StoreError as error:
            return str(error)
    raise AssertionError("the disk is never full")


async def test_a_full_disk_takes_nothing_new_and_keeps_everything_that_was_known(
    tmp_path: Path,
) -> None:
    site = site_with_device(tmp_path, grace_s=0)
    authority = site.service.authority
    assert (await site.connect(DEVICE)).allowed
    with no_space(site):
        said = fill(site)
        assert f"cannot write `{tmp_path / 'A.db'}`" in said
        assert "full" in said
        assert "free space there" in said
        state, known = authority.state, dict(authority.held())
        rows = site.store.load_statements()
        many = grant_items(site, 200)
        with pytest.raises(StoreError):
            authority.submit(many)
        assert authority.state == state
        assert await GossipDesk(authority).receive(many, peer="p") == [], "the stream lives on"
        assert (authority.state, dict(authority.held())) == (state, known)
        assert site.store.load_statements() == rows
        assert authority.store_problem
        assert site.service.operator.status()["store_problem"] == authority.store_problem
        for _ in range(5):
            pass_time(site, 60)
            assert can_publish(site, DEVICE, "site/temp").allowed, "with a grace of 0"
        full = await until_full(site)
        assert full.reason is ReasonCode.STORE_FAILED, "a proof that cannot be kept lets nobody in"
        assert can_publish(site, DEVICE, "site/temp").allowed
    assert len(authority.submit(many)) == 200
    assert not authority.store_problem
    assert (await site.connect(OTHER, client_id=None)).reason is ReasonCode.UNKNOWN_KEY
    assert (await site.connect(DEVICE)).allowed
    site.close()
    site.open()
    assert set(known) <= set(site.service.authority.held())
    assert all(site.service.authority.statement(one) for one in known)


async def test_a_session_whose_lease_ends_is_cut_though_nothing_can_be_written(
    tmp_path: Path,
) -> None:
    site = site_with_device(tmp_path, grace_s=0)
    assert (await site.connect(DEVICE)).allowed
    site.store._fast.execute("PRAGMA query_only = ON")
    for _ in range(65):
        # No head is signed any more.
        site.clock.advance(1)
        site.service.enforcement.tick()
    assert not can_publish(site, DEVICE, "site/temp").allowed
    assert site.service.sessions.all() == []
    assert [one.client_id for one in site.service.sessions.cuts]
    site.close()
    site.clock.advance(1)
    site.open()
    assert len(site.service.sessions.all()) == 1, "judged anew, by news that is fresh again"


async def test_no_head_is_signed_while_a_revocation_that_others_sent_cannot_be_kept(
    tmp_path: Path,
) -> None:
    site = site_with_device(tmp_path, grace_s=0)
    authority = site.service.authority
    assert (await site.connect(DEVICE)).allowed
    some = [
        sign_revoke(site.domain.authority, target=make_key(f"r{n}").public, issued_at=START)
        for n in range(MAX_WAITING + 5)
    ]
    revocation = sign_revoke(site.domain.authority, target=DEVICE.public, issued_at=START)
    with no_space(site):
        fill(site)
        desk = GossipDesk(authority)
        assert await desk.receive([*map(item, some), item(revocation)], peer="p") == []
        pass_time(site, 50)
        assert can_publish(site, DEVICE, "site/temp").allowed, "for as long as the last head"
        pass_time(site, 15)
        assert not can_publish(site, DEVICE, "site/temp").allowed
        assert not (await site.connect(DEVICE)).allowed
    pass_time(site, 1)
    assert revocation.statement_id in authority.state.revocations, "kept as soon as there is room"
    assert authority.heartbeats.freshness()[site.domain.id] > site.clock.now()
    assert len(authority.state.revocations) == MAX_WAITING
    assert (await site.connect(DEVICE)).reason is ReasonCode.REVOKED


async def until_full(site: Site) -> Decision:
    for _ in range(2_000):
        decision = await site.connect(DEVICE)
        if not decision.allowed:
            return decision
    raise AssertionError("there is always room for one more nonce")


def test_a_revocation_that_cannot_be_kept_is_acknowledged_to_nobody(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    authority = site.service.authority
    revocation = sign_revoke(site.domain.authority, target=DEVICE.public, issued_at=START)
    with no_space(site):
        fill(site)
        for number in range(200):
            one = sign_revoke(
                site.domain.authority, target=make_key(f"r{number}").public, issued_at=START
            )
            try:
                authority.submit([item(one)])
            except StoreError:
                break
        else:
            raise AssertionError("the disk is never full")
        before = authority.state
        with pytest.raises(StoreError, match="full"):
            authority.submit([item(revocation)])
        assert authority.state is before
        authority.beat()
        assert not authority.in_force(revocation.statement_id)
    authority.submit([item(revocation)])
    pass_time(site, 3)
    assert authority.in_force(revocation.statement_id)
