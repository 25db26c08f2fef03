"""From a request to a verified proof: what was shown, whose key it is, whether it holds.

`read_claim` turns the one credential of a request into a claim, a closed set; `Prover.prove`
finds the claim's key (in what is known, in stapled grants, in the DHT) and verifies it. Nothing is
used up by that: `Prover.consume` does so, together with a verdict.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from authd.core.challenge import Exchange, Hello, begin_exchange, parse_first, verify_response
from authd.core.counter import (
    UnverifiedCounter,
    check_rises,
    counter_slot,
    is_counter_password,
    parse_counter,
    verify_counter,
)
from authd.core.decision import (
    ChallengeResponse,
    ClientCertificate,
    ConnectRequest,
    Decision,
    PlainPassword,
    SingleStep,
)
from authd.core.grants import Form, TlsSubject
from authd.core.identity import KEY_BYTES, KeyId, PublicKey, key_id
from authd.core.proofs import (
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
from authd.errors import FormatError, ProofError, ReasonCode
from authd.service.authority import Authority
from authd.service.brokers import BrokerEntry, Brokers
from authd.service.finder import Finder, Outcome
from authd.service.neighbours import Neighbours
from authd.service.ports import Clock, CounterStore, ReplayStore, SessionStore, StoredSession

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


class ProofStore(ReplayStore, CounterStore, SessionStore, Protocol):
    """What remembers which proofs were used, and for which sessions."""

    def admit(self, replay_id: bytes, session: StoredSession, *, expires_at: int, now: int) -> bool:
        """Remember a nonce and save the session that it lets in, both or neither.

        Returns:
            False if somebody else used the nonce; nothing was saved.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A challenge and what came back; nobody has verified it."""

    exchange: Exchange
    response: bytes


Claim: TypeAlias = Credentials | UnverifiedCounter | Answered | TlsSubject
"""What was shown, well-formed; of these only `TlsSubject` was verified by somebody."""


def read_claim(request: ConnectRequest) -> Claim:
    """Read the one credential of a request.

    Raises:
        FormatError: None, two, or one that is malformed.
        LimitError: Too long.
    """
    match request.credential():
        case PlainPassword(username, password):
            if is_counter_password(password):
                return parse_counter(username, password)
            return parse_credentials(username, password)
        case SingleStep(data):
            pop = parse_first(data)
            if isinstance(pop, Hello):
                raise FormatError("a hello is answered with a challenge first")
            return pop
        case ChallengeResponse() as answered:
            hello = parse_first(answered.hello)
            if not isinstance(hello, Hello):
                raise FormatError("a challenge answers a hello, not a single step")
            exchange = begin_exchange(hello, nonce=answered.nonce)
            return Answered(exchange=exchange, response=answered.response)
        case ClientCertificate(digest):
            if len(digest) != KEY_BYTES:
                raise FormatError("the digest of a TLS key is 32 bytes")
            return TlsSubject(PublicKey(digest))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProverParts:
    """What a prover works with.

    Attributes:
        not_before: Proofs dated up to this moment are refused; set after an unclean stop, because
            the last nonces may not have reached the disk.
    """

    authority: Authority
    brokers: Brokers
    neighbours: Neighbours
    finder: Finder
    used: ProofStore
    clock: Clock
    not_before: int = 0


class Prover:
    """Verifies claims for broker entries, and keeps them from being used twice."""

    def __init__(self, parts: ProverParts) -> None:
        """Wire the parts."""
        self._parts = parts

    async def prove(
        self,
        claim: Claim,
        request: ConnectRequest,
        entry: BrokerEntry,
    ) -> VerifiedProof:
        """Find the key of a claim and verify it; nothing is used up.

        Raises:
            AuthdError: It does not hold, or its key is not known; temporary if it may be soon.
        """
        proof = await self._prove(claim, request, entry)
        self._parts.neighbours.check(proof)
        return proof

    async def _prove(
        self,
        claim: Claim,
        request: ConnectRequest,
        entry: BrokerEntry,
    ) -> VerifiedProof:
        key = await self._find_key(claim, source_of(request))
        client_id = request.client_id
        match claim:
            case DevicePassword():
                return self.assume(key, Form.PASSWORD, client_id, entry)
            case TlsSubject():
                return self.assume(key, Form.TLS, client_id, entry)
            case UnverifiedPop():
                return self._prove_pop(claim, key, client_id, entry)
            case UnverifiedCounter():
                return self._prove_untimed(
                    lambda audiences: verify_counter(
                        claim, key=key, audiences=audiences, client_id=client_id
                    ),
                    entry,
                )
            case Answered():
                return self._prove_untimed(
                    lambda audiences: verify_response(
                        claim.exchange,
                        claim.response,
                        key=key,
                        audiences=audiences,
                        client_id=client_id,
                    ),
                    entry,
                )

    # --- whose key ------------------------------------------------------------------------

    async def _find_key(self, claim: Claim, source: str) -> PublicKey:
        authority = self._parts.authority
        if isinstance(claim, DevicePassword):
            if not authority.state.grants_to(claim.key_id):
                raise _unknown(Outcome.ABSENT)
            return claim.key
        if isinstance(claim, UnverifiedPop) and claim.stapled:
            authority.learn_stapled(claim.stapled)
        key = self._known(claim)
        if key is None and isinstance(claim, UnverifiedPop) and claim.stapled:
            key = subject_key(verify_stapled(claim.stapled), claim.key_id)
        if key is None:
            outcome = await self._look(claim, source)
            key = self._known(claim)
            if key is None:
                raise _unknown(outcome)
        return key

    def _known(self, claim: Claim) -> PublicKey | None:
        state = self._parts.authority.state
        wanted, _ = _sought(claim)
        if isinstance(claim, TlsSubject):
            return claim.key if state.grants_to(wanted) else None
        return state.key_of(wanted)

    async def _look(self, claim: Claim, source: str) -> Outcome:
        wanted, hint = _sought(claim)
        return await self._parts.finder.find(
            wanted,
            hint,
            patience_s=LOOKUP_PATIENCE_S,
            source=source,
        )

    async def refreshed(self, claim: Claim, decision: Decision, source: str) -> bool:
        """Look for newer grants of a key that has some, but none that counts now."""
        hopeless = decision.reason not in (ReasonCode.EXPIRED, ReasonCode.UNTRUSTED)
        # The grants of device passwords are always here: nobody can make us look for one.
        if hopeless or isinstance(claim, DevicePassword):
            return False
        wanted, _ = _sought(claim)
        before = self._parts.authority.state.grants_to(wanted)
        await self._look(claim, source)
        return self._parts.authority.state.grants_to(wanted) != before

    # --- whether it holds -----------------------------------------------------------------

    def _prove_pop(
        self,
        pop: UnverifiedPop,
        key: PublicKey,
        client_id: str,
        entry: BrokerEntry,
    ) -> VerifiedProof:
        now = self._parts.clock.now()
        try:
            proof = verify_pop(
                pop, key=key, audiences=entry.audiences, client_id=client_id, now=now
            )
        except ProofError as error:
            if error.reason is not ReasonCode.BAD_SIGNATURE:
                raise
            raise explain_mismatch(
                pop,
                key=key,
                audiences=entry.audiences,
                others=self._parts.brokers.other_audiences(entry),
                client_id=client_id,
            ) from error
        if pop.time <= self._parts.not_before:
            raise ProofError(
                "the proof was made before authd restarted uncleanly: make a new one",
                reason=ReasonCode.PREDATES_RESTART,
            )
        return proof

    def _prove_untimed(
        self,
        verify: Callable[[Iterable[Audience]], VerifiedProof],
        entry: BrokerEntry,
    ) -> VerifiedProof:
        try:
            return verify(entry.audiences)
        except ProofError as error:
            try:
                elsewhere = verify(self._parts.brokers.other_audiences(entry))
            except ProofError:
                raise error from None
            names = " or ".join(f"`{audience}`" for audience in entry.audiences)
            raise ProofError(
                f"the proof was made for `{elsewhere.audience}`, this broker is {names}",
                reason=ReasonCode.WRONG_AUDIENCE,
            ) from error

    def assume(
        self,
        key: PublicKey,
        form: Form,
        client_id: str,
        entry: BrokerEntry,
    ) -> VerifiedProof:
        """Say what it would be to prove a key here by a form that names no audience itself."""
        audience = entry.audiences[0]
        if form in (Form.PASSWORD, Form.TLS, Form.COUNTER):
            audience = self._granted_audience(key, entry)
        return VerifiedProof(key=key, form=form, client_id=client_id, audience=audience)

    def _granted_audience(self, key: PublicKey, entry: BrokerEntry) -> Audience:
        granted = {
            audience
            for grant in self._parts.authority.state.grants_to(key_id(key))
            for audience in grant.audiences
        }
        matching = [one for one in entry.audiences if str(one) in granted]
        return matching[0] if matching else entry.audiences[0]

    # --- whether it was used --------------------------------------------------------------

    def is_used(self, proof: VerifiedProof) -> bool:
        """Say whether this proof was used before, here or at another broker of the daemon.

        Raises:
            StoreError: The store cannot be read.
        """
        if proof.counter is not None:
            last = self._parts.used.last_counter(counter_slot(proof))
            try:
                check_rises(proof, last=last)
            except ProofError:
                return True
        return proof.replay_id is not None and self._parts.used.seen(proof.replay_id)

    def consume(self, proof: VerifiedProof, *, broker: str) -> bool:
        """Use a proof up, on disk before this returns; False if somebody else was faster.

        Raises:
            StoreError: The store cannot be written; the proof is not used up.
        """
        if proof.counter is not None:
            return self._parts.used.raise_counter(counter_slot(proof), proof.counter)
        if proof.replay_id is None:
            return True
        return self._parts.used.consume(
            proof.replay_id,
            expires_at=proof.expires_at,
            now=self._parts.clock.now(),
            broker=broker,
        )

    def admit(self, proof: VerifiedProof, session: StoredSession) -> bool:
        """Use a proof up and put the session it lets in on disk, before this returns.

        Returns:
            False if somebody else was faster; nothing was put on disk.

        Raises:
            StoreError: The store cannot be written; a nonce is not used up.
        """
        used = self._parts.used
        if proof.replay_id is not None and proof.counter is None:
            # One transaction for both is most of what a CONNECT costs here.
            now = self._parts.clock.now()
            return used.admit(proof.replay_id, session, expires_at=proof.expires_at, now=now)
        if not self.consume(proof, broker=session.broker):
            return False
        used.save_session(session)
        return True


def source_of(request: ConnectRequest) -> str:
    """Return whose share of lookups a request uses: its address, or the whole broker's."""
    return request.address or f"broker {request.broker}"


def _sought(claim: Claim) -> tuple[KeyId, KeyId | None]:
    """Return the id that grants are looked for by, and the id of their issuer if it is named."""
    match claim:
        case UnverifiedPop() | UnverifiedCounter():
            return claim.key_id, claim.issuer_hint
        case Answered():
            return claim.exchange.hello.key_id, claim.exchange.hello.issuer_hint
        case DevicePassword():
            return claim.key_id, None
        case TlsSubject():
            return key_id(claim.key), None


def _unknown(outcome: Outcome) -> ProofError:
    reason, sentence = _OUTCOMES.get(outcome, _OUTCOMES[Outcome.ABSENT])
    return ProofError(sentence, reason=reason)
