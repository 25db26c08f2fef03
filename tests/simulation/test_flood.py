"""An issuer with a valid branch floods the network from a daemon that knows no bounds.

Prints its outcome (``pytest -s``).
"""

import asyncio
from collections.abc import Iterable

import pytest

from authd.core import limits
from authd.core.claims import Kind
from authd.core.grants import Grant
from authd.core.identity import SigningKey, StatementId
from authd.core.statements import Revoke, sign_revoke
from authd.service.ports import Item
from tests.simulation.sites import Country, Place, Playing, seconds_until
from tests.simulation.test_attacks import refuses_after
from tests.world import make_key, scope

SITE = scope(pub="site/#")
# Two grants below the root: a gateway's gateway.
GRANTS, REVOCATIONS = limits.GRANTS_PER_BRANCH[2], limits.REVOCATIONS_PER_BRANCH[2]
# Of a batch that was looked at as one; and each of three lists may hold other revocations.
BATCH, LISTS = 32, 3
FLOOD_PER_S = 200


def lift_bounds(place: Place) -> None:
    """Make a daemon hostile: it holds, sends and offers whatever it has."""
    quotas = place.site.service.authority.quotas
    quotas.has_room = lambda *_: True  # type: ignore[method-assign]  # that is the attack
    quotas.may_speak = lambda *_: True  # type: ignore[method-assign]  # the same
    quotas.judge = lambda state, policy: state  # type: ignore[method-assign]  # noqa: ARG005 - the same


async def pour(place: Place, items: list[Item]) -> None:
    """Sign for it and push it as fast as peers read."""
    for start in range(0, len(items), FLOOD_PER_S):
        some = items[start : start + FLOOD_PER_S]
        place.site.service.authority.receive(some, source="local")
        await place.gossip.push(some)
        await asyncio.sleep(1)


def learn(country: Country, *grants: Grant) -> None:
    for place in country.places:
        place.site.learn(*grants)


def charged(place: Place, key: SigningKey) -> tuple[int, int]:
    state = place.site.service.authority.state
    return state.issued.get(key.public, 0), state.charges.get(key.public, 0)


async def revoke_everywhere(
    country: Country, honest: Iterable[Place], name: str, by: SigningKey
) -> float:
    """Revoke a device while the flood is on; return when the last honest site refuses it."""
    device = make_key(name)
    learn(country, country.domain.grant(device.public, scope(pub="site/door/1"), by=by))
    places = list(honest)
    for place in places:
        assert await place.allows(device)
    await places[-1].revoke(device.public, by=by)
    return max([await refuses_after(place, device, at_most=10) for place in places])


@pytest.mark.timeout(600)
def test_a_flooding_issuer_loses_its_own_branch_and_nobody_elses(play: Playing) -> None:
    async def flood(country: Country) -> str:
        parent, sibling, hostile = make_key("parent"), make_key("sibling"), make_key("hostile")
        domain = country.domain
        lamp, pet, friend = make_key("lamp"), make_key("pet"), make_key("friend")
        learn(
            country,
            domain.grant(parent.public, SITE, depth=3),
            domain.grant(sibling.public, SITE, by=parent, depth=1),
            domain.grant(hostile.public, SITE, by=parent, depth=2),
            domain.grant(lamp.public, SITE),
            domain.grant(friend.public, SITE, by=sibling),
            domain.grant(pet.public, SITE, by=hostile),
        )
        honest, enemy = country.places[:4], country.places[4]
        for place in honest:
            assert await place.allows(pet)
        lift_bounds(enemy)
        now = enemy.clock.now()
        grants = [
            domain.grant(make_key(f"made up {n}").public, SITE, by=hostile, issued_at=now)
            for n in range(GRANTS + 500)
        ]
        revocations = [
            sign_revoke(hostile, target=n.to_bytes(16, "big"), issued_at=now)
            for n in range(REVOCATIONS + 500)
        ]
        poured = asyncio.ensure_future(pour(enemy, _items(revocations, grants)))
        await asyncio.sleep(5)
        during = await revoke_everywhere(country, honest, "one", domain.authority)
        below = await revoke_everywhere(country, honest, "two", sibling)
        fell = await seconds_until(
            lambda: all(
                hostile.public in one.site.service.authority.state.fallen for one in honest
            ),
            at_most=60,
        )
        await poured
        await asyncio.sleep(60)
        after = await revoke_everywhere(country, honest, "three", parent)
        for place in honest:
            assert not await place.allows(pet), "the branch that overflowed is revoked whole"
            assert await place.allows(lamp)
            assert await place.allows(friend), "what hangs on the same parent stays"
            assert place.site.service.authority.state.fallen == {hostile.public}
            assert any("overflowed" in one for one in place.site.service.authority.alarms)
            held, revoked = charged(place, hostile)
            assert held <= GRANTS + BATCH
            assert REVOCATIONS < revoked <= LISTS * (REVOCATIONS + BATCH)
        most = max(len(one.site.store.load_statements()) for one in honest)
        limited = [one.site.service.authority.quotas.limited for one in honest]
        held, revoked = charged(honest[3], hostile)
        return (
            f"{len(grants)} grants and {len(revocations)} revocations poured in, {held} and"
            f" {revoked} held, {most} rows on disk, {max(limited)} came too fast; branch fallen"
            f" {fell:.0f} s later; honest revocations refused everywhere after {during:.2f},"
            f" {below:.2f} and {after:.2f} s"
        )

    play(flood)


def _items(revocations: list[Revoke], grants: list[Grant]) -> list[Item]:
    items = [Item(Kind.REVOKE, one.encoded) for one in revocations]
    return items + [Item(Kind.GRANT, one.encoded) for one in grants]


def test_heads_stay_provable_where_daemons_hold_other_parts_of_a_flood(play: Playing) -> None:
    async def parted(country: Country) -> str:
        hostile, lamp = make_key("hostile"), make_key("lamp")
        quota = limits.REVOCATIONS_PER_BRANCH[3]
        gateways = [make_key("g1"), make_key("g2"), hostile]
        givers = [country.domain.authority, *gateways]
        learn(
            country,
            country.domain.grant(lamp.public, SITE),
            *(
                country.domain.grant(below.public, SITE, by=above, depth=4 - place)
                for place, (above, below) in enumerate(zip(givers, gateways, strict=False))
            ),
        )
        signed: list[list[StatementId]] = []
        for number, place in enumerate(country.places[:3]):
            # Every heartbeat key hears of other revocations first, and lists them.
            some = [
                sign_revoke(hostile, target=bytes([number, *n.to_bytes(15, "big")]), issued_at=9)
                for n in range(quota + 100)
            ]
            for start in range(0, len(some), BATCH):
                items = [Item(Kind.REVOKE, one.encoded) for one in some[start : start + BATCH]]
                place.site.service.authority.receive(items, source="gossip")
            signed.append([one.statement_id for one in some])
        await asyncio.sleep(60)
        key = make_key("late")
        for place in country.places:
            state = place.site.service.authority.state
            assert state.fallen == {hostile.public}
            assert 3 * quota < len(state.revocations) <= 3 * (quota + BATCH)
            assert await place.allows(lamp), "fresh by the heads of all three"
        took = await revoke_everywhere(country, country.places, key.public.hex(), givers[0])
        for place in country.places:
            views = place.site.service.authority.heartbeats.domains[country.domain.id].views
            proven = [view.proven == view.newest for view in views.values() if view.newest]
            assert proven == [True, True, True]
        held = len(country.places[4].site.service.authority.state.revocations)
        return f"three lists, {held} revocations held of {3 * (quota + 100)}; {took:.2f} s"

    play(parted)
