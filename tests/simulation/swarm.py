"""Many gossip nodes of one domain on a simulated network: production code, but for the wires."""

import asyncio
import random
from collections.abc import Container, Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

from authd.core.claims import Kind
from authd.core.identity import PublicKey, StatementId
from authd.core.revocations import Chain
from authd.core.statements import Heartbeat, Statement, kind_of, sign_heartbeat, verify
from authd.errors import AuthdError
from authd.gossip.node import GossipNode, GossipSettings
from authd.service.ports import Item
from tests.simulation.network import Wires
from tests.simulation.virtual import START, VirtualClock
from tests.unit.dht.nodes import Domain, make_key

HEARTBEAT_KEYS: Final = 3
BEAT_S: Final = 20.0


class SeededEntropy:
    """`Entropy` of one node, the same in every run."""

    def __init__(self, seed: str) -> None:
        self._rng = random.Random(seed)

    def token(self, count: int) -> bytes:
        return self._rng.randbytes(count)


@lru_cache(maxsize=100_000)
def verified(kind: Kind, data: bytes) -> Statement:
    """Verify as production does; thousands of nodes see the same bytes."""
    return verify(kind, data)


class Shelf:
    """`GossipStore` of one node: verifies and keeps, and notes when what came."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.items: dict[StatementId, Item] = {}
        self.came_at: dict[StatementId, float] = {}
        self.beats: dict[PublicKey, Heartbeat] = {}
        self.bad = 0

    async def receive(self, items: Iterable[Item], *, peer: str) -> list[StatementId]:
        return self.take(items)

    def take(self, items: Iterable[Item]) -> list[StatementId]:
        new: list[StatementId] = []
        for item in items:
            try:
                statement = verified(item.kind, item.data)
            except AuthdError:
                self.bad += 1
                continue
            if self._is_new(statement):
                new.append(statement.statement_id)
        return new

    def _is_new(self, statement: Statement) -> bool:
        if isinstance(statement, Heartbeat):
            held = self.beats.get(statement.issuer)
            if held is not None and held.issued_at >= statement.issued_at:
                return False
            self.beats[statement.issuer] = statement
            return True
        if statement.statement_id in self.items:
            return False
        self.items[statement.statement_id] = Item(kind_of(statement), statement.encoded)
        self.came_at[statement.statement_id] = self._clock.monotonic()
        return True

    def held(self) -> dict[StatementId, Kind]:
        return {one: item.kind for one, item in self.items.items()}

    def statement(self, statement_id: StatementId) -> Item | None:
        return self.items.get(statement_id)

    def heartbeats(self) -> list[Item]:
        return [Item(Kind.HEARTBEAT, beat.encoded) for beat in self.beats.values()]

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

    def is_own(self, node: PublicKey) -> bool:
        return self.admits(node)

    def admission_grants(self) -> list[bytes]:
        return [self._shown]

    def learn_grants(self, grants: Iterable[bytes]) -> None:
        return None


class Swarm:
    """The nodes, by number."""

    def __init__(
        self,
        wires: Wires,
        *,
        size: int,
        seed: int,
        only_dial: Container[int] = (),
        places: int = 10,
        known: Sequence[int] = (),
    ) -> None:
        """Make the nodes; those in ``only_dial`` listen nowhere, as behind NAT.

        All begin with the addresses of those in ``known``; with none, of three by chance.
        """
        self.wires = wires
        self._only_dial = only_dial
        self._places = places
        self._known = known
        self.rng = random.Random(f"swarm {seed}")
        self.domain = Domain.make(now=START - 60)
        self.keys = [make_key(f"node {number}") for number in range(size)]
        self.clocks = [VirtualClock() for _ in range(size)]
        self.shelves = [Shelf(clock) for clock in self.clocks]
        members = {key.public for key in self.keys}
        shown = self.domain.admit(self.keys[0].public).encoded
        self.nodes = [
            self._make(number, seed, Doorkeeper(members, shown)) for number in range(size)
        ]

    def _make(self, number: int, seed: int, admission: Doorkeeper) -> GossipNode:
        address = address_of(number)
        known = self._known or self.rng.sample(range(len(self.keys)), min(3, len(self.keys)))
        return GossipNode(
            key=self.keys[number],
            admission=admission,
            store=self.shelves[number],
            clock=self.clocks[number],
            entropy=SeededEntropy(f"{seed} {number}"),
            settings=GossipSettings(
                port=None if number in self._only_dial else 8_184,
                advertise="" if number in self._only_dial else address,
                peers=tuple(address_of(one) for one in known if one != number),
                places=self._places,
            ),
            transport=self.wires.transport(address),
        )

    async def start(self) -> list["asyncio.Task[None]"]:
        """Open every node and keep it running; returns the tasks to be cancelled."""
        for node in self.nodes:
            await node.__aenter__()
        beaters = [
            self._keep_beating(number) for number in range(min(HEARTBEAT_KEYS, len(self.nodes)))
        ]
        runs = [node.run() for node in self.nodes]
        return [asyncio.ensure_future(one) for one in (*runs, *beaters)]

    async def _keep_beating(self, number: int) -> None:
        """Sign a head every 20 s, as the daemon with one of the domain's heartbeat keys does."""
        key, chain = make_key(f"heartbeat {number}"), Chain(epoch=1)
        await asyncio.sleep(number * BEAT_S / HEARTBEAT_KEYS)
        while True:
            held = self.shelves[number].items
            chain = chain.append([one for one in held if one not in set(chain.ids)])
            beat = sign_heartbeat(
                key,
                domain=self.domain.domain,
                root_version=1,
                epoch=1,
                count=len(chain.ids),
                head=chain.head,
                recent=chain.ids[-16:],
                issued_at=self.clocks[number].now(),
            )
            await self.publish(number, [Item(Kind.HEARTBEAT, beat.encoded)])
            await asyncio.sleep(BEAT_S)

    async def publish(self, number: int, items: list[Item]) -> None:
        """Let a node tell the world something of its own."""
        self.shelves[number].take(items)
        await self.nodes[number].push(items)

    async def join(self, number: int) -> "asyncio.Task[None]":
        """Open one node alone."""
        await self.nodes[number].__aenter__()
        return asyncio.ensure_future(self.nodes[number].run())

    def live(self) -> list[int]:
        """Return the nodes that are neither dead nor mute."""
        out = self.wires.dead | self.wires.mute
        return [one for one in range(len(self.nodes)) if address_of(one) not in out]


def address_of(number: int) -> str:
    """Return where a node listens."""
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}:8184"
