"""What the service needs of the outside, and what edges need of the service.

Each port is a `Protocol` named for what the use case needs; edges implement them and the daemon
wires them. Nothing here does any work.
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from authd.core import limits
from authd.core.claims import Kind
from authd.core.decision import ConnectRequest, Decision, Operation
from authd.core.identity import DomainId, PublicKey, StatementId
from authd.core.records import Record
from authd.service.leftovers import NOTHING, Retained


class Clock(Protocol):
    """The only way to the time."""

    def now(self) -> int:
        """Return seconds since the Unix epoch; never below what was proven or persisted."""
        ...

    def now_us(self) -> int:
        """Return microseconds since the Unix epoch."""
        ...

    def behind_s(self) -> int:
        """Return how far the host's clock is behind what was proven; 0 if it is not."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that never runs back."""
        ...


class Entropy(Protocol):
    """The only way to randomness."""

    def token(self, count: int) -> bytes:
        """Return ``count`` unpredictable bytes."""
        ...


# --- edges ask the service ------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEvent:
    """Something an enforcement point must do, numbered per broker.

    Attributes:
        number: Rises by one for each event of a broker.
        kind: ``snapshot``, ``set``, ``lease``, ``cut`` or ``beat``.
        body: The members of `docs/spec/broker-socket.md` for that kind.
    """

    number: int
    kind: str
    body: dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldClient:
    """A client as an enforcement point has it: ``key`` is a key id, ``online`` if connected."""

    client_id: str
    session_id: str
    key: str
    online: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionReport:
    """What an enforcement point says became of one session.

    Attributes:
        client_id: As the enforcement point has it.
        session_id: As it was told; only ids that are known here count.
        what: A name of `docs/spec/broker-socket.md`; others count for nothing.
        retained: What the session may have left behind.
    """

    client_id: str
    session_id: str
    what: str
    retained: Retained = NOTHING


class DecisionPoint(Protocol):
    """What every broker-facing edge asks."""

    async def connect(self, request: ConnectRequest) -> Decision:
        """Decide a CONNECT; never raises for bad input, never waits for the network long."""
        ...

    def authorize(
        self,
        *,
        broker: str,
        client_id: str,
        operation: Operation,
        topic: str,
        username: str | None = None,
    ) -> Decision:
        """Decide one message from memory, for a session that was allowed on that broker."""
        ...

    async def explain(
        self, request: ConnectRequest, asked: tuple[Operation, str] | None
    ) -> Decision:
        """Decide as `connect` and `authorize` do, without consuming a nonce or making a session."""
        ...

    def watch(self, broker: str, *, boot: str) -> AsyncIterator[SessionEvent]:
        """Stream a broker's events: a snapshot first, then each change; ends when replaced."""
        ...


# --- the service asks edges -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Item:
    """A statement as it travels: kind and bytes, unverified."""

    kind: Kind
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkStats:
    """What an engine knows of itself."""

    peers: int
    records: int
    sent_bytes: int = 0
    received_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredStatement:
    """A statement as it is kept: verified once, so trusted from the store.

    Attributes:
        source: Where it came from: ``local``, ``gossip``, ``dht`` or ``stapled``.
        received_at: Seconds since the Unix epoch.
    """

    kind: Kind
    statement_id: StatementId
    data: bytes
    source: str
    received_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSession:
    """A session as it is kept; its rights are compiled anew when it is loaded."""

    session_id: str
    broker: str
    boot: str
    client_id: str
    username: str
    key: PublicKey
    form: int
    audience_domain: DomainId
    audience_endpoint: str
    durable: bool
    live: bool
    created_at: int


class StatementStore(Protocol):
    """What survives: statements and the order of heartbeat chains."""

    def load_statements(self) -> list[StoredStatement]:
        """Return everything, in the order it was saved.

        Raises:
            StoreError: The store cannot be read.
        """
        ...

    def each_statement(self) -> Iterator[StoredStatement]:
        """Yield everything by kind, then in the order it was saved; others may go meanwhile.

        Raises:
            StoreError: The store cannot be read, or holds a kind that is not known.
        """
        ...

    def save_statements(self, statements: Iterable[StoredStatement], *, durable: bool) -> None:
        """Save all or nothing; ``durable`` waits until they would survive a power cut.

        Raises:
            StoreError: The store cannot be written; nothing was saved.
        """
        ...

    def delete_statements(self, statement_ids: Iterable[StatementId]) -> None:
        """Delete statements that have been superseded."""
        ...

    def load_chain(self, domain: DomainId, key: PublicKey) -> tuple[int, list[StatementId]]:
        """Return a heartbeat key's newest epoch and its entries in order."""
        ...

    def append_chain(
        self,
        domain: DomainId,
        key: PublicKey,
        epoch: int,
        start: int,
        ids: Iterable[StatementId],
        *,
        head: StoredStatement | None = None,
    ) -> None:
        """Append entries from index ``start`` on, durably; lists of other epochs stay.

        A ``head`` is saved with them, and the lists before go, all or nothing.

        Raises:
            StoreError: The store cannot be written; nothing was saved.
        """
        ...

    def load_closed(self, domain: DomainId, key: PublicKey) -> list[StatementId]:
        """Return what a heartbeat key's lists before its newest epoch named, as far as kept."""
        ...

    def forget_chains(self, domain: DomainId, key: PublicKey, *, first: int, before: int) -> None:
        """Delete a heartbeat key's lists from epoch ``first`` on, up to that before ``before``."""
        ...

    def note_ends(self, ends: Iterable[tuple[StatementId, int]]) -> None:
        """Keep when grants end that may be forgotten before their revocations come again.

        Raises:
            StoreError: The store cannot be written; nothing was kept.
        """
        ...

    def end_of(self, target: StatementId) -> int | None:
        """Return when a grant ends, if that was kept; seconds since the Unix epoch.

        Raises:
            StoreError: The store cannot be read.
        """
        ...


# A plugin judges proofs by its own clock, which may be behind by as much as a proof may be off.
NONCE_KEPT_S: Final = limits.PROOF_WINDOW_S


class ReplayStore(Protocol):
    """Nonces that may not come again."""

    def seen(self, replay_id: bytes) -> bool:
        """Say whether a nonce was consumed."""
        ...

    def consume(
        self,
        replay_id: bytes,
        *,
        expires_at: int,
        now: int,
        broker: str = "",
        session: str = "",
    ) -> bool:
        """Remember a nonce; False if somebody else consumed it.

        Args:
            replay_id: Key id and nonce.
            expires_at: Until when a repeat would be inside the window; it is kept for
                `NONCE_KEPT_S` longer.
            now: Seconds since the Unix epoch.
            broker: Where it was shown.
            session: Which session it let go on; for the same one it may be said again.
        """
        ...

    def open_nonces(self, broker: str, *, now: int, most: int) -> list[bytes]:
        """Return the nonces of a broker that are kept, newest first."""
        ...


class CounterStore(Protocol):
    """The last counter taken for each key and audience."""

    def last_counter(self, slot: bytes) -> int | None:
        """Return the last counter taken for a slot, None before the first."""
        ...

    def raise_counter(self, slot: bytes, counter: int) -> bool:
        """Keep a counter if it is higher than the last one; False if it is not.

        Compared and written in one step, and on disk when this returns.
        """
        ...


class SessionStore(Protocol):
    """Which key holds which client id where."""

    def load_sessions(self) -> list[StoredSession]:
        """Return every session."""
        ...

    def save_session(self, session: StoredSession) -> None:
        """Save a session; one client id of a broker has at most one."""
        ...

    def delete_session(self, broker: str, client_id: str) -> None:
        """Forget a session."""
        ...


class RecordNetwork(Protocol):
    """A DHT: where signed records are stored and found."""

    async def put(self, record: Record) -> int:
        """Store a record; return how many nodes acknowledged it.

        Raises:
            NoPeersError: Nobody to ask.
            RejectedError: Nobody took it, with a peer's reason.
        """
        ...

    async def get(self, publisher: PublicKey, salt: bytes) -> Record:
        """Find the newest record.

        Raises:
            NoPeersError: Nobody to ask.
            NoResponseError: Nobody answered in time.
            NotFoundError: Answered: no such record.
        """
        ...

    def neighbours(self) -> list[str]:
        """Return the addresses of known nodes, ``host:port``."""
        ...

    def stats(self) -> NetworkStats:
        """Return figures for status and metrics."""
        ...


class Gossip(Protocol):
    """How statements reach every daemon that must know them at once."""

    async def push(self, items: Iterable[Item]) -> int:
        """Send statements to the active peers; return how many peers they were handed to."""
        ...

    def peers(self) -> list[str]:
        """Return the peers with a live stream: ``node id@address``."""
        ...


class GossipStore(Protocol):
    """What the gossip edge asks the service: take statements in, and say what is held."""

    async def receive(self, items: Iterable[Item], *, peer: str) -> list[StatementId]:
        """Verify, persist and apply; return the ids that were new, which are to be forwarded.

        Bad statements are counted against the peer and left out, never raised.
        """
        ...

    def held(self) -> dict[StatementId, Kind]:
        """Return every statement that travels by gossip, by id, heartbeats left out."""
        ...

    def statement(self, statement_id: StatementId) -> Item | None:
        """Return one statement to send."""
        ...

    def heartbeats(self) -> list[Item]:
        """Return the newest heartbeat of each key."""
        ...

    def chain_ids(
        self,
        domain: DomainId,
        key: PublicKey,
        epoch: int,
        start: int,
        end: int,
    ) -> list[StatementId] | None:
        """Return entries ``[start, end)`` of a heartbeat key's list, if known here."""
        ...

    def gaps(self) -> list[tuple[DomainId, PublicKey, int, int, int]]:
        """Return ``(domain, key, epoch, start, end)`` of the list entries that are missing."""
        ...

    def fill(
        self,
        domain: DomainId,
        key: PublicKey,
        epoch: int,
        start: int,
        ids: list[StatementId],
    ) -> None:
        """Take in entries of a list that a peer sent for a gap."""
        ...


class Admission(Protocol):
    """Who may be a peer."""

    def admits(self, node: PublicKey) -> bool:
        """Say whether a node key holds ``$authd/node`` from a root that local policy lists."""
        ...

    def is_own(self, node: PublicKey) -> bool:
        """Say whether the own domain admits a node key by itself, by way of no other domain."""
        ...

    def admission_grants(self) -> list[bytes]:
        """Return this node's own admission path, root side first, to show to peers."""
        ...

    def learn_grants(self, grants: Iterable[bytes]) -> None:
        """Take in grants a peer shows for its admission; bad ones are left out."""
        ...


class Evictor(Protocol):
    """A way to end live sessions on one broker."""

    async def evict(
        self, *, client_ids: Iterable[str], key: PublicKey, reason: str
    ) -> dict[str, str]:
        """End sessions; return what became of each client id (``kicked``, ``not_found``, …)."""
        ...
