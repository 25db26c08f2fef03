"""Whole daemons, but for brokers and sockets, on a simulated network and a virtual clock."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Protocol, cast

from authd.core.claims import Kind
from authd.core.identity import PublicKey, SigningKey, StatementId
from authd.core.policy import GuardedPrefix
from authd.core.statements import sign_revoke
from authd.core.topics import POWER_NODE
from authd.gossip.messages import Deliver, Push
from authd.gossip.node import GossipNode, GossipSettings
from authd.gossip.wire import encode_frame, parse_frame
from authd.service.desk import GossipDesk
from authd.service.issuing import Bundle
from authd.service.ports import Item
from tests.simulation.network import Wires
from tests.simulation.swarm import SeededEntropy, address_of
from tests.simulation.virtual import VirtualClock
from tests.world import Domain, Ether, FakeClock, Site, make_key, scope

GRACE_S: Final = 120
STRICT: Final = GuardedPrefix(topic_filter="site/door/#", grace_s=0)


class Place:
    """One site: a service over a real store, a gossip node, and the daemon's loops."""

    def __init__(
        self, directory: Path, domain: Domain, wires: Wires, *, number: int, of: int
    ) -> None:
        """Put the site together; the first three hold the domain's heartbeat keys."""
        self.clock = VirtualClock()
        self.address = address_of(number)
        names = domain.heartbeat_names
        self.site = Site(
            directory,
            domain,
            name=f"site-{number}",
            heartbeat=names[number] if number < len(names) else None,
            # The same shape; it moves by itself.
            clock=cast("FakeClock", self.clock),
            grace_s=GRACE_S,
            guarded=(STRICT,),
        )
        self.key = make_key(f"node {number}")
        self.records = Ether()
        self.gossip = GossipNode(
            key=self.key,
            admission=self.site.admission(self.key),
            store=GossipDesk(self.site.service.authority),
            clock=self.clock,
            entropy=SeededEntropy(f"site {number}"),
            settings=GossipSettings(
                port=8_184,
                advertise=self.address,
                peers=tuple(address_of(one) for one in range(of) if one != number),
            ),
            transport=wires.transport(self.address),
        )

    async def run(self) -> None:
        """Do what the daemon does, until cancelled."""
        service = self.site.service
        async with self.gossip, asyncio.TaskGroup() as group:
            service.attachment.attach(self.records, self.gossip)
            group.create_task(self.gossip.run())
            group.create_task(service.publisher.run_heartbeats())
            group.create_task(self._keep_ticking())

    async def _keep_ticking(self) -> None:
        while True:
            self.site.service.enforcement.tick()
            await asyncio.sleep(0.5)

    async def revoke(self, target: PublicKey, *, by: SigningKey) -> StatementId:
        """Revoke a key here."""
        signed = sign_revoke(by, target=target, issued_at=self.clock.now())
        bundle = Bundle(statements=(Item(Kind.REVOKE, signed.encoded),), records=())
        await self.site.service.publisher.submit(bundle)
        return signed.statement_id

    def in_force(self, revocation: StatementId) -> bool:
        """Say whether this site knows that more than half of the heartbeat keys signed it."""
        return self.site.service.authority.in_force(revocation)

    async def allows(self, device: SigningKey) -> bool:
        """Let the device connect."""
        return (await self.site.connect(device)).allowed


class Country:
    """Sites of one domain."""

    def __init__(self, directory: Path, *, sites: int, seed: int = 1) -> None:
        self.wires = Wires(seed=seed)
        self.domain = Domain(heartbeat_names=("hb-1", "hb-2", "hb-3"))
        self.places = [
            Place(directory, self.domain, self.wires, number=number, of=sites)
            for number in range(sites)
        ]
        admitted = [
            self.domain.grant(place.key.public, scope(pub=POWER_NODE)) for place in self.places
        ]
        for place in self.places:
            place.site.learn(*admitted)

    def device(self, name: str, topic: str) -> SigningKey:
        """Make a device that every site knows."""
        key = make_key(name)
        grant = self.domain.grant(key.public, scope(pub=topic))
        for place in self.places:
            place.site.learn(grant)
        return key

    def cut_off(self, *numbers: int) -> None:
        """Let nothing through between these sites and the others."""
        inside = {address_of(one) for one in numbers}
        self.wires.conditions.parted = lambda a, b: (a in inside) != (b in inside)

    def heal(self) -> None:
        """Let everything through again."""
        self.wires.conditions.parted = lambda _a, _b: False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run all sites; the network has formed when the body begins."""
        tasks = [asyncio.ensure_future(place.run()) for place in self.places]
        await asyncio.sleep(30)
        for task in tasks:
            assert not task.done(), task
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def seconds_until(done: Callable[[], Any], *, at_most: float) -> float:
    """Return after how many virtual seconds something is so; fails if it never is."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while loop.time() - began <= at_most:
        result = done()
        if await result if asyncio.iscoroutine(result) else result:
            return loop.time() - began
        await asyncio.sleep(0.25)
    raise AssertionError(f"not within {at_most} s")


def without(kind: Kind, frame: bytes) -> bytes:
    """Return a frame without the statements of a kind."""
    if frame[1] not in {2, 11}:
        return frame
    parsed = parse_frame(frame)
    if isinstance(parsed, Push | Deliver):
        left = tuple(item for item in parsed.items if item.kind is not kind)
        frame = encode_frame(
            Push(left) if isinstance(parsed, Push) else Deliver(parsed.token, left)
        )
    return frame


class Playing(Protocol):
    """Runs an attack on a country of sites and prints what came of it."""

    def __call__(self, attack: Callable[[Country], Awaitable[str]], /, *, sites: int = 5) -> None:
        """Do so."""
