"""The decision point: CONNECT and message decisions for every edge.

`Decider.connect` is one pipeline: broker entry, client id, credential, key, proof (all in
`service.proving`), paths, client-id table, use of the proof, session. Each stage either goes on or
ends in a deny with its reason; `authd.core.decision.conclude` says allow.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from authd.core.decision import (
    ConnectRequest,
    Decision,
    Evidence,
    Operation,
    Rights,
    check_client_id,
    conclude,
    decide_connect,
    deny,
)
from authd.core.grants import Form, KeySubject
from authd.core.identity import PublicKey, key_id, key_id_text
from authd.core.proofs import EVICT_USERNAME, VerifiedProof
from authd.core.topics import is_topic_filter, is_topic_name
from authd.errors import AuthdError, ProofError, ReasonCode
from authd.service.authority import Authority
from authd.service.brokers import BrokerEntry, Brokers
from authd.service.enforcement import Enforcement
from authd.service.evictions import Evictions
from authd.service.ports import Clock, SessionEvent, StoredSession
from authd.service.proving import Prover, read_claim, source_of
from authd.service.sessions import Session, Sessions

Observer = Callable[[ConnectRequest, Decision, float], None]
_NO_EVIDENCE: Final = Evidence()
_REPLAYED: Final = "this proof was used before: each CONNECT needs a fresh one"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeciderParts:
    """What a decider works with."""

    authority: Authority
    brokers: Brokers
    sessions: Sessions
    enforcement: Enforcement
    evictions: Evictions
    prover: Prover
    clock: Clock
    observer: Observer


class Decider:
    """Implements the port `DecisionPoint`."""

    def __init__(self, parts: DeciderParts) -> None:
        """Wire the parts."""
        self._parts = parts

    # --- CONNECT --------------------------------------------------------------------------

    async def connect(self, request: ConnectRequest) -> Decision:
        """Decide a CONNECT; an allow has made a session, a verdict has consumed the nonce."""
        started = self._parts.clock.monotonic()
        try:
            decision = await self._connect(request)
        except AuthdError as error:
            decision = deny(error.reason, str(error))
        self._parts.observer(request, decision, self._parts.clock.monotonic() - started)
        return decision

    async def _connect(self, request: ConnectRequest) -> Decision:
        entry = self._entry(request.broker)
        if request.username == EVICT_USERNAME:
            return self._admit_takeover(request, entry)
        proof, decision = await self._judge(request, entry)
        if proof is None:
            return decision
        if decision.allowed:
            session = self._begin(request, entry, proof, decision)
            used = session is None
        elif decision.temporary:
            session, used = None, self._parts.prover.is_used(proof)
        else:
            session, used = None, not self._parts.prover.consume(proof, broker=entry.name)
        if used:
            return deny(ReasonCode.REPLAYED, _REPLAYED, key=proof.key)
        return decision if session is None else replace(decision, session=session)

    def _begin(
        self,
        request: ConnectRequest,
        entry: BrokerEntry,
        proof: VerifiedProof,
        decision: Decision,
    ) -> str | None:
        """Use up the proof of an allow and open its session, or let the one go on that is there.

        Returns:
            The session's id; None if the proof was used before: nothing has changed then.
        """
        sessions, prover, rights = self._parts.sessions, self._parts.prover, decision.rights
        if request.reauthenticates:
            held = self._reauthenticated(request, proof)
            if not prover.consume(proof, broker=entry.name):
                return None
            sessions.go_on(held, proof, rights, lease_until=decision.lease_until)
            return held.session_id
        admit: Callable[[StoredSession], bool] = partial(prover.admit, proof)
        before = sessions.get(entry.name, proof.client_id)
        if before is not None and before.key != proof.key:
            # It ends before the next one begins, and for no proof that was used.
            if not prover.consume(proof, broker=entry.name):
                return None
            self._parts.enforcement.give_way(entry.name, proof)
            admit = sessions.keep
        session = sessions.open(
            broker=entry.name,
            boot=request.boot,
            username=request.username,
            proof=proof,
            durable=not request.clean,
            rights=rights,
            lease_until=decision.lease_until,
            admit=admit,
            began=not entry.reports,
        )
        return None if session is None else session.session_id

    def _entry(self, name: str) -> BrokerEntry:
        entry = self._parts.brokers.get(name)
        if entry is None:
            raise ProofError(
                f"no broker entry is called `{name}`",
                reason=ReasonCode.UNKNOWN_BROKER,
            )
        return entry

    def _admit_takeover(self, request: ConnectRequest, entry: BrokerEntry) -> Decision:
        key = self._parts.evictions.redeem(entry.name, request.client_id, request.password)
        if key is None:
            return deny(ReasonCode.MALFORMED, f"user name `{EVICT_USERNAME}` is reserved")
        now = self._parts.clock.now()
        return conclude(
            Rights(),
            lease_until=now + 1,
            now=now,
            key=key,
            evidence=Evidence(form="takeover"),
            takeover=True,
        )

    async def _judge(
        self,
        request: ConnectRequest,
        entry: BrokerEntry,
    ) -> tuple[VerifiedProof | None, Decision]:
        """Decide without touching anything: no nonce is consumed, no session made.

        What is allowed may rest on a proof that was used: whoever uses it up is told so.
        """
        refused = check_client_id(request.client_id)
        if refused is not None:
            return None, refused
        claim = read_claim(request)
        proof = await self._parts.prover.prove(claim, request, entry)
        decision = self._decide(proof)
        if not decision.allowed:
            if self._parts.prover.is_used(proof):
                return None, deny(ReasonCode.REPLAYED, _REPLAYED, key=proof.key)
            if await self._parts.prover.refreshed(claim, decision, source_of(request)):
                decision = self._decide(proof)
        if decision.allowed:
            decision = self._check_table(request, proof, decision)
        return proof, decision

    def _decide(self, proof: VerifiedProof) -> Decision:
        authority, now = self._parts.authority, self._parts.clock.now()
        return decide_connect(
            authority.evaluate(proof.key, now=now, tls=proof.form is Form.TLS),
            proof,
            policy=authority.policy,
            freshness=authority.heartbeats.freshness(),
            now=now,
        )

    def _check_table(
        self,
        request: ConnectRequest,
        proof: VerifiedProof,
        decision: Decision,
    ) -> Decision:
        try:
            if request.reauthenticates:
                self._reauthenticated(request, proof)
                return decision
        except ProofError as error:
            return deny(error.reason, str(error), key=proof.key)
        session = self._parts.sessions.get(request.broker, proof.client_id)
        if session is None or session.key == proof.key or not session.holds_client_id:
            return decision
        if self._replaces(decision, session.key):
            return decision
        return deny(
            ReasonCode.CLIENT_ID_TAKEN,
            f"client id `{proof.client_id}` is held by key `{key_id_text(session.key)}`",
            key=proof.key,
        )

    def _reauthenticated(self, request: ConnectRequest, proof: VerifiedProof) -> Session:
        """Return the session that is to go on with a proof (MQTT 5 §4.12.1).

        Raises:
            ProofError: `ReasonCode.NO_SESSION`, or `ReasonCode.CLIENT_ID_TAKEN` if it is another
                key's or another client's.
        """
        session = self._parts.sessions.by_id(request.broker, request.reauthenticates)
        if session is None:
            raise ProofError(
                "the session to be re-authenticated is gone",
                reason=ReasonCode.NO_SESSION,
            )
        if session.key != proof.key or session.client_id != proof.client_id:
            raise ProofError(
                f"the session belongs to key `{key_id_text(session.key)}` and client id"
                f" `{session.client_id}`",
                reason=ReasonCode.CLIENT_ID_TAKEN,
            )
        return session

    def _replaces(self, decision: Decision, old: PublicKey) -> bool:
        """Say whether a grant in use replaces ``old`` and its issuer also granted ``old``."""
        issuers = {path.leaf.issuer for path in decision.rights.paths if path.leaf.replaces == old}
        granted = self._parts.authority.state.grants_to(key_id(old))
        return any(
            grant.issuer in issuers and grant.subject == KeySubject(old) for grant in granted
        )

    # --- messages -------------------------------------------------------------------------

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
        session = self._parts.sessions.get(broker, client_id)
        if session is None or (username is not None and username != session.username):
            return deny(ReasonCode.NO_SESSION, f"client id `{client_id}` has no session here")
        well_formed = is_topic_filter if operation is Operation.SUBSCRIBE else is_topic_name
        if not well_formed(topic):
            return deny(ReasonCode.MALFORMED, "not a topic", key=session.key)
        return self._authorize(session, operation, topic)

    def _authorize(self, session: Session, operation: Operation, topic: str) -> Decision:
        now = self._parts.clock.now()
        rights, lease_until = session.rights, session.lease_until
        if lease_until <= now:
            rights, lease_until = self._parts.enforcement.what_is_left(session, now=now)
        return conclude(
            rights,
            lease_until=lease_until,
            now=now,
            key=session.key,
            evidence=_NO_EVIDENCE,
            asked=(operation, topic),
        )

    # --- explain and watch ----------------------------------------------------------------

    async def explain(
        self,
        request: ConnectRequest,
        asked: tuple[Operation, str] | None,
    ) -> Decision:
        """Decide as `connect` and `authorize` do, without consuming a nonce or making a session."""
        try:
            proof, decision = await self._judge(request, self._entry(request.broker))
            if proof is None:
                return decision
            if self._parts.prover.is_used(proof):
                return deny(ReasonCode.REPLAYED, _REPLAYED, key=proof.key)
        except AuthdError as error:
            return deny(error.reason, str(error))
        return self._explain_asked(proof.key, decision, asked)

    def explain_key(
        self,
        key: PublicKey,
        *,
        broker: str,
        client_id: str,
        form: Form,
        asked: tuple[Operation, str] | None,
    ) -> Decision:
        """Decide for whoever would prove ``key`` on a broker; nothing is proven by asking."""
        try:
            entry = self._entry(broker)
        except AuthdError as error:
            return deny(error.reason, str(error))
        proof = self._parts.prover.assume(key, form, client_id, entry)
        decision = check_client_id(client_id) or self._decide(proof)
        if decision.allowed:
            request = ConnectRequest(broker=broker, client_id=client_id, username="")
            decision = self._check_table(request, proof, decision)
        return self._explain_asked(key, decision, asked)

    def _explain_asked(
        self,
        key: PublicKey,
        decision: Decision,
        asked: tuple[Operation, str] | None,
    ) -> Decision:
        if not decision.allowed or asked is None:
            return decision
        return conclude(
            decision.rights,
            lease_until=decision.lease_until,
            now=self._parts.clock.now(),
            key=key,
            evidence=decision.evidence,
            asked=asked,
        )

    def watch(self, broker: str, *, boot: str) -> AsyncIterator[SessionEvent]:
        """Stream a broker's events: a snapshot first, then each change; ends when replaced."""
        return self._parts.enforcement.watch(broker, boot)
