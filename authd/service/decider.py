"""The decision point: CONNECT and message decisions for every edge.

`Decider.connect` is one pipeline: broker entry, client id, credentials, key (from what is known,
from stapled grants, from the DHT), proof, replay, paths, client-id table, nonce, session. Each
stage either goes on or ends in a deny with its reason; `authd.core.decision.conclude` says allow.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
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
from authd.core.proofs import (
    EVICT_USERNAME,
    Audience,
    Credentials,
    DevicePassword,
    UnverifiedPop,
    VerifiedProof,
    explain_mismatch,
    parse_credentials,
    subject_key,
    verify_pop,
    verify_stapled,
)
from authd.core.topics import is_topic_filter, is_topic_name
from authd.errors import AuthdError, ProofError, ReasonCode
from authd.service.authority import Authority
from authd.service.brokers import BrokerEntry, Brokers
from authd.service.enforcement import Enforcement
from authd.service.evictions import Evictions
from authd.service.finder import Finder, Outcome
from authd.service.ports import Clock, ReplayStore, SessionEvent
from authd.service.sessions import Session, Sessions

# A lookup that answers within the call's patience counts at once.
LOOKUP_PATIENCE_S: Final = 0.035
_OUTCOMES: Final = {
    Outcome.IN_PROGRESS: (
        ReasonCode.LOOKUP_IN_PROGRESS,
        "the grants of this key are being looked up: try again",
    ),
    Outcome.UNREACHABLE: (
        ReasonCode.NO_RESPONSE,
        "no grant of this key is known here and the network does not answer",
    ),
    Outcome.OVERLOADED: (ReasonCode.OVERLOADED, "too many lookups are running: try again"),
    Outcome.ABSENT: (
        ReasonCode.UNKNOWN_KEY,
        "no grant for this key is known here or in the network",
    ),
}

Observer = Callable[[ConnectRequest, Decision, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeciderParts:
    """What a decider works with."""

    authority: Authority
    brokers: Brokers
    sessions: Sessions
    enforcement: Enforcement
    evictions: Evictions
    finder: Finder
    replay: ReplayStore
    clock: Clock
    observer: Observer
    not_before: int = 0


class Decider:
    """Implements the port `DecisionPoint`."""

    def __init__(self, parts: DeciderParts) -> None:
        """Wire the parts.

        ``parts.not_before``: proofs dated up to this moment are refused; set after an unclean
        stop, because the last nonces may not have reached the disk.
        """
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
        if not decision.temporary and not self._consume(proof):
            return deny(ReasonCode.REPLAYED, _REPLAYED, key=proof.key)
        if not decision.allowed:
            return decision
        session = self._parts.sessions.open(
            broker=entry.name,
            boot=request.boot,
            username=request.username,
            proof=proof,
            durable=not request.clean,
            rights=decision.rights,
            lease_until=decision.lease_until,
            began=not entry.reports,
        )
        return replace(decision, session=session.session_id)

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
        """Decide without touching anything: no nonce is consumed, no session made."""
        refused = check_client_id(request.client_id)
        if refused is not None:
            return None, refused
        credentials = parse_credentials(request.username, request.password)
        key, missing = await self._resolve_key(credentials, _source(request))
        if key is None:
            return None, missing
        proof = self._prove(credentials, key, request, entry)
        if proof.replay_id is not None and self._parts.replay.seen(proof.replay_id):
            return None, deny(ReasonCode.REPLAYED, _REPLAYED, key=key)
        decision = self._decide(proof)
        source = _source(request)
        if not decision.allowed and await self._refreshed(credentials, decision, source):
            decision = self._decide(proof)
        if decision.allowed:
            decision = self._check_table(entry, proof, decision)
        return proof, decision

    async def _resolve_key(
        self,
        credentials: Credentials,
        source: str,
    ) -> tuple[PublicKey | None, Decision]:
        unknown = deny(*_OUTCOMES[Outcome.ABSENT])
        state = self._parts.authority.state
        if isinstance(credentials, DevicePassword):
            known = state.grants_to(credentials.key_id)
            return (credentials.key if known else None), unknown
        if credentials.stapled:
            self._parts.authority.learn_stapled(credentials.stapled)
        key = self._parts.authority.state.key_of(credentials.key_id)
        if key is None and credentials.stapled:
            key = subject_key(verify_stapled(credentials.stapled), credentials.key_id)
        if key is not None:
            return key, unknown
        outcome = await self._find(credentials, source)
        key = self._parts.authority.state.key_of(credentials.key_id)
        return key, deny(*_OUTCOMES.get(outcome, _OUTCOMES[Outcome.ABSENT]))

    async def _find(self, pop: UnverifiedPop, source: str) -> Outcome:
        return await self._parts.finder.find(
            pop.key_id,
            pop.issuer_hint,
            patience_s=LOOKUP_PATIENCE_S,
            source=source,
        )

    async def _refreshed(
        self,
        credentials: Credentials,
        decision: Decision,
        source: str,
    ) -> bool:
        """Look for newer grants of a key that has some, but none that counts now."""
        hopeless = decision.reason not in (ReasonCode.EXPIRED, ReasonCode.UNTRUSTED)
        if hopeless or not isinstance(credentials, UnverifiedPop):
            return False
        before = self._parts.authority.state.grants_to(credentials.key_id)
        await self._find(credentials, source)
        return self._parts.authority.state.grants_to(credentials.key_id) != before

    def _prove(
        self,
        credentials: Credentials,
        key: PublicKey,
        request: ConnectRequest,
        entry: BrokerEntry,
    ) -> VerifiedProof:
        if isinstance(credentials, DevicePassword):
            return self._prove_password(credentials, request, entry)
        try:
            proof = verify_pop(
                credentials,
                key=key,
                audiences=entry.audiences,
                client_id=request.client_id,
                now=self._parts.clock.now(),
            )
        except ProofError as error:
            if error.reason is not ReasonCode.BAD_SIGNATURE:
                raise
            raise explain_mismatch(
                credentials,
                key=key,
                audiences=entry.audiences,
                others=self._parts.brokers.other_audiences(entry),
                client_id=request.client_id,
            ) from error
        if credentials.time <= self._parts.not_before:
            raise ProofError(
                "the proof was made before authd restarted uncleanly: make a new one",
                reason=ReasonCode.PREDATES_RESTART,
            )
        return proof

    def _prove_password(
        self,
        credentials: DevicePassword,
        request: ConnectRequest,
        entry: BrokerEntry,
    ) -> VerifiedProof:
        return VerifiedProof(
            key=credentials.key,
            form=Form.PASSWORD,
            client_id=request.client_id,
            audience=self._password_audience(credentials.key, entry),
        )

    def _password_audience(self, key: PublicKey, entry: BrokerEntry) -> Audience:
        granted = {
            audience
            for grant in self._parts.authority.state.grants_to(key_id(key))
            for audience in grant.audiences
        }
        matching = [one for one in entry.audiences if str(one) in granted]
        return matching[0] if matching else entry.audiences[0]

    def _decide(self, proof: VerifiedProof) -> Decision:
        authority, now = self._parts.authority, self._parts.clock.now()
        return decide_connect(
            authority.evaluate(proof.key, now=now),
            proof,
            policy=authority.policy,
            freshness=authority.heartbeats.freshness(),
            now=now,
        )

    def _check_table(
        self,
        entry: BrokerEntry,
        proof: VerifiedProof,
        decision: Decision,
    ) -> Decision:
        session = self._parts.sessions.get(entry.name, proof.client_id)
        if session is None or session.key == proof.key or self._replaces(decision, session.key):
            return decision
        return deny(
            ReasonCode.CLIENT_ID_TAKEN,
            f"client id `{proof.client_id}` is held by key `{key_id_text(session.key)}`",
            key=proof.key,
        )

    def _replaces(self, decision: Decision, old: PublicKey) -> bool:
        """Say whether a grant in use replaces ``old`` and its issuer also granted ``old``."""
        issuers = {path.leaf.issuer for path in decision.rights.paths if path.leaf.replaces == old}
        granted = self._parts.authority.state.grants_to(key_id(old))
        return any(
            grant.issuer in issuers and grant.subject == KeySubject(old) for grant in granted
        )

    def _consume(self, proof: VerifiedProof) -> bool:
        if proof.replay_id is None:
            return True
        return self._parts.replay.consume(
            proof.replay_id,
            expires_at=proof.expires_at,
            now=self._parts.clock.now(),
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
            evidence=Evidence(),
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
        except AuthdError as error:
            return deny(error.reason, str(error))
        return decision if proof is None else self._explain_asked(proof.key, decision, asked)

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
        audience = entry.audiences[0]
        if form is Form.PASSWORD:
            audience = self._password_audience(key, entry)
        proof = VerifiedProof(key=key, form=form, client_id=client_id, audience=audience)
        decision = check_client_id(client_id) or self._decide(proof)
        if decision.allowed:
            decision = self._check_table(entry, proof, decision)
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


_REPLAYED: Final = "this proof was used before: each CONNECT needs a fresh one"


def _source(request: ConnectRequest) -> str:
    """Return whose share of lookups a request uses: its address, or the whole broker's."""
    return request.address or f"broker {request.broker}"
