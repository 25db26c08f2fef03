"""Roots: what a domain authorises, signed by k of its root keys.

On the wire: ``[payload, [[list, index, signature], …]]``, the signatures strictly ascending by
(list, index). List 0 indexes the root keys of the previous version, list 1 those of this one; a
key in both lists signs once, indexed in the new, and counts for both. Each signature is over the
COSE ``Signature1`` structure of the payload (RFC 9052 §4.4).

Version 1 needs k of its own keys; its statement id is the domain id. Version n + 1 names the id
of version n and needs k of the old keys *and* k of the new ones, each by its own version's k.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from authd.core import limits
from authd.core.claims import LABELS, MAX_TIME, Claim, Claims, Kind, parse_scope, scope_claim
from authd.core.encoding import CborValue, decode, encode
from authd.core.envelope import signing_bytes, statement_id
from authd.core.identity import (
    ID_BYTES,
    KEY_BYTES,
    DomainId,
    PublicKey,
    SigningKey,
    StatementId,
    admit_key,
    verify_signature,
)
from authd.core.topics import Scope
from authd.errors import FormatError, LimitError, SignatureError, StaleRecordError

_OLD: Final = 0
_NEW: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """One entry of a root: a key that may begin paths."""

    key: PublicKey
    scope: Scope
    depth: int
    expires_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RootClaims:
    """What a root says, verified or about to be signed.

    Attributes:
        version: From 1.
        previous: Statement id of the version before; None for version 1.
        root_keys: 1 to ``limits.MAX_ROOT_KEYS``, distinct.
        threshold: How many of them must sign; 1 to their number.
        authorities: 1 to ``limits.MAX_AUTHORITIES``, distinct keys.
        heartbeat_keys: 1, 3 or 5, distinct.
        publisher: Publishes this version's record.
        next_publisher: Will publish the next version's.
        expires_at: Seconds since the Unix epoch.
        reset: Heartbeat keys were lost; their hand-over is skipped.
    """

    version: int
    previous: StatementId | None
    root_keys: tuple[PublicKey, ...]
    threshold: int
    authorities: tuple[Authority, ...]
    heartbeat_keys: tuple[PublicKey, ...]
    publisher: PublicKey
    next_publisher: PublicKey
    expires_at: int
    reset: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Root(RootClaims):
    """A verified root."""

    statement_id: StatementId
    encoded: bytes
    payload: bytes
    domain: DomainId

    def authority(self, key: PublicKey) -> Authority | None:
        """Find the entry of ``key``."""
        return next((entry for entry in self.authorities if entry.key == key), None)


@dataclass(frozen=True, slots=True)
class RootSignature:
    """One signature of a root: which list, which key of it, 64 bytes."""

    key_list: int
    index: int
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedRoot:
    """A well-formed root whose signatures nobody has checked."""

    encoded: bytes
    payload: bytes
    claims: RootClaims
    signatures: tuple[RootSignature, ...]

    @property
    def statement_id(self) -> StatementId:
        """Id of the root."""
        return statement_id(LABELS[Kind.ROOT], self.payload)


def parse_root(data: bytes) -> UnverifiedRoot:
    """Read a root.

    Args:
        data: Untrusted; at most ``limits.MAX_ROOT_BYTES`` bytes.

    Raises:
        LimitError: A bound was hit.
        FormatError: Not the canonical form of a root.
        WeakKeyError: A key that fails the point check.
    """
    match decode(data, max_bytes=limits.MAX_ROOT_BYTES):
        case [bytes() as payload, [*items]]:
            pass
        case _:
            msg = "root: not a payload and its signatures"
            raise FormatError(msg)
    signatures = tuple(map(_parse_signature, items))
    order = [(signature.key_list, signature.index) for signature in signatures]
    if any(first >= second for first, second in pairwise(order)):
        msg = "root: signatures that are not strictly ascending"
        raise FormatError(msg)
    return UnverifiedRoot(
        encoded=data,
        payload=payload,
        claims=_parse_claims(payload),
        signatures=signatures,
    )


def _parse_signature(item: CborValue) -> RootSignature:
    match item:
        case [int() as key_list, int() as index, bytes() as signature] if (
            key_list in (_OLD, _NEW) and 0 <= index < limits.MAX_ROOT_KEYS
        ):
            return RootSignature(key_list, index, signature)
        case _:
            msg = "root: a signature that is not a list, an index and bytes"
            raise FormatError(msg)


def _parse_claims(payload: bytes) -> RootClaims:
    claims = Claims("root", decode(payload, max_bytes=limits.MAX_ROOT_PAYLOAD_BYTES))
    version = claims.uint(Claim.VERSION, most=MAX_TIME)
    previous = None if version <= 1 else StatementId(claims.raw(Claim.PREVIOUS, ID_BYTES))
    entries = claims.items(Claim.AUTHORITIES, most=limits.MAX_AUTHORITIES)
    root = RootClaims(
        version=version,
        previous=previous,
        root_keys=_take_keys(claims, Claim.ROOT_KEYS, limits.MAX_ROOT_KEYS),
        threshold=claims.uint(Claim.THRESHOLD, most=limits.MAX_ROOT_KEYS),
        authorities=tuple(map(_parse_authority, entries)),
        heartbeat_keys=_take_keys(claims, Claim.HEARTBEAT_KEYS, max(limits.HEARTBEAT_KEY_COUNTS)),
        publisher=admit_key(claims.raw(Claim.PUBLISHER, KEY_BYTES)),
        next_publisher=admit_key(claims.raw(Claim.NEXT_PUBLISHER, KEY_BYTES)),
        expires_at=claims.uint(Claim.EXP, most=MAX_TIME),
        reset=claims.has(Claim.RESET) and claims.uint(Claim.RESET, most=1) == 1,
    )
    claims.finish()
    _check_claims(root)
    return root


def _take_keys(claims: Claims, claim: Claim, most: int) -> tuple[PublicKey, ...]:
    keys: list[PublicKey] = []
    for item in claims.items(claim, most=most):
        if not isinstance(item, bytes):
            msg = f"root: `{claim.name.lower()}` holds something that is not a key"
            raise FormatError(msg)
        keys.append(admit_key(item))
    return tuple(keys)


def _parse_authority(item: CborValue) -> Authority:
    match item:
        case [bytes() as raw, [*scope], int() as depth, int() as expires_at]:
            pass
        case _:
            msg = "root: an authority that is not key, scope, depth and expiry"
            raise FormatError(msg)
    if not (0 <= depth <= limits.MAX_DEPTH and 0 <= expires_at <= MAX_TIME):
        msg = "root: an authority's depth or expiry is out of range"
        raise FormatError(msg)
    if not 1 <= len(scope) <= limits.MAX_FILTERS_PER_GRANT:
        msg = f"root: an authority's scope has 1 to {limits.MAX_FILTERS_PER_GRANT} filters"
        raise FormatError(msg)
    return Authority(
        key=admit_key(raw),
        scope=parse_scope(scope),
        depth=depth,
        expires_at=expires_at,
    )


def _check_claims(root: RootClaims) -> None:
    authority_keys = {entry.key for entry in root.authorities}
    rules = {
        "the version is 0": root.version < 1,
        "a root key stands twice": len(set(root.root_keys)) != len(root.root_keys),
        "the threshold is not between 1 and the number of root keys": not (
            1 <= root.threshold <= len(root.root_keys)
        ),
        "an authority stands twice": len(authority_keys) != len(root.authorities),
        "a root key has another part as well": not set(root.root_keys).isdisjoint(
            {*authority_keys, *root.heartbeat_keys, root.publisher, root.next_publisher},
        ),
        "there are not 1, 3 or 5 distinct heartbeat keys": (
            len(root.heartbeat_keys) not in limits.HEARTBEAT_KEY_COUNTS
            or len(set(root.heartbeat_keys)) != len(root.heartbeat_keys)
        ),
    }
    for sentence, broken in rules.items():
        if broken:
            msg = f"root: {sentence}"
            raise FormatError(msg)


def verify_root(data: bytes, *, previous: Root | None, now: int | None = None) -> Root:
    """Parse and verify a root against the version before it.

    Args:
        data: Untrusted; at most ``limits.MAX_ROOT_BYTES`` bytes.
        previous: The verified version before; None to accept a version 1, which is then known by
            its domain id alone.
        now: Seconds since the Unix epoch, to refuse a root that lives too long; None for one that
            was accepted before.

    Raises:
        LimitError: A bound was hit, or it ends more than ``limits.MAX_ROOT_LIFE_S`` after ``now``.
        FormatError: Not the canonical form of a root.
        WeakKeyError: A key that fails the point check.
        StaleRecordError: Not the version after ``previous``.
        SignatureError: Fewer than k signatures of the old or of the new keys, or one that does
            not verify.
    """
    unverified = parse_root(data)
    claims = unverified.claims
    _check_succession(unverified, previous)
    if now is not None and lives_too_long(claims, now=now):
        msg = f"root: it ends {claims.expires_at - now} s ahead; at most 11 years are allowed"
        raise LimitError(msg)
    new, old = _verified_signers(unverified, previous)
    if len(new) < claims.threshold or (previous and len(old) < previous.threshold):
        msg = (
            f"root version {claims.version}: {len(new)} of {claims.threshold} new signatures"
            f" and {len(old)} of {previous.threshold if previous else 0} old ones"
        )
        raise SignatureError(msg)
    own_id = unverified.statement_id
    return Root(
        **{name: getattr(claims, name) for name in RootClaims.__slots__},
        statement_id=own_id,
        encoded=data,
        payload=unverified.payload,
        domain=previous.domain if previous else DomainId(own_id),
    )


def lives_too_long(root: RootClaims, *, now: int) -> bool:
    """Say whether a root ends later than any root may: a stolen one must end some day."""
    return root.expires_at > now + limits.MAX_ROOT_LIFE_S


def _check_succession(unverified: UnverifiedRoot, previous: Root | None) -> None:
    version = unverified.claims.version
    expected = previous.version + 1 if previous else 1
    if version != expected:
        msg = f"root: version {version} where version {expected} comes next"
        raise StaleRecordError(msg)
    if previous and unverified.claims.previous != previous.statement_id:
        msg = f"root: version {version} names another version {previous.version} than the one held"
        raise StaleRecordError(msg)


def _verified_signers(
    unverified: UnverifiedRoot,
    previous: Root | None,
) -> tuple[set[PublicKey], set[PublicKey]]:
    new_keys = unverified.claims.root_keys
    old_keys = previous.root_keys if previous else ()
    message = signing_bytes(LABELS[Kind.ROOT], unverified.payload)
    signers: set[PublicKey] = set()
    for signature in unverified.signatures:
        keys = new_keys if signature.key_list == _NEW else old_keys
        if signature.index >= len(keys):
            msg = f"root: a signature by key {signature.index} of {len(keys)}"
            raise SignatureError(msg)
        key = keys[signature.index]
        if signature.key_list == _OLD and key in new_keys:
            msg = "root: a key of both versions signs as an old key"
            raise SignatureError(msg)
        verify_signature(key, message, signature.signature)
        signers.add(key)
    return signers & set(new_keys), signers & set(old_keys)


def encode_root_payload(root: RootClaims) -> bytes:
    """Encode what the root keys sign.

    Raises:
        LimitError: Longer than ``limits.MAX_ROOT_PAYLOAD_BYTES``.
    """
    claims: dict[int, CborValue] = {
        Claim.VERSION: root.version,
        Claim.ROOT_KEYS: list(root.root_keys),
        Claim.THRESHOLD: root.threshold,
        Claim.AUTHORITIES: [
            [entry.key, scope_claim(entry.scope), entry.depth, entry.expires_at]
            for entry in root.authorities
        ],
        Claim.HEARTBEAT_KEYS: list(root.heartbeat_keys),
        Claim.PUBLISHER: root.publisher,
        Claim.NEXT_PUBLISHER: root.next_publisher,
        Claim.EXP: root.expires_at,
    }
    if root.previous is not None:
        claims[Claim.PREVIOUS] = root.previous
    if root.reset:
        claims[Claim.RESET] = 1
    payload = encode(claims)
    if len(payload) > limits.MAX_ROOT_PAYLOAD_BYTES:
        msg = f"root: {len(payload)} bytes where {limits.MAX_ROOT_PAYLOAD_BYTES} fit a record"
        raise LimitError(msg)
    return payload


def sign_root(
    root: RootClaims,
    *,
    previous: Root | None,
    keys: tuple[SigningKey, ...],
) -> Root:
    """Sign a root with every key given and verify the result.

    Raises:
        LimitError: The payload is too long.
        FormatError: The claims contradict each other.
        SignatureError: ``keys`` do not reach the thresholds.
    """
    payload = encode_root_payload(root)
    message = signing_bytes(LABELS[Kind.ROOT], payload)
    places: Mapping[PublicKey, tuple[int, int]] = {
        **{key: (_OLD, i) for i, key in enumerate(previous.root_keys if previous else ())},
        **{key: (_NEW, i) for i, key in enumerate(root.root_keys)},
    }
    signatures: list[CborValue] = [
        [*places[key.public], key.sign(message)]
        for key in sorted(keys, key=lambda key: places.get(key.public, (_NEW, 0)))
        if key.public in places
    ]
    return verify_root(encode([payload, signatures]), previous=previous)
