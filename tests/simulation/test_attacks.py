"""What an attacker on the network, or with a stolen key, can delay; and what he cannot.

The outcome of each is printed at the end of the run.
"""

from authd.core import limits
from authd.core.claims import Kind
from authd.core.revocations import Chain
from authd.core.statements import sign_heartbeat
from authd.service.ports import Item
from tests.simulation.sites import GRACE_S, Country, Place, Playing, seconds_until, without
from tests.simulation.swarm import address_of

BOUND_S = limits.HEARTBEAT_LIFE_S + limits.HEARTBEAT_AHEAD_S


async def refuses_after(place: Place, device: object, *, at_most: float) -> float:
    async def refused() -> bool:
        return not await place.allows(device)  # type: ignore[arg-type]  # a signing key

    return await seconds_until(refused, at_most=at_most)


def test_a28_a_site_that_is_cut_off_refuses_within_the_bound(play: Playing) -> None:
    async def cut_off(country: Country) -> str:
        door, lamp = country.device("door", "site/door/1"), country.device("lamp", "site/lamp")
        victim, revoker = country.places[4], country.places[3]
        assert await victim.allows(door)
        assert await victim.allows(lamp)
        country.cut_off(4)
        await revoker.revoke(door.public, by=country.domain.authority)
        await revoker.revoke(lamp.public, by=country.domain.authority)
        elsewhere = await refuses_after(country.places[0], door, at_most=2)
        strict = await refuses_after(victim, door, at_most=BOUND_S)
        lenient = strict + await refuses_after(victim, lamp, at_most=BOUND_S + GRACE_S - strict)
        assert lenient > strict + 1
        return f"elsewhere after {elsewhere:.2f} s, here after {strict:.0f} s and {lenient:.0f} s"

    play(cut_off)


def test_a28_dropping_revocations_alone_makes_the_victim_stale(play: Playing) -> None:
    async def revocations_dropped(country: Country) -> str:
        door, other = country.device("door", "site/door/1"), country.device("other", "site/door/2")
        victim = country.places[4]
        here = victim.address
        country.wires.conditions.meddle = lambda _from, to, frame: (
            without(Kind.REVOKE, frame) if to == here else frame
        )
        await country.places[0].revoke(door.public, by=country.domain.authority)
        after = await refuses_after(victim, door, at_most=BOUND_S)
        assert not await victim.allows(other), "a domain that is not complete is not fresh"
        country.wires.conditions.meddle = lambda _from, _to, frame: frame
        back = await seconds_until(lambda: victim.allows(other), at_most=60)
        assert not await victim.allows(door)
        return f"refused after {after:.0f} s; complete again {back:.0f} s after it ended"

    play(revocations_dropped)


def test_a31_one_stolen_heartbeat_key_of_three_hides_nothing(play: Playing) -> None:
    async def one_key_stolen(country: Country) -> str:
        door = country.device("door", "site/door/1")
        victim = country.places[4]
        country.wires.dead.add(address_of(0))
        stolen = country.domain.heartbeat("hb-1")

        def feed() -> None:
            now = victim.clock.now()
            beat = sign_heartbeat(
                stolen,
                domain=country.domain.id,
                root_version=country.domain.roots[-1].version,
                epoch=1_900_000_000,
                count=0,
                head=Chain(epoch=1_900_000_000).head,
                recent=(),
                issued_at=now,
            )
            victim.site.service.authority.receive(
                [Item(Kind.HEARTBEAT, beat.encoded)], source="gossip"
            )

        country.cut_off(4)
        await country.places[3].revoke(door.public, by=country.domain.authority)

        async def refused() -> bool:
            feed()
            return not await victim.allows(door)

        after = await seconds_until(refused, at_most=BOUND_S)
        return f"the victim, fed by the thief alone, refused after {after:.0f} s"

    play(one_key_stolen)


def test_a31_a_key_that_signs_two_lists_counts_no_more_and_is_told_of(play: Playing) -> None:
    async def two_lists(country: Country) -> str:
        door = country.device("door", "site/door/1")
        authority = country.places[1].site.service.authority
        view = authority.heartbeats.domains[country.domain.id]
        key = country.domain.heartbeat("hb-1")
        newest = view.view(key.public).newest
        assert newest is not None
        rival = sign_heartbeat(
            key,
            domain=country.domain.id,
            root_version=newest.root_version,
            epoch=newest.epoch,
            count=newest.count + 1,
            head=b"r" * 32,
            recent=(*newest.recent, newest.statement_id)[-16:],
            issued_at=newest.issued_at + 1,
        )
        twin = sign_heartbeat(
            key,
            domain=country.domain.id,
            root_version=newest.root_version,
            epoch=newest.epoch,
            count=newest.count + 1,
            head=b"t" * 32,
            recent=(*newest.recent, newest.statement_id)[-16:],
            issued_at=newest.issued_at + 2,
        )
        # One half of the country is told one thing, the other half another.
        for number, place in enumerate(country.places):
            shown = Item(Kind.HEARTBEAT, (rival, twin)[number % 2].encoded)
            place.site.service.authority.receive([shown], source="gossip")
        await country.places[1].gossip.push([Item(Kind.HEARTBEAT, twin.encoded)])
        told = await seconds_until(
            lambda: all(one.site.service.authority.alarms for one in country.places), at_most=90
        )
        decision = await country.places[1].site.connect(door)
        assert decision.allowed, decision
        country.wires.dead.add(address_of(1))
        after = await refuses_after(country.places[4], door, at_most=2 * BOUND_S)
        return (
            f"alarm at all sites after {told:.2f} s; one more key gone: refused after {after:.0f} s"
        )

    play(two_lists)


def test_a_revoker_that_is_cut_off_says_pending(play: Playing) -> None:
    async def revoker_cut_off(country: Country) -> str:
        door = country.device("door", "site/door/1")
        revoker = country.places[4]
        country.cut_off(4)
        revocation = await revoker.revoke(door.public, by=country.domain.authority)
        assert not await revoker.allows(door), "it counts at once where it was signed"
        assert not revoker.in_force(revocation)
        country.heal()
        after = await seconds_until(lambda: revoker.in_force(revocation), at_most=90)
        assert not await country.places[0].allows(door)
        return f"pending while cut off, in force {after:.1f} s after the heal"

    play(revoker_cut_off)


def test_a_revocation_is_in_force_within_seconds(play: Playing) -> None:
    async def nothing_wrong(country: Country) -> str:
        door = country.device("door", "site/door/1")
        revocation = await country.places[4].revoke(door.public, by=country.domain.authority)
        after = await seconds_until(lambda: country.places[4].in_force(revocation), at_most=5)
        return f"in force after {after:.2f} s"

    play(nothing_wrong)
