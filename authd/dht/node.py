"""A node of the DHT: finds and stores records, keeps its table and its share of the records."""

from collections import OrderedDict
from collections.abc import Iterable
from types import TracebackType
from typing import Final, Self

from authd.core.identity import PublicKey, SigningKey
from authd.core.records import Record, encode_record, newest, record_target, verify_record
from authd.dht.dialogue import Dialogue, chance
from authd.dht.gate import Gate
from authd.dht.lookup import REPLICAS
from authd.dht.messages import Address, Verdict, node_id
from authd.dht.rates import RateLimiter
from authd.dht.responder import Responder
from authd.dht.seals import SECRET_BYTES, Seals
from authd.dht.search import Search
from authd.dht.shelf import RecordStore, Shelf
from authd.dht.table import Table
from authd.dht.udp import Endpoint, address_text, open_endpoint, parse_host_port
from authd.dht.upkeep import Arrivals, Upkeep
from authd.errors import (
    EquivocationError,
    FormatError,
    LimitError,
    NetworkError,
    NoPeersError,
    NoResponseError,
    NotFoundError,
    ReasonCode,
    RejectedError,
    StaleRecordError,
    VerificationError,
)
from authd.service.ports import Admission, Clock, Entropy, NetworkStats

# A greeting of 100 nodes at once from one host stays below; a flood does not.
DATAGRAMS_PER_S: Final = 500.0
BURST_DATAGRAMS: Final = 2_000.0
MISS_REMEMBERED_S: Final = 30.0
_MAX_MISSES: Final = 10_000


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

        Raises:
            ConfigError: An address in ``bootstrap`` is not of that form.
        """
        self._key = key
        self._own_id = node_id(key.public)
        self._clock = clock
        self._entropy = entropy
        self._host, self._port = host, port
        self._miss_remembered_s = miss_remembered_s
        self._misses: OrderedDict[bytes, float] = OrderedDict()
        self._endpoint: Endpoint | None = None
        self._gate = Gate(admission)
        self._table = Table(own_id=self._own_id)
        self._shelf = Shelf(store=store)
        arrivals = Arrivals()
        self._dialogue = self._make_dialogue(arrivals, reachable=reachable)
        self._search = Search(
            own_id=self._own_id, clock=clock, table=self._table, dialogue=self._dialogue
        )
        self._upkeep = Upkeep(
            own_id=self._own_id,
            clock=clock,
            entropy=entropy,
            table=self._table,
            shelf=self._shelf,
            dialogue=self._dialogue,
            search=self._search,
            arrivals=arrivals,
        )
        for address in bootstrap:
            self.add_bootstrap(address)

    def _make_dialogue(self, arrivals: Arrivals, *, reachable: bool) -> Dialogue:
        return Dialogue(
            key=self._key,
            clock=self._clock,
            entropy=self._entropy,
            gate=self._gate,
            table=self._table,
            responder=Responder(
                table=self._table,
                shelf=self._shelf,
                seals=Seals(secret=self._entropy.token(SECRET_BYTES)),
                gate=self._gate,
            ),
            limiter=RateLimiter(rate_per_s=DATAGRAMS_PER_S, burst=BURST_DATAGRAMS),
            reachable=reachable,
            send=self._send,
            on_greeting=arrivals.on_greeting,
            on_contact=arrivals.on_contact,
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
        """Join the network and keep the table and the records; returns only when cancelled.

        Raises:
            NoPeersError: Not entered.
        """
        if self._endpoint is None:
            raise NoPeersError("the DHT's port is not open")
        await self._upkeep.run(self._endpoint)

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
        """Remember one more ``host:port`` to begin with.

        Raises:
            ConfigError: Not of that form.
        """
        parse_host_port(address)
        if address not in self._upkeep.bootstrap:
            self._upkeep.bootstrap.append(address)

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
            RejectedError: Nobody took it, with a peer's reason, or it does not verify.
            StoreError: It could not be made durable here; nobody else was asked.
        """
        now = self._clock.now()
        try:
            verify_record(encode_record(record), now=now)
        except (FormatError, LimitError, VerificationError) as error:
            raise RejectedError(str(error), reason=error.reason) from error
        taken = self._shelf.take(record, now=now, chance=chance(self._entropy), own=True)
        if taken is Verdict.STALE:
            raise RejectedError("a newer record is held here", reason=ReasonCode.STALE_RECORD)
        self._misses.pop(record.target, None)
        if not len(self._table):
            raise NoPeersError("no node of the DHT is known yet")
        lookup = await self._search.look_up(record.target, reading=False, have_seq=record.seq)
        findings = lookup.findings()[:REPLICAS]
        if not findings:
            raise NoResponseError("no node of the DHT answered")
        verdicts = await self._search.store_at(findings, record)
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
        lookup = await self._search.look_up(target, reading=True, have_seq=held.seq if held else -1)
        found = _newer(held, lookup.newest_record())
        if found is not None and (found.publisher, found.salt) == (publisher, salt):
            return found
        if not lookup.findings():
            raise NoResponseError("no node of the DHT answered")
        self._remember_miss(target)
        raise NotFoundError("no such record in the DHT")

    def neighbours(self) -> list[str]:
        """Return the addresses of known nodes, ``host:port``."""
        return [address_text(contact.address) for contact in self._table.contacts()]

    def stats(self) -> NetworkStats:
        """Return figures for status and metrics."""
        endpoint = self._endpoint
        return NetworkStats(
            peers=len(self._table),
            records=len(self._shelf),
            sent_bytes=endpoint.sent_bytes if endpoint else 0,
            received_bytes=endpoint.received_bytes if endpoint else 0,
        )

    def _remember_miss(self, target: bytes) -> None:
        self._misses.pop(target, None)
        self._misses[target] = self._clock.monotonic() + self._miss_remembered_s
        if len(self._misses) > _MAX_MISSES:
            self._misses.popitem(last=False)

    def _send(self, data: bytes, address: Address) -> None:
        if self._endpoint is not None:
            self._endpoint.send(data, address)


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
