"""Lookups and stores: what drives the state machine of `authd.dht.lookup` with real answers."""

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Final

from authd.core.records import Record, encode_record, verify_record
from authd.dht.dialogue import Dialogue
from authd.dht.lookup import REPLICAS, Finding, Lookup
from authd.dht.messages import Find, Found, Store, Stored, Verdict
from authd.dht.table import Contact, Table
from authd.errors import AuthdError, FormatError
from authd.service.ports import Clock

_DEAD_S: Final = 10.0


class Search:
    """Finds records and nodes, and stores at them."""

    def __init__(self, *, own_id: bytes, clock: Clock, table: Table, dialogue: Dialogue) -> None:
        """Search from ``table`` over ``dialogue``."""
        self._own_id = own_id
        self._clock = clock
        self._table = table
        self._dialogue = dialogue
        self._dead: dict[bytes, float] = {}

    async def look_up(self, target: bytes, *, reading: bool, have_seq: int) -> Lookup:
        """Run a lookup to its end; nodes that failed it are not asked again for some seconds."""
        lookup = Lookup(
            target=target,
            own_id=self._own_id,
            reading=reading,
            contacts=self._table.nearest(target, count=REPLICAS),
            srtt_s=self._dialogue.srtt_s,
            dead=self._dead_now(),
        )
        find = Find(target=target, have_seq=have_seq)
        await self._drive(lookup, find)
        for failed in lookup.failed():
            self._table.strike(failed)
            self._dead[failed] = self._clock.monotonic() + _DEAD_S
        return lookup

    async def _drive(self, lookup: Lookup, find: Find) -> None:
        events: asyncio.Queue[tuple[bytes, Finding | None]] = asyncio.Queue()
        async with asyncio.TaskGroup() as group:
            tasks: list[asyncio.Task[None]] = []
            asked = lookup.start(self._clock.monotonic())
            while not lookup.done:
                tasks += [
                    group.create_task(self._query(contact, find, events), name="dht-query")
                    for contact in asked
                ]
                event = await self._next_event(lookup, events)
                now = self._clock.monotonic()
                match event:
                    case None:
                        asked = lookup.on_timer(now)
                    case (failed, None):
                        asked = lookup.on_failure(failed, now)
                    case (_, finding):
                        asked = lookup.on_answer(finding, now)
            for task in tasks:
                task.cancel()

    async def _next_event(
        self,
        lookup: Lookup,
        events: asyncio.Queue[tuple[bytes, Finding | None]],
    ) -> tuple[bytes, Finding | None] | None:
        wakes_at = lookup.wakes_at()
        if wakes_at is None:
            return None
        try:
            async with asyncio.timeout(max(0.0, wakes_at - self._clock.monotonic())):
                return await events.get()
        except TimeoutError:
            return None

    async def _query(
        self,
        contact: Contact,
        find: Find,
        events: asyncio.Queue[tuple[bytes, Finding | None]],
    ) -> None:
        finding: Finding | None = None
        with contextlib.suppress(AuthdError):
            answer = await self._dialogue.converse(contact, find, tries=1)
            answered = Contact(node_id=answer.sender_id, address=contact.address, key=answer.sender)
            if isinstance(answer.message, Found):
                finding = self.finding(answered, answer.message, find)
                self._dead.pop(answered.node_id, None)
        events.put_nowait((contact.node_id, finding))

    def finding(self, contact: Contact, found: Found, find: Find) -> Finding:
        """Verify what a node answered to ``find``.

        Raises:
            FormatError: Another record than was asked for, or a malformed one.
            LimitError: A record from too far ahead of this host's clock.
            VerificationError: A record that does not verify or is dead.
        """
        record = None
        if not found.record and found.seq > find.have_seq:
            raise FormatError("an answer that names a newer record and does not show it")
        if found.record:
            record = verify_record(found.record, now=self._clock.now())
            if record.target != find.target or record.seq != found.seq:
                raise FormatError("an answer with another record than was asked for")
        return Finding(
            contact=contact,
            token=found.token,
            seq=found.seq,
            record=record,
            nodes=tuple(Contact(node_id=n.node_id, address=n.address) for n in found.nodes),
        )

    def _dead_now(self) -> frozenset[bytes]:
        now = self._clock.monotonic()
        self._dead = {one: until for one, until in self._dead.items() if until > now}
        dead = frozenset(self._dead)
        # If everybody seems dead, it is our own line that was cut: ask all again.
        everybody = all(contact.node_id in dead for contact in self._table.contacts())
        return frozenset() if everybody else dead

    async def store_at(self, findings: Iterable[Finding], record: Record) -> list[Verdict]:
        """Store a record where ``findings`` say, at once; return the verdicts that came."""
        encoded = encode_record(record)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self.store_one(finding, record, encoded), name="dht-store")
                for finding in findings
            ]
        return [verdict for task in tasks if (verdict := task.result()) is not None]

    async def store_one(
        self,
        finding: Finding,
        record: Record,
        encoded: bytes,
    ) -> Verdict | None:
        """Store a record at one node unless it has it; None if it did not answer."""
        if finding.seq == record.seq:
            return Verdict.ACCEPTED
        if finding.seq > record.seq:
            return Verdict.STALE
        try:
            store = Store(token=finding.token, record=encoded)
            answer = await self._dialogue.converse(finding.contact, store)
        except AuthdError:
            return None
        return answer.message.verdict if isinstance(answer.message, Stored) else None
