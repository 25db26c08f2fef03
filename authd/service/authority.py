"""How this daemon comes to know: statements come in, are verified, persisted, applied and told of.

Four steps, in this order, for every batch: verify, persist, apply, notify. A revocation is on disk
before anything acts on it or acknowledges it, so that a crash at any point loses nothing that
somebody relies on.

Only what somebody in the local web of trust vouches for is taken: roots of listed domains and
their successors, and what `authd.service.welcome` says. What arrives before the statement that
would make it welcome waits in a small bounded buffer.
"""

from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from authd.core import limits
from authd.core.claims import Kind
from authd.core.grants import Grant
from authd.core.identity import DomainId, StatementId
from authd.core.proofs import verify_stapled
from authd.core.roots import Root
from authd.core.statements import Broker, Heartbeat, Statement, verify
from authd.core.trust import Freshness
from authd.errors import (
    AuthdError,
    EquivocationError,
    LimitError,
    StaleRecordError,
    StoreError,
    UntrustedIssuerError,
)
from authd.service.batch import Batch, Change
from authd.service.knowledge import Knowledge
from authd.service.ledger import Taken
from authd.service.ports import Item
from authd.service.waiting import MAX_WAITING, Waiting
from authd.service.welcome import is_welcome

__all__ = ["MAX_REPLICATED_GRANTS", "Authority", "Change"]

# A root, four grants and a revocation can rest on each other; longer chains are nobody's need.
_MAX_ROUNDS: Final = 8
# `replicate = "auto"` gossips own device grants up to this many.
MAX_REPLICATED_GRANTS: Final = 10_000


class Authority(Knowledge):
    """The only way to change what a daemon knows."""

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
        batch, fresh_before = Batch(), self.heartbeats.freshness()
        try:
            for item in items:
                self._take_or_count(item, source, batch)
            self.refused += batch.refused
            accepted = self._commit(batch, source, fresh_before=fresh_before)
        except StoreError:
            self._note_unsaved(batch, source)
            raise
        if self._look_again:
            accepted += self._retry_waiting()
        return accepted

    def beat(self) -> list[Item]:
        """Sign this daemon's own head if it is due; return what is to be gossiped.

        Not while a revocation that others sent cannot be kept: a head says that all are known.
        """
        by_source: dict[str, list[Item]] = {}
        self._heard = frozenset(self._unsaved)
        while self._unsaved:
            _, (item, source) = self._unsaved.popitem(last=False)
            by_source.setdefault(source, []).append(item)
        for source, items in by_source.items():
            with suppress(StoreError):
                self.receive(items, source=source)
        self._heard = frozenset()
        return [] if self._unsaved else super().beat()

    def _note_unsaved(self, batch: Batch, source: str) -> None:
        for revoke in batch.revocations:
            if revoke.statement_id not in self.state.revocations:
                item = Item(Kind.REVOKE, revoke.encoded)
                self._unsaved[revoke.statement_id] = (item, source)
        while len(self._unsaved) > MAX_WAITING:
            # As many as that come again by repair; none is signed for while any waits.
            self._unsaved.popitem(last=False)

    def submit(self, items: Iterable[Item]) -> list[StatementId]:
        """Take in statements of the local operator, all or nothing, with the reason of a refusal.

        Raises:
            AuthdError: The first statement that cannot be taken says why; nothing was applied, but
                for roots before it, which stand by themselves.
        """
        batch, fresh_before = Batch(), self.heartbeats.freshness()
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
        batch: Batch,
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

    def _take(
        self,
        item: Item,
        source: str,
        batch: Batch,
        statement: Statement | None = None,
    ) -> None:
        if item.kind is Kind.ROOT:
            self._take_root(item, source, batch)
            return
        statement = statement or verify(item.kind, item.data)
        if isinstance(statement, Heartbeat):
            self._take_head(statement, item.data, batch)
            return
        if statement.statement_id in self._ledger or statement.statement_id in batch.ids:
            return
        if isinstance(statement, Grant) and self.state.has_newer(statement):
            self._declined.add(statement.statement_id, Kind.GRANT)
            return
        self._judge_new(statement, item, source, batch)

    def _judge_new(self, statement: Statement, item: Item, source: str, batch: Batch) -> None:
        """Accept a statement that is not known, let it wait, or leave it."""
        if isinstance(statement, Broker):
            self.announcements.check(statement)
        if source == "local":
            self._take_own(statement, item, batch)
        elif not self._welcome(statement, source, batch):
            if self.heartbeats.take_listed(statement.statement_id):
                batch.accept(statement, item.data)
            elif source != "stapled":
                self._wait(Waiting(item, source, statement))
        elif self._affords(statement, item.kind, source):
            batch.accept(statement, item.data)

    def _take_own(self, statement: Statement, item: Item, batch: Batch) -> None:
        if not self.quotas.has_room(statement, self.state):
            raise LimitError(
                "no room: its issuer's branch has used up its quota, or said the same before"
            )
        batch.accept(statement, item.data)

    def _affords(self, statement: Statement, kind: Kind, source: str) -> bool:
        """Say whether the branch a statement is of has room and breath for it.

        What a signed list names is taken without either: whoever lacks it is not fresh.
        """
        if self._has_ended(statement) or not self.quotas.has_room(statement, self.state):
            if self.heartbeats.take_listed(statement.statement_id):
                return True
            self.quotas.surplus += 1
            self._declined.add(statement.statement_id, kind)
            return False
        wanted = self.heartbeats.lacks(statement.statement_id)
        hasty = source == "gossip" and not wanted and statement.statement_id not in self._heard
        if hasty and not self.quotas.may_speak(statement, self.state):
            # The next repair offers it again.
            self.quotas.limited += 1
            return False
        return True

    def _has_ended(self, statement: Statement) -> bool:
        kept_s = limits.GRANT_KEPT_S
        return (
            isinstance(statement, Grant)
            and statement.expires_at + kept_s <= self._clock.now()
            and not self.quotas.is_needed(statement, self.state)
        )

    def _take_head(
        self,
        heartbeat: Heartbeat,
        data: bytes,
        batch: Batch,
    ) -> None:
        try:
            if self._observe(heartbeat, received_at=self._clock.now()):
                batch.accept(heartbeat, data)
        except EquivocationError:
            # Whoever has only the other head must come to know.
            self._save_proofs()
            batch.evidence.append(heartbeat.statement_id)
            raise

    def _take_root(self, item: Item, source: str, batch: Batch) -> None:
        if self._roots.is_known(item.data) or self._roots.is_spare(item.data, self.state):
            return
        now, own = self._clock.monotonic(), self.policy.own
        if source != "local" and self._roots.is_too_soon(item.data, self.state, own=own, now=now):
            # The next repair offers it again.
            self.quotas.limited += 1
            return
        root = self._roots.verify(item.data, now=self._clock.now())
        if root is None:
            self._put_off(item, source, "the version before this root is not known here")
            return
        if not self._listed(root.domain):
            self._put_off(item, source, "this root is of a domain that is not listed here")
            return
        self._save([(root, item.data)], source)
        self._refuse_rival(root)
        if source != "local":
            self._roots.charge(root, now=now)
        # A root is applied at once, because the rest of the batch may rest on it; and told of at
        # once, because the rest may fail while sessions rest on what this root took away.
        self._apply([root], source)
        self._judge()
        batch.accept(root, item.data)
        self.heartbeats.advance(self.state)
        self._notify(Change(roots=True))

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
        batches: dict[str, Batch] = {}
        for one in waiting:
            # Only this one leaves: the others that wait may be what makes it welcome.
            self._waiting.remove(one)
            batch = batches.setdefault(one.source, Batch())
            self._take_or_count(one.item, one.source, batch, one.statement)
        self._look_again = False
        accepted: list[StatementId] = []
        for source, batch in batches.items():
            try:
                accepted += self._commit(batch, source, fresh_before=fresh_before)
            except StoreError:
                self._note_unsaved(batch, source)
                raise
        return accepted

    def _welcome(self, statement: Statement, source: str, batch: Batch) -> bool:
        if isinstance(statement, Broker):
            return self.refused_service(statement) is None
        if not is_welcome(statement, state=self.state, batch=batch.grants):
            return False
        return not isinstance(statement, Grant) or source != "gossip" or self._travels(statement)

    # --- persist, apply, notify -----------------------------------------------------------

    def _commit(
        self,
        batch: Batch,
        source: str,
        *,
        fresh_before: Freshness,
    ) -> list[StatementId]:
        rest = [pair for pair in batch.accepted if not isinstance(pair[0], Root)]
        changed: frozenset[bytes] = frozenset()
        if rest:
            self._save_batch(rest, source)
            self._apply([statement for statement, _ in rest], source)
            changed = self._judge()
        statements = [statement for statement, _ in batch.accepted]
        if statements:
            new = [one.statement_id for one in batch.revocations]
            self.heartbeats.advance(self.state, new)
            self._look_again |= any(not isinstance(one, Heartbeat) for one in statements)
        change = Change(
            grants=batch.grants,
            revocations=batch.revocations,
            brokers=batch.brokers,
            freshness=self.heartbeats.freshness() != fresh_before,
            fallen=changed,
        )
        if change != Change():
            self._notify(change)
        return [*batch.evidence, *(one.statement_id for one in statements)]

    def _save_batch(self, taken: Iterable[Taken], source: str) -> None:
        listed = list(taken)
        try:
            self._save(listed, source)
        except StoreError:
            # Heads come again, and a disk that is full must not make the domain stale.
            if not all(isinstance(one, Heartbeat) for one, _ in listed):
                raise

    def learn_stapled(self, stapled: Iterable[bytes]) -> None:
        """Take in grants stapled to a proof, as far as somebody here vouches for them.

        Raises:
            AuthdError: A grant is malformed or does not verify.
            StoreError: The store cannot be written.
        """
        grants = verify_stapled(stapled)
        self.receive([Item(Kind.GRANT, grant.encoded) for grant in grants], source="stapled")
