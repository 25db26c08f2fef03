"""Sessions: which key holds which client id where, and the numbered events of each broker.

A session is one live or durable client on one broker, bound to a key and indexed by every grant
and key its rights rest on. Its rights are compiled, never stored: after a restart they are
compiled anew from what the store holds.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from authd.core.decision import Rights
from authd.core.encoding import encode_base64url
from authd.core.grants import Form
from authd.core.identity import PublicKey, key_id_text
from authd.core.policy import Policy
from authd.core.proofs import Audience, VerifiedProof
from authd.core.topics import Action
from authd.core.trust import Freshness
from authd.service.ports import Clock, Entropy, SessionEvent, SessionStore, StoredSession

_SESSION_ID_BYTES: Final = 8
_RUN_BYTES: Final = 8
# An enforcement point that is this far behind must start anew from a snapshot.
_MAX_QUEUED_EVENTS: Final = 10_000
BEAT_S: Final = 5.0


@dataclass(slots=True, kw_only=True)
class Session:
    """One live or durable client on one broker.

    Attributes:
        began: Whether the broker said that it took our allow; an answer that came too late leaves
            a session that only we know of.
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

    @property
    def key(self) -> PublicKey:
        """Whose it is."""
        return self.proof.key


@dataclass(slots=True, kw_only=True)
class Cut:
    """What became of a session that was ended; shown by ``authd revoke``."""

    broker: str
    client_id: str
    key: PublicKey
    reason: str
    at: float
    outcome: str = "sent"


class EventLog:
    """The numbered events of one broker and who listens to them."""

    def __init__(self) -> None:
        """Start at number 0."""
        self.number = 0
        self._listeners: dict[str, asyncio.Queue[SessionEvent | None]] = {}

    def emit(self, kind: str, body: dict[str, object]) -> None:
        """Number an event and hand it to every listener; one that is too slow is ended."""
        self.number += 1
        event = SessionEvent(number=self.number, kind=kind, body=body)
        for boot, queue in list(self._listeners.items()):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self.end(boot)

    def listen(self, boot: str) -> "asyncio.Queue[SessionEvent | None]":
        """Return a new queue of events; an older one of the same boot is ended."""
        self.end(boot)
        queue: asyncio.Queue[SessionEvent | None] = asyncio.Queue(_MAX_QUEUED_EVENTS + 1)
        self._listeners[boot] = queue
        return queue

    def end(self, boot: str) -> None:
        """End the stream of a boot."""
        queue = self._listeners.pop(boot, None)
        if queue is None:
            return
        while queue.full():
            queue.get_nowait()
        queue.put_nowait(None)

    def forget(self, boot: str, queue: "asyncio.Queue[SessionEvent | None]") -> None:
        """Forget a listener that left by itself."""
        if self._listeners.get(boot) is queue:
            del self._listeners[boot]

    @property
    def listening(self) -> int:
        """How many streams are live."""
        return len(self._listeners)


class Sessions:
    """Every session this daemon allowed, and how enforcement points hear of changes."""

    def __init__(self, *, store: SessionStore, clock: Clock, entropy: Entropy) -> None:
        """Wire the parts; ``run`` identifies this process to enforcement points."""
        self._store = store
        self._clock = clock
        self._entropy = entropy
        self.run = entropy.token(_RUN_BYTES).hex()
        self._by_client: dict[tuple[str, str], Session] = {}
        self._by_key: defaultdict[PublicKey, set[tuple[str, str]]] = defaultdict(set)
        self._resting_on: defaultdict[bytes, set[tuple[str, str]]] = defaultdict(set)
        self.events: defaultdict[str, EventLog] = defaultdict(EventLog)
        self.cuts: list[Cut] = []

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
        began: bool = True,
    ) -> Session:
        """Start a session in the place of the key's earlier one under that client id.

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
        self.save(session)
        self._drop((broker, proof.client_id))
        self._index(session)
        return session

    def save(self, session: Session) -> None:
        """Persist a session.

        Raises:
            StoreError: The store cannot be written.
        """
        self._store.save_session(
            StoredSession(
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
            ),
        )

    def close(self, session: Session) -> None:
        """Forget a session.

        Raises:
            StoreError: The store cannot be written.
        """
        place = (session.broker, session.client_id)
        if self._by_client.get(place) is session:
            self._store.delete_session(*place)
            self._drop(place)

    def set_rights(self, session: Session, rights: Rights, *, lease_until: int) -> None:
        """Replace what a session may do, and what it rests on."""
        place = (session.broker, session.client_id)
        self._unrest(place, session)
        session.rights, session.lease_until = rights, lease_until
        self._rest(place, session)

    def _index(self, session: Session) -> None:
        place = (session.broker, session.client_id)
        self._by_client[place] = session
        self._by_key[session.key].add(place)
        self._rest(place, session)

    def _drop(self, place: tuple[str, str]) -> None:
        session = self._by_client.pop(place, None)
        if session is None:
            return
        self._unrest(place, session)
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

    # --- events ---------------------------------------------------------------------------

    def describe(
        self,
        session: Session,
        *,
        policy: Policy,
        freshness: Freshness,
        will: str,
    ) -> dict[str, object]:
        """Write rights and lease down as `docs/spec/broker-socket.md` has them."""
        now = self._clock.now()
        ends = [
            entry.ends_at(policy=policy, freshness=freshness) for entry in session.rights.entries
        ]
        lease = max(ends, default=now)
        return {
            "client_id": session.client_id,
            "session": session.session_id,
            "key": key_id_text(session.key),
            "lease_ms": max(0, lease - now) * 1_000,
            "rights": [
                {
                    "filter": entry.topic_filter,
                    "actions": int(entry.actions & (Action.PUB | Action.SUB)),
                    **({"ms": max(0, end - now) * 1_000} if end < lease else {}),
                }
                for entry, end in zip(session.rights.entries, ends, strict=True)
            ],
            "will": will,
        }

    def note_cut(self, *, broker: str, client_id: str, key: PublicKey, reason: str) -> Cut:
        """Remember that a session is being ended."""
        cut = Cut(
            broker=broker,
            client_id=client_id,
            key=key,
            reason=reason,
            at=self._clock.monotonic(),
        )
        self.cuts.append(cut)
        del self.cuts[:-_MAX_QUEUED_EVENTS]
        return cut

    def confirm_cut(self, *, broker: str, client_id: str, outcome: str) -> None:
        """Record what an enforcement point said of a cut."""
        for cut in reversed(self.cuts):
            if cut.broker == broker and cut.client_id == client_id:
                cut.outcome = outcome
                return

    async def watch(
        self,
        broker: str,
        boot: str,
        snapshot: Callable[[], dict[str, object]],
    ) -> AsyncIterator[SessionEvent]:
        """Stream events after a snapshot; a beat after each silence of 5 s; ends when replaced."""
        log = self.events[broker]
        # The snapshot gets a number of its own; whoever else listens sees nothing under it.
        log.emit("lease", {"leases": []})
        queue = log.listen(boot)
        try:
            body = {**snapshot(), "run": self.run}
            yield SessionEvent(number=log.number, kind="snapshot", body=body)
            while True:
                try:
                    event = await asyncio.wait_for(queue.get(), timeout=BEAT_S)
                except TimeoutError:
                    event = SessionEvent(number=log.number, kind="beat", body={"run": self.run})
                if event is None:
                    return
                yield event
        finally:
            log.forget(boot, queue)
