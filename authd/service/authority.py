"""What this daemon knows: statements come in, are verified, persisted, applied and told of.

Four steps, in this order, for every batch: verify, persist, apply, notify. A revocation is on disk
before anything acts on it or acknowledges it, so that a crash at any point loses nothing that
somebody relies on.

Only what somebody in the local web of trust vouches for is taken: roots of listed domains and
their successors, grants and revocations whose signer is an authority or holds a grant of depth of
at least 1, a key's revocation of itself if a grant to that key is known. What arrives before
the statement that would make it welcome waits in a small bounded buffer.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from authd.core.claims import Kind
from authd.core.grants import DomainSubject, Form, Grant, KeySubject
from authd.core.identity import DomainId, PublicKey, StatementId, key_id
from authd.core.paths import Evaluation, find_paths
from authd.core.policy import Policy
from authd.core.proofs import verify_stapled
from authd.core.roots import Root, parse_root, verify_root
from authd.core.statements import Broker, Heartbeat, Revoke, Statement, kind_of, verify
from authd.core.topics import AUTHD_PREFIX
from authd.core.trust import Freshness, TrustState
from authd.errors import (
    AuthdError,
    EquivocationError,
    FormatError,
    LimitError,
    StaleRecordError,
    StoreError,
    UntrustedIssuerError,
)
from authd.service.heartbeats import Heartbeats
from authd.service.ports import Clock, Item, StatementStore, StoredStatement
from authd.service.waiting import Waiting, WaitingRoom

# A root, four grants and a revocation can rest on each other; longer chains are nobody's need.
_MAX_ROUNDS: Final = 8
# `replicate = "auto"` gossips own device grants up to this many.
MAX_REPLICATED_GRANTS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a batch changed.

    Attributes:
        grants: Grants that are new.
        revocations: Revocations that are new.
        freshness: Whether some domain is fresh until another time than before.
        roots: Whether a root is new.
    """

    grants: tuple[Grant, ...] = ()
    revocations: tuple[Revoke, ...] = ()
    freshness: bool = False
    roots: bool = False


@dataclass(slots=True)
class _Batch:
    """What one call of `Authority.receive` has accepted so far."""

    accepted: list[tuple[Root | Statement, bytes]] = field(default_factory=list)
    ids: set[StatementId] = field(default_factory=set)
    refused: int = 0

    def accept(self, statement: Root | Statement, data: bytes) -> None:
        self.accepted.append((statement, data))
        self.ids.add(statement.statement_id)


class Authority:
    """The trust state of a daemon and the only way to change it."""

    def __init__(
        self,
        *,
        store: StatementStore,
        clock: Clock,
        policy: Policy,
        heartbeats: Heartbeats,
        replicate_devices: bool,
    ) -> None:
        """Wire the parts; `load` reads what the store holds.

        Args:
            store: Where statements survive.
            clock: The time.
            policy: Which domains count here.
            heartbeats: Chains and freshness, sharing store and clock.
            replicate_devices: Whether own-domain device grants travel by gossip.
        """
        self._store = store
        self._clock = clock
        self.policy = policy
        self.heartbeats = heartbeats
        self._replicate_devices = replicate_devices
        self.state = TrustState()
        self.sources: dict[StatementId, str] = {}
        self.alarms: list[str] = []
        self.refused = 0
        self._items: dict[StatementId, Item] = {}
        self._gossiped: dict[StatementId, Kind] = {}
        self._roots: dict[StatementId, Root] = {}
        self._rivals: set[StatementId] = set()
        self._waiting = WaitingRoom()
        self._look_again = False
        self._listeners: list[Callable[[Change], None]] = []

    def set_policy(self, policy: Policy) -> None:
        """Judge by another policy from now on."""
        self.policy = policy
        self._notify(Change(roots=True))

    def subscribe(self, listener: Callable[[Change], None]) -> None:
        """Call ``listener`` after every change, in the order of subscription."""
        self._listeners.append(listener)

    def load(self) -> None:
        """Read everything the store holds.

        Raises:
            StoreError: The store cannot be read.
        """
        for one in sorted(self._store.load_statements(), key=lambda one: one.kind):
            try:
                self._restore(one)
            except EquivocationError:
                continue
            except AuthdError as error:
                # A revocation left out would allow: what cannot be read stops the daemon.
                raise StoreError(f"the store holds a damaged statement: {error}") from error
        self.heartbeats.adopt(self.state)

    def _restore(self, one: StoredStatement) -> None:
        """Apply what was verified and welcome when it was stored, whatever is listed now."""
        if one.kind is Kind.ROOT:
            self._restore_root(one)
            return
        statement = verify(one.kind, one.data)
        if isinstance(statement, Heartbeat):
            try:
                self._observe(statement, received_at=one.received_at)
            except (StaleRecordError, LimitError):
                # Replaced, or the host's clock is behind now: heads come again.
                return
        self._apply([statement], one.source)

    def _observe(self, heartbeat: Heartbeat, *, received_at: int) -> bool:
        try:
            return self.heartbeats.observe(heartbeat, received_at=received_at)
        except EquivocationError as error:
            self._raise_alarm(str(error))
            raise

    def _restore_root(self, one: StoredStatement) -> None:
        previous = parse_root(one.data).claims.previous
        if previous is not None and previous not in self._roots:
            raise FormatError("a root without the version before it")
        root = verify_root(one.data, previous=self._roots[previous] if previous else None)
        self._refuse_rival(root)
        self._apply([root], one.source)

    # --- in -------------------------------------------------------------------------------

    def receive(self, items: Iterable[Item], *, source: str) -> list[StatementId]:
        """Verify, persist and apply statements; bad ones are counted and left out.

        Args:
            items: Untrusted.
            source: ``local``, ``gossip``, ``dht`` or ``stapled``; kept as evidence.

        Returns:
            The ids of statements that were new and now count.

        Raises:
            StoreError: Nothing of the batch was applied, but for roots, which stand by themselves.
        """
        batch, fresh_before = _Batch(), self.heartbeats.freshness()
        for item in items:
            self._take_or_count(item, source, batch)
        self.refused += batch.refused
        accepted = self._commit(batch, source, fresh_before=fresh_before)
        if self._look_again:
            accepted += self._retry_waiting()
        return accepted

    def submit(self, items: Iterable[Item]) -> list[StatementId]:
        """Take in statements of the local operator, all or nothing, with the reason of a refusal.

        Raises:
            AuthdError: The first statement that cannot be taken says why; nothing was applied, but
                for roots before it, which stand by themselves.
        """
        batch, fresh_before = _Batch(), self.heartbeats.freshness()
        for item in items:
            self._take(item, "local", batch)
        accepted = self._commit(batch, "local", fresh_before=fresh_before)
        if self._look_again:
            self._retry_waiting()
        return accepted

    def _take_or_count(
        self,
        item: Item,
        source: str,
        batch: _Batch,
        statement: Statement | None = None,
    ) -> None:
        try:
            self._take(item, source, batch, statement)
        except (StaleRecordError, EquivocationError):
            return
        except StoreError:
            raise
        except AuthdError:
            batch.refused += 1

    def _raise_alarm(self, sentence: str) -> None:
        if sentence not in self.alarms:
            self.alarms.append(sentence)

    def _take(
        self,
        item: Item,
        source: str,
        batch: _Batch,
        statement: Statement | None = None,
    ) -> None:
        if item.kind is Kind.ROOT:
            self._take_root(item, source, batch)
            return
        statement = statement or verify(item.kind, item.data)
        if isinstance(statement, Heartbeat):
            self._take_head(statement, item.data, source, batch)
            return
        if statement.statement_id in self._items or statement.statement_id in batch.ids:
            return
        if source == "local" or self._welcome(statement, source, batch):
            batch.accept(statement, item.data)
        elif source != "stapled":
            self._wait(Waiting(item, source, statement))

    def _take_head(
        self,
        heartbeat: Heartbeat,
        data: bytes,
        source: str,
        batch: _Batch,
    ) -> None:
        try:
            if self._observe(heartbeat, received_at=self._clock.now()):
                batch.accept(heartbeat, data)
        except EquivocationError:
            # Both heads are evidence: a restart must not forget what this key did.
            self._save([(heartbeat, data)], source)
            raise

    def _take_root(self, item: Item, source: str, batch: _Batch) -> None:
        unverified = parse_root(item.data)
        if unverified.statement_id in self._roots or unverified.statement_id in self._rivals:
            return
        previous = None
        if unverified.claims.previous is not None:
            previous = self._roots.get(unverified.claims.previous)
            if previous is None:
                self._put_off(item, source, "the version before this root is not known here")
                return
        root = verify_root(item.data, previous=previous, now=self._clock.now())
        if not self._listed(root.domain):
            self._put_off(item, source, "this root is of a domain that is not listed here")
            return
        self._save([(root, item.data)], source)
        self._refuse_rival(root)
        # A root is applied at once, because the rest of the batch may rest on it; and told of at
        # once, because the rest may fail while sessions rest on what this root took away.
        self._apply([root], source)
        batch.accept(root, item.data)
        self.heartbeats.advance(self.state)
        self._notify(Change(roots=True))

    def _refuse_rival(self, root: Root) -> None:
        held = self.state.roots.get(root.domain)
        if held is None or held.version < root.version:
            return
        sentence = f"two valid roots of version {root.version}: the one held stays in force"
        self._rivals.add(root.statement_id)
        self._raise_alarm(sentence)
        raise EquivocationError(sentence)

    def _put_off(self, item: Item, source: str, why: str) -> None:
        if source == "local":
            raise UntrustedIssuerError(why)
        self._wait(Waiting(item, source, None))

    def _listed(self, domain: DomainId) -> bool:
        return domain in self.policy.domains or bool(self.state.grants_to(domain))

    def _wait(self, one: Waiting) -> None:
        # A revocation that waits makes the grant it is about welcome, as its evidence.
        self._look_again |= self._waiting.add(one) and one.item.kind is Kind.REVOKE

    def _retry_waiting(self) -> list[StatementId]:
        accepted: list[StatementId] = []
        for _ in range(_MAX_ROUNDS):
            if not self._look_again:
                break
            accepted += self._retry_once()
        return accepted

    def _retry_once(self) -> list[StatementId]:
        waiting = self._waiting.all()
        try:
            return self._retry_all(waiting)
        except StoreError:
            # All of them wait on; what was committed is known by now and will be skipped.
            for one in waiting:
                self._waiting.add(one)
            self._look_again = True
            raise

    def _retry_all(self, waiting: Iterable[Waiting]) -> list[StatementId]:
        fresh_before = self.heartbeats.freshness()
        batches: dict[str, _Batch] = {}
        for one in waiting:
            # Only this one leaves: the others that wait may be what makes it welcome.
            self._waiting.remove(one)
            batch = batches.setdefault(one.source, _Batch())
            self._take_or_count(one.item, one.source, batch, one.statement)
        self._look_again = False
        accepted: list[StatementId] = []
        for source, batch in batches.items():
            accepted += self._commit(batch, source, fresh_before=fresh_before)
        return accepted

    # --- who is welcome -------------------------------------------------------------------

    def _welcome(self, statement: Statement, source: str, batch: _Batch) -> bool:
        match statement:
            case Grant():
                vouched = self._vouched(statement.issuer, batch)
                return vouched and (source != "gossip" or self._travels(statement))
            case Revoke():
                return self._revocation_welcome(statement, batch)
            case Broker():
                return self._vouched(statement.issuer, batch)
            case _:
                return False

    def _vouched(self, key: PublicKey, batch: _Batch) -> bool:
        if any(True for _ in self.state.authorities_with(key)):
            return True
        held = [one for one, _ in batch.accepted if isinstance(one, Grant)]
        return any(
            grant.depth > 0 and grant.subject == KeySubject(key)
            for grant in (*self.state.grants_to(key_id(key)), *held)
        )

    def _revocation_welcome(self, revoke: Revoke, batch: _Batch) -> bool:
        if self._vouched(revoke.issuer, batch):
            return True
        if revoke.revoker_grant and self._vouched(revoke.revoker_grant.issuer, batch):
            return True
        if revoke.target == revoke.issuer:
            return bool(self.state.grants_to(key_id(revoke.issuer)))
        return False

    def _travels(self, grant: Grant) -> bool:
        if grant.depth > 0 or Form.PASSWORD in grant.forms:
            return True
        if isinstance(grant.subject, DomainSubject):
            return True
        if any(entry.topic_filter.startswith(AUTHD_PREFIX) for entry in grant.scope):
            return True
        return self._replicate_devices or self._is_evidence(grant)

    def _is_evidence(self, grant: Grant) -> bool:
        named: set[bytes] = {grant.statement_id}
        if isinstance(grant.subject, KeySubject):
            named.add(grant.subject.key)
        if any(target in self.state.by_target for target in named):
            return True
        return self._waiting.names_in_revocation(named)

    # --- persist, apply, notify -----------------------------------------------------------

    def _commit(
        self,
        batch: _Batch,
        source: str,
        *,
        fresh_before: Freshness,
    ) -> list[StatementId]:
        rest = [pair for pair in batch.accepted if not isinstance(pair[0], Root)]
        if rest:
            self._save(rest, source)
            self._apply([statement for statement, _ in rest], source)
        statements = [statement for statement, _ in batch.accepted]
        if statements:
            self.heartbeats.advance(self.state)
            self._look_again |= any(not isinstance(one, Heartbeat) for one in statements)
        change = Change(
            grants=tuple(one for one in statements if isinstance(one, Grant)),
            revocations=tuple(one for one in statements if isinstance(one, Revoke)),
            freshness=self.heartbeats.freshness() != fresh_before,
        )
        if change != Change():
            self._notify(change)
        return [one.statement_id for one in statements]

    def _save(self, pairs: Iterable[tuple[Root | Statement, bytes]], source: str) -> None:
        now = self._clock.now()
        stored = [
            StoredStatement(
                kind=kind_of(statement),
                statement_id=statement.statement_id,
                data=data,
                source=source,
                received_at=now,
            )
            for statement, data in pairs
        ]
        durable = any(one.kind in (Kind.REVOKE, Kind.ROOT) for one in stored)
        self._store.save_statements(stored, durable=durable)
        replaced = self.heartbeats.take_replaced()
        if replaced:
            self._store.delete_statements(replaced)

    def _apply(self, statements: Iterable[Root | Statement], source: str) -> None:
        grants: list[Grant] = []
        revocations: list[Revoke] = []
        for statement in statements:
            match statement:
                case Root():
                    self._roots[statement.statement_id] = statement
                    self.state = self.state.apply_root(statement)
                    self.heartbeats.adopt_root(statement)
                case Grant():
                    grants.append(statement)
                case Revoke():
                    revocations.append(statement)
                case _:
                    continue
            self._remember(statement, source)
        self.state = self.state.apply_grants(grants).apply_revocations(revocations)
        for grant in grants:
            if self._travels(grant):
                self._gossiped[grant.statement_id] = Kind.GRANT

    def _remember(self, statement: Root | Statement, source: str) -> None:
        kind = kind_of(statement)
        self._items[statement.statement_id] = Item(kind, statement.encoded)
        self.sources[statement.statement_id] = source
        if kind in (Kind.ROOT, Kind.REVOKE):
            self._gossiped[statement.statement_id] = kind
        if isinstance(statement, Revoke):
            self._gossip_evidence(statement)

    def _gossip_evidence(self, revoke: Revoke) -> None:
        if not revoke.is_key:
            return
        for grant in self.state.grants_to(key_id(PublicKey(revoke.target))):
            self._gossiped[grant.statement_id] = Kind.GRANT

    def _notify(self, change: Change) -> None:
        for listener in self._listeners:
            listener(change)

    # --- heartbeats -----------------------------------------------------------------------

    def beat(self) -> list[Item]:
        """Sign this daemon's own head if it is due; return what is to be gossiped."""
        before = self.heartbeats.freshness()
        heartbeat = self.heartbeats.sign_own(self.state)
        if heartbeat is None:
            return []
        self._save([(heartbeat, heartbeat.encoded)], "local")
        if self.heartbeats.freshness() != before:
            self._notify(Change(freshness=True))
        return [Item(Kind.HEARTBEAT, heartbeat.encoded)]

    def fill(
        self,
        domain: DomainId,
        key: PublicKey,
        epoch: int,
        start: int,
        ids: Iterable[StatementId],
    ) -> None:
        """Take in entries of a heartbeat key's list that a peer sent for a gap."""
        before = self.heartbeats.freshness()
        self.heartbeats.fill(domain, key, epoch, start, ids)
        if self.heartbeats.freshness() != before:
            self._notify(Change(freshness=True))

    # --- out ------------------------------------------------------------------------------

    def evaluate(self, key: PublicKey, *, now: int) -> Evaluation:
        """Find the paths to a key as things stand."""
        return find_paths(
            self.state,
            key,
            policy=self.policy,
            freshness=self.heartbeats.freshness(),
            now=now,
        )

    def learn_stapled(self, stapled: Iterable[bytes]) -> None:
        """Take in grants stapled to a proof, as far as somebody here vouches for them.

        Raises:
            AuthdError: A grant is malformed or does not verify.
            StoreError: The store cannot be written.
        """
        grants = verify_stapled(stapled)
        self.receive([Item(Kind.GRANT, grant.encoded) for grant in grants], source="stapled")

    def in_force(self, revocation_id: StatementId) -> bool:
        """Say whether more than half of the own domain's heartbeat keys signed a revocation."""
        view = self.heartbeats.domains.get(self.policy.own)
        return view is not None and view.in_force(revocation_id)

    def held(self) -> dict[StatementId, Kind]:
        """Return every statement that travels by gossip, heartbeats left out."""
        return self._gossiped

    def statement(self, statement_id: StatementId) -> Item | None:
        """Return one statement to send."""
        return self._items.get(statement_id)

    def with_evidence(self, revoke: Revoke) -> list[Item]:
        """Return a revocation as it is to be pushed: behind the grants it is about."""
        grants: tuple[Grant, ...] = ()
        if revoke.is_key:
            grants = self.state.grants_to(key_id(PublicKey(revoke.target)))
        evidence = [Item(Kind.GRANT, grant.encoded) for grant in grants]
        return [*evidence, Item(Kind.REVOKE, revoke.encoded)]
