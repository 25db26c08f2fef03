"""Tells passive peers what is new, and answers those who tell."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import structlog

from authd.core.identity import PublicKey, SigningKey, StatementId
from authd.errors import AuthdError
from authd.gossip.announce import Desk, Rounds
from authd.gossip.messages import (
    MAX_ANNOUNCED,
    MAX_ITEMS,
    TOKEN_BYTES,
    Ask,
    Deliver,
    Have,
    Sample,
    Tick,
    batches,
    sign_have,
)
from authd.gossip.transport import Hinted, Transport
from authd.gossip.views import Views
from authd.gossip.wire import encode_frame, parse_frame
from authd.service.ports import Admission, Clock, Entropy, GossipStore

# To whom the daemon that publishes something announces it at once, besides its active peers.
PUBLISHER_TELLS: Final = 8
# Who does not answer within this time may be gone, and others too: so many are told instead.
_PATIENCE_S: Final = 1.0
_TOLD_INSTEAD: Final = 3
_MAX_TELLING: Final = 32
_log = structlog.get_logger("authd.gossip")


class Herald:
    """Announcements out and in."""

    def __init__(
        self,
        *,
        key: SigningKey,
        transport: Transport,
        views: Views,
        store: GossipStore,
        admission: Admission,
        clock: Clock,
        entropy: Entropy,
        took_in: Callable[[set[StatementId]], Awaitable[None]],
    ) -> None:
        """Wire the parts; ``took_in`` sends on what a delivery brought."""
        self._key = key
        self._transport = transport
        self._views = views
        self._store = store
        self._admission = admission
        self._clock = clock
        self._entropy = entropy
        self._took_in = took_in
        self._rounds = Rounds()
        self._desk = Desk(now=clock.monotonic())
        self._news = asyncio.Event()
        self._telling = 0
        # In which turn each passive node was told of something last.
        self._told: dict[PublicKey, int] = {}
        self._turn = 0

    # --- out ------------------------------------------------------------------------------

    def on_news(self, ids: Iterable[StatementId]) -> None:
        """Plan to announce what is new here."""
        self._rounds.add(ids, now=self._clock.monotonic())
        self._news.set()

    async def publish(self, ids: Iterable[StatementId]) -> int:
        """Announce something of one's own at once; return how many nodes have it then."""
        listed = list(ids)
        if not listed:
            return 0
        tells = [self._tell(one, listed) for one in self._choose(PUBLISHER_TELLS)]
        answers = await asyncio.gather(*tells)
        return sum(one is not None for one in answers)

    async def run(self) -> None:
        """Announce each round when it is due; returns only when cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._wait()
                tells, ids = self._rounds.due(now=self._clock.monotonic())
                if ids and self._telling < _MAX_TELLING:
                    group.create_task(self._tell_round(tells, ids), name="gossip-tell")

    async def _tell_round(self, tells: int, ids: tuple[StatementId, ...]) -> None:
        tellings = [self._tell_or_others(one, ids) for one in self._choose(tells)]
        lacked = await asyncio.gather(*tellings)
        if lacked and not any(one is None or one for one in lacked):
            self._rounds.settle(ids)

    async def _tell_or_others(self, sample: Sample, ids: tuple[StatementId, ...]) -> int | None:
        """Tell one node, and others at once if it does not answer; return what it answered."""
        async with asyncio.TaskGroup() as group:
            telling = group.create_task(self._tell(sample, ids), name="gossip-tell-one")
            await asyncio.wait([telling], timeout=_PATIENCE_S)
            if not telling.done() or telling.result() is None:
                for other in self._choose(_TOLD_INSTEAD):
                    group.create_task(self._tell(other, ids), name="gossip-tell-other")
        return telling.result()

    async def _wait(self) -> None:
        self._news.clear()
        due_at = self._rounds.next_at()
        if due_at is None:
            await self._news.wait()
            return
        await asyncio.sleep(max(0.0, due_at - self._clock.monotonic()))

    def _choose(self, count: int) -> list[Sample]:
        """Draw from those that were told longest ago, so that rounds of one news do not overlap."""
        passive = self._views.passive()
        self._told = {one.key: self._told.get(one.key, 0) for one in passive}
        chosen: list[Sample] = []
        while passive and len(chosen) < count:
            longest_ago = min(self._told[one.key] for one in passive)
            ready = [one for one in passive if self._told[one.key] == longest_ago]
            draw = int.from_bytes(self._entropy.token(4), "big")
            chosen.append(ready[draw % len(ready)])
            passive.remove(chosen[-1])
        self._turn += 1
        self._told |= {one.key: self._turn for one in chosen}
        return chosen

    async def _tell(self, sample: Sample, ids: Iterable[StatementId]) -> int | None:
        """Announce to one node and deliver what it asks for; return how much; None: no answer."""
        self._telling += 1
        lacked = 0
        try:
            for batch in batches(ids, MAX_ANNOUNCED):
                # A connection for each: a stranger's may say so much and no more.
                async with self._transport.hinting(sample.address) as ask:
                    have = sign_have(self._key, batch, issued_at=self._clock.now())
                    answer = parse_frame(await ask(encode_frame(have)))
                    if isinstance(answer, Ask) and answer.ids:
                        lacked += len(answer.ids)
                        await self._deliver(answer, ask)
        except AuthdError as error:
            _log.debug("gossip.not_told", peer=sample.address, reason=error.reason)
            return None
        finally:
            self._telling -= 1
        return lacked

    async def _deliver(self, wanted: Ask, ask: Hinted) -> None:
        held = map(self._store.statement, wanted.ids)
        items = tuple(item for item in held if item is not None)
        await ask(encode_frame(Deliver(wanted.token, items[:MAX_ITEMS])))

    # --- in -------------------------------------------------------------------------------

    async def hinted(self, data: bytes) -> bytes:
        """Answer one frame of a node that has no stream; whatever is wrong with it is no news."""
        try:
            return encode_frame(await self._answer(data))
        except AuthdError as error:
            _log.debug("gossip.hint_refused", reason=error.reason, detail=str(error))
            return encode_frame(Tick())

    async def _answer(self, data: bytes) -> Ask | Tick:
        now = self._clock.monotonic()
        if not self._desk.may_come(now=now):
            return Tick()
        match parse_frame(data):
            case Have() as have:
                return self._desk.on_have(
                    have,
                    lacks=self._lacks,
                    admits=self._admits,
                    token=self._entropy.token(TOKEN_BYTES),
                    now=now,
                    wall_now=self._clock.now(),
                )
            case Deliver() as deliver:
                items = self._desk.on_deliver(deliver, now=now)
                await self._took_in(set(await self._store.receive(items, peer="an announcer")))
                return Tick()
            case _:
                return Tick()

    def _lacks(self, statement_id: StatementId) -> bool:
        return self._store.statement(statement_id) is None

    def _admits(self, key: PublicKey) -> bool:
        return key != self._key.public and self._admission.admits(key)
