"""A network in memory: latency, loss, resets, death and partitions, all from one seed.

Streams are reliable and in order, as over TCP: what a real network loses comes late, and holds up
what is behind it. Every frame goes into the trace; the same seed gives the same trace.
"""

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from authd.core.claims import Kind
from authd.errors import NoResponseError
from authd.gossip.messages import FrameKind, Push
from authd.gossip.transport import Hinted, Link, Serve
from authd.gossip.wire import parse_frame

# A lost segment is sent again after a time-out of this order (RFC 6298 §2: at least a second by
# the letter, 200 ms in the systems that daemons run on).
RETRANSMIT_S: Final = 0.3
HINT_S: Final = 3.0


@dataclass(kw_only=True)
class Conditions:
    """What the network is like; may be changed while it runs.

    Attributes:
        latency_s: Median one-way delay between two nodes; each pair has its own.
        loss: Share of frames that are lost and sent again, once or more.
        reset: Share of frames after which a stream breaks.
        parted: Says whether two nodes cannot reach each other now.
        meddle: What becomes of a frame on its way from one node to another; None: it is dropped.
    """

    latency_s: float = 0.05
    loss: float = 0.0
    reset: float = 0.0
    parted: Callable[[str, str], bool] = field(default=lambda _a, _b: False)
    meddle: Callable[[str, str, bytes], bytes | None] = field(default=lambda _a, _b, frame: frame)


@dataclass
class _Host:
    serve: Serve
    hinted: Hinted
    tasks: set["asyncio.Task[None]"] = field(default_factory=set)


class Wires:
    """Everything between the nodes."""

    def __init__(self, *, seed: int, conditions: Conditions | None = None) -> None:
        self.rng = random.Random(seed)
        self.conditions = conditions or Conditions()
        self.dead: set[str] = set()
        self.mute: set[str] = set()
        self.hosts: dict[str, _Host] = {}
        self.frames: Counter[int] = Counter()
        self.sent_bytes: Counter[int] = Counter()
        self.news_frames = 0
        self.news_bytes = 0
        self.turns = 0
        self._last = ""
        self._seed = seed
        self._distances: dict[tuple[str, str], float] = {}
        self._trace = hashlib.blake2b(digest_size=16)

    def transport(self, address: str) -> "Wire":
        """Return the network as a node at ``address`` sees it."""
        return Wire(self, address)

    @property
    def trace(self) -> str:
        """Hash of every frame, when it was sent, by whom and to whom."""
        return self._trace.hexdigest()

    def reaches(self, here: str, there: str) -> bool:
        """Say whether a frame could arrive now."""
        return not (here in self.dead or there in self.dead or self.conditions.parted(here, there))

    def delay_s(self, here: str, there: str) -> float:
        """Draw how long one frame takes; a lost one takes a retransmission or more."""
        distance = self._distance(*sorted((here, there)))
        delay_s = self.conditions.latency_s * distance * (0.9 + 0.2 * self.rng.random())
        again_s = RETRANSMIT_S
        while self.conditions.loss and self.rng.random() < self.conditions.loss:
            delay_s += again_s
            again_s *= 2
        return delay_s

    def _distance(self, one: str, other: str) -> float:
        """Return the pair's own share of the median latency, the same whenever it is asked for."""
        known = self._distances.get((one, other))
        if known is None:
            known = random.Random(f"{self._seed}|{one}|{other}").lognormvariate(0.0, 0.5)
            self._distances[one, other] = known
        return known

    def count(self, here: str, there: str, frame: bytes) -> None:
        """Put a frame on the books, by its kind."""
        self.frames[frame[1]] += 1
        self.sent_bytes[frame[1]] += len(frame)
        if _is_news(frame):
            self.news_frames += 1
            self.news_bytes += len(frame)
        self.turns += here != self._last
        self._last = here
        now = asyncio.get_running_loop().time()
        self._trace.update(f"{now:.6f} {here} {there} ".encode() + frame)


def _is_news(frame: bytes) -> bool:
    """Say whether a frame is about something new; heartbeats and repair go on all the time."""
    if frame[1] in _ABOUT_NEWS:
        return True
    if frame[1] != FrameKind.PUSH:
        return False
    push = parse_frame(frame)
    return isinstance(push, Push) and any(one.kind is not Kind.HEARTBEAT for one in push.items)


_ABOUT_NEWS: Final = (FrameKind.HAVE, FrameKind.ASK, FrameKind.DELIVER)


class _End:
    """One end of a stream."""

    def __init__(self, wires: Wires, here: str, there: str) -> None:
        self._wires = wires
        self._here, self._there = here, there
        self._inbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._free_at = 0.0
        self.other: _End
        self.broken = False

    async def read(self) -> bytes:
        frame = None if self.broken and self._inbox.empty() else await self._inbox.get()
        if frame is None:
            self.broken = True
            raise NoResponseError("the stream ended")
        return frame

    async def write(self, frame: bytes) -> None:
        if self.broken:
            raise NoResponseError("the stream ended")
        wires, loop = self._wires, asyncio.get_running_loop()
        if self._here in wires.mute and frame[1] not in _MUTE_STILL_SENDS:
            return
        wires.count(self._here, self._there, frame)
        if not wires.reaches(self._here, self._there):
            return
        if wires.conditions.reset and wires.rng.random() < wires.conditions.reset:
            self.break_off()
            raise NoResponseError("the stream was reset")
        changed = wires.conditions.meddle(self._here, self._there, frame)
        if changed is None:
            return
        self._free_at = max(self._free_at, loop.time() + wires.delay_s(self._here, self._there))
        loop.call_at(self._free_at, self._arrive, changed)

    @property
    def host(self) -> str:
        """Where the other end is."""
        return self._there.rpartition(":")[0]

    def _arrive(self, frame: bytes) -> None:
        if self._wires.reaches(self._here, self._there) and not self.other.broken:
            self.other._inbox.put_nowait(frame)

    def finish(self) -> None:
        """End the stream in order: what was written before still arrives."""
        self._end()
        loop = asyncio.get_running_loop()
        loop.call_at(max(self._free_at, loop.time()), self.other._end)

    def _end(self) -> None:
        if not self.broken:
            self.broken = True
            self._inbox.put_nowait(None)

    def keep(self) -> None:
        """Nothing bounds connections here."""

    def break_off(self) -> None:
        """Break the stream at both ends at once."""
        self._end()
        self.other._end()


# Introduction and ticks: who says nothing else takes part and is of no use.
_MUTE_STILL_SENDS: Final = frozenset({0, 1, 8})


class Wire:
    """`Transport` of one node."""

    def __init__(self, wires: Wires, address: str) -> None:
        self._wires = wires
        self._address = address

    @asynccontextmanager
    async def listening(
        self, host: str, port: int, *, serve: Serve, hinted: Hinted
    ) -> AsyncIterator[int]:
        place = _Host(serve, hinted)
        self._wires.hosts[self._address] = place
        try:
            yield port
        finally:
            del self._wires.hosts[self._address]
            for task in place.tasks:
                task.cancel()

    @asynccontextmanager
    async def dialled(self, address: str) -> AsyncIterator[Link]:
        wires = self._wires
        here, there = _End(wires, self._address, address), _End(wires, address, self._address)
        here.other, there.other = there, here
        host = wires.hosts.get(address)
        if host is not None and wires.reaches(self._address, address):
            await asyncio.sleep(2 * wires.delay_s(self._address, address))
            task = asyncio.ensure_future(self._serve(host, there))
            host.tasks.add(task)
            task.add_done_callback(host.tasks.discard)
        try:
            yield here
        finally:
            here.finish()

    async def _serve(self, host: _Host, end: _End) -> None:
        try:
            await host.serve(end, end.host)
        finally:
            end.finish()

    @asynccontextmanager
    async def hinting(self, address: str) -> AsyncIterator[Hinted]:
        wires, here = self._wires, self._address

        async def ask(frame: bytes) -> bytes:
            host = wires.hosts.get(address)
            if here in wires.mute:
                raise NoResponseError("a mute node tells nothing")
            wires.count(here, address, frame)
            if host is None or not wires.reaches(here, address):
                await asyncio.sleep(HINT_S)
                raise NoResponseError("no answer to a hint")
            changed = wires.conditions.meddle(here, address, frame)
            if changed is None:
                raise NoResponseError("a hint was dropped")
            await asyncio.sleep(wires.delay_s(here, address))
            answer = await host.hinted(changed)
            wires.count(address, here, answer)
            await asyncio.sleep(wires.delay_s(address, here))
            return answer

        yield ask
