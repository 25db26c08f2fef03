"""Sessions of the embedded broker: who takes whose place, what events do, how a session ends.

INVARIANT: an admission is dropped before its connection is ended, and everything the client could
still do is refused from that moment on.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from authd.embedded.admissions import Admission
from authd.embedded.consult import Changed, Cut, Event, Leases, Report, Snapshot, What
from authd.embedded.contain import contained
from authd.embedded.engine import CheckedBroker, Policy
from authd.embedded.messages import Will
from authd.embedded.retained import Owner
from authd.errors import ConflictError, ReasonCode

_log = structlog.get_logger(__name__)

END_TIMEOUT_S: Final = 2.0
# Events that may come while the daemon answers; more, and the answer is not used.
MAX_MISSED_EVENTS: Final = 1_000


@dataclass(eq=False, slots=True, kw_only=True)
class Connection:
    """One allowed client's connection.

    Attributes:
        client_id: As the daemon allowed it.
        session_id: The daemon's name for the session.
        key_id: Who the client is.
        clean: Whether nothing is kept when it ends.
        abort: Closes the socket at once; amqtt then sees the client gone.
        ended: Set when amqtt has let go of it.
    """

    client_id: str
    session_id: str
    key_id: str
    clean: bool
    abort: Callable[[], None]
    ended: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(eq=False, slots=True)
class Question:
    """A CONNECT that the daemon is being asked about, and what happened meanwhile."""

    stream: int
    events: list[Event] = field(default_factory=list)


class Sessions:
    """The live and durable sessions of one broker."""

    def __init__(
        self,
        *,
        policy: Policy,
        engine: CheckedBroker,
        group: asyncio.TaskGroup,
        report: Callable[[Report], None],
    ) -> None:
        """Start without any; nobody is admitted before the first snapshot.

        Args:
            policy: What amqtt's plugin answers from.
            engine: The broker that hosts the sessions.
            group: Where the work of ending sessions runs.
            report: Takes what the daemon is to be told; never waits.
        """
        self._policy = policy
        self._admissions = policy.admissions
        self._engine = engine
        self._group = group
        self._report = report
        self._connections: dict[str, Connection] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._questions: set[Question] = set()
        self._stream = 0
        self.watching = asyncio.Event()

    # --- a connection from its admission to its end ------------------------------------------

    def ask(self) -> Question:
        """Note that the daemon is being asked, so that events meanwhile are not missed."""
        question = Question(self._stream)
        self._questions.add(question)
        return question

    def answered(self, question: Question) -> None:
        """Stop noting events for a question."""
        self._questions.discard(question)

    def admit(
        self,
        connection: Connection,
        admission: Admission,
        question: Question,
    ) -> Connection | None:
        """Put an allowed client into the table, as the events since the question leave it.

        Returns:
            The older connection whose place is taken: `end` it before amqtt sees the new one.

        Raises:
            ConflictError: The client id is held by another key's live connection, or an event
                may have been missed, or one has already ended the session.
        """
        try:
            older = self._admit(connection, admission, question)
        except ConflictError:
            self._tell(admission.client_id, admission.session_id, What.OFFLINE)
            raise
        self._tell(admission.client_id, admission.session_id, What.ONLINE)
        return older

    def _admit(
        self,
        connection: Connection,
        admission: Admission,
        question: Question,
    ) -> Connection | None:
        client_id = admission.client_id
        older = self._connections.get(client_id)
        if older is not None and older.key_id != admission.key_id:
            raise ConflictError(
                f"client id `{client_id}` is in use by another key",
                reason=ReasonCode.CLIENT_ID_TAKEN,
            )
        missed = len(question.events) >= MAX_MISSED_EVENTS or question.stream != self._stream
        if missed or not self.watching.is_set():
            raise ConflictError("the event stream was opened anew", reason=ReasonCode.OVERLOADED)
        self._admissions.put(admission)
        for event in question.events:
            self._replay(event, admission.session_id)
        if not self._admissions.is_current(client_id):
            self._admissions.drop(client_id)
            if older is not None:
                older.abort()
            raise ConflictError("the session ended while it began", reason=ReasonCode.LEASE_ENDED)
        self._connections[client_id] = connection
        self._arm(client_id)
        return older

    async def prepare(self, connection: Connection, will: Will | None) -> bool:
        """Make the place ready for amqtt; say whether the connection may still have it."""
        client_id = connection.client_id
        if self._policy.owners.get(client_id, connection.key_id) != connection.key_id:
            await self._engine.forget(client_id)
        self._policy.owners[client_id] = connection.key_id
        self._engine.prune(client_id)
        if not self._policy.keep_will(client_id, will) and will is not None:
            _log.info("will_refused", client_id=client_id, topic=will.topic)
        current = self._connections.get(client_id) is connection
        return current and self._admissions.is_current(client_id)

    async def end(self, connection: Connection) -> None:
        """End a connection and wait until amqtt has let go of it.

        Raises:
            TimeoutError: It has not within `END_TIMEOUT_S`.
        """
        connection.abort()
        async with asyncio.timeout(END_TIMEOUT_S):
            await connection.ended.wait()

    async def release(self, connection: Connection) -> None:
        """Clean up after a connection that has ended; keeps durable state that may go on."""
        client_id = connection.client_id
        owner = client_id, connection.key_id
        self._tell(client_id, connection.session_id, What.OFFLINE, owner)
        await self._engine.detach(client_id)
        if connection.clean:
            await self._engine.forget(client_id)
        if self._connections.get(client_id) is connection:
            del self._connections[client_id]
            if connection.clean or not self._admissions.is_current(client_id):
                await self._forget(client_id)
        connection.ended.set()

    def close(self) -> None:
        """Stop all timers."""
        for timer in self._timers.values():
            timer.cancel()

    # --- events -----------------------------------------------------------------------------

    def apply(self, event: Event) -> None:
        """Do what an event says; what it denies is denied when this returns."""
        match event:
            case Snapshot():
                self._apply_snapshot(event)
            case Changed():
                self._change(event.session)
            case Leases():
                self._move_leases(event.ends_at)
            case Cut():
                self._cut(event)
        for question in self._questions:
            if len(question.events) < MAX_MISSED_EVENTS:
                question.events.append(event)

    def lose_stream(self) -> None:
        """Admit nobody until a new snapshot; sessions go on to the end of their leases."""
        self.watching.clear()

    def _apply_snapshot(self, snapshot: Snapshot) -> None:
        self._stream += 1
        held = {one.session_id: one for one in self._admissions.held()}
        listed = {session.session_id: session for session in snapshot.sessions}
        for session_id in held.keys() - listed.keys():
            reason = "not in the daemon's snapshot"
            self._drop(held[session_id], publish_will=False, reason=reason)
        for session_id, session in listed.items():
            if session_id in held:
                self._change(session)
            else:
                self._tell(session.client_id, session_id, What.OFFLINE)
        self.watching.set()

    def _replay(self, event: Event, session_id: str) -> None:
        match event:
            case Changed() if event.session.session_id == session_id:
                self._change(event.session)
            case Leases() if session_id in event.ends_at:
                self._move_leases({session_id: event.ends_at[session_id]})
            case Cut():
                for held in self._admissions.held():
                    if held.session_id == session_id and event.names(held):
                        self._admissions.drop(held.client_id)

    def _change(self, session: Admission) -> None:
        held = self._admissions.get(session.client_id)
        if held is not None and held.session_id == session.session_id:
            self._admissions.put(replace(session, key_id=held.key_id))
            self._refresh(session.client_id)

    def _move_leases(self, ends_at: dict[str, float]) -> None:
        for session_id, end in ends_at.items():
            client_id = self._admissions.change_lease(session_id, end)
            if client_id is not None:
                self._refresh(client_id)

    def _refresh(self, client_id: str) -> None:
        self._engine.prune(client_id)
        self._policy.keep_will(client_id, self._policy.wills.get(client_id))
        self._arm(client_id)

    def _cut(self, cut: Cut) -> None:
        named = [held for held in self._admissions.held() if cut.names(held)]
        for held in named:
            self._drop(held, publish_will=cut.publish_will, reason=cut.reason)
        if cut.session_id and not named:
            self._tell(cut.client_id, cut.session_id, What.NOT_FOUND)

    # --- ending -----------------------------------------------------------------------------

    def _arm(self, client_id: str) -> None:
        self._disarm(client_id)
        self._timers[client_id] = asyncio.get_running_loop().call_later(
            self._admissions.seconds_left(client_id),
            self._on_lease_end,
            client_id,
        )

    def _disarm(self, client_id: str) -> None:
        timer = self._timers.pop(client_id, None)
        if timer is not None:
            timer.cancel()

    def _on_lease_end(self, client_id: str) -> None:
        held = self._admissions.get(client_id)
        if held is None:
            return
        if self._admissions.is_current(client_id):
            self._arm(client_id)
            return
        self._drop(held, publish_will=held.publish_will, reason=ReasonCode.LEASE_ENDED)

    def _drop(self, held: Admission, *, publish_will: bool, reason: str) -> None:
        client_id = held.client_id
        self._admissions.drop(client_id)
        self._disarm(client_id)
        if not publish_will:
            self._policy.wills.pop(client_id, None)
        _log.info("session_cut", client_id=client_id, session=held.session_id, reason=reason)
        ending = self._finish(held, self._connections.get(client_id))
        self._group.create_task(contained(ending), name=f"embedded broker: cut {client_id}")

    async def _finish(self, held: Admission, connection: Connection | None) -> None:
        what = What.CUT_OFFLINE
        if connection is not None:
            try:
                await self.end(connection)
                what = What.KICKED
            except TimeoutError:
                what = What.KICK_FAILED
        elif self._admissions.get(held.client_id) is None:
            await self._forget(held.client_id)
        self._tell(held.client_id, held.session_id, what, (held.client_id, held.key_id))

    def _tell(
        self, client_id: str, session_id: str, what: What, owner: Owner | None = None
    ) -> None:
        """Tell the daemon of a session; with an owner also what that one left behind."""
        left, more = self._policy.retained.of(owner) if owner else ((), 0)
        self._report(
            Report(
                session_id=session_id,
                client_id=client_id,
                what=what,
                retained=left,
                retained_more=more,
            ),
        )

    async def _forget(self, client_id: str) -> None:
        self._admissions.drop(client_id)
        self._disarm(client_id)
        self._policy.owners.pop(client_id, None)
        await self._engine.forget(client_id)
