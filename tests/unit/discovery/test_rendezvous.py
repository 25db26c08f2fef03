import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from authd.clock import SystemClock, SystemEntropy
from authd.core.grants import Form, TlsSubject, sign_grant
from authd.core.identity import PublicKey
from authd.core.records import make_record
from authd.core.topics import POWER_NODE, Action, make_scope
from authd.core.trust import TrustState
from authd.dht.memory import MemoryRecordNetwork
from authd.discovery.rendezvous import MAX_ASKED, Members, Rendezvous
from authd.discovery.slots import LIFE_S, SLOTS, make_rendezvous, rendezvous_salt, slot_of
from tests.unit.dht.nodes import Domain, PathAdmission, make_key
from tests.unit.gossip.nodes import device_grant


@dataclass
class Sitting:
    """A rendezvous on a network in memory, and what it was told."""

    domain: Domain = field(default_factory=Domain.make)
    address: str = "192.0.2.1:8184"
    connected: set[PublicKey] = field(default_factory=set)
    suggested: list[tuple[str, PublicKey | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = SystemClock()
        self.network = MemoryRecordNetwork(clock=self.clock)
        self.admission = PathAdmission(self.domain)
        self.key = make_key("own")
        self.members = Members(state=lambda: self.admission.state, own=self.key.public)
        self.rendezvous = Rendezvous(
            key=self.key,
            domain=self.domain.domain,
            address=lambda: self.address,
            network=self.network,
            members=self.members,
            admits=self.admission.is_own,
            connected=lambda: self.connected,
            suggest=self.suggest,
            clock=self.clock,
            entropy=SystemEntropy(),
        )

    def suggest(self, address: str, key: PublicKey | None) -> bool:
        self.suggested.append((address, key))
        return True

    async def admit(self, name: str, *, address: str = "") -> PublicKey:
        key = make_key(name)
        self.admission.learn_grants([self.domain.admit(key.public).encoded])
        if address:
            record = make_rendezvous(
                key,
                domain=self.domain.domain,
                addresses=[address],
                now_us=self.clock.now_us(),
            )
            await self.network.put(record)
        return key.public


def test_slots_are_spread() -> None:
    used = {slot_of(make_key(str(number)).public) for number in range(1_000)}
    assert used == set(range(SLOTS))


async def test_members_are_whoever_a_grant_names_with_the_power_but_not_oneself() -> None:
    sitting = Sitting()
    state = TrustState().apply_root(sitting.domain.root)
    now = sitting.domain.now
    node, own = make_key("node").public, sitting.key.public
    tls = sign_grant(
        sitting.domain.authority,
        subject=TlsSubject(PublicKey(bytes(32))),
        scope=make_scope({POWER_NODE: Action.PUB}),
        issued_at=now,
        expires_at=now + 60,
        forms=(Form.TLS,),
    )
    grants = [device_grant(sitting.domain, f"device {number}") for number in range(4_100)]
    grants += [sitting.domain.admit(node), sitting.domain.admit(own), tls]
    state = state.apply_grants(grants)
    members = Members(state=lambda: state, own=own)
    assert await members.find() == [node]
    assert await members.find() is await members.find(), "not gone through twice"


async def test_a_round_asks_for_members_without_a_stream_and_hands_on_what_they_say() -> None:
    sitting = Sitting()
    found = await sitting.admit("found", address="192.0.2.2:8184")
    sitting.connected = {await sitting.admit("connected", address="192.0.2.3:8184")}
    await sitting.admit("silent")
    assert await sitting.rendezvous.look() == 1
    assert sitting.suggested == [("192.0.2.2:8184", found)]
    assert (sitting.rendezvous.asked, sitting.rendezvous.found) == (2, 1)


async def test_who_is_not_admitted_any_more_is_not_asked_for() -> None:
    sitting = Sitting()
    await sitting.admit("gone", address="192.0.2.2:8184")
    sitting.rendezvous._admits = lambda _node: False
    assert await sitting.rendezvous.look() == 0
    assert sitting.rendezvous.asked == 0


async def test_a_round_is_bounded_and_rounds_differ() -> None:
    sitting = Sitting()
    for number in range(3 * MAX_ASKED):
        await sitting.admit(f"node {number}")
    rounds = [tuple(await sitting.rendezvous._choose()) for _ in range(10)]
    assert {len(one) for one in rounds} == {MAX_ASKED}
    assert len(set(rounds)) > 1
    assert len({key for one in rounds for key in one}) > MAX_ASKED


async def test_a_record_that_says_something_else_is_refused_and_counted() -> None:
    sitting = Sitting()
    node, clock = await sitting.admit("odd"), sitting.clock
    odd = make_record(
        make_key("odd"),
        salt=rendezvous_salt(sitting.domain.domain, node),
        seq=clock.now_us(),
        content=b"\x80",
        expires_at=clock.now() + 60,
    )
    await sitting.network.put(odd)
    assert await sitting.rendezvous.look() == 0
    assert (sitting.rendezvous.refused, sitting.suggested) == (1, [])


def test_a_rendezvous_lives_for_an_hour() -> None:
    record = make_rendezvous(
        make_key("node"),
        domain=Domain.make().domain,
        addresses=["192.0.2.2:1"],
        now_us=1_800_000_000_999_999,
    )
    assert record.expires_at == 1_800_000_000 + LIFE_S


async def wait_for(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.02)


async def test_it_publishes_its_address_and_looks_only_while_peers_are_few() -> None:
    sitting = Sitting()
    await sitting.admit("other", address="192.0.2.2:8184")
    task = asyncio.create_task(sitting.rendezvous.run())
    try:
        await wait_for(lambda: bool(sitting.rendezvous.published_until and sitting.suggested))
        salt = rendezvous_salt(sitting.domain.domain, sitting.key.public)
        record = await sitting.network.get(sitting.key.public, salt)
        assert b"192.0.2.1:8184" in record.content
        sitting.connected = {make_key(str(number)).public for number in range(3)}
        await asyncio.sleep(2.1)
        asked = sitting.rendezvous.asked
        await asyncio.sleep(1.5)
        assert sitting.rendezvous.asked == asked
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
