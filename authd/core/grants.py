"""Grants: the only kind of edge in the web of trust.

A grant says: the issuer gives the subject a scope, to a depth, until a time. ``verify_grant`` turns
untrusted bytes into a `Grant`, and nothing else can.
"""

import enum
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NewType, TypeAlias

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
    parse_scope,
    scope_claim,
    verified_issuer,
)
from authd.core.encoding import CborValue, encode
from authd.core.envelope import seal_envelope
from authd.core.identity import (
    ID_BYTES,
    KEY_BYTES,
    DomainId,
    PublicKey,
    SigningKey,
    StatementId,
    admit_key,
)
from authd.core.topics import Scope
from authd.errors import FormatError, LimitError


class Form(enum.IntEnum):
    """How a device proves its key at CONNECT."""

    POP = 1
    POP_PATH = 2
    CHALLENGE = 3
    COUNTER = 4
    PASSWORD = 5
    TLS = 6


DEFAULT_FORMS: Final = frozenset({Form.POP, Form.POP_PATH, Form.CHALLENGE})
"""Forms of a grant that lists none."""


class ClientIdMatch(enum.IntEnum):
    """How a client-id rule compares."""

    EXACT = 0
    PREFIX = 1
    ANY = 2


@dataclass(frozen=True, slots=True)
class ClientIdRule:
    """Which client ids the subject may use; ``value`` is empty for `ClientIdMatch.ANY`."""

    match: ClientIdMatch
    value: str = ""

    def allows(self, client_id: str) -> bool:
        """Say whether the rule lets ``client_id`` through."""
        if self.match is ClientIdMatch.EXACT:
            return client_id == self.value
        if self.match is ClientIdMatch.PREFIX:
            return client_id.startswith(self.value)
        return self.match is ClientIdMatch.ANY

    def __str__(self) -> str:
        """Write the rule as the command line takes it."""
        return {ClientIdMatch.EXACT: self.value, ClientIdMatch.PREFIX: f"{self.value}*"}.get(
            self.match,
            "*",
        )


@dataclass(frozen=True, slots=True)
class KeySubject:
    """The subject is a key."""

    key: PublicKey


@dataclass(frozen=True, slots=True)
class TlsSubject(KeySubject):
    """The subject is the key of a TLS client certificate, of any algorithm.

    ``key`` is the SHA-256 of its SubjectPublicKeyInfo (RFC 5280 §4.1), in the place of a key: its
    id is computed alike, and nothing can be signed or verified with it.
    """


def tls_subject(public_key_info: bytes) -> TlsSubject:
    """Return the subject of a certificate's SubjectPublicKeyInfo, in DER."""
    return TlsSubject(PublicKey(hashlib.sha256(public_key_info).digest()))


@dataclass(frozen=True, slots=True)
class DomainSubject:
    """The subject is whatever the domain's newest root authorises."""

    domain: DomainId


Subject: TypeAlias = KeySubject | DomainSubject


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A verified grant: the issuer gives the subject a scope, to a depth, until a time."""

    statement_id: StatementId
    encoded: bytes
    issuer: PublicKey
    subject: Subject
    scope: Scope
    issued_at: int
    expires_at: int
    depth: int = 0
    client_id: ClientIdRule | None = None
    forms: frozenset[Form] = DEFAULT_FORMS
    audiences: frozenset[str] = frozenset()
    replaces: PublicKey | None = None


def verify_grant(data: bytes) -> Grant:
    """Parse and verify a grant.

    Args:
        data: Untrusted; at most ``limits.MAX_GRANT_BYTES`` bytes.

    Raises:
        LimitError: Too long, or an array too long.
        FormatError: Not the canonical form of a grant.
        WeakKeyError: A key that fails the point check.
        SignatureError: The issuer's signature does not verify.
    """
    unverified = parse(Kind.GRANT, data)
    claims = Claims("grant", unverified.claims)
    issuer = verified_issuer(unverified, claims)
    return _read_grant(unverified, claims, issuer, admit_key)


HeldGrant = NewType("HeldGrant", bytes)
"""What `verify_grant` accepted and this process or its store has kept; nothing else is ever one."""


@lru_cache(maxsize=4_096)
def recall_grant(held: HeldGrant) -> Grant:
    """Read a grant that was verified before: parsed when asked for, it need not be kept parsed.

    Raises:
        FormatError: Not a grant: it was damaged where it was kept.
        LimitError: The same.
    """
    return reread_grant(held)


def reread_grant(held: HeldGrant) -> Grant:
    """Do as `recall_grant` for one that nobody will ask for soon: it is not kept parsed.

    Raises:
        FormatError: Not a grant: it was damaged where it was kept.
        LimitError: The same.
    """
    unverified = parse(Kind.GRANT, held)
    claims = Claims("grant", unverified.claims)
    issuer = _admitted(claims.raw(Claim.ISS, KEY_BYTES))
    return _read_grant(unverified, claims, issuer, _admitted)


def _admitted(raw: bytes) -> PublicKey:
    if len(raw) != KEY_BYTES:
        raise FormatError(f"a key of {len(raw)} bytes where {KEY_BYTES} are needed")
    return PublicKey(raw)


def _read_grant(
    unverified: Unverified,
    claims: Claims,
    issuer: PublicKey,
    admit: Callable[[bytes], PublicKey],
) -> Grant:
    issued_at = claims.uint(Claim.IAT, most=MAX_TIME)
    expires_at = claims.uint(Claim.EXP, most=MAX_TIME)
    if not issued_at < expires_at <= issued_at + limits.MAX_GRANT_LIFE_S:
        msg = f"grant: a life of {expires_at - issued_at} s; from 1 s to 400 days is allowed"
        raise LimitError(msg)
    grant = Grant(
        statement_id=unverified.statement_id,
        encoded=unverified.encoded,
        issuer=issuer,
        subject=_take_subject(claims, admit),
        scope=parse_scope(claims.items(Claim.SCOPE, most=limits.MAX_FILTERS_PER_GRANT)),
        issued_at=issued_at,
        expires_at=expires_at,
        depth=claims.uint(Claim.DEPTH, most=limits.MAX_DEPTH) if claims.has(Claim.DEPTH) else 0,
        client_id=_take_client_id(claims),
        forms=_take_forms(claims),
        audiences=_take_audiences(claims),
        replaces=_take_replaces(claims, admit),
    )
    claims.finish()
    _check_grant(grant)
    return grant


def _check_grant(grant: Grant) -> None:
    if grant.subject == KeySubject(grant.issuer):
        msg = "grant: issuer and subject are the same key"
        raise FormatError(msg)
    if Form.PASSWORD in grant.forms and not (
        grant.forms == {Form.PASSWORD} and grant.depth == 0 and grant.audiences
    ):
        msg = "grant: the form `password` goes alone, with depth 0 and with an audience set"
        raise FormatError(msg)
    if isinstance(grant.subject, TlsSubject) and not (
        grant.forms == {Form.TLS} and grant.depth == 0
    ):
        msg = "grant: a TLS key goes with the form `tls` alone and with depth 0"
        raise FormatError(msg)


def _take_subject(claims: Claims, admit: Callable[[bytes], PublicKey]) -> Subject:
    if claims.has(Claim.SUB):
        return DomainSubject(DomainId(claims.raw(Claim.SUB, ID_BYTES)))
    confirmation = claims.value(Claim.CNF)
    # Whole maps are compared: what has a member more is something else.
    match confirmation:
        case {1: {-2: bytes() as raw}} if confirmation == {1: {1: 1, -1: 6, -2: raw}}:
            return KeySubject(admit(raw))
        case {-65537: bytes() as digest} if len(digest) == KEY_BYTES and confirmation == {
            _CNF_TLS: digest
        }:
            return TlsSubject(PublicKey(digest))
        case _:
            msg = "grant: no subject (claim `sub`, or claim `cnf` with an Ed25519 key)"
            raise FormatError(msg)


# A confirmation method of our own (RFC 8747 §3.1, private use): SHA-256 of a SubjectPublicKeyInfo.
_CNF_TLS: Final = -65537
_PREFIX_ENDINGS: Final = "-_.:"


def _take_client_id(claims: Claims) -> ClientIdRule | None:
    if not claims.has(Claim.CLIENT_ID):
        return None
    match claims.value(Claim.CLIENT_ID):
        case [int() as code, str() as value] if code in list(ClientIdMatch):
            return check_client_id_rule(ClientIdRule(ClientIdMatch(code), value))
        case _:
            msg = "grant: a client-id rule that is not a kind and a text"
            raise FormatError(msg)


def check_client_id_rule(rule: ClientIdRule) -> ClientIdRule:
    """Accept a rule that means what it says.

    Raises:
        FormatError: An empty or odd value, or a prefix that does not end in one of ``-_.:``.
    """
    if rule.match is ClientIdMatch.ANY:
        valid = rule.value == ""
    else:
        valid = is_client_id(rule.value)
        if rule.match is ClientIdMatch.PREFIX:
            valid = valid and rule.value[-1] in _PREFIX_ENDINGS
    if not valid:
        msg = f"grant: `{rule.value}` is not a client-id rule; a prefix ends in one of `-_.:`"
        raise FormatError(msg)
    return rule


_CLIENT_ID_REFUSED: Final = frozenset("+#/")


def is_client_id(text: str) -> bool:
    """Say whether ``text`` may be a client id: 1 to 128 printable ASCII characters but ``+#/``."""
    return (
        1 <= len(text) <= limits.MAX_CLIENT_ID_BYTES
        and text.isascii()
        and text.isprintable()
        and not _CLIENT_ID_REFUSED & set(text)
    )


def _take_forms(claims: Claims) -> frozenset[Form]:
    if not claims.has(Claim.FORMS):
        return DEFAULT_FORMS
    forms = claims.items(Claim.FORMS, most=len(Form))
    known = [form for form in forms if isinstance(form, int) and form in list(Form)]
    if known != forms or known != sorted(set(known)):
        msg = "grant: forms that are unknown or not strictly ascending"
        raise FormatError(msg)
    return frozenset(map(Form, known))


def _take_audiences(claims: Claims) -> frozenset[str]:
    if not claims.has(Claim.AUD):
        return frozenset()
    audiences = claims.items(Claim.AUD, most=limits.MAX_AUDIENCES)
    texts = [text for text in audiences if isinstance(text, str) and _is_audience(text)]
    if texts != audiences or texts != sorted(set(texts)):
        msg = "grant: audiences that are malformed or not strictly ascending"
        raise FormatError(msg)
    return frozenset(texts)


def _is_audience(text: str) -> bool:
    return "/" in text and is_printable(text, most_bytes=limits.MAX_AUDIENCE_BYTES)


def _take_replaces(claims: Claims, admit: Callable[[bytes], PublicKey]) -> PublicKey | None:
    if not claims.has(Claim.REPLACES):
        return None
    return admit(claims.raw(Claim.REPLACES, KEY_BYTES))


def sign_grant(
    issuer: SigningKey,
    *,
    subject: Subject,
    scope: Scope,
    issued_at: int,
    expires_at: int,
    depth: int = 0,
    client_id: ClientIdRule | None = None,
    forms: Iterable[Form] = (),
    audiences: Iterable[str] = (),
    replaces: PublicKey | None = None,
) -> Grant:
    """Make a grant; what `verify_grant` would refuse is refused here with the same error.

    Args:
        issuer: Who gives.
        subject: Who receives.
        scope: 1 to ``limits.MAX_FILTERS_PER_GRANT`` entries.
        issued_at: Seconds since the Unix epoch.
        expires_at: The same; at most 400 days after ``issued_at``.
        depth: Further grants the subject may put below; 0 to ``limits.MAX_DEPTH``.
        client_id: Rule for the client ids; None allows only the key id.
        forms: Proof forms the subject may use; none means `DEFAULT_FORMS`.
        audiences: Where alone it counts; none means everywhere.
        replaces: The subject's former key.
    """
    claims: dict[int, CborValue] = {
        Claim.ISS: issuer.public,
        Claim.SCOPE: scope_claim(tuple(sorted(scope))),
        Claim.IAT: issued_at,
        Claim.EXP: expires_at,
    }
    if isinstance(subject, TlsSubject):
        claims[Claim.CNF] = {_CNF_TLS: subject.key}
    elif isinstance(subject, KeySubject):
        claims[Claim.CNF] = {1: {1: 1, -1: 6, -2: subject.key}}
    else:
        claims[Claim.SUB] = subject.domain
    optional: list[tuple[Claim, CborValue | None]] = [
        (Claim.DEPTH, depth or None),
        (Claim.CLIENT_ID, [client_id.match, client_id.value] if client_id else None),
        (Claim.FORMS, sorted(map(int, set(forms))) or None),
        (Claim.AUD, sorted(set(audiences)) or None),
        (Claim.REPLACES, replaces),
    ]
    claims.update({claim: value for claim, value in optional if value is not None})
    return verify_grant(seal_envelope(LABELS[Kind.GRANT], encode(claims), issuer))
