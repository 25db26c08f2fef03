"""What a node does by itself: join, greet back, hand records over, republish, test contacts."""

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Final

import structlog

from authd.core.records import Record, encode_record
from authd.dht.dialogue import Dialogue, chance
from authd.dht.lookup import REPLICAS
from authd.dht.messages import NODE_ID_BYTES, Find, Found
from authd.dht.search import Search
from authd.dht.shelf import Shelf
from authd.dht.table import Contact, Table
from authd.dht.udp import Endpoint, address_text
from authd.errors import AuthdError, StoreError
from authd.service.ports import Clock, Entropy

FRESH_COPIES: Final = 8
_MAX_WAITING: Final = 256
_SILENT_S: Final = 60.0
_UPKEEP_S: Final = 5.0
_PINGS_PER_UPKEEP: Final = 8
_REPUBLISH_PER_UPKEEP: Final = 32
_REFRESH_S: Final = 600.0
_FIRST_RETRY_S: Final = 0.5
_LAST_RETRY_S: Final = 30.0
# Holders that hand records to a joiner: more would only repeat each other.
_HANDING_HOLDERS: Final = 3
# So many at once, then at a pace that the joiner answers (two requests a record).
_HANDED_AT_ONCE: Final = 100
_HANDED_PER_S: Final = 25.0
_log = structlog.get_logger("authd.dht")


class Arrivals:
    """Nodes that turned up and are to be dealt with soon; what does not fit is forgotten."""

    def __init__(self) -> None:
        """Start empty."""
        self.greetings: asyncio.Queue[Contact] = asyncio.Queue(_MAX_WAITING)
        self.joiners: asyncio.Queue[Contact] = asyncio.Queue(_MAX_WAITING)

    def on_greeting(self, contact: Contact) -> None:
        """Note an admitted node that greeted and is in no bucket: it is to be greeted back."""
        _offer(self.greetings, contact)

    def on_contact(self, contact: Contact) -> None:
        """Note a new contact: it is to be handed the records it should hold."""
        _offer(self.joiners, contact)


class Upkeep:
    """The loops of a node."""

    def __init__(
        self,
        *,
        own_id: bytes,
        clock: Clock,
        entropy: Entropy,
        table: Table,
        shelf: Shelf,
        dialogue: Dialogue,
        search: Search,
        arrivals: Arrivals,
    ) -> None:
        """Prepare; ``host:port`` of nodes to begin with go into ``bootstrap``."""
        self._own_id = own_id
        self._clock = clock
        self._entropy = entropy
        self._table = table
        self._shelf = shelf
        self._dialogue = dialogue
        self._search = search
        self._arrivals = arrivals
        self.bootstrap: list[str] = []

    async def run(self, endpoint: Endpoint) -> None:
        """Run every loop; returns only when cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_joined(endpoint), name="dht-join")
            group.create_task(self._greet_back(), name="dht-greet")
            group.create_task(self._hand_over(), name="dht-hand-over")
            group.create_task(self._keep_up(), name="dht-upkeep")

    async def _keep_joined(self, endpoint: Endpoint) -> None:
        retry_s, refresh_at = _FIRST_RETRY_S, 0.0
        while True:
            if not len(self._table):
                await self._ask_bootstrap(endpoint)
                refresh_at = 0.0
            if not len(self._table):
                await asyncio.sleep(retry_s * chance(self._entropy))
                retry_s = min(_LAST_RETRY_S, 2 * retry_s)
            elif self._clock.monotonic() >= refresh_at:
                await self._refresh()
                retry_s = _FIRST_RETRY_S
                wait_s = _REFRESH_S * (0.5 + 0.5 * chance(self._entropy))
                refresh_at = self._clock.monotonic() + wait_s
            else:
                await asyncio.sleep(_FIRST_RETRY_S)

    async def _ask_bootstrap(self, endpoint: Endpoint) -> None:
        for text in list(self.bootstrap):
            for address in await endpoint.resolve(text):
                if address != endpoint.address:
                    await self._greet(Contact(node_id=b"", address=address))

    async def _refresh(self) -> None:
        for target in (self._own_id, self._entropy.token(NODE_ID_BYTES)):
            await self._search.look_up(target, reading=False, have_seq=-1)

    async def _greet(self, contact: Contact) -> bool:
        try:
            await self._dialogue.greet(contact)
        except AuthdError as error:
            _log.debug(
                "dht.greeting_failed", peer=address_text(contact.address), reason=error.reason
            )
            return False
        return True

    async def _greet_back(self) -> None:
        while True:
            contact = await self._arrivals.greetings.get()
            if contact.node_id not in self._table:
                await self._greet(contact)

    async def _hand_over(self) -> None:
        """Show each new contact the records it should hold, if this node is among the nearest."""
        while True:
            joiner, handed = await self._arrivals.joiners.get(), 0
            others = [one for one in self._table.contacts() if one.node_id != joiner.node_id]
            for record in self._shelf.records(now=self._clock.now()):
                if not self._is_near(record.target, others, _HANDING_HOLDERS):
                    continue
                nearer = sum(
                    _distance(one.node_id, record.target) < _distance(joiner.node_id, record.target)
                    for one in others
                )
                if nearer >= REPLICAS:
                    continue
                handed += 1
                if handed > _HANDED_AT_ONCE:
                    await asyncio.sleep(1 / _HANDED_PER_S)
                if not await self._hand(joiner, record):
                    break

    async def _hand(self, joiner: Contact, record: Record) -> bool:
        find = Find(target=record.target, have_seq=record.seq)
        try:
            answer = await self._dialogue.converse(joiner, find)
            if not isinstance(answer.message, Found):
                return False
            finding = self._search.finding(joiner, answer.message, find)
        except AuthdError:
            return False
        await self._search.store_one(finding, record, encode_record(record))
        return True

    async def _keep_up(self) -> None:
        while True:
            await asyncio.sleep(_UPKEEP_S * (0.5 + chance(self._entropy)))
            try:
                await self._test_silent()
                await self._republish_due()
            except StoreError as error:
                _log.warning("dht.store_failed", detail=str(error))

    async def _test_silent(self) -> None:
        since = self._clock.monotonic() - _SILENT_S
        for contact in self._table.silent(since=since, count=_PINGS_PER_UPKEEP):
            if not await self._greet(contact):
                self._table.strike(contact.node_id)

    async def _republish_due(self) -> None:
        self._shelf.forget_expired(now=self._clock.now())
        if not len(self._table):
            return
        for record in self._shelf.due(now=self._clock.now(), most=_REPUBLISH_PER_UPKEEP):
            await self._republish(record)

    async def _republish(self, record: Record) -> None:
        lookup = await self._search.look_up(record.target, reading=False, have_seq=record.seq)
        now, spread = self._clock.now(), chance(self._entropy)
        newer = lookup.newest_record()
        if newer is not None:
            self._shelf.take(newer, now=now, chance=spread)
            return
        findings = lookup.findings()[:REPLICAS]
        copies = sum(finding.seq >= record.seq for finding in findings)
        if copies < FRESH_COPIES:
            await self._search.store_at(findings, record)
        if self._is_near(record.target, [finding.contact for finding in findings], REPLICAS):
            self._shelf.renew(record.target, now=now, chance=spread)
        else:
            self._shelf.postpone(record.target, now=now, chance=spread)

    def _is_near(self, target: bytes, others: Iterable[Contact], count: int) -> bool:
        own = _distance(self._own_id, target)
        return sum(_distance(one.node_id, target) < own for one in others) < count


def _offer(queue: asyncio.Queue[Contact], contact: Contact) -> None:
    # Best effort: whoever does not fit greets again, or is found by a lookup.
    with contextlib.suppress(asyncio.QueueFull):
        queue.put_nowait(contact)


def _distance(first: bytes, second: bytes) -> int:
    return int.from_bytes(first, "big") ^ int.from_bytes(second, "big")
