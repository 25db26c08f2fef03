"""Keeping live sessions in step with the trust state: leases, narrower rights, cuts.

On every change the sessions that rest on it are evaluated again. A session is cut if it lost a
right that its broker cannot take away in place, or if none is left; otherwise it gets its new
rights. Denying comes first, and does not depend on the kick: once a session is closed here, every
further question about it is answered with a deny.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Final

from authd.core.decision import Right, Rights, compile_rights
from authd.core.grants import Grant, KeySubject
from authd.core.identity import PublicKey, key_id_text
from authd.core.paths import Failure
from authd.core.statements import Revoke
from authd.errors import ReasonCode
from authd.service.authority import Authority, Change
from authd.service.brokers import Brokers
from authd.service.evictions import Evictions
from authd.service.ports import Clock, SessionEvent
from authd.service.sessions import Session, Sessions

_TICK_S: Final = 0.5
# A broker that took an allow says so at once; this is many times what that takes.
_BEGIN_S: Final = 15


class Enforcement:
    """What happens to sessions when something changes, or when nothing is heard."""

    def __init__(
        self,
        *,
        authority: Authority,
        brokers: Brokers,
        sessions: Sessions,
        evictions: Evictions,
        clock: Clock,
    ) -> None:
        """Wire the parts and listen to the authority."""
        self._authority = authority
        self._brokers = brokers
        self._sessions = sessions
        self._evictions = evictions
        self._clock = clock
        authority.subscribe(self.on_change)

    def restore(self) -> None:
        """Compile the rights of the sessions of an earlier run; those without any are cut."""
        for session in self._sessions.load():
            self._reevaluate(session, policy_changed=False)

    # --- changes --------------------------------------------------------------------------

    def on_change(self, change: Change) -> None:
        """Bring every session that rests on the change into step."""
        if change.roots:
            affected = self._sessions.all()
        else:
            affected = self._sessions.resting_on(_names(change.revocations))
            affected += self._gaining(change.grants)
        seen = set[str]()
        for session in affected:
            if session.session_id not in seen:
                seen.add(session.session_id)
                self._reevaluate(session, policy_changed=change.roots)
        for revoke in change.revocations:
            self._announce(revoke)
        if change.freshness:
            self._renew_leases()

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
        before, lease_until = _ends(session.rights.entries), session.lease_until
        self._give(session, rights)
        # A lease that got shorter is told too: the broker must not go by the longer one.
        same = before == _ends(rights.entries) and lease_until == session.lease_until
        if policy_changed or not same:
            self._emit(session, "set")

    def _lost(self, session: Session, rights: Rights) -> list[Right]:
        """Return what was taken away, not what merely ended."""
        now = self._clock.now()
        kept = _shape(rights.entries)
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
        evaluation = self._authority.evaluate(session.key, now=now)
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
        )
        self._emit_cut(session, failure.reason)
        self._evictions.order(
            broker=session.broker,
            client_id=session.client_id,
            key=session.key,
            reason=failure.reason.value,
        )

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
        leases: dict[str, list[list[object]]] = {}
        now = self._clock.now()
        for session in self._sessions.all():
            before = session.lease_until
            self._give(session, session.rights)
            if session.lease_until == before:
                continue
            if len({self._ends_at(entry) for entry in session.rights.entries}) > 1:
                self._emit(session, "set")
            else:
                left_ms = max(0, session.lease_until - now) * 1_000
                leases.setdefault(session.broker, []).append([session.session_id, left_ms])
        for broker, pairs in leases.items():
            self._sessions.events[broker].emit("lease", {"leases": pairs})

    def what_is_left(self, session: Session, *, now: int) -> tuple[Rights, int]:
        """Return the rights that have not ended, and when the next of them does."""
        policy, freshness = self._authority.policy, self._authority.heartbeats.freshness()
        rights = session.rights.without_ended(policy=policy, freshness=freshness, now=now)
        return rights, rights.lease_until(policy=policy, freshness=freshness)

    def tick(self) -> None:
        """Drop entries that have ended; cut sessions that have none left or never began."""
        now = self._clock.now()
        for session in self._sessions.all():
            if not session.began and now - session.created_at >= _BEGIN_S:
                self._cut(session, Failure(ReasonCode.NO_SESSION, "it never began"))
                continue
            if session.lease_until > now:
                continue
            rights, failure = self._compile(session)
            if rights.entries:
                self._give(session, rights)
                self._emit(session, "set")
            else:
                self._cut(session, failure)

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            await asyncio.sleep(_TICK_S)
            self.tick()

    # --- enforcement points ---------------------------------------------------------------

    def describe(self, broker: str, client_id: str) -> dict[str, object] | None:
        """Write the session of a client down for its enforcement point; None without one."""
        session = self._sessions.get(broker, client_id)
        if session is None:
            return None
        return {**self._describe(session), "n": session.number, "run": self._sessions.run}

    def _describe(self, session: Session) -> dict[str, object]:
        return self._sessions.describe(
            session,
            policy=self._authority.policy,
            freshness=self._authority.heartbeats.freshness(),
            will=self._will(session.broker),
        )

    def _emit(self, session: Session, kind: str) -> None:
        self._sessions.events[session.broker].emit(kind, self._describe(session))

    def watch(self, broker: str, boot: str) -> AsyncIterator[SessionEvent]:
        """Stream a broker's events; the sessions of its earlier runs that cannot live on go.

        Should an earlier run be alive after all, it is told: no session goes on that is not in the
        table, because nothing could end it.
        """
        for session in self._sessions.on(broker):
            if session.boot != boot and not session.durable:
                self._sessions.close(session)
                self._emit_cut(session, ReasonCode.NO_SESSION)
        return self._sessions.watch(broker, boot, lambda: self._snapshot(broker))

    def _snapshot(self, broker: str) -> dict[str, object]:
        return {"sessions": [self._describe(one) for one in self._sessions.on(broker)]}

    def sync(
        self,
        broker: str,
        clients: Iterable[tuple[str, str, str]],
    ) -> list[str]:
        """Compare a broker's live clients with our table.

        Args:
            broker: Name of the entry.
            clients: ``(client id, session id, key id)`` as the enforcement point has them.

        Returns:
            Client ids that have no session here: they are to be dropped.
        """
        drop = []
        for client_id, session_id, key in clients:
            session = self._sessions.get(broker, client_id)
            same = session is not None and (
                session.session_id == session_id or key_id_text(session.key) == key
            )
            if session is None or not same:
                drop.append(client_id)
            else:
                session.began = True
        return drop

    def report(self, broker: str, *, client_id: str, session_id: str, what: str) -> None:
        """Take in what an enforcement point says of a session; only ids known here count."""
        if what in ("kicked", "cut_offline", "not_found", "kick_failed"):
            self._sessions.confirm_cut(broker=broker, client_id=client_id, outcome=what)
            return
        session = self._sessions.get(broker, client_id)
        if session is None or session.session_id != session_id:
            return
        if what == "offline" and not session.durable:
            self._sessions.close(session)
        elif what in ("online", "offline"):
            session.live = what == "online"
            session.began = True
            self._sessions.save(session)


def _names(revocations: Iterable[Revoke]) -> list[bytes]:
    return [revoke.target for revoke in revocations]


def _shape(entries: Iterable[Right]) -> set[tuple[str, int]]:
    return {(entry.topic_filter, int(entry.actions)) for entry in entries}


def _ends(entries: Iterable[Right]) -> set[tuple[str, int, int]]:
    return {(entry.topic_filter, int(entry.actions), entry.expires_at) for entry in entries}
