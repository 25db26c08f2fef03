"""One live stream: what is sent, what is done with each frame, and when it ends.

Statements go through the store, which alone verifies them. What was new there goes on to the other
peers. A frame that cannot be parsed, a full queue, or silence ends the stream.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, assert_never

from authd.core.claims import Claim, Kind, parse
from authd.core.identity import DomainId, PublicKey, StatementId, key_id_text
from authd.errors import AuthdError, FormatError, NoResponseError
from authd.gossip.handshake import Introduction
from authd.gossip.messages import (
    MAX_CHAIN_IDS,
    MAX_ITEMS,
    MAX_RANGES,
    MAX_WANTED,
    Ask,
    ChainAsk,
    ChainPart,
    Deliver,
    Frame,
    Have,
    Hello,
    Peers,
    Proof,
    Push,
    Reconcile,
    Sample,
    Tick,
    Want,
    batches,
)
from authd.gossip.reconcile import Reconciler, is_whole
from authd.gossip.transport import Link
from authd.gossip.views import Allowance
from authd.gossip.wire import encode_frame, parse_frame
from authd.service.ports import Clock, GossipStore, Item

# Two ticks may be lost in a pause of the other daemon before it counts as dead.
TICK_S: Final = 5.0
SILENCE_S: Final = 15.0
WRITE_S: Final = 10.0
QUEUE_FRAMES: Final = 256
STATEMENTS_PER_S: Final = 200.0
BURST_STATEMENTS: Final = 2_000.0
# Frames of other kinds cost a search in memory; repair of a large set needs some hundreds.
_FRAMES_PER_S: Final = 20.0
_BURST_FRAMES: Final = 400.0
# Samples are hints: what is too much is left out, and holds up nothing behind it. A peer tells of
# 16 when a stream begins and with each repair, and of each newcomer.
_SAMPLES_PER_S: Final = 4.0
_BURST_SAMPLES: Final = 128.0
# One snapshot serves the five or so messages of a repair; a new repair takes a new one, but a
# peer cannot ask for one more often than this, because a large set takes a while to hash.
_SNAPSHOT_S: Final = 5.0
_YOUNGEST_SNAPSHOT_S: Final = 0.5
_ASK_AGAIN_S: Final = 5.0
_MAX_GAPS: Final = 16
# Whoever has given nothing for so long is asked for something that every node holds; whoever does
# not give that either is of no use, however often it ticks.
QUIET_S: Final = 16.0
ANSWER_S: Final = 6.0


@dataclass(slots=True)
class _Fetch:
    """Entries of a list that are being asked for."""

    end: int
    ids: list[StatementId]
    ask_again_at: float


class Peer:
    """The other end of a stream, introduced."""

    def __init__(
        self,
        *,
        link: Link,
        introduction: Introduction,
        address: str,
        store: GossipStore,
        clock: Clock,
        spread: Callable[[Iterable[Item], PublicKey], None],
        learn: Callable[[Iterable[Sample], PublicKey], None],
    ) -> None:
        """Prepare; `run` does the work.

        Args:
            link: The stream.
            introduction: Who is there.
            address: Where it was dialled, or ``incoming``.
            store: Verifies and keeps statements.
            clock: Time.
            spread: Sends items on to all peers but one.
            learn: Takes in samples that one peer sent.
        """
        self._link = link
        self.introduction = introduction
        self.address = address
        self._store = store
        self._clock = clock
        self._spread = spread
        self._learn = learn
        self._queue: asyncio.Queue[Frame] = asyncio.Queue(QUEUE_FRAMES)
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        now = clock.monotonic()
        self._statements = Allowance(rate_per_s=STATEMENTS_PER_S, burst=BURST_STATEMENTS, now=now)
        self._frames = Allowance(rate_per_s=_FRAMES_PER_S, burst=_BURST_FRAMES, now=now)
        self._samples = Allowance(rate_per_s=_SAMPLES_PER_S, burst=_BURST_SAMPLES, now=now)
        self._snapshot: tuple[float, Reconciler] | None = None
        self._fetches: dict[tuple[DomainId, PublicKey, int, int], _Fetch] = {}
        self._gave_at = now
        self._answer_due_at: float | None = None
        self.is_useless = False
        self.fell_silent = False

    @property
    def key(self) -> PublicKey:
        """Node key of the other end."""
        return self.introduction.key

    @property
    def name(self) -> str:
        """``node id@address``."""
        return f"{key_id_text(self.key)}@{self.address}"

    # --- life -----------------------------------------------------------------------------

    async def run(self) -> str:
        """Talk until the stream ends; return why it did."""
        reasons: list[str] = []
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read_all(), name="gossip-read")
                group.create_task(self._write_all(), name="gossip-write")
                group.create_task(self._wait_for_close(), name="gossip-close")
        except* AuthdError as errors:
            reasons += [str(error) for error in errors.exceptions]
        return "; ".join(reasons)

    def close(self, reason: str) -> None:
        """End the stream soon."""
        if not self._ended.done():
            self._ended.set_result(reason)

    async def _wait_for_close(self) -> None:
        raise NoResponseError(await self._ended)

    async def _read_all(self) -> None:
        while True:
            try:
                async with asyncio.timeout(SILENCE_S):
                    data = await self._link.read()
            except TimeoutError as error:
                self.fell_silent = True
                raise NoResponseError(f"silent for {SILENCE_S:.0f} s") from error
            await self._handle(parse_frame(data))

    async def _write_all(self) -> None:
        while True:
            try:
                async with asyncio.timeout(TICK_S):
                    frame = await self._queue.get()
            except TimeoutError:
                frame = Tick()
            try:
                async with asyncio.timeout(WRITE_S):
                    await self._link.write(encode_frame(frame))
            except TimeoutError as error:
                self.fell_silent = True
                raise NoResponseError(f"took nothing for {WRITE_S:.0f} s") from error

    # --- sending --------------------------------------------------------------------------

    def offer(self, frame: Frame) -> bool:
        """Queue a frame; a peer whose queue is full loses its stream and is repaired later."""
        try:
            self._queue.put_nowait(frame)
        except asyncio.QueueFull:
            self.close("its queue is full")
            return False
        return True

    def push(self, items: Iterable[Item]) -> bool:
        """Queue statements; return whether all of them fitted."""
        return all(self.offer(Push(batch)) for batch in batches(items, MAX_ITEMS))

    async def say(self, frame: Frame) -> None:
        """Queue a frame, waiting for room.

        Raises:
            NoResponseError: There was none for too long.
        """
        try:
            async with asyncio.timeout(WRITE_S):
                await self._queue.put(frame)
        except TimeoutError as error:
            raise NoResponseError("its queue stays full") from error

    def begin_repair(self) -> None:
        """Start to compare what both hold, and show the newest heartbeats."""
        self.push(self._store.heartbeats())
        reconciler = self._reconciler(oldest_s=_YOUNGEST_SNAPSHOT_S)
        self.offer(Reconcile(reconciler.opening()))

    def check_use(self) -> None:
        """Ask a peer that gives nothing for something; end the stream if it gives that neither."""
        now = self._clock.monotonic()
        if self._answer_due_at is not None and now >= self._answer_due_at:
            self.is_useless = True
            self.close("it gives nothing, not even when asked")
        elif self._answer_due_at is None and now - self._gave_at >= QUIET_S:
            oldest = next(iter(self._store.held()), None)
            if oldest is not None and self.offer(Want((oldest,))):
                self._answer_due_at = now + ANSWER_S

    def ask_for_gaps(self) -> None:
        """Ask for entries of heartbeat lists that are missing here."""
        now = self._clock.monotonic()
        live = self._store.gaps()[:_MAX_GAPS]
        wanted = {(domain, key, epoch, start) for domain, key, epoch, start, _ in live}
        self._fetches = {where: one for where, one in self._fetches.items() if where in wanted}
        for domain, key, epoch, start, end in live:
            where = (domain, key, epoch, start)
            fetch = self._fetches.setdefault(where, _Fetch(end, [], now))
            # A list grows while it is fetched: what came stays.
            fetch.end = max(fetch.end, end)
            if fetch.ask_again_at > now:
                continue
            if start + len(fetch.ids) >= fetch.end:
                fetch.ids.clear()  # all came, and it was not what was signed
            self._ask_chain(where, fetch)

    def _ask_chain(self, where: tuple[DomainId, PublicKey, int, int], fetch: _Fetch) -> None:
        domain, key, epoch, start = where
        begin = start + len(fetch.ids)
        last = min(fetch.end, begin + MAX_CHAIN_IDS)
        fetch.ask_again_at = self._clock.monotonic() + _ASK_AGAIN_S
        self.offer(ChainAsk(domain=domain, key=key, epoch=epoch, start=begin, end=last))

    def _reconciler(self, *, oldest_s: float) -> Reconciler:
        now = self._clock.monotonic()
        if self._snapshot is None or now - self._snapshot[0] > oldest_s:
            made = Reconciler(self._store.held(), key=self.introduction.stream_key)
            self._snapshot = (now, made)
        return self._snapshot[1]

    # --- receiving ------------------------------------------------------------------------

    async def _handle(self, frame: Frame) -> None:
        self._note(frame)
        if not isinstance(frame, Push):
            await self._pace(self._frames, 1)
        match frame:
            case Push():
                await self._on_push(frame)
            case Want():
                await self._pace(self._frames, len(frame.ids) // MAX_ITEMS)
                await self._send_statements(frame.ids)
            case Reconcile():
                await self._on_reconcile(frame)
            case ChainAsk():
                await self._on_chain_ask(frame)
            case ChainPart():
                await self._on_chain_part(frame)
            case Peers():
                # Each is a key to be checked, before anything is made of it.
                await self._pace(self._frames, len(frame.samples) // 4)
                now = self._clock.monotonic()
                taken = [one for one in frame.samples if self._samples.take(now=now)]
                self._learn(taken, self.key)
            case Tick():
                pass
            case Hello() | Proof() | Have() | Ask() | Deliver():
                raise FormatError("gossip: a frame that has no place in the middle of a stream")
            case _:
                assert_never(frame)

    def _note(self, frame: Frame) -> None:
        if isinstance(frame, Push | Reconcile | ChainPart):
            self._gave_at, self._answer_due_at = self._clock.monotonic(), None

    async def _pace(self, allowance: Allowance, count: int) -> None:
        wait_s = allowance.charge(count, now=self._clock.monotonic())
        if wait_s:
            await asyncio.sleep(wait_s)

    async def _on_push(self, push: Push) -> None:
        await self._pace(self._statements, len(push.items))
        new = set(await self._store.receive(push.items, peer=self.name))
        if new:
            fresh = self._verified(new)
            self._spread(fresh, self.key)
            await self._want(_named_revocations(fresh))
        self.ask_for_gaps()

    def _verified(self, new: set[StatementId]) -> list[Item]:
        # From the store, not from the frame: an id says nothing about the signature beside it.
        found = [item for one in new if (item := self._store.statement(one)) is not None]
        if len(found) == len(new):
            return found
        return found + [beat for beat in self._store.heartbeats() if _beat_id(beat) in new]

    async def _on_reconcile(self, frame: Reconcile) -> None:
        begins = any(is_whole(one) for one in frame.ranges)
        oldest_s = _YOUNGEST_SNAPSHOT_S if begins else _SNAPSHOT_S
        difference = self._reconciler(oldest_s=oldest_s).compare(frame.ranges)
        for ranges in batches(difference.ranges, MAX_RANGES):
            await self.say(Reconcile(ranges))
        await self._want(difference.lacking)
        await self._send_statements(difference.surplus)

    async def _want(self, ids: Iterable[StatementId]) -> None:
        missing = [one for one in ids if self._store.statement(one) is None]
        for batch in batches(missing, MAX_WANTED):
            await self.say(Want(batch))

    async def _send_statements(self, ids: Iterable[StatementId]) -> None:
        found = (item for one in ids if (item := self._store.statement(one)) is not None)
        for batch in batches(found, MAX_ITEMS):
            await self.say(Push(batch))

    async def _on_chain_ask(self, ask: ChainAsk) -> None:
        ids = self._store.chain_ids(ask.domain, ask.key, ask.epoch, ask.start, ask.end)
        part = ChainPart(
            domain=ask.domain,
            key=ask.key,
            epoch=ask.epoch,
            start=ask.start,
            ids=tuple(ids or ())[:MAX_CHAIN_IDS],
        )
        await self.say(part)

    async def _on_chain_part(self, part: ChainPart) -> None:
        for where, fetch in list(self._fetches.items()):
            domain, key, epoch, start = where
            same = (domain, key, epoch) == (part.domain, part.key, part.epoch)
            if not same or start + len(fetch.ids) != part.start or not part.ids:
                continue
            fetch.ids += part.ids[: fetch.end - part.start]
            if start + len(fetch.ids) < fetch.end:
                self._ask_chain(where, fetch)
                continue
            self._store.fill(domain, key, epoch, start, fetch.ids)
            await self._want(fetch.ids)


def _beat_id(beat: Item) -> StatementId:
    return parse(Kind.HEARTBEAT, beat.data).statement_id


def _named_revocations(items: Iterable[Item]) -> list[StatementId]:
    named: list[StatementId] = []
    for item in items:
        if item.kind is Kind.HEARTBEAT:
            recent = parse(Kind.HEARTBEAT, item.data).claims.get(Claim.RECENT)
            if isinstance(recent, list):
                named += [StatementId(one) for one in recent if isinstance(one, bytes)]
    return named
