"""What a daemon knows: on disk, applied to the trust state, told of, and handed on.

`authd.service.authority` is the only way in; nothing here judges who is welcome.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import groupby, islice
from operator import attrgetter
from typing import Final, TypeVar

from authd.core import limits
from authd.core.claims import Kind
from authd.core.endings import FOR_EVER, is_spent, needed_until
from authd.core.grants import Grant, HeldGrant, reread_grant
from authd.core.identity import DomainId, PublicKey, StatementId, key_id
from authd.core.paths import Evaluation, Failure, find_paths
from authd.core.policy import Policy
from authd.core.quotas import branch_name
from authd.core.roots import Root
from authd.core.serving import refused_service
from authd.core.statements import Broker, Heartbeat, Revoke, Statement, recall
from authd.core.trust import TrustState
from authd.errors import (
    AuthdError,
    EquivocationError,
    FormatError,
    LimitError,
    StaleRecordError,
    StoreError,
)
from authd.service.announcements import Announcements
from authd.service.batch import Change
from authd.service.ends import Ends
from authd.service.heartbeats import Heartbeats
from authd.service.ledger import Ledger, Taken
from authd.service.ports import Clock, Item, StatementStore, StoredStatement
from authd.service.quotas import Declined, Quotas
from authd.service.replacements import Replacements
from authd.service.root_chain import RootChain
from authd.service.waiting import WaitingRoom
from authd.service.welcome import travels

_RESTORED_AT_ONCE: Final = 256
_FORGET_EVERY_S: Final = 3_600.0
# What takes some milliseconds; it is done again every second until nothing is left.
_FORGOTTEN_AT_ONCE: Final = 32
_Read = TypeVar("_Read", bound=Statement)


class Knowledge:
    """The trust state of a daemon, its heads and its statements."""

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
        self._ledger = Ledger(store=store, clock=clock)
        self._clock = clock
        self.policy = policy
        self.heartbeats = heartbeats
        self._replicate_devices = replicate_devices
        self.state = TrustState()
        self.announcements = Announcements()
        self._alarms: list[str] = []
        self.refused = 0
        self.store_problem = ""
        self.quotas = Quotas(clock=clock)
        self.quotas.is_over = self._is_over
        self.replacements = Replacements()
        self._declined = Declined(clock=clock)
        self._ends = Ends()
        self._roots = RootChain()
        self._waiting = WaitingRoom()
        # Revocations that the disk had no room for; and those tried again now, charged before.
        self._unsaved: OrderedDict[StatementId, tuple[Item, str]] = OrderedDict()
        self._heard = frozenset[StatementId]()
        self._look_again = False
        self._forget_at = clock.monotonic()
        self._listeners: list[Callable[[Change], None]] = []

    @property
    def alarms(self) -> list[str]:
        """What the operator is to know: what happened, and what is amiss now."""
        filling = self.quotas.warnings(self.state)
        return [*self._alarms, *self.heartbeats.problems(), *filling]

    def set_policy(self, policy: Policy) -> None:
        """Judge by another policy from now on."""
        self.policy = policy
        self._judge()
        self._notify(Change(roots=True))

    def subscribe(self, listener: Callable[[Change], None]) -> None:
        """Call ``listener`` after every change, in the order of subscription."""
        self._listeners.append(listener)

    def load(self) -> None:
        """Read everything the store holds.

        Raises:
            StoreError: The store cannot be read.
        """
        for kind, stored in groupby(self._ledger.load(), key=attrgetter("kind")):
            if kind is Kind.GRANT:
                self._restore_grants(stored)
            else:
                for one in stored:
                    with suppress(EquivocationError), _stopping():
                        self._restore(one)
        self._judge()
        self.heartbeats.adopt(self.state)

    def _judge(self) -> frozenset[bytes]:
        """Look which branches are fallen now; return what rests on those that changed."""
        before = self.state.fallen
        self.state = self.quotas.judge(self.state, self.policy)
        self.heartbeats.branches = self.quotas.branches
        for key in sorted(self.state.fallen - before):
            self._raise_alarm(
                f"the branch of `{branch_name(key)}` overflowed its quota:"
                " all below it is taken for revoked"
            )
        changed = self.state.fallen ^ before
        # Sessions rest on keys and grants: on a domain by way of what somebody granted it.
        granted = (grant for one in changed for grant in self.state.grants_to(one))
        return changed | {one.statement_id for one in granted}

    def _restore_grants(self, stored: Iterable[StoredStatement]) -> None:
        """Do as `_restore` for all grants, a batch at a time: there may be a million."""
        for source, of_source in groupby(stored, key=attrgetter("source")):
            while batch := list(islice(of_source, _RESTORED_AT_ONCE)):
                with _stopping():
                    self._apply([_checked(one, _reread(one)) for one in batch], source)

    def _restore(self, one: StoredStatement) -> None:
        """Apply what was verified and welcome when it was stored, whatever is listed now."""
        if one.kind is Kind.ROOT:
            self._restore_root(one)
            return
        statement = _checked(one, recall(one.kind, one.data))
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
        root = self._roots.verify(one.data)
        if root is None:
            raise FormatError("a root without the version before it")
        self._refuse_rival(root)
        self._apply([root], one.source)

    def _raise_alarm(self, sentence: str) -> None:
        if sentence not in self._alarms:
            self._alarms.append(sentence)

    def _refuse_rival(self, root: Root) -> None:
        try:
            self._roots.refuse_rival(root, self.state)
        except EquivocationError as error:
            self._raise_alarm(str(error))
            raise

    # --- persist, apply, notify -----------------------------------------------------------

    def _save(self, taken: Iterable[Taken], source: str) -> None:
        try:
            self._ledger.save(taken, source)
        except StoreError as error:
            self.store_problem = str(error)
            raise
        self.store_problem = ""
        self._ledger.forget(self.heartbeats.take_replaced())

    def _save_proofs(self) -> None:
        """Put heads that prove a lie on disk, for the next start; later, if that fails."""
        proofs = self.heartbeats.take_proofs()
        if not proofs:
            return
        try:
            self._ledger.save([(one, one.encoded) for one in proofs], "gossip", durable=True)
        except StoreError as error:
            self.store_problem = str(error)
            self.heartbeats.keep_proofs(proofs)

    def _apply(self, statements: Iterable[Root | Statement], source: str) -> None:
        grants: list[Grant] = []
        revocations: list[Revoke] = []
        for statement in statements:
            match statement:
                case Root():
                    self._roots.add(statement)
                    self.state = self.state.apply_root(statement)
                    self.heartbeats.adopt_root(statement)
                case Grant():
                    grants.append(statement)
                case Revoke():
                    revocations.append(statement)
                case Broker():
                    self._announce(statement, source)
                    continue
                case _:
                    continue
            self._ledger.enter(statement, source)
        state, gone = self.state.take_grants(grants)
        self.state = state.apply_revocations(revocations)
        self._note_endings(grants, revocations)
        for grant in grants:
            self._ends.add(grant)
            self.replacements.add(grant)
            if self._travels(grant):
                self._ledger.travelling[grant.statement_id] = Kind.GRANT
        self._let_go(gone)
        for revoke in revocations:
            self._gossip_evidence(revoke)

    def _note_endings(self, grants: Iterable[Grant], revocations: Iterable[Revoke]) -> None:
        """Note until when revocations are needed, whichever came first: they or their grants."""
        for grant in grants:
            for revoke in self.state.by_target.get(grant.statement_id, ()):
                self.heartbeats.endings.note(revoke, grant)
        for revoke in revocations:
            named = self._named_by(revoke)
            if named is not None:
                self.heartbeats.endings.note(revoke, named)
            elif (until := self._kept_end(revoke)) is not None:
                self.heartbeats.endings.note_until(revoke, until)

    def _kept_end(self, revoke: Revoke) -> int | None:
        """Return until when a revocation of a grant that was forgotten here is needed."""
        if needed_until(revoke) is not None:
            return None
        with suppress(StoreError):
            return self._store.end_of(StatementId(revoke.target))
        # Whoever cannot tell keeps it.
        return None

    def _is_over(self, revoke: Revoke) -> bool:
        until = self._kept_end(revoke)
        return until is not None and is_spent(until, now=self._clock.now())

    def _named_by(self, revoke: Revoke) -> Grant | None:
        """Return the one grant that a revocation names, if it is held."""
        item = None if revoke.is_key else self._ledger.item(StatementId(revoke.target))
        if item is None or item.kind is not Kind.GRANT:
            return None
        return reread_grant(HeldGrant(item.data))

    def _let_go(self, gone: Iterable[Grant]) -> None:
        """Drop grants that newer ones replaced or that ended long ago; nobody need send them."""
        ids, ends = [], []
        for grant in gone:
            revocations = self.state.by_target.get(grant.statement_id, ())
            untils = (self.heartbeats.endings.until(one) for one in revocations)
            ends += [(grant.statement_id, one) for one in untils if one not in (None, FOR_EVER)]
            ids.append(grant.statement_id)
            self._ends.remove(grant)
            self.replacements.remove(grant)
            self._declined.add(grant.statement_id, Kind.GRANT)
        if ends:
            with suppress(StoreError):
                # Without it the revocation stays for ever.
                self._store.note_ends(ends)
        self._ledger.drop(ids)

    def forget_revocations(self, *, most: int = _FORGOTTEN_AT_ONCE) -> int:
        """Forget revocations that are needed no more and that no list names; return how many."""
        ids = self.heartbeats.unneeded(self.state, most=most)
        if not ids:
            return 0
        revocations = [self.state.revocations[one] for one in ids]
        untils = [(one, self.heartbeats.endings.until(one)) for one in revocations]
        ends = [(StatementId(one.target), end) for one, end in untils if end is not None]
        try:
            # Or what somebody else still holds would come back, and stay.
            self._store.note_ends(ends)
        except StoreError as error:
            self.store_problem = str(error)
            return 0
        for revoke in revocations:
            self._declined.add(revoke.statement_id, Kind.REVOKE)
            grant = self._named_by(revoke)
            if grant is not None:
                # It was kept to say when it ended.
                self._ends.add(grant)
        self.state = self.state.without_revocations(ids)
        self.heartbeats.drop(ids)
        self._ledger.drop(ids)
        self._judge()
        self.heartbeats.advance(self.state)
        return len(ids)

    def forget_ended(self, *, now: int, most: int = 256) -> int:
        """Forget grants that ended ``limits.GRANT_KEPT_S`` ago; return how many were looked at.

        And, beginning once an hour, revocations that are needed no more.

        Args:
            now: Seconds since the Unix epoch.
            most: Subjects to look at.
        """
        if self._clock.monotonic() >= self._forget_at and not self.forget_revocations():
            self._forget_at = self._clock.monotonic() + _FORGET_EVERY_S
        before = now - limits.GRANT_KEPT_S
        subjects = self._ends.take(before, most)
        if subjects:
            self.state, gone = self.state.without_ended(
                dict.fromkeys(subjects),
                before=before,
                keep=lambda one: self.quotas.is_needed(one, self.state),
            )
            self._let_go(gone)
            changed = self._judge()
            if changed:
                self._notify(Change(fallen=changed))
        return len(subjects)

    def _announce(self, broker: Broker, source: str) -> None:
        self._ledger.enter(broker, source)
        replaced = self.announcements.put(broker)
        if replaced is not None:
            self._ledger.drop([replaced])

    def subjects_ending(self, end: int) -> Iterator[bytes]:
        """Yield the subjects of grants that end up to the day of ``end``; some twice."""
        return self._ends.until(end)

    def forget_announcements(self, *, now: int) -> None:
        """Forget announcements that ended long ago."""
        self._ledger.drop(self.announcements.take_ended(now=now))

    def _gossip_evidence(self, revoke: Revoke) -> None:
        named = self._named_by(revoke)
        if named is not None:
            # It says until when the revocation is needed.
            self._ledger.travelling[named.statement_id] = Kind.GRANT
        if not revoke.is_key:
            return
        for grant in self.state.grants_to(key_id(PublicKey(revoke.target))):
            self._ledger.travelling[grant.statement_id] = Kind.GRANT

    def _travels(self, grant: Grant) -> bool:
        return travels(
            grant,
            state=self.state,
            waiting=self._waiting,
            replicate_devices=self._replicate_devices,
        )

    def _notify(self, change: Change) -> None:
        for listener in self._listeners:
            listener(change)

    # --- heartbeats -----------------------------------------------------------------------

    def beat(self) -> list[Item]:
        """Sign this daemon's own head if it is due; return what is to be gossiped."""
        before = self.heartbeats.freshness()
        items = self._sign_own()
        self._save_proofs()
        for sentence in self.heartbeats.take_alarms():
            self._raise_alarm(sentence)
        if self.heartbeats.freshness() != before:
            self._notify(Change(freshness=True))
        return items

    def _sign_own(self) -> list[Item]:
        try:
            heartbeat = self.heartbeats.sign_own(self.state)
        except StoreError as error:
            # A list that is not on disk is promised to nobody; it is tried again in a second.
            self.store_problem = str(error)
            return []
        except EquivocationError as error:
            # Somebody else signs with the own key; the proof is told.
            self._raise_alarm(str(error))
            return self.heartbeats.own_items()
        if heartbeat is None:
            return []
        self._ledger.forget(self.heartbeats.take_replaced())
        # Behind the last head of the list before: whoever missed that one can follow.
        return self.heartbeats.own_items()

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

    def evaluate(self, key: PublicKey, *, now: int, tls: bool = False) -> Evaluation:
        """Find the paths to a key, or to the digest of a TLS key, as things stand."""
        return find_paths(
            self.state,
            key,
            policy=self.policy,
            freshness=self.heartbeats.freshness(),
            now=now,
            tls=tls,
        )

    def refused_service(self, broker: Broker) -> Failure | None:
        """Say why an announcement does not count as things stand; None if it does."""
        now = self._clock.now()
        return refused_service(
            broker,
            self.evaluate(broker.issuer, now=now),
            policy=self.policy,
            freshness=self.heartbeats.freshness(),
            now=now,
        )

    def in_force(self, revocation_id: StatementId) -> bool:
        """Say whether more than half of the own domain's heartbeat keys signed a revocation.

        One that is needed no more is left off their lists, and what it took back has ended.
        """
        if revocation_id in self.heartbeats.spent(self.state):
            return True
        view = self.heartbeats.domains.get(self.policy.own)
        return view is not None and view.in_force(revocation_id)

    def held(self) -> dict[StatementId, Kind]:
        """Return every statement that travels by gossip, heartbeats left out.

        Those that were declined are among them, behind the others: they need not be offered again.
        """
        # What a list names is to be asked for all the same: without it the list proves nothing.
        declined = {
            one: kind
            for one, kind in self._declined.ids().items()
            if not self.heartbeats.lacks(one)
        }
        return {**self._ledger.travelling, **declined} if declined else self._ledger.travelling

    def statement(self, statement_id: StatementId) -> Item | None:
        """Return one statement to send."""
        return self._ledger.item(statement_id)

    def source(self, statement_id: StatementId) -> str:
        """Return where a statement came from: ``local``, ``gossip``, ``dht`` or ``stapled``."""
        return self._ledger.source(statement_id)

    def with_evidence(self, revoke: Revoke) -> list[Item]:
        """Return a revocation as it is to be pushed: behind the grants it is about."""
        named = self._named_by(revoke)
        grants: tuple[Grant, ...] = () if named is None else (named,)
        if revoke.is_key:
            grants = self.state.grants_to(key_id(PublicKey(revoke.target)))
        evidence = [Item(Kind.GRANT, grant.encoded) for grant in grants]
        return [*evidence, Item(Kind.REVOKE, revoke.encoded)]


@contextmanager
def _stopping() -> Iterator[None]:
    # A revocation left out would allow: what cannot be read stops the daemon.
    try:
        yield
    except EquivocationError:
        raise
    except AuthdError as error:
        raise StoreError(f"the store holds a damaged statement: {error}") from error


def _reread(one: StoredStatement) -> Grant:
    return reread_grant(HeldGrant(one.data))


def _checked(one: StoredStatement, statement: _Read) -> _Read:
    """Return what was verified before it was stored; only its id is checked again.

    Raises:
        FormatError: It is damaged: it has another id than it was stored under.
    """
    if statement.statement_id != one.statement_id:
        raise FormatError("it has another id than it was stored under")
    return statement
