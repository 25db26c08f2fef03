"""A node of the DHT: finds and stores records, keeps its table and its share of the records."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Iterable
from types import TracebackType
from typing import Final, Self

import structlog

from authd.core.identity import PublicKey, SigningKey
from authd.core.records import Record, encode_record, newest, record_target, verify_record
from authd.dht.dialogue import Dialogue, chance
from authd.dht.gate import Gate
from authd.dht.lookup import REPLICAS, Finding, Lookup
from authd.dht.messages import (
    NODE_ID_BYTES,
    Address,
    Find,
    Found,
    Store,
    Stored,
    Verdict,
    node_id,
)
from authd.dht.rates import RateLimiter
from authd.dht.responder import Responder
from authd.dht.seals import Seals
from authd.dht.shelf import RecordStore, Shelf
from authd.dht.table import Contact, Table
from authd.dht.udp import Endpoint, open_endpoint
from authd.errors import (
    AuthdError,
    EquivocationError,
    FormatError,
    NetworkError,
    NoPeersError,
    NoResponseError,
    NotFoundError,
    ReasonCode,
    RejectedError,
    StaleRecordError,
)
from authd.service.ports import Admission, Clock, Entropy, NetworkStats

# A greeting of 100 nodes at once from one host stays below; a flood does not.
DATAGRAMS_PER_S: Final = 500.0
BURST_DATAGRAMS: Final = 2_000.0
MISS_REMEMBERED_S: Final = 30.0
FRESH_COPIES: Final = 8
_DEAD_S: Final = 10.0
_MAX_MISSES: Final = 10_000
_MAX_GREETINGS: Final = 256
_SILENT_S: Final = 60.0
_UPKEEP_S: Final = 5.0
_PINGS_PER_UPKEEP: Final = 8
_REPUBLISH_PER_UPKEEP: Final = 32
_REFRESH_S: Final = 600.0
_FIRST_RETRY_S: Final = 0.5
_LAST_RETRY_S: Final = 30.0
# Holders that hand records to a joiner: more would only repeat each other.
_HANDING_HOLDERS: Final = 3
_log = structlog.get_logger("authd.dht")


class DhtNode:
    """`RecordNetwork` over our own datagrams; ``async with`` it and keep `run` running."""

    def __init__(
        self,
        *,
        key: SigningKey,
        admission: Admission,
        clock: Clock,
        entropy: Entropy,
        host: str = "127.0.0.1",
        port: int = 0,
        bootstrap: Iterable[str] = (),
        reachable: bool = True,
        store: RecordStore | None = None,
        miss_remembered_s: float = MISS_REMEMBERED_S,
    ) -> None:
        """Prepare; the socket opens on entry.

        Args:
            key: The node key, which is no issuer's.
            admission: Who may be a peer.
            clock: Time.
            entropy: Nonces, secrets and jitter.
            host: Address to bind, IPv4 or IPv6.
            port: UDP port; 0 lets the system choose.
            bootstrap: ``host:port`` of nodes to begin with.
            reachable: False for a node that only others' firewalls can reach: it is in no table.
            store: Where records outlive the process.
            miss_remembered_s: How long an absence is believed; seconds.
        """
        self._key = key
        self._own_id = node_id(key.public)
        self._clock = clock
        self._entropy = entropy
        self._host, self._port = host, port
        self._bootstrap = list(bootstrap)
        self._miss_remembered_s = miss_remembered_s
        self._gate = Gate(admission)
        self._table = Table(own_id=self._own_id)
        self._shelf = Shelf(store=store)
        self._misses: OrderedDict[bytes, float] = OrderedDict()
        self._dead: dict[bytes, float] = {}
        self._greetings: asyncio.Queue[Contact] = asyncio.Queue(_MAX_GREETINGS)
        self._joiners: asyncio.Queue[Contact] = asyncio.Queue(_MAX_GREETINGS)
        self._endpoint: Endpoint | None = None
        self._dialogue = Dialogue(
            key=key,
            clock=clock,
            entropy=entropy,
            gate=self._gate,
            table=self._table,
            responder=Responder(
                table=self._table,
                shelf=self._shelf,
                seals=Seals(secret=entropy.token(32)),
                gate=self._gate,
            ),
            limiter=RateLimiter(rate_per_s=DATAGRAMS_PER_S, burst=BURST_DATAGRAMS),
            reachable=reachable,
            send=self._send,
            on_greeting=lambda contact: _offer(self._greetings, contact),
            on_contact=lambda contact: _offer(self._joiners, contact),
        )

    # --- life -----------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._shelf.load(now=self._clock.now(), chance=chance(self._entropy))
        receive = self._dialogue.receive
        self._endpoint = await open_endpoint(self._host, self._port, receive)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._endpoint is not None:
            self._endpoint.close()

    async def run(self) -> None:
        """Join the network and keep the table and the records; returns only when cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_joined(), name="dht-join")
            group.create_task(self._greet_back(), name="dht-greet")
            group.create_task(self._hand_over(), name="dht-hand-over")
            group.create_task(self._keep_up(), name="dht-upkeep")

    @property
    def address(self) -> Address:
        """Where the socket is bound.

        Raises:
            NoPeersError: It is not open.
        """
        if self._endpoint is None:
            raise NoPeersError("the DHT's port is not open")
        return self._endpoint.address

    def drop(self, node_key: PublicKey) -> None:
        """Evict a node whose admission ended."""
        self._gate.drop(node_key)
        self._table.remove(node_id(node_key))

    def add_bootstrap(self, address: str) -> None:
        """Remember one more ``host:port`` to begin with."""
        if address not in self._bootstrap:
            self._bootstrap.append(address)

    def forget_misses(self) -> None:
        """Believe no absence any longer, because news came by another way."""
        self._misses.clear()

    # --- RecordNetwork --------------------------------------------------------------------

    async def put(self, record: Record) -> int:
        """Store a record at the nodes nearest to it; return how many took it.

        It is kept here in any case and republished until its end of life.

        Raises:
            NoPeersError: Nobody to ask; it goes out when somebody is.
            NoResponseError: Nobody answered in time; the same.
            RejectedError: Nobody took it, with a peer's reason.
        """
        now = self._clock.now()
        taken = self._shelf.take(record, now=now, chance=chance(self._entropy), own=True)
        if taken is Verdict.STALE:
            raise RejectedError("a newer record is held here", reason=ReasonCode.STALE_RECORD)
        self._misses.pop(record.target, None)
        if not len(self._table):
            raise NoPeersError("no node of the DHT is known yet")
        lookup = await self._look_up(record.target, reading=False, have_seq=record.seq)
        findings = lookup.findings()[:REPLICAS]
        if not findings:
            raise NoResponseError("no node of the DHT answered")
        verdicts = await self._store_at(findings, record)
        accepted = verdicts.count(Verdict.ACCEPTED)
        if not accepted:
            raise _rejection(verdicts)
        return accepted

    async def get(self, publisher: PublicKey, salt: bytes) -> Record:
        """Find the newest record.

        Raises:
            NoPeersError: Nobody to ask.
            NoResponseError: Nobody answered in time.
            NotFoundError: Answered: no such record.
        """
        target = record_target(publisher, salt)
        held = self._shelf.get(target, now=self._clock.now())
        if held is None and self._misses.get(target, 0.0) > self._clock.monotonic():
            raise NotFoundError("no such record was found a moment ago")
        if not len(self._table):
            if held is None:
                raise NoPeersError("no node of the DHT is known yet")
            return held
        lookup = await self._look_up(target, reading=True, have_seq=held.seq if held else -1)
        found = _newer(held, lookup.newest_record())
        if found is not None and (found.publisher, found.salt) == (publisher, salt):
            return found
        if not lookup.findings():
            raise NoResponseError("no node of the DHT answered")
        self._remember_miss(target)
        raise NotFoundError("no such record in the DHT")

    def neighbours(self) -> list[str]:
        """Return the addresses of known nodes, ``host:port``."""
        return [_text(contact.address) for contact in self._table.contacts()]

    def stats(self) -> NetworkStats:
        """Return figures for status and metrics."""
        endpoint = self._endpoint
        return NetworkStats(
            peers=len(self._table),
            records=len(self._shelf),
            sent_bytes=endpoint.sent_bytes if endpoint else 0,
            received_bytes=endpoint.received_bytes if endpoint else 0,
        )

    # --- lookups --------------------------------------------------------------------------

    async def _look_up(self, target: bytes, *, reading: bool, have_seq: int) -> Lookup:
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
                finding = self._finding(answered, answer.message, find)
                self._dead.pop(answered.node_id, None)
        events.put_nowait((contact.node_id, finding))

    def _finding(self, contact: Contact, found: Found, find: Find) -> Finding:
        record = None
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

    def _remember_miss(self, target: bytes) -> None:
        self._misses.pop(target, None)
        self._misses[target] = self._clock.monotonic() + self._miss_remembered_s
        if len(self._misses) > _MAX_MISSES:
            self._misses.popitem(last=False)

    # --- storing --------------------------------------------------------------------------

    async def _store_at(self, findings: Iterable[Finding], record: Record) -> list[Verdict]:
        encoded = encode_record(record)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._store_one(finding, record, encoded), name="dht-store")
                for finding in findings
            ]
        return [verdict for task in tasks if (verdict := task.result()) is not None]

    async def _store_one(
        self,
        finding: Finding,
        record: Record,
        encoded: bytes,
    ) -> Verdict | None:
        if finding.seq == record.seq:
            return Verdict.ACCEPTED
        if finding.seq > record.seq:
            return Verdict.STALE
        try:
            store = Store(token=finding.token, record=encoded)
            answer = await self._dialogue.converse(finding.contact, store)
        except NetworkError:
            return None
        return answer.message.verdict if isinstance(answer.message, Stored) else None

    async def _republish(self, record: Record) -> None:
        lookup = await self._look_up(record.target, reading=False, have_seq=record.seq)
        now, spread = self._clock.now(), chance(self._entropy)
        newer = lookup.newest_record()
        if newer is not None:
            self._shelf.take(newer, now=now, chance=spread)
            return
        findings = lookup.findings()[:REPLICAS]
        copies = sum(finding.seq >= record.seq for finding in findings)
        if copies < FRESH_COPIES:
            await self._store_at(findings, record)
        if self._is_near(record.target, [finding.contact for finding in findings], REPLICAS):
            self._shelf.renew(record.target, now=now, chance=spread)
        else:
            self._shelf.postpone(record.target, now=now, chance=spread)

    def _is_near(self, target: bytes, others: Iterable[Contact], count: int) -> bool:
        own = _distance(self._own_id, target)
        return sum(_distance(one.node_id, target) < own for one in others) < count

    # --- upkeep ---------------------------------------------------------------------------

    async def _keep_joined(self) -> None:
        retry_s, refresh_at = _FIRST_RETRY_S, 0.0
        while True:
            if not len(self._table):
                await self._ask_bootstrap()
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

    async def _ask_bootstrap(self) -> None:
        endpoint = self._endpoint
        if endpoint is None:
            return
        for text in list(self._bootstrap):
            for address in await endpoint.resolve(text):
                if address != endpoint.address:
                    await self._try_greeting(Contact(node_id=b"", address=address))

    async def _refresh(self) -> None:
        for target in (self._own_id, self._entropy.token(NODE_ID_BYTES)):
            await self._look_up(target, reading=False, have_seq=-1)

    async def _try_greeting(self, contact: Contact) -> bool:
        try:
            await self._dialogue.greet(contact)
        except NetworkError as error:
            _log.debug("dht.greeting_failed", peer=_text(contact.address), reason=error.reason)
            return False
        return True

    async def _greet_back(self) -> None:
        while True:
            contact = await self._greetings.get()
            if contact.node_id not in self._table:
                await self._try_greeting(contact)

    async def _hand_over(self) -> None:
        """Show each new contact the records it should hold, if this node is among the nearest."""
        while True:
            joiner = await self._joiners.get()
            others = [one for one in self._table.contacts() if one.node_id != joiner.node_id]
            for record in self._shelf.records(now=self._clock.now()):
                if not self._is_near(record.target, others, _HANDING_HOLDERS):
                    continue
                nearer = sum(
                    _distance(one.node_id, record.target) < _distance(joiner.node_id, record.target)
                    for one in others
                )
                if nearer < REPLICAS and not await self._hand(joiner, record):
                    break

    async def _hand(self, joiner: Contact, record: Record) -> bool:
        find = Find(target=record.target, have_seq=record.seq)
        try:
            answer = await self._dialogue.converse(joiner, find)
        except NetworkError:
            return False
        if not isinstance(answer.message, Found):
            return False
        try:
            finding = self._finding(joiner, answer.message, find)
        except AuthdError:
            return False
        await self._store_one(finding, record, encode_record(record))
        return True

    async def _keep_up(self) -> None:
        while True:
            await asyncio.sleep(_UPKEEP_S * (0.5 + chance(self._entropy)))
            since = self._clock.monotonic() - _SILENT_S
            for contact in self._table.silent(since=since, count=_PINGS_PER_UPKEEP):
                if not await self._try_greeting(contact):
                    self._table.strike(contact.node_id)
            self._shelf.forget_expired(now=self._clock.now())
            if len(self._table):
                due = self._shelf.due(now=self._clock.now(), most=_REPUBLISH_PER_UPKEEP)
                for record in due:
                    await self._republish(record)

    def _send(self, data: bytes, address: Address) -> None:
        if self._endpoint is not None:
            self._endpoint.send(data, address)


def _offer(queue: asyncio.Queue[Contact], contact: Contact) -> None:
    # Best effort: whoever does not fit greets again, or is found by a lookup.
    with contextlib.suppress(asyncio.QueueFull):
        queue.put_nowait(contact)


def _distance(first: bytes, second: bytes) -> int:
    return int.from_bytes(first, "big") ^ int.from_bytes(second, "big")


def _newer(held: Record | None, found: Record | None) -> Record | None:
    if found is None:
        return held
    try:
        return newest(held, found)
    except (StaleRecordError, EquivocationError):
        return held


def _rejection(verdicts: list[Verdict]) -> NetworkError:
    if not verdicts:
        return NoResponseError("no node of the DHT answered when asked to store")
    if Verdict.STALE in verdicts:
        return RejectedError("nodes hold a newer record", reason=ReasonCode.STALE_RECORD)
    return RejectedError(f"no node took the record: {verdicts[0].name.lower()}")


def _text(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
