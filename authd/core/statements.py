"""The other signed statements: revocation, heartbeat, broker; and the way in for all kinds.

``verify_*`` turns untrusted bytes into the real thing, and nothing else can. The set of kinds is
closed: `verify` takes every kind there is.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

from authd.core import limits
from authd.core.claims import (
    LABELS,
    MAX_TIME,
    Claim,
    Claims,
    Kind,
    Unverified,
    is_printable,
    parse,
    verified_issuer,
)
from authd.core.encoding import CborValue, encode
from authd.core.envelope import seal_envelope
from authd.core.grants import Grant, HeldGrant, KeySubject, recall_grant, verify_grant
from authd.core.identity import (
    ID_BYTES,
    KEY_BYTES,
    DomainId,
    PublicKey,
    SigningKey,
    StatementId,
    admit_key,
)
from authd.core.roots import Root
from authd.errors import FormatError, LimitError


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoke:
    """A verified revocation of a grant id (16 bytes) or a key (32 bytes)."""

    statement_id: StatementId
    encoded: bytes
    issuer: PublicKey
    target: bytes
    issued_at: int
    reason: str = ""
    revoker_grant: Grant | None = None

    @property
    def is_key(self) -> bool:
        """Whether the target is a key."""
        return len(self.target) == KEY_BYTES


@dataclass(frozen=True, slots=True)
class ListEnd:
    """How a list of revocations ended: its epoch, its length and its head."""

    epoch: int
    count: int
    head: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """A verified head of one heartbeat key's chain of revocations."""

    statement_id: StatementId
    encoded: bytes
    issuer: PublicKey
    domain: DomainId
    root_version: int
    epoch: int
    count: int
    head: bytes
    recent: tuple[StatementId, ...]
    issued_at: int
    expires_at: int
    previous: ListEnd | None = None

    @property
    def end(self) -> ListEnd:
        """How the list ends with this head."""
        return ListEnd(self.epoch, self.count, self.head)


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """A verified announcement of a broker by a key that may serve.

    Attributes:
        tls_key: SHA-256 of the SubjectPublicKeyInfo (RFC 5280 §4.1) its certificate has; None if
            clients are to check the certificate in the usual way, or there is none.
    """

    statement_id: StatementId
    encoded: bytes
    issuer: PublicKey
    domain: DomainId
    broker_id: str
    endpoints: tuple[str, ...]
    prefixes: tuple[str, ...]
    issued_at: int
    expires_at: int
    tls_key: bytes | None = None


def verify_revoke(data: bytes) -> Revoke:
    """Parse and verify a revocation; whether it counts for a path is judged in ``core.trust``.

    Args:
        data: Untrusted; at most ``limits.MAX_REVOKE_BYTES`` bytes.

    Raises:
        LimitError: Too long.
        FormatError: Not the canonical form of a revocation.
        WeakKeyError: A key that fails the point check.
        SignatureError: A signature does not verify.
    """
    unverified = parse(Kind.REVOKE, data)
    claims = Claims("revoke", unverified.claims)
    issuer = verified_issuer(unverified, claims)
    revoke = _read_revoke(unverified, claims, issuer, verify_grant)
    if revoke.is_key:
        admit_key(revoke.target)
    return revoke


def _recall_revoke(data: bytes) -> Revoke:
    unverified = parse(Kind.REVOKE, data)
    claims = Claims("revoke", unverified.claims)
    issuer = PublicKey(claims.raw(Claim.ISS, KEY_BYTES))
    return _read_revoke(unverified, claims, issuer, _recall_grant)


def _recall_grant(data: bytes) -> Grant:
    return recall_grant(HeldGrant(data))


def _read_revoke(
    unverified: Unverified,
    claims: Claims,
    issuer: PublicKey,
    read_grant: Callable[[bytes], Grant],
) -> Revoke:
    target = claims.raw(Claim.TARGET, ID_BYTES, KEY_BYTES)
    revoke = Revoke(
        statement_id=unverified.statement_id,
        encoded=unverified.encoded,
        issuer=issuer,
        target=target,
        issued_at=claims.uint(Claim.IAT, most=MAX_TIME),
        reason=claims.text(Claim.REASON, most_bytes=limits.MAX_REASON_BYTES)
        if claims.has(Claim.REASON)
        else "",
        revoker_grant=_take_revoker_grant(claims, issuer, read_grant),
    )
    claims.finish()
    return revoke


def _take_revoker_grant(
    claims: Claims,
    issuer: PublicKey,
    read_grant: Callable[[bytes], Grant],
) -> Grant | None:
    encoded = claims.value(Claim.REVOKER_GRANT)
    if encoded is None:
        return None
    if not isinstance(encoded, bytes):
        msg = "revoke: a revoker's grant that is not a byte string"
        raise FormatError(msg)
    grant = read_grant(encoded)
    if grant.subject != KeySubject(issuer):
        msg = "revoke: the revoker's grant names another key than the signer"
        raise FormatError(msg)
    return grant


def sign_revoke(
    issuer: SigningKey,
    *,
    target: bytes,
    issued_at: int,
    reason: str = "",
    revoker_grant: Grant | None = None,
) -> Revoke:
    """Make a revocation of a grant id (16 bytes) or key (32 bytes)."""
    claims: dict[int, CborValue] = {
        Claim.ISS: issuer.public,
        Claim.TARGET: target,
        Claim.IAT: issued_at,
    }
    if reason:
        claims[Claim.REASON] = reason
    if revoker_grant:
        claims[Claim.REVOKER_GRANT] = revoker_grant.encoded
    return verify_revoke(seal_envelope(LABELS[Kind.REVOKE], encode(claims), issuer))


def verify_heartbeat(data: bytes) -> Heartbeat:
    """Parse and verify a heartbeat; whether its head is proven is judged in ``core.revocations``.

    Args:
        data: Untrusted; at most ``limits.MAX_HEARTBEAT_BYTES`` bytes.

    Raises:
        LimitError: Too long, or a life of more than ``limits.HEARTBEAT_LIFE_S``.
        FormatError: Not the canonical form of a heartbeat.
        WeakKeyError: The issuer fails the point check.
        SignatureError: The signature does not verify.
    """
    unverified = parse(Kind.HEARTBEAT, data)
    claims = Claims("heartbeat", unverified.claims)
    heartbeat = Heartbeat(
        statement_id=unverified.statement_id,
        encoded=data,
        issuer=verified_issuer(unverified, claims),
        domain=DomainId(claims.raw(Claim.DOMAIN, ID_BYTES)),
        root_version=claims.uint(Claim.VERSION, most=MAX_TIME),
        epoch=claims.uint(Claim.EPOCH, most=MAX_TIME),
        count=claims.uint(Claim.COUNT, most=limits.MAX_CHAIN_ENTRIES),
        head=claims.raw(Claim.HEAD, KEY_BYTES),
        recent=_take_recent(claims),
        issued_at=claims.uint(Claim.IAT, most=MAX_TIME),
        expires_at=claims.uint(Claim.EXP, most=MAX_TIME),
        previous=_take_previous(claims),
    )
    claims.finish()
    if heartbeat.previous is not None and heartbeat.previous.epoch >= heartbeat.epoch:
        msg = "heartbeat: the list before was begun no earlier than this one"
        raise FormatError(msg)
    life_s = heartbeat.expires_at - heartbeat.issued_at
    if not 0 < life_s <= limits.HEARTBEAT_LIFE_S:
        msg = f"heartbeat: a life of {life_s} s; 1 to {limits.HEARTBEAT_LIFE_S} s is allowed"
        raise LimitError(msg)
    if len(heartbeat.recent) != min(heartbeat.count, limits.MAX_RECENT_IDS):
        msg = "heartbeat: the recent ids are not the last of the list"
        raise FormatError(msg)
    return heartbeat


def _take_recent(claims: Claims) -> tuple[StatementId, ...]:
    if not claims.has(Claim.RECENT):
        return ()
    items = claims.items(Claim.RECENT, most=limits.MAX_RECENT_IDS)
    recent = tuple(StatementId(i) for i in items if isinstance(i, bytes) and len(i) == ID_BYTES)
    if len(recent) != len(items):
        msg = "heartbeat: a recent id that is not 16 bytes"
        raise FormatError(msg)
    return recent


def _take_previous(claims: Claims) -> ListEnd | None:
    if not claims.has(Claim.PREVIOUS_LIST):
        return None
    match claims.items(Claim.PREVIOUS_LIST, most=3):
        case [int() as epoch, int() as count, bytes() as head] if (
            0 <= epoch <= MAX_TIME
            and 0 <= count <= limits.MAX_CHAIN_ENTRIES
            and len(head) == KEY_BYTES
        ):
            return ListEnd(epoch, count, head)
    msg = "heartbeat: claim `previous_list` is not an epoch, a length and a head of 32 bytes"
    raise FormatError(msg)


def sign_heartbeat(
    issuer: SigningKey,
    *,
    domain: DomainId,
    root_version: int,
    epoch: int,
    count: int,
    head: bytes,
    recent: tuple[StatementId, ...],
    issued_at: int,
    life_s: int = limits.HEARTBEAT_LIFE_S,
    previous: ListEnd | None = None,
) -> Heartbeat:
    """Make a heartbeat that lives ``life_s`` seconds.

    Args:
        issuer: A heartbeat key of the domain.
        domain: For which it speaks.
        root_version: Of the root it stands by.
        epoch: When its list was begun.
        count: Length of the list.
        head: Hash of the list.
        recent: The last of the list, at most ``limits.MAX_RECENT_IDS``.
        issued_at: Seconds since the Unix epoch.
        life_s: 1 to ``limits.HEARTBEAT_LIFE_S``.
        previous: How the list before this one ended; None if this is the key's first.
    """
    claims: dict[int, CborValue] = {
        Claim.ISS: issuer.public,
        Claim.DOMAIN: domain,
        Claim.VERSION: root_version,
        Claim.EPOCH: epoch,
        Claim.COUNT: count,
        Claim.HEAD: head,
        Claim.IAT: issued_at,
        Claim.EXP: issued_at + life_s,
    }
    if recent:
        claims[Claim.RECENT] = list(recent)
    if previous is not None:
        claims[Claim.PREVIOUS_LIST] = [previous.epoch, previous.count, previous.head]
    return verify_heartbeat(seal_envelope(LABELS[Kind.HEARTBEAT], encode(claims), issuer))


def verify_broker(data: bytes) -> Broker:
    """Parse and verify a broker announcement.

    Args:
        data: Untrusted; at most ``limits.MAX_BROKER_BYTES`` bytes.

    Raises:
        LimitError: Too long, or it expires before it is issued.
        FormatError: Not the canonical form of a broker statement.
        WeakKeyError: The issuer fails the point check.
        SignatureError: The signature does not verify.
    """
    unverified = parse(Kind.BROKER, data)
    claims = Claims("broker", unverified.claims)
    broker = Broker(
        statement_id=unverified.statement_id,
        encoded=data,
        issuer=verified_issuer(unverified, claims),
        domain=DomainId(claims.raw(Claim.DOMAIN, ID_BYTES)),
        broker_id=claims.text(Claim.BROKER_ID, most_bytes=limits.MAX_USERNAME_CHARS),
        endpoints=_take_texts(claims, Claim.ENDPOINTS),
        prefixes=_take_texts(claims, Claim.PREFIXES),
        issued_at=claims.uint(Claim.IAT, most=MAX_TIME),
        expires_at=claims.uint(Claim.EXP, most=MAX_TIME),
        tls_key=claims.raw(Claim.TLS_FINGERPRINT, KEY_BYTES)
        if claims.has(Claim.TLS_FINGERPRINT)
        else None,
    )
    claims.finish()
    if broker.issued_at >= broker.expires_at:
        raise LimitError("broker: it expires before it is issued")
    return broker


def _take_texts(claims: Claims, claim: Claim) -> tuple[str, ...]:
    items = claims.items(claim, most=limits.MAX_AUDIENCES)
    most = limits.MAX_AUDIENCE_BYTES
    texts = tuple(i for i in items if isinstance(i, str) and is_printable(i, most_bytes=most))
    if len(texts) != len(items) or list(texts) != sorted(set(texts)):
        msg = f"broker: `{claim.name.lower()}` is not a strictly ascending list of texts"
        raise FormatError(msg)
    return texts


def sign_broker(
    issuer: SigningKey,
    *,
    domain: DomainId,
    broker_id: str,
    endpoints: Iterable[str],
    prefixes: Iterable[str],
    issued_at: int,
    expires_at: int,
    tls_key: bytes | None = None,
) -> Broker:
    """Make a broker announcement; what `verify_broker` would refuse is refused here."""
    claims: dict[int, CborValue] = {
        Claim.ISS: issuer.public,
        Claim.DOMAIN: domain,
        Claim.BROKER_ID: broker_id,
        Claim.ENDPOINTS: sorted(set(endpoints)),
        Claim.PREFIXES: sorted(set(prefixes)),
        Claim.IAT: issued_at,
        Claim.EXP: expires_at,
    }
    if tls_key is not None:
        claims[Claim.TLS_FINGERPRINT] = tls_key
    return verify_broker(seal_envelope(LABELS[Kind.BROKER], encode(claims), issuer))


Statement: TypeAlias = Grant | Revoke | Heartbeat | Broker
"""Every kind but `Root`, which is verified against the one before it (`core.roots`)."""

_VERIFIERS: Final[dict[Kind, Callable[[bytes], Statement]]] = {
    Kind.GRANT: verify_grant,
    Kind.REVOKE: verify_revoke,
    Kind.HEARTBEAT: verify_heartbeat,
    Kind.BROKER: verify_broker,
}


def verify(kind: Kind, data: bytes) -> Statement:
    """Parse and verify a statement of any kind but `Kind.ROOT`.

    Raises:
        LimitError: A bound of the kind was hit.
        FormatError: Not the canonical form of that kind, or `Kind.ROOT`.
        WeakKeyError: A key that fails the point check.
        SignatureError: A signature does not verify.
    """
    verifier = _VERIFIERS.get(kind)
    if verifier is None:
        msg = f"a {kind.name.lower()} cannot be verified by itself"
        raise FormatError(msg)
    return verifier(data)


def recall(kind: Kind, data: bytes) -> Statement:
    """Read a statement that `verify` accepted before and that was kept where only we write.

    Grants and revocations are read without asking for their signatures again, because there may be
    very many; whoever kept them compares the id, which is a hash of all that they say.

    Raises:
        LimitError: It is damaged.
        FormatError: It is damaged, or a root.
        WeakKeyError: It is damaged.
        SignatureError: It is damaged.
    """
    return _RECALLERS.get(kind, partial(verify, kind))(data)


_RECALLERS: Final[dict[Kind, Callable[[bytes], Statement]]] = {
    Kind.GRANT: _recall_grant,
    Kind.REVOKE: _recall_revoke,
}


def kind_of(statement: Statement | Root) -> Kind:
    """Say which kind a statement is of."""
    return _KINDS[type(statement)]


_KINDS: Final[dict[type, Kind]] = {
    Root: Kind.ROOT,
    Grant: Kind.GRANT,
    Revoke: Kind.REVOKE,
    Heartbeat: Kind.HEARTBEAT,
    Broker: Kind.BROKER,
}
