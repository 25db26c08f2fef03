"""Leases of many sessions: renewed in slices, cut short at once."""

import asyncio
from pathlib import Path

from authd.core.identity import StatementId
from authd.service.enforcement import _RENEWED_AT_ONCE
from tests.unit.service.scenes import gossip, head
from tests.world import START, Domain, Site, make_key, scope

MANY = _RENEWED_AT_ONCE + 50


async def site_with_many(tmp_path: Path) -> Site:
    """A site whose heartbeat key is elsewhere, with more sessions than a slice holds."""
    site = Site(tmp_path, Domain(), heartbeat=None)
    gossip(site, head(site.domain, "hb-1", at=START - 1))
    keys = [make_key(f"device {number}") for number in range(MANY)]
    site.learn(*(site.domain.grant(key.public, scope(pub="site/#")) for key in keys))
    for key in keys:
        assert (await site.connect(key)).allowed
    return site


def leases(site: Site) -> list[int]:
    return sorted({one.lease_until for one in site.service.sessions.all()})


async def test_longer_leases_come_in_slices_and_all_come(tmp_path: Path) -> None:
    site = await site_with_many(tmp_path)
    (before,) = leases(site)
    site.clock.advance(11)
    gossip(site, head(site.domain, "hb-1", at=START + 10))
    renewed = [one for one in site.service.sessions.all() if one.lease_until > before]
    assert len(renewed) == _RENEWED_AT_ONCE
    running = asyncio.ensure_future(site.service.enforcement.run())
    await asyncio.sleep(0.05)
    running.cancel()
    (after,) = leases(site)
    assert after > before


async def test_shorter_leases_are_told_of_at_once(tmp_path: Path) -> None:
    site = await site_with_many(tmp_path)
    for number in (1, 2):
        one = StatementId(bytes([number]) * 16)
        gossip(
            site,
            head(
                site.domain,
                "hb-1",
                at=START,
                count=1,
                digest=bytes([number]) * 32,
                recent=[one],
            ),
        )
    assert leases(site) == [0], "the only heartbeat key lied: nothing is fresh any more"
