"""Reason codes and the whole exception tree.

::

    AuthdError                    never raised itself
    ├── FormatError               not the canonical form of anything
    ├── LimitError                a bound in ``core/limits.py`` was hit
    ├── VerificationError         never raised itself
    │   ├── SignatureError        a signature does not verify
    │   ├── WeakKeyError          not a point of the prime-order group
    │   ├── ExpiredError          ``now`` is outside the statement's time
    │   ├── RevokedError          named by a revocation that counts
    │   ├── UntrustedIssuerError  no path from a root
    │   ├── ScopeError            a right that the path does not give
    │   ├── StaleRecordError      an older record than the one held
    │   ├── EquivocationError     two valid statements where one may exist
    │   └── ProofError            a proof of possession that does not hold
    ├── NetworkError              never raised itself
    │   ├── NoPeersError          nobody to ask
    │   ├── NoResponseError       asked, and nobody answered in time
    │   ├── NotFoundError         answered: there is no such thing
    │   └── RejectedError         a peer refused, with its reason
    └── LocalError                never raised itself
        ├── StoreError            the store cannot read or write
        ├── ConflictError         a compare-and-swap was lost
        └── ConfigError           names the file and the key

Messages are lower case without a final period, quote their input in backquotes and hold no secret.
"""

from enum import StrEnum
from typing import ClassVar


class ReasonCode(StrEnum):
    """Why a decision, or a command, ended as it did; listed in ``docs/reason-codes.md``."""

    OK = "ok"
    MALFORMED = "malformed"
    LIMIT_EXCEEDED = "limit_exceeded"
    WEAK_KEY = "weak_key"
    BAD_SIGNATURE = "bad_signature"
    CLOCK_SKEW = "clock_skew"
    REPLAYED = "replayed"
    PREDATES_RESTART = "predates_restart"
    WRONG_AUDIENCE = "wrong_audience"
    WRONG_CLIENT_ID = "wrong_client_id"
    FORM_NOT_ALLOWED = "form_not_allowed"
    CLIENT_ID_REFUSED = "client_id_refused"
    CLIENT_ID_TAKEN = "client_id_taken"
    UNKNOWN_KEY = "unknown_key"
    LOOKUP_IN_PROGRESS = "lookup_in_progress"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    REVOKED = "revoked"
    UNTRUSTED = "untrusted"
    DEPTH_EXCEEDED = "depth_exceeded"
    NOT_GRANTED = "not_granted"
    STALE = "stale"
    NO_SESSION = "no_session"
    LEASE_ENDED = "lease_ended"
    UNKNOWN_BROKER = "unknown_broker"
    OVERLOADED = "overloaded"
    STALE_RECORD = "stale_record"
    EQUIVOCATION = "equivocation"
    NO_PEERS = "no_peers"
    NO_RESPONSE = "no_response"
    NOT_FOUND = "not_found"
    REJECTED = "rejected"
    STORE_FAILED = "store_failed"
    CONFLICT = "conflict"
    BAD_CONFIG = "bad_config"
    INTERNAL = "internal"

    @property
    def temporary(self) -> bool:
        """Whether the same request may succeed shortly without any change by its sender."""
        return self in _TEMPORARY


_TEMPORARY = frozenset(
    {
        ReasonCode.PREDATES_RESTART,
        ReasonCode.LOOKUP_IN_PROGRESS,
        ReasonCode.STALE,
        ReasonCode.OVERLOADED,
        ReasonCode.NO_PEERS,
        ReasonCode.NO_RESPONSE,
        ReasonCode.STORE_FAILED,
        ReasonCode.INTERNAL,
    },
)


class AuthdError(Exception):
    """Root of everything authd raises on purpose."""

    default_reason: ClassVar[ReasonCode] = ReasonCode.INTERNAL

    def __init__(self, message: str, *, reason: ReasonCode | None = None) -> None:
        """Keep ``message`` for people and ``reason`` for programs."""
        super().__init__(message)
        self.reason = reason or self.default_reason


class FormatError(AuthdError):
    """Not the canonical form of anything."""

    default_reason = ReasonCode.MALFORMED


class LimitError(AuthdError):
    """A bound in ``core/limits.py`` was hit."""

    default_reason = ReasonCode.LIMIT_EXCEEDED


class VerificationError(AuthdError):
    """Well-formed, but not to be believed."""


class SignatureError(VerificationError):
    """A signature does not verify (RFC 8032 §5.1.7)."""

    default_reason = ReasonCode.BAD_SIGNATURE


class WeakKeyError(VerificationError):
    """A public key that is not a point of the prime-order group."""

    default_reason = ReasonCode.WEAK_KEY


class ExpiredError(VerificationError):
    """``now`` is outside the time a statement is valid in."""

    default_reason = ReasonCode.EXPIRED


class RevokedError(VerificationError):
    """Named by a revocation that counts."""

    default_reason = ReasonCode.REVOKED


class UntrustedIssuerError(VerificationError):
    """No path leads to the issuer from a root."""

    default_reason = ReasonCode.UNTRUSTED


class ScopeError(VerificationError):
    """A right that the path does not give."""

    default_reason = ReasonCode.NOT_GRANTED


class StaleRecordError(VerificationError):
    """An older record than the one held."""

    default_reason = ReasonCode.STALE_RECORD


class EquivocationError(VerificationError):
    """Two valid statements where one may exist."""

    default_reason = ReasonCode.EQUIVOCATION


class ProofError(VerificationError):
    """A proof of possession that does not hold; the reason says in what."""

    default_reason = ReasonCode.BAD_SIGNATURE


class NetworkError(AuthdError):
    """Something about other daemons."""


class NoPeersError(NetworkError):
    """Nobody to ask."""

    default_reason = ReasonCode.NO_PEERS


class NoResponseError(NetworkError):
    """Asked, and nobody answered in time."""

    default_reason = ReasonCode.NO_RESPONSE


class NotFoundError(NetworkError):
    """Answered: there is no such thing."""

    default_reason = ReasonCode.NOT_FOUND


class RejectedError(NetworkError):
    """A peer or daemon refused, with its reason."""

    default_reason = ReasonCode.REJECTED


class LocalError(AuthdError):
    """Something about this host."""


class StoreError(LocalError):
    """The store cannot read or write."""

    default_reason = ReasonCode.STORE_FAILED


class ConflictError(LocalError):
    """A compare-and-swap was lost."""

    default_reason = ReasonCode.CONFLICT


class ConfigError(LocalError):
    """A configuration that cannot be used; the message names the file and the key."""

    default_reason = ReasonCode.BAD_CONFIG
