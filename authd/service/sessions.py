"""Sessions: which key holds which client id where, and the numbered events of each broker.

A session is one live or durable client on one broker, bound to a key and indexed by every grant
and key its rights rest on. Its rights are compiled, never stored: after a restart they are
compiled anew from what the store holds.
"""

from collections import Counter, OrderedDict, defaultdict
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from authd.core.decision import Rights
from authd.core.encoding import encode_base64url
from authd.core.grants import Form
from authd.core.identity import PublicKey, key_id_text
from authd.core.proofs import Audience, VerifiedProof
from authd.errors import StoreError
from authd.service.events import MAX_QUEUED_EVENTS, EventLog, Part, Source
from authd.service.leftovers import Leftovers, Retained
from authd.service.ports import (
    Clock,
    Entropy,
    HeldClient,
    SessionStore,
    StoredSession,
)

_SESSION_ID_BYTES: Final = 8
_RUN_BYTES: Final = 8
# As many as an enforcement point may be behind.
_MAX_CUTS: Final = MAX_QUEUED_EVENTS
_MAX_FORMER: Final = MAX_QUEUED_EVENTS
# A broker that took an allow says so at once; this is many times what that takes.
BEGIN_S: Final = 15
# A client uses one client id; some use a few. Whoever goes through many keeps the last ones only.
MAX_AWAY_OF_A_KEY: Final = 8


@dataclass(slots=True, kw_only=True)
class Session:
    """One live or durable client on one broker.

    Attributes:
        boot: The run of the broker in which it was last connected.
        live: Whether its client is connected, as far as we were told.
        began: Whether the broker said that it took our allow; an answer that came too late leaves
            a session that only we know of.
        kept_until: When a session without a connection and without durable state ends for good;
            None for any other.
        unsaved: Whether the store may hold it otherwise, because it could not be written.
    """

    session_id: str
    broker: str
    boot: str
    client_id: str
    username: str
    proof: VerifiedProof
    durable: bool
    created_at: int
    number: int
    live: bool = True
    began: bool = True
    rights: Rights = field(default_factory=Rights)
    lease_until: int = 0
    kept_until: int | None = None
    unsaved: bool = False

    @property
    def due_at(self) -> int:
        """When it has to be looked at next: something of it ends, or it has not begun."""
        if not self.began:
            return min(self.lease_until, self.created_at + BEGIN_S)
        return (
            self.lease_until if self.kept_until is None else min(self.lease_until, self.kept_until)
        )

    @property
    def holds_client_id(self) -> bool:
        """Whether another key is to be kept from its client id."""
        return self.live or self.durable

    @property
    def key(self) -> PublicKey:
        """Whose it is."""
        return self.proof.key

    def is_held_as(self, client: HeldClient) -> bool:
        """Say whether an enforcement point means this session, or another of its key."""
        return client.session_id == self.session_id or client.key == key_id_text(self.key)


@dataclass(slots=True, kw_only=True)
class Cut:
    """What became of a session that was ended; shown by ``authd revoke``.

    Attributes:
        rested_on: Keys and grant ids that its rights rested on.
    """

    broker: str
    client_id: str
    key: PublicKey
    reason: str
    at: float
    rested_on: frozenset[bytes] = frozenset()
    outcome: str = "sent"


class Sessions:
    """Every session this daemon allowed, and how enforcement points hear of changes."""

    def __init__(self, *, store: SessionStore, clock: Clock, entropy: Entropy) -> None:
        """Wire the parts; ``run`` identifies this process to enforcement points."""
        self._store = store
        self._clock = clock
        self._entropy = entropy
        self.run = entropy.token(_RUN_BYTES).hex()
        self._by_client: dict[tuple[str, str], Session] = {}
        self._by_id: dict[str, Session] = {}
        self._former: OrderedDict[str, Session] = OrderedDict()
        self._away: Counter[PublicKey] = Counter()
        self._by_key: defaultdict[PublicKey, set[tuple[str, str]]] = defaultdict(set)
        self._resting_on: defaultdict[bytes, set[tuple[str, str]]] = defaultdict(set)
        self.events: defaultdict[str, EventLog] = defaultdict(EventLog)
        self.cuts: list[Cut] = []
        self.leftovers = Leftovers()
        # INVARIANT: never later than the first moment at which a session has to be looked at.
        self.due_at = 0

    def load(self) -> list[Session]:
        """Read the sessions of an earlier run; their rights are still empty.

        Raises:
            StoreError: The store cannot be read.
        """
        for stored in self._store.load_sessions():
            proof = VerifiedProof(
                key=stored.key,
                form=Form(stored.form),
                client_id=stored.client_id,
                audience=Audience(stored.audience_domain, stored.audience_endpoint),
            )
            self._index(
                Session(
                    session_id=stored.session_id,
                    broker=stored.broker,
                    boot=stored.boot,
                    client_id=stored.client_id,
                    username=stored.username,
                    proof=proof,
                    durable=stored.durable,
                    created_at=stored.created_at,
                    number=0,
                    live=stored.live,
                ),
            )
        return list(self._by_client.values())

    # --- the table ------------------------------------------------------------------------

    def get(self, broker: str, client_id: str) -> Session | None:
        """Return the session of a client id, if there is one."""
        return self._by_client.get((broker, client_id))

    def by_id(self, broker: str, session_id: str) -> Session | None:
        """Return the session with an id, if it is on that broker."""
        session = self._by_id.get(session_id)
        return session if session is not None and session.broker == broker else None

    def former(self, broker: str, session_id: str) -> Session | None:
        """Return a session that ended a while ago, if it was on that broker."""
        session = self._former.get(session_id)
        return session if session is not None and session.broker == broker else None

    def may_wait(self, session: Session) -> bool:
        """Say whether a session may stay without a connection: a key has a few such."""
        return session.kept_until is not None or self._away[session.key] < MAX_AWAY_OF_A_KEY

    def all(self) -> list[Session]:
        """Return every session."""
        return list(self._by_client.values())

    def on(self, broker: str) -> list[Session]:
        """Return the sessions on a broker."""
        return [one for one in self._by_client.values() if one.broker == broker]

    def of_key(self, key: PublicKey) -> list[Session]:
        """Return the sessions of a key."""
        return [self._by_client[place] for place in sorted(self._by_key.get(key, ()))]

    def resting_on(self, names: Iterable[bytes]) -> list[Session]:
        """Return the sessions whose rights rest on any of these keys or grant ids."""
        places = set[tuple[str, str]]()
        for name in names:
            places |= self._resting_on.get(name, set())
        return [self._by_client[place] for place in sorted(places)]

    def open(
        self,
        *,
        broker: str,
        boot: str,
        username: str,
        proof: VerifiedProof,
        durable: bool,
        rights: Rights,
        lease_until: int,
        admit: Callable[[StoredSession], bool],
        began: bool = True,
    ) -> Session | None:
        """Start a session in the place of the key's earlier one under that client id.

        Args:
            broker: Name of the entry.
            boot: Which run of the broker this is.
            username: As the CONNECT carried it.
            proof: What let it in.
            durable: Whether it outlives its connection.
            rights: What it may do.
            lease_until: When the first of them ends.
            admit: Puts it on disk, or says that it may not begin: it is not opened then.
            began: See `Session`.

        Raises:
            StoreError: It could not be persisted; nothing was changed.
        """
        session = Session(
            session_id=encode_base64url(self._entropy.token(_SESSION_ID_BYTES)),
            broker=broker,
            boot=boot,
            client_id=proof.client_id,
            username=username,
            proof=proof,
            durable=durable,
            created_at=self._clock.now(),
            number=self.events[broker].number,
            began=began,
            rights=rights,
            lease_until=lease_until,
        )
        if not admit(_stored(session)):
            return None
        self._drop((broker, proof.client_id))
        self._index(session)
        return session

    def go_on(
        self,
        session: Session,
        proof: VerifiedProof,
        rights: Rights,
        *,
        lease_until: int,
    ) -> None:
        """Let a session go on with another proof of its key, under its id.

        Raises:
            StoreError: It could not be persisted; nothing was changed.
        """
        before, session.proof = session.proof, proof
        try:
            self.save(session)
        except StoreError:
            session.proof = before
            raise
        session.number = self.events[session.broker].number
        self.set_rights(session, rights, lease_until=lease_until)

    def come_back(self, session: Session, *, boot: str, durable: bool) -> None:
        """Note that the client of a session is connected, in this run of its broker.

        Raises:
            StoreError: The store cannot be written.
        """
        before = session.boot, session.durable, session.live
        session.boot, session.durable, session.live = boot, durable, True
        session.began = True
        self._wait(session, until=None)
        if before != (boot, durable, True) or session.unsaved:
            self.save(session)

    def leave(self, session: Session) -> None:
        """Note that a session has no connection; without durable state it ends with its lease.

        One that had none already is not written again: whoever attaches finds all of them away.

        Raises:
            StoreError: The store cannot be written.
        """
        before, session.live = session.live, False
        if not session.durable and session.kept_until is None:
            self._wait(session, until=session.lease_until)
        if before or session.unsaved:
            self.save(session)

    def note_due(self, at: int) -> None:
        """Let `due_at` be no later than a moment at which something of a session ends."""
        self.due_at = min(self.due_at, at)

    def _wait(self, session: Session, *, until: int | None) -> None:
        self._away[session.key] += (until is not None) - (session.kept_until is not None)
        if not self._away[session.key]:
            del self._away[session.key]
        session.kept_until = until
        if until is not None:
            self.note_due(until)

    def save(self, session: Session) -> None:
        """Persist a session.

        Raises:
            StoreError: The store cannot be written.
        """
        session.unsaved = True
        self._store.save_session(_stored(session))
        session.unsaved = False

    def keep(self, session: StoredSession) -> bool:
        """Put a session on disk whose proof is used up already; True.

        Raises:
            StoreError: The store cannot be written.
        """
        self._store.save_session(session)
        return True

    def close(self, session: Session) -> None:
        """Forget a session, also where the store cannot be written.

        A row that stays is judged anew after a restart, as every other.
        """
        place = (session.broker, session.client_id)
        if self._by_client.get(place) is session:
            self._drop(place)
            with suppress(StoreError):
                self._store.delete_session(*place)

    def set_rights(self, session: Session, rights: Rights, *, lease_until: int) -> None:
        """Replace what a session may do, and what it rests on."""
        place = (session.broker, session.client_id)
        self._unrest(place, session)
        session.rights, session.lease_until = rights, lease_until
        self.note_due(lease_until)
        self._rest(place, session)

    def _index(self, session: Session) -> None:
        place = (session.broker, session.client_id)
        self._by_client[place] = session
        self._by_id[session.session_id] = session
        self._by_key[session.key].add(place)
        self.note_due(session.due_at)
        self._rest(place, session)

    def _drop(self, place: tuple[str, str]) -> None:
        session = self._by_client.pop(place, None)
        if session is None:
            return
        self._unrest(place, session)
        self._by_id.pop(session.session_id, None)
        self._wait(session, until=None)
        self._former[session.session_id] = session
        while len(self._former) > _MAX_FORMER:
            self._former.popitem(last=False)
        self._by_key[session.key].discard(place)
        if not self._by_key[session.key]:
            del self._by_key[session.key]

    def _rest(self, place: tuple[str, str], session: Session) -> None:
        for name in (*session.rights.keys, *session.rights.grants):
            self._resting_on[name].add(place)

    def _unrest(self, place: tuple[str, str], session: Session) -> None:
        for name in (*session.rights.keys, *session.rights.grants):
            self._resting_on[name].discard(place)
            if not self._resting_on[name]:
                del self._resting_on[name]

    # --- cuts and events --------------------------------------------------------------------

    def note_cut(
        self,
        *,
        broker: str,
        client_id: str,
        key: PublicKey,
        reason: str,
        rested_on: Iterable[bytes] = (),
    ) -> Cut:
        """Remember that a session is being ended."""
        cut = Cut(
            broker=broker,
            client_id=client_id,
            key=key,
            reason=reason,
            at=self._clock.monotonic(),
            rested_on=frozenset(rested_on),
        )
        self.cuts.append(cut)
        del self.cuts[:-_MAX_CUTS]
        return cut

    def confirm_cut(self, *, broker: str, client_id: str, outcome: str) -> None:
        """Record what an enforcement point said of a cut."""
        for cut in reversed(self.cuts):
            if cut.broker == broker and cut.client_id == client_id:
                cut.outcome = outcome
                return

    def note_retained(self, broker: str, session_id: str, retained: Retained) -> None:
        """Note what a session that is known here, or was a while ago, may have left behind."""
        session = self.by_id(broker, session_id) or self.former(broker, session_id)
        if session is not None:
            self.leftovers.note(
                session.key,
                retained,
                broker=broker,
                client_id=session.client_id,
                rested_on=(*session.rights.keys, *session.rights.grants),
            )

    def watch(self, broker: str, boot: str, source: Source) -> AsyncGenerator[Part, None]:
        """Stream events after a snapshot; a beat after each silence of 5 s; ends when replaced."""
        return self.events[broker].watch(boot, source, run=self.run)


def _stored(session: Session) -> StoredSession:
    return StoredSession(
        session_id=session.session_id,
        broker=session.broker,
        boot=session.boot,
        client_id=session.client_id,
        username=session.username,
        key=session.key,
        form=int(session.proof.form),
        audience_domain=session.proof.audience.domain,
        audience_endpoint=session.proof.audience.endpoint,
        durable=session.durable,
        live=session.live,
        created_at=session.created_at,
    )
