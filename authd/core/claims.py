"""What all statements share: kinds, claim keys, and strict access to claims.

Claims use CWT keys where one exists (RFC 8392, cnf RFC 8747); ours are from the private range
below -65536. An unknown claim is an error, so that a later version can add a restricting claim and
be sure that no older reader skips it.
"""

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Final, TypeAlias

from authd.core import limits
from authd.core.encoding import CborValue, decode
from authd.core.envelope import UnverifiedEnvelope, parse_envelope, verify_envelope
from authd.core.identity import KEY_BYTES, PublicKey, StatementId, admit_key
from authd.core.topics import (
    ACTION_NAMES,
    Action,
    Scope,
    ScopeEntry,
    check_granted_filter,
)
from authd.errors import FormatError

ClaimMap: TypeAlias = Mapping[int, CborValue]

# 2**40 s is the year 36 812: five bytes hold it, as a proof's time does.
MAX_TIME: Final = 2**40 - 1


class Kind(enum.IntEnum):
    """Statement kinds by their number on the wire."""

    ROOT = 0
    GRANT = 1
    REVOKE = 2
    HEARTBEAT = 3
    BROKER = 4


LABELS: Final = {
    Kind.ROOT: "authd/root/1",
    Kind.GRANT: "authd/grant/1",
    Kind.REVOKE: "authd/revoke/1",
    Kind.HEARTBEAT: "authd/heartbeat/1",
    Kind.BROKER: "authd/broker/1",
}


class Claim(enum.IntEnum):
    """Claim keys: CWT first, then the private ones."""

    ISS = 1
    SUB = 2
    AUD = 3
    EXP = 4
    IAT = 6
    CNF = 8
    SCOPE = 9
    DEPTH = -65537
    CLIENT_ID = -65538
    FORMS = -65539
    REPLACES = -65540
    TARGET = -65541
    REASON = -65542
    REVOKER_GRANT = -65543
    DOMAIN = -65544
    VERSION = -65545
    EPOCH = -65546
    COUNT = -65547
    HEAD = -65548
    RECENT = -65549
    PREVIOUS = -65550
    ROOT_KEYS = -65551
    THRESHOLD = -65552
    AUTHORITIES = -65553
    HEARTBEAT_KEYS = -65554
    PUBLISHER = -65555
    NEXT_PUBLISHER = -65556
    RESET = -65557
    BROKER_ID = -65558
    ENDPOINTS = -65559
    TLS_FINGERPRINT = -65560
    PREFIXES = -65561
    PREVIOUS_LIST = -65562


@dataclass(frozen=True, slots=True, kw_only=True)
class Unverified:
    """A well-formed statement that nobody has verified."""

    envelope: UnverifiedEnvelope
    encoded: bytes
    claims: ClaimMap

    @property
    def statement_id(self) -> StatementId:
        """Id of the statement; says nothing about who made it."""
        return self.envelope.statement_id


class Claims:
    """Typed, strict access to a decoded claim map; what is not taken is refused at the end."""

    __slots__ = ("_left", "_what")

    def __init__(self, what: str, claims: CborValue) -> None:
        """Wrap ``claims``.

        Raises:
            FormatError: Not a map.
        """
        if not isinstance(claims, Mapping):
            msg = f"{what}: the payload is not a map"
            raise FormatError(msg)
        self._left = dict(claims)
        self._what = what

    def _fail(self, claim: Claim, expected: str) -> FormatError:
        return FormatError(f"{self._what}: claim `{claim.name.lower()}` is not {expected}")

    def value(self, claim: Claim) -> CborValue | None:
        """Take a claim; None if it is absent."""
        return self._left.pop(claim, None)

    def uint(self, claim: Claim, *, most: int) -> int:
        """Take an integer within ``[0, most]``."""
        value = self.value(claim)
        if not isinstance(value, int) or not 0 <= value <= most:
            raise self._fail(claim, f"an integer from 0 to {most}")
        return value

    def raw(self, claim: Claim, *sizes: int) -> bytes:
        """Take a byte string of one of the sizes."""
        value = self.value(claim)
        if not isinstance(value, bytes) or len(value) not in sizes:
            raise self._fail(claim, f"a byte string of {' or '.join(map(str, sizes))} bytes")
        return value

    def text(self, claim: Claim, *, most_bytes: int) -> str:
        """Take printable text of 1 to ``most_bytes`` bytes."""
        value = self.value(claim)
        if not isinstance(value, str) or not is_printable(value, most_bytes=most_bytes):
            raise self._fail(claim, f"printable text of 1 to {most_bytes} bytes")
        return value

    def items(self, claim: Claim, *, most: int) -> list[CborValue]:
        """Take an array of 1 to ``most`` items."""
        value = self.value(claim)
        if not isinstance(value, list) or not 1 <= len(value) <= most:
            raise self._fail(claim, f"an array of 1 to {most} items")
        return value

    def has(self, claim: Claim) -> bool:
        """Say whether a claim is present and not taken yet."""
        return claim in self._left

    def finish(self) -> None:
        """Refuse whatever is left.

        Raises:
            FormatError: A claim that this kind does not have; it might restrict.
        """
        if self._left:
            msg = f"{self._what}: unknown claim `{min(self._left)}`"
            raise FormatError(msg)


def is_printable(text: str, *, most_bytes: int) -> bool:
    """Say whether text is 1 to ``most_bytes`` bytes of UTF-8 without control characters."""
    return text.isprintable() and 1 <= len(text.encode("utf-8")) <= most_bytes


def parse(kind: Kind, data: bytes) -> Unverified:
    """Read the envelope and claims of any kind but `Kind.ROOT`.

    Args:
        kind: What the bytes are said to be.
        data: Untrusted.

    Raises:
        LimitError: Longer than the kind's bound in ``core/limits.py``.
        FormatError: Not the canonical form, or no issuer.
    """
    envelope = parse_envelope(LABELS[kind], data, max_bytes=_MAX_BYTES[kind])
    claims = decode(envelope.payload, max_bytes=_MAX_BYTES[kind])
    if not isinstance(claims, Mapping) or not isinstance(claims.get(Claim.ISS), bytes):
        msg = f"{kind.name.lower()}: no issuer key"
        raise FormatError(msg)
    return Unverified(
        envelope=envelope,
        encoded=data,
        claims=claims,
    )


_MAX_BYTES: Final = {
    Kind.ROOT: limits.MAX_ROOT_BYTES,
    Kind.GRANT: limits.MAX_GRANT_BYTES,
    Kind.REVOKE: limits.MAX_REVOKE_BYTES,
    Kind.HEARTBEAT: limits.MAX_HEARTBEAT_BYTES,
    Kind.BROKER: limits.MAX_BROKER_BYTES,
}


def verified_issuer(unverified: Unverified, claims: Claims) -> PublicKey:
    """Take the issuer and check its signature.

    Raises:
        FormatError: Not a key.
        WeakKeyError: The issuer fails the point check.
        SignatureError: The signature does not verify.
    """
    issuer = admit_key(claims.raw(Claim.ISS, KEY_BYTES))
    verify_envelope(unverified.envelope, issuer)
    return issuer


def parse_scope(items: Iterable[CborValue]) -> Scope:
    """Read a scope: ``[[filter, ["pub", …]], …]``, both levels strictly ascending (RFC 9431 §3.1).

    Raises:
        FormatError: Anything else.
    """
    entries: list[ScopeEntry] = []
    for item in items:
        match item:
            case [str() as topic_filter, list() as names] if names:
                entry = ScopeEntry(check_granted_filter(topic_filter), _parse_actions(names))
            case _:
                msg = "scope: an entry that is not a filter and its actions"
                raise FormatError(msg)
        if entries and entries[-1].topic_filter >= entry.topic_filter:
            msg = "scope: filters that are not strictly ascending"
            raise FormatError(msg)
        entries.append(entry)
    return tuple(entries)


def _parse_actions(names: list[CborValue]) -> Action:
    try:
        actions = _ACTIONS.get(tuple(names))
    except TypeError:
        # An array or a map among them.
        actions = None
    if actions is None:
        msg = "scope: actions are `pub`, `serve`, `sub`, ascending"
        raise FormatError(msg)
    return actions


# Every list of actions that is ascending: seven, so that reading one is looking it up.
_ACTIONS: Final[dict[tuple[object, ...], Action]] = {
    names: Action(sum(ACTION_NAMES[name] for name in names))
    for count in range(1, len(ACTION_NAMES) + 1)
    for names in combinations(ACTION_NAMES, count)
}


def scope_claim(scope: Scope) -> list[CborValue]:
    """Encode a scope as `parse_scope` reads it."""
    return [
        [entry.topic_filter, [name for name, bit in ACTION_NAMES.items() if bit & entry.actions]]
        for entry in scope
    ]
