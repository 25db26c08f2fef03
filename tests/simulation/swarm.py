"""Many gossip nodes of one domain on a simulated network: production code, but for the wires."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import lru_cache
from typing import Any

from authd.core.claims import Kind
from authd.core.identity import PublicKey, StatementId
from authd.core.statements import Statement, verify
from authd.errors import AuthdError
from authd.gossip.node import GossipNode
from authd.service.ports import Item
from tests.simulation.network import Wires
from tests.simulation.virtual import START, VirtualClock
from tests.unit.dht.nodes import Domain, make_key


class SeededEntropy:
    """`Entropy` of one node, the same in every run."""

    def __init__(self, seed: str) -> None:
        self._rng = random.Random(seed)

    def token(self, count: int) -> bytes:
        return self._rng.randbytes(count)


@lru_cache(maxsize=100_000)
def _verified(kind: Kind, data: bytes) -> Statement:
    """Verify as production does; thousands of nodes see the same bytes."""
    return verify(kind, data)


class Shelf:
    """`GossipStore` of one node: verifies and keeps, and notes when what came."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.items: dict[StatementId, Item] = {}
        self.came_at: dict[StatementId, float] = {}
        self.bad = 0

    async def receive(self, items: Iterable[Item], *, peer: str) -> list[StatementId]:
        return self.take(items)

    def take(self, items: Iterable[Item]) -> list[StatementId]:
        new: list[StatementId] = []
        for item in items:
            try:
                one = _verified(item.kind, item.data).statement_id
            except AuthdError:
                self.bad += 1
                continue
            if one not in self.items:
                self.items[one] = item
                self.came_at[one] = self._clock.monotonic()
                new.append(one)
        return new

    def held(self) -> dict[StatementId, Kind]:
        return {one: item.kind for one, item in self.items.items()}

    def statement(self, statement_id: StatementId) -> Item | None:
        return self.items.get(statement_id)

    def heartbeats(self) -> list[Item]:
        return []

    def chain_ids(self, *_where: Any) -> None:
        return None

    def gaps(self) -> list[Any]:
        return []

    def fill(self, *_part: Any) -> None:
        raise AssertionError("nothing was asked for")


class Doorkeeper:
    """`Admission` that knows every member by key, and shows a grant of the usual size."""

    def __init__(self, members: set[PublicKey], shown: bytes) -> None:
        self._members = members
        self._shown = shown

    def admits(self, node: PublicKey) -> bool:
        return node in self._members

    def admission_grants(self) -> list[bytes]:
        return [self._shown]

    def learn_grants(self, grants: Iterable[bytes]) -> None:
        return None


class Swarm:
    """The nodes, by number."""

    def __init__(self, wires: Wires, *, size: int, seed: int) -> None:
        self.wires = wires
        self.rng = random.Random(f"swarm {seed}")
        self.domain = Domain.make(now=START - 60)
        self.keys = [make_key(f"node {number}") for number in range(size)]
        self.shelves = [Shelf(VirtualClock()) for _ in range(size)]
        members = {key.public for key in self.keys}
        shown = self.domain.admit(self.keys[0].public).encoded
        self.nodes = [
            self._make(number, seed, Doorkeeper(members, shown)) for number in range(size)
        ]

    def _make(self, number: int, seed: int, admission: Doorkeeper) -> GossipNode:
        address = address_of(number)
        known = self.rng.sample(range(len(self.keys)), min(3, len(self.keys)))
        return GossipNode(
            key=self.keys[number],
            admission=admission,
            store=self.shelves[number],
            clock=VirtualClock(),
            entropy=SeededEntropy(f"{seed} {number}"),
            port=8_184,
            advertise=address,
            peers=[address_of(one) for one in known if one != number],
            transport=self.wires.transport(address),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for node in self.nodes:
                await stack.enter_async_context(node)
            tasks = [asyncio.ensure_future(node.run()) for node in self.nodes]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def publish(self, number: int, items: list[Item]) -> None:
        """Let a node tell the world something of its own."""
        self.shelves[number].take(items)
        await self.nodes[number].push(items)

    def live(self) -> list[int]:
        """Return the nodes that are neither dead nor mute."""
        out = self.wires.dead | self.wires.mute
        return [one for one in range(len(self.nodes)) if address_of(one) not in out]


def address_of(number: int) -> str:
    """Return where a node listens."""
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}:8184"
