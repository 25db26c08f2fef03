"""Keeping live sessions in step with the trust state: leases, narrower rights, cuts.

On every change the sessions that rest on it are evaluated again. A session is cut if it lost a
right that its broker cannot take away in place, or if none is left; otherwise it gets its new
rights. Denying comes first, and does not depend on the kick: once a session is closed here, every
further question about it is answered with a deny.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from functools import partial
from typing import Final

from authd.core.decision import Right, Rights, compile_rights
from authd.core.grants import Form, Grant, KeySubject
from authd.core.identity import DomainId, PublicKey, key_id_text
from authd.core.paths import Failure
from authd.core.proofs import VerifiedProof
from authd.core.statements import Broker, Revoke
from authd.errors import ReasonCode
from authd.service.authority import Authority
from authd.service.batch import Change
from authd.service.brokers import Brokers
from authd.service.events import Part, whole
from authd.service.evictions import Evictions
from authd.service.ports import Clock, HeldClient, SessionEvent, SessionReport
from authd.service.reconnects import Reconnects
from authd.service.sessions import BEGIN_S, Session, Sessions
from authd.service.snapshots import Snapshot
from authd.service.terms import describe, ends, shape

_TICK_S: Final = 0.5
# About 10 ms of work.
_RENEWED_AT_ONCE: Final = 1_000
_NEVER: Final = 2**62


class Enforcement:
    """What happens to sessions when something changes, or when nothing is heard."""

    def __init__(
        self,
        *,
        authority: Authority,
        brokers: Brokers,
        sessions: Sessions,
        evictions: Evictions,
        reconnects: Reconnects,
        clock: Clock,
    ) -> None:
        """Wire the parts and listen to the authority."""
        self._authority = authority
        self._brokers = brokers
        self._sessions = sessions
        self._evictions = evictions
        self._reconnects = reconnects
        self._clock = clock
        self._freshness: dict[DomainId, int] = {}
        self._to_renew: list[Session] = []
        authority.subscribe(self.on_change)

    def restore(self) -> None:
        """Compile the rights of the sessions of an earlier run; those without any are cut."""
        for session in self._sessions.load():
            self._reevaluate(session, policy_changed=False)
            if not session.live and not session.durable:
                self._sessions.leave(session)

    # --- changes --------------------------------------------------------------------------

    def on_change(self, change: Change) -> None:
        """Bring every session that rests on the change into step."""
        if change.roots:
            affected = self._sessions.all()
        else:
            affected = self._sessions.resting_on(one.target for one in change.revocations)
            affected += self._gaining(change.grants)
            affected += self._sessions.resting_on(sorted(change.fallen))
        seen = set[str]()
        for session in affected:
            if session.session_id not in seen:
                seen.add(session.session_id)
                self._reevaluate(session, policy_changed=change.roots)
        for revoke in change.revocations:
            self._announce(revoke)
        for broker in change.brokers:
            self._tell_of_neighbour(broker)
        if change.freshness:
            self._renew_leases()

    def _tell_of_neighbour(self, broker: Broker) -> None:
        """Take from plugins what another daemon may judge too."""
        for session in self._sessions.all():
            audience = session.proof.audience
            if audience.domain == broker.domain and audience.endpoint in broker.endpoints:
                self._emit(session, "set")

    def _gaining(self, grants: Iterable[Grant]) -> list[Session]:
        keys = [grant.subject.key for grant in grants if isinstance(grant.subject, KeySubject)]
        direct = [session for key in keys for session in self._sessions.of_key(key)]
        return direct + self._sessions.resting_on(keys)

    def _reevaluate(self, session: Session, *, policy_changed: bool) -> None:
        if self._brokers.get(session.broker) is None:
            sentence = f"broker entry `{session.broker}` is gone"
            self._cut(session, Failure(ReasonCode.UNKNOWN_BROKER, sentence))
            return
        rights, failure = self._compile(session)
        if not rights.entries:
            self._cut(session, failure)
            return
        lost = self._lost(session, rights)
        if lost and not self._shrinks(session.broker):
            names = ", ".join(f"`{entry.topic_filter}`" for entry in lost)
            self._cut(session, Failure(ReasonCode.REVOKED, f"lost {names}"))
            return
        before, lease_until = ends(session.rights.entries), session.lease_until
        self._give(session, rights)
        # A lease that got shorter is told too: the broker must not go by the longer one.
        same = before == ends(rights.entries) and lease_until == session.lease_until
        if policy_changed or not same:
            self._emit(session, "set")

    def _lost(self, session: Session, rights: Rights) -> list[Right]:
        """Return what was taken away, not what merely ended."""
        now = self._clock.now()
        kept = shape(rights.entries)
        return [
            entry
            for entry in session.rights.entries
            if (entry.topic_filter, entry.actions) not in kept and self._ends_at(entry) > now
        ]

    def _ends_at(self, entry: Right) -> int:
        return entry.ends_at(
            policy=self._authority.policy,
            freshness=self._authority.heartbeats.freshness(),
        )

    def _shrinks(self, broker: str) -> bool:
        entry = self._brokers.get(broker)
        return entry is not None and entry.shrinks

    def _compile(self, session: Session) -> tuple[Rights, Failure]:
        now = self._clock.now()
        evaluation = self._authority.evaluate(
            session.key, now=now, tls=session.proof.form is Form.TLS
        )
        rights, failures = compile_rights(
            evaluation,
            session.proof,
            policy=self._authority.policy,
            freshness=self._authority.heartbeats.freshness(),
            now=now,
        )
        known = bool(rights.entries) or bool(failures)
        return rights, failures[0] if failures else (
            Failure(ReasonCode.OK, "") if known else evaluation.first_failure()
        )

    def _give(self, session: Session, rights: Rights) -> None:
        lease_until = rights.lease_until(
            policy=self._authority.policy,
            freshness=self._authority.heartbeats.freshness(),
        )
        self._sessions.set_rights(session, rights, lease_until=lease_until)

    # --- cuts -----------------------------------------------------------------------------

    def _cut(self, session: Session, failure: Failure) -> None:
        self._sessions.close(session)
        self._sessions.note_cut(
            broker=session.broker,
            client_id=session.client_id,
            key=session.key,
            reason=failure.reason,
            rested_on=(*session.rights.keys, *session.rights.grants),
        )
        self._emit_cut(session, failure.reason)
        self._evictions.order(
            broker=session.broker,
            client_id=session.client_id,
            key=session.key,
            reason=failure.reason.value,
        )

    def _end(self, session: Session) -> None:
        """End a session that nobody uses; whoever knows of it is told, and nothing is evicted."""
        self._sessions.close(session)
        self._emit_cut(session, ReasonCode.NO_SESSION)

    def give_way(self, broker: str, proof: VerifiedProof) -> None:
        """End another key's session under a client id, unless the client holds it still."""
        session = self._sessions.get(broker, proof.client_id)
        if session and session.key != proof.key and not session.holds_client_id:
            self._end(session)

    def _emit_cut(self, session: Session, reason: ReasonCode) -> None:
        self._sessions.events[session.broker].emit(
            "cut",
            {
                "key": key_id_text(session.key),
                "client_id": session.client_id,
                "session": session.session_id,
                "will": self._will(session.broker),
                "reason": reason.value,
            },
        )

    def _will(self, broker: str) -> str:
        entry = self._brokers.get(broker)
        return entry.on_revoke if entry else "suppress"

    def _announce(self, revoke: Revoke) -> None:
        """Tell every broker of a revoked key, listed there or not: inventory is a hint."""
        if not revoke.is_key:
            return
        key = PublicKey(revoke.target)
        # A key that still stands on another authority's paths keeps those sessions.
        if self._authority.evaluate(key, now=self._clock.now()).paths:
            return
        for entry in self._brokers.all():
            self._sessions.events[entry.name].emit(
                "cut",
                {
                    "key": key_id_text(key),
                    "client_id": key_id_text(key),
                    "session": "",
                    "will": entry.on_revoke,
                    "reason": ReasonCode.REVOKED.value,
                },
            )

    # --- leases ---------------------------------------------------------------------------

    def _renew_leases(self) -> None:
        """Bring leases into step with the news: at once if they get shorter, else in slices.

        A lease that is renewed late is too short for a while, which is safe; a hundred thousand of
        them renewed at one go would keep every decision waiting.
        """
        before, self._freshness = self._freshness, dict(self._authority.heartbeats.freshness())
        shorter = any(self._freshness.get(domain, 0) < until for domain, until in before.items())
        self._to_renew = self._sessions.all()
        self._renew(len(self._to_renew) if shorter else _RENEWED_AT_ONCE)

    def _renew(self, count: int) -> None:
        leases: dict[str, list[list[object]]] = {}
        now, policy = self._clock.now(), self._authority.policy
        slice_, self._to_renew = self._to_renew[:count], self._to_renew[count:]
        for session in slice_:
            until = session.rights.lease_until(policy=policy, freshness=self._freshness)
            gone = self._sessions.get(session.broker, session.client_id) is not session
            if gone or until == session.lease_until:
                continue
            session.lease_until = until
            self._sessions.note_due(until)
            entries = session.rights.entries
            if len({one.ends_at(policy=policy, freshness=self._freshness) for one in entries}) > 1:
                self._emit(session, "set")
            else:
                left_ms = max(0, until - now) * 1_000
                leases.setdefault(session.broker, []).append([session.session_id, left_ms])
        for broker, pairs in leases.items():
            self._sessions.events[broker].emit("lease", {"leases": pairs})

    def what_is_left(self, session: Session, *, now: int) -> tuple[Rights, int]:
        """Return the rights that have not ended, and when the next of them does."""
        policy, freshness = self._authority.policy, self._authority.heartbeats.freshness()
        rights = session.rights.without_ended(policy=policy, freshness=freshness, now=now)
        return rights, rights.lease_until(policy=policy, freshness=freshness)

    def tick(self) -> None:
        """Drop entries that have ended; cut sessions that have none left or never began.

        Nothing is looked at before the first of all ends: a hundred thousand sessions take 15 ms.
        """
        now = self._clock.now()
        if now < self._sessions.due_at:
            return
        # What is looked at, or begins meanwhile, says anew when it is due.
        self._sessions.due_at, later = _NEVER, _NEVER
        try:
            for session in self._sessions.all():
                due_at = session.due_at
                if due_at > now:
                    later = min(later, due_at)
                else:
                    self._look_at(session, now)
        except BaseException:
            # Whatever was not reached is looked at with the next tick.
            later = 0
            raise
        finally:
            self._sessions.note_due(later)

    def _look_at(self, session: Session, now: int) -> None:
        if not session.began and now - session.created_at >= BEGIN_S:
            self._cut(session, Failure(ReasonCode.NO_SESSION, "it never began"))
            return
        if session.kept_until is not None and session.kept_until <= now:
            self._end(session)
            return
        if session.lease_until > now:
            return
        rights, failure = self._compile(session)
        if rights.entries:
            self._give(session, rights)
            self._emit(session, "set")
        else:
            self._cut(session, failure)

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            while self._to_renew:
                self._renew(_RENEWED_AT_ONCE)
                await asyncio.sleep(0)
            await asyncio.sleep(_TICK_S)
            self.tick()

    # --- enforcement points ---------------------------------------------------------------

    def describe(self, broker: str, client_id: str) -> dict[str, object] | None:
        """Write the session of a client down for its enforcement point; None without one."""
        session = self._sessions.get(broker, client_id)
        if session is None:
            return None
        described = self._describe(session, self._clock.now())
        return {**described, "n": session.number, "run": self._sessions.run}

    def _describe(self, session: Session, now: int) -> dict[str, object]:
        return describe(
            session,
            now=now,
            policy=self._authority.policy,
            freshness=self._authority.heartbeats.freshness(),
            will=self._will(session.broker),
            verify=self._reconnects.terms(session),
        )

    def _emit(self, session: Session, kind: str) -> None:
        described = self._describe(session, self._clock.now())
        self._sessions.events[session.broker].emit(kind, described)

    def watch(self, broker: str, boot: str) -> AsyncIterator[SessionEvent]:
        """Stream a broker's events as `attach` does, the snapshot in one piece."""
        return whole(self.attach(broker, boot=boot))

    def attach(self, broker: str, *, boot: str) -> AsyncGenerator[Part, None]:
        """Stream a broker's events; the sessions of its earlier runs that cannot live on go.

        Should an earlier run be alive after all, it is told: no session goes on that is not in the
        table, because nothing could end it.

        Raises:
            StoreError: Out of the stream: the store cannot be read or written.
        """
        snapshot = Snapshot(
            broker=broker,
            boot=boot,
            sessions=self._sessions,
            clock=self._clock,
            goes_on=partial(self._goes_on, boot=boot),
            describe=self._describe,
            seen=partial(self._reconnects.seen, broker),
        )
        return self._sessions.watch(broker, boot, snapshot)

    def _goes_on(self, session: Session, *, boot: str) -> bool:
        """Say whether a session goes on in a run of its broker; end it if it does not."""
        if session.boot == boot or self._keep(session):
            return True
        self._end(session)
        return False

    def _keep(self, session: Session) -> bool:
        """Keep a session without a connection if its client can go on with it; say whether."""
        kept = session.durable or (
            session.began
            and self._sessions.may_wait(session)
            and self._reconnects.terms(session) is not None
        )
        if kept:
            self._sessions.leave(session)
        return kept

    def sync(self, broker: str, clients: Iterable[HeldClient], *, boot: str = "") -> list[str]:
        """Compare a broker's clients with our table.

        Args:
            broker: Name of the entry.
            clients: As the enforcement point has them.
            boot: Which run of the broker this is.

        Returns:
            Client ids that have no session here: they are to be dropped.
        """
        drop = []
        for client in clients:
            session = self._sessions.get(broker, client.client_id)
            if session is None or not session.is_held_as(client):
                drop.append(client.client_id)
            elif client.online and (not session.live or session.boot != boot):
                self._sessions.come_back(session, boot=boot, durable=session.durable)
            else:
                session.began = True
        return drop

    def report(self, broker: str, report: SessionReport) -> None:
        """Take in what an enforcement point says of a session; only ids known here count."""
        self._sessions.note_retained(broker, report.session_id, report.retained)
        what = report.what
        if what in ("kicked", "cut_offline", "not_found", "kick_failed"):
            self._sessions.confirm_cut(broker=broker, client_id=report.client_id, outcome=what)
            return
        session = self._sessions.get(broker, report.client_id)
        if session is None or session.session_id != report.session_id:
            return
        if what == "offline":
            session.began = True
            if not self._keep(session):
                self._sessions.close(session)
        elif what == "online":
            self._sessions.come_back(session, boot=session.boot, durable=session.durable)

    def readmitted(
        self,
        broker: str,
        *,
        client_id: str,
        session_id: str,
        boot: str,
        proof: str,
        clean: bool,
    ) -> None:
        """Take in that a plugin let a client back in by itself; cut it if that was wrong.

        Args:
            broker: Name of the entry.
            client_id: Whose CONNECT it was.
            session_id: The session that went on; if it has ended since, its nonce is used up all
                the same.
            boot: Which run of the broker this is.
            proof: 18 base64url characters: time and nonce of the pop.
            clean: Clean session / clean start.

        Raises:
            FormatError: ``proof`` is malformed.
            StoreError: The store cannot be written.
        """
        session = self._sessions.get(broker, client_id)
        if session is None or session.session_id != session_id:
            former = self._sessions.former(broker, session_id)
            if former is not None:
                self._reconnects.consume(former, proof)
            return
        if self._reconnects.consume(session, proof):
            self._sessions.come_back(session, boot=boot, durable=not clean)
        else:
            sentence = "a proof the plugin accepted had been used before"
            self._cut(session, Failure(ReasonCode.REPLAYED, sentence))
