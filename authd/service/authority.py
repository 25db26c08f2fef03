"""What this daemon knows: statements come in, are verified, persisted, applied and told of.

Four steps, in this order, for every batch: verify, persist, apply, notify. A revocation is on disk
before anything acts on it or acknowledges it, so that a crash at any point loses nothing that
somebody relies on.

Only what somebody in the local web of trust vouches for is taken: roots of listed domains and
their successors, grants and revocations whose signer is an authority or holds a grant of depth of
at least 1, a key's revocation of itself if a grant to that key is known. What arrives before
the statement that would make it welcome waits in a small bounded buffer.
"""

from collections import OrderedDict
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
from authd.core.topics import AUTHD_PREFIX, POWER_NODE, has_power
from authd.core.trust import TrustState
from authd.errors import AuthdError, EquivocationError, StaleRecordError
from authd.service.heartbeats import Heartbeats
from authd.service.ports import Clock, Item, StatementStore, StoredStatement

# Statements that wait for the one that makes them welcome; an attacker can only fill this.
_MAX_WAITING: Final = 512
# `replicate = "auto"` gossips own device grants up to this many.
MAX_REPLICATED_GRANTS: Final = 10_000
_FOREVER: Final = 2**62


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
        self._waiting: OrderedDict[bytes, tuple[Item, str]] = OrderedDict()
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
        stored = sorted(self._store.load_statements(), key=lambda one: one.kind)
        for one in stored:
            batch = _Batch()
            self._take(Item(one.kind, one.data), one.source, batch, received_at=one.received_at)
            # A root was applied as it was taken: the next one rests on it.
            rest = [pair[0] for pair in batch.accepted if not isinstance(pair[0], Root)]
            self._apply(rest, one.source)
        self.heartbeats.adopt(self.state)

    # --- in -------------------------------------------------------------------------------

    def receive(self, items: Iterable[Item], *, source: str) -> list[StatementId]:
        """Verify, persist and apply statements; bad ones are counted and left out.

        Args:
            items: Untrusted.
            source: ``local``, ``gossip``, ``dht`` or ``stapled``; kept as evidence.

        Returns:
            The ids of statements that were new and now count.

        Raises:
            StoreError: Nothing of the batch was applied.
        """
        batch = _Batch()
        for item in items:
            self._take_or_count(item, source, batch)
        self.refused += batch.refused
        accepted = self._commit(batch, source)
        if accepted:
            accepted += self._retry_waiting()
        return accepted

    def submit(self, items: Iterable[Item]) -> list[StatementId]:
        """Take in statements of the local operator, all or nothing, with the reason of a refusal.

        Raises:
            AuthdError: The first statement that cannot be taken says why; nothing was applied.
        """
        batch = _Batch()
        for item in items:
            self._take(item, "local", batch)
        return self._commit(batch, "local")

    def _take_or_count(self, item: Item, source: str, batch: _Batch) -> None:
        try:
            self._take(item, source, batch)
        except StaleRecordError:
            return
        except EquivocationError as error:
            self._raise_alarm(str(error))
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
        *,
        received_at: int | None = None,
    ) -> None:
        if item.kind is Kind.ROOT:
            self._take_root(item, source, batch)
            return
        statement = verify(item.kind, item.data)
        if isinstance(statement, Heartbeat):
            at = self._clock.now() if received_at is None else received_at
            if self.heartbeats.observe(statement, received_at=at):
                batch.accept(statement, item.data)
            return
        if statement.statement_id in self._items or statement.statement_id in batch.ids:
            return
        if source == "local" or self._welcome(statement, source, batch):
            batch.accept(statement, item.data)
        elif source != "stapled":
            self._wait(item, source)

    def _take_root(self, item: Item, source: str, batch: _Batch) -> None:
        unverified = parse_root(item.data)
        if unverified.statement_id in self._roots:
            return
        previous = None
        if unverified.claims.previous is not None:
            previous = self._roots.get(unverified.claims.previous)
            if previous is None:
                self._wait(item, source)
                return
        root = verify_root(item.data, previous=previous)
        if not self._listed(root.domain):
            self._wait(item, source)
            return
        held = self.state.roots.get(root.domain)
        if held is not None and held.version >= root.version:
            raise EquivocationError(
                f"two valid roots of version {root.version}: the one held stays in force",
            )
        batch.accept(root, item.data)
        # A root is applied at once: the rest of the batch may rest on it.
        self._save([(root, item.data)], source)
        self._apply([root], source)

    def _listed(self, domain: DomainId) -> bool:
        return domain in self.policy.domains or bool(self.state.grants_to(domain))

    def _wait(self, item: Item, source: str) -> None:
        self._waiting[item.data] = (item, source)
        while len(self._waiting) > _MAX_WAITING:
            self._waiting.popitem(last=False)

    def _retry_waiting(self) -> list[StatementId]:
        if not self._waiting:
            return []
        waiting, self._waiting = self._waiting, OrderedDict()
        batches: dict[str, _Batch] = {}
        for item, source in waiting.values():
            self._take_or_count(item, source, batches.setdefault(source, _Batch()))
        accepted: list[StatementId] = []
        for source, batch in batches.items():
            accepted += self._commit(batch, source)
        return accepted + (self._retry_waiting() if accepted else [])

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
        return any(
            item.kind is Kind.REVOKE and any(target in item.data for target in named)
            for item, _ in self._waiting.values()
        )

    # --- persist, apply, notify -----------------------------------------------------------

    def _commit(self, batch: _Batch, source: str) -> list[StatementId]:
        fresh_before = self.heartbeats.freshness()
        rest = [pair for pair in batch.accepted if not isinstance(pair[0], Root)]
        if rest:
            self._save(rest, source)
            self._apply([statement for statement, _ in rest], source)
        statements = [statement for statement, _ in batch.accepted]
        revocations = tuple(one for one in statements if isinstance(one, Revoke))
        if statements:
            self.heartbeats.advance(self.state)
        change = Change(
            grants=tuple(one for one in statements if isinstance(one, Grant)),
            revocations=revocations,
            freshness=self.heartbeats.freshness() != fresh_before,
            roots=any(isinstance(one, Root) for one in statements),
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

    # --- admission ------------------------------------------------------------------------

    def admits(self, node: PublicKey) -> bool:
        """Say whether a node key holds ``$authd/node`` from the own domain.

        Freshness does not count here: a daemon that was cut off must be able to come back.
        """
        evaluation = find_paths(
            self.state,
            node,
            policy=self.policy,
            freshness=dict.fromkeys(self.state.roots, _FOREVER),
            now=self._clock.now(),
        )
        return any(
            path.domains[0] == self.policy.own and has_power(path.scope, POWER_NODE)
            for path in evaluation.paths
        )

    def learn_grants(self, grants: Iterable[bytes]) -> None:
        """Take in grants that a peer shows for its admission; bad ones are left out.

        Nobody has vouched for the peer yet, so nothing it shows may wait in the buffer.
        """
        self.receive([Item(Kind.GRANT, data) for data in grants], source="stapled")

    def path_grants(self, key: PublicKey, power: str) -> list[bytes]:
        """Return the grants of a path that gives ``key`` a power, root side first."""
        evaluation = find_paths(
            self.state,
            key,
            policy=self.policy,
            freshness=dict.fromkeys(self.state.roots, _FOREVER),
            now=self._clock.now(),
        )
        for path in evaluation.paths:
            if has_power(path.scope, power):
                return [grant.encoded for grant in path.grants]
        return []
