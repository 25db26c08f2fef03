"""What a device shows at CONNECT: parse, verify, and the rules against replay as values.

- *pop*: user name = key id; password = base64url of
  ``version(1) ‖ time(5) ‖ nonce(8) ‖ [issuer hint(16)] ‖ signature(64)``: 104 or 126 characters.
- *pop + path*: the same, a dot, and base64url of a CBOR array of the stapled grants.
- *device password*: 22 characters, 16 random bytes; the key's seed is
  SHA-256(``authd/password/1`` ‖ bytes). Nothing is stored: the daemon derives the key anew.

What a pop signs: the deterministic CBOR array of label, form, domain id, endpoint, client id,
time and nonce. Domain and endpoint together are the *audience*; neither is sent.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from authd.core import limits
from authd.core.encoding import decode, decode_base64url, encode, encode_base64url
from authd.core.grants import Form, Grant, KeySubject, is_client_id, verify_grant
from authd.core.identity import (
    KEY_ID_CHARS,
    DomainId,
    KeyId,
    PublicKey,
    SigningKey,
    key_id,
    key_id_text,
    looks_like_key_id,
    parse_id,
    verify_signature,
)
from authd.errors import FormatError, LimitError, ProofError, ReasonCode, SignatureError

POP_VERSION: Final = 1
POP_LABEL: Final = "authd/pop/1"
PASSWORD_LABEL: Final = b"authd/password/1"
EVICT_USERNAME: Final = "authd-evict"
NONCE_BYTES: Final = 8
_TIME_BYTES: Final = 5
_HEAD_BYTES: Final = 1 + _TIME_BYTES + NONCE_BYTES
_POP_CHARS: Final = 104
_POP_HINT_CHARS: Final = 126
PASSWORD_BYTES: Final = 16
_USERNAME_CHARS: Final = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-",
)


@dataclass(frozen=True, slots=True)
class Audience:
    """Whom a proof is for: the broker's domain and the ``host:port`` that was dialled."""

    domain: DomainId
    endpoint: str

    def __str__(self) -> str:
        """Write it as grants list it: domain id, slash, endpoint."""
        return f"{encode_base64url(self.domain)}/{self.endpoint}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedPop:
    """A well-formed pop that nobody has verified."""

    key_id: KeyId
    time: int
    nonce: bytes
    issuer_hint: KeyId | None
    signature: bytes
    stapled: tuple[bytes, ...] = ()
    enhanced: bool = False

    @property
    def form(self) -> Form:
        """`Form.CHALLENGE` in AUTH data, `Form.POP_PATH` with stapled grants, else `Form.POP`."""
        if self.enhanced:
            return Form.CHALLENGE
        return Form.POP_PATH if self.stapled else Form.POP


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePassword:
    """A device password: the key follows from it, so nothing is left to verify but the key."""

    key: PublicKey
    username: str

    @property
    def key_id(self) -> KeyId:
        """Id of the derived key."""
        return key_id(self.key)


Credentials: TypeAlias = UnverifiedPop | DevicePassword


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedProof:
    """Someone who holds ``key`` made this for ``audience`` and ``client_id``.

    Attributes:
        nonce: What must not come again before ``expires_at``; None if nothing is replayable
            here (a device password is replayable by nature and marked so).
        counter: What must be higher than the last one of the key and audience (`core.counter`).
    """

    key: PublicKey
    form: Form
    client_id: str
    audience: Audience
    time: int | None = None
    nonce: bytes | None = None
    counter: int | None = None

    @property
    def replay_id(self) -> bytes | None:
        """What a replay store keys on: 24 bytes, the same for a repeat of the proof alone."""
        return None if self.nonce is None else key_id(self.key) + self.nonce

    @property
    def expires_at(self) -> int:
        """Until when a repeat would still be inside the window; seconds since the Unix epoch."""
        return 0 if self.time is None else self.time + limits.PROOF_WINDOW_S + 1


def parse_credentials(username: str, password: str) -> Credentials:
    """Read what a CONNECT carries.

    Args:
        username: Untrusted.
        password: Untrusted.

    Raises:
        FormatError: Neither a pop nor a device password.
        LimitError: A stapled path that is too long.
    """
    if len(password) > limits.MAX_PASSWORD_CHARS or len(username) > limits.MAX_USERNAME_CHARS:
        raise LimitError("user name or password is too long")
    if len(password) == KEY_ID_CHARS:
        return _parse_device_password(username, password)
    head, _, path = password.partition(".")
    if len(head) not in (_POP_CHARS, _POP_HINT_CHARS) or not looks_like_key_id(username):
        raise FormatError(
            "neither a proof (user name: 22 characters, password: 104 or 126) nor a device password"
            " (22 characters)",
        )
    return _parse_pop(username, head, path, stapled="." in password)


def _parse_pop(username: str, head: str, path: str, *, stapled: bool) -> UnverifiedPop:
    data = decode_base64url(head)
    if data[0] != POP_VERSION:
        raise FormatError(f"a proof of version {data[0]}; this daemon knows version {POP_VERSION}")
    hint = data[_HEAD_BYTES:-64]
    return UnverifiedPop(
        key_id=KeyId(parse_id(username)),
        time=int.from_bytes(data[1 : 1 + _TIME_BYTES], "big"),
        nonce=data[1 + _TIME_BYTES : _HEAD_BYTES],
        issuer_hint=KeyId(hint) if hint else None,
        signature=data[-64:],
        stapled=parse_stapled(path) if stapled else (),
    )


def parse_stapled(text: str) -> tuple[bytes, ...]:
    """Read the grants stapled to a proof: base64url of a CBOR array of 1 to 4 byte strings.

    Raises:
        FormatError: Anything else.
        LimitError: Longer than ``limits.MAX_STAPLED_BYTES``.
    """
    items = decode(decode_base64url(text), max_bytes=limits.MAX_STAPLED_BYTES)
    if not isinstance(items, list) or not 1 <= len(items) <= limits.MAX_PATH_GRANTS:
        raise FormatError(f"a stapled path is 1 to {limits.MAX_PATH_GRANTS} grants")
    grants = tuple(item for item in items if isinstance(item, bytes))
    if len(grants) != len(items):
        raise FormatError("a stapled path holds something that is not a grant")
    return grants


def verify_stapled(stapled: Iterable[bytes]) -> tuple[Grant, ...]:
    """Verify the grants stapled to a proof; each counts like any other grant, no more.

    Raises:
        FormatError: Not the canonical form of a grant.
        LimitError: A bound was hit.
        WeakKeyError: A key that fails the point check.
        SignatureError: A signature does not verify.
    """
    return tuple(map(verify_grant, stapled))


def _parse_device_password(username: str, password: str) -> DevicePassword:
    key = password_key(password).public
    if not username or not set(username) <= _USERNAME_CHARS or username == EVICT_USERNAME:
        raise FormatError("the user name is not 1 to 64 of `A-Z a-z 0-9 _ . -`")
    if looks_like_key_id(username) and username != key_id_text(key):
        raise FormatError("the user name has the shape of a key id but is not this key's")
    return DevicePassword(key=key, username=username)


def password_key(password: str) -> SigningKey:
    """Derive the key of a device password.

    Raises:
        FormatError: Not 22 canonical base64url characters.
    """
    secret = decode_base64url(password)
    if len(secret) != PASSWORD_BYTES:
        raise FormatError("a device password is 22 characters")
    return SigningKey.from_seed(hashlib.sha256(PASSWORD_LABEL + secret).digest())


def pop_message(
    *,
    form: Form,
    audience: Audience,
    client_id: str,
    time: int,
    nonce: bytes,
) -> bytes:
    """Build what a pop signs; one deterministic CBOR array."""
    return encode(
        [POP_LABEL, int(form), audience.domain, audience.endpoint, client_id, time, nonce],
    )


def make_pop(
    key: SigningKey,
    *,
    audience: Audience,
    client_id: str,
    time: int,
    nonce: bytes,
    issuer_hint: KeyId | None = None,
    path: Iterable[Grant] = (),
) -> str:
    """Make the password of one CONNECT.

    Args:
        key: The device's.
        audience: The broker's domain and the ``host:port`` to be dialled, lower case.
        client_id: As the CONNECT will carry it.
        time: Seconds since the Unix epoch; within 60 s of the daemon's clock.
        nonce: 8 bytes, never used before by this key.
        issuer_hint: Id of the key that issued the device's grant; lets a daemon find it faster.
        path: Grants to staple, root side first.

    Raises:
        FormatError: A nonce of another length, or an odd client id.
    """
    if len(nonce) != NONCE_BYTES or not is_client_id(client_id):
        raise FormatError(f"a nonce of 8 bytes and a client id are needed, not `{client_id}`")
    stapled = [grant.encoded for grant in path]
    form = Form.POP_PATH if stapled else Form.POP
    message = pop_message(form=form, audience=audience, client_id=client_id, time=time, nonce=nonce)
    head = bytes([POP_VERSION]) + time.to_bytes(_TIME_BYTES, "big") + nonce + (issuer_hint or b"")
    password = encode_base64url(head + key.sign(message))
    return f"{password}.{encode_base64url(encode(stapled))}" if stapled else password


def verify_pop(
    pop: UnverifiedPop,
    *,
    key: PublicKey,
    audiences: Iterable[Audience],
    client_id: str,
    now: int,
) -> VerifiedProof:
    """Verify a pop against every audience the broker goes by.

    Args:
        pop: Untrusted.
        key: The key whose id is the user name.
        audiences: At most ``limits.MAX_AUDIENCES``.
        client_id: As the CONNECT carried it.
        now: Seconds since the Unix epoch.

    Raises:
        ProofError: `ReasonCode.CLOCK_SKEW` if the time is more than 60 s off, else
            `ReasonCode.BAD_SIGNATURE`.
    """
    audience = _verifying_audience(pop, key=key, audiences=audiences, client_id=client_id)
    if audience is None:
        raise ProofError(
            f"the proof does not verify for key `{key_id_text(key)}` and client id `{client_id}`",
        )
    skew_s = pop.time - now
    if abs(skew_s) > limits.PROOF_WINDOW_S:
        raise ProofError(
            f"the proof's time is {abs(skew_s)} s {'ahead of' if skew_s > 0 else 'behind'} this"
            f" host's clock; at most {limits.PROOF_WINDOW_S} s is accepted: set the clock right",
            reason=ReasonCode.CLOCK_SKEW,
        )
    return VerifiedProof(
        key=key,
        form=pop.form,
        client_id=client_id,
        audience=audience,
        time=pop.time,
        nonce=pop.nonce,
    )


def _verifying_audience(
    pop: UnverifiedPop,
    *,
    key: PublicKey,
    audiences: Iterable[Audience],
    client_id: str,
) -> Audience | None:
    for audience in audiences:
        message = pop_message(
            form=pop.form,
            audience=audience,
            client_id=client_id,
            time=pop.time,
            nonce=pop.nonce,
        )
        try:
            verify_signature(key, message, pop.signature)
        except SignatureError:
            continue
        return audience
    return None


def explain_mismatch(
    pop: UnverifiedPop,
    *,
    key: PublicKey,
    audiences: Iterable[Audience],
    others: Iterable[Audience],
    client_id: str,
) -> ProofError:
    """Find out what a pop that does not verify was made for; it stays refused.

    Args:
        pop: A pop that `verify_pop` refused with `ReasonCode.BAD_SIGNATURE`.
        key: The key whose id is the user name.
        audiences: What this broker goes by.
        others: Other audiences that are known here; at most a handful, each costs a verification.
        client_id: As the CONNECT carried it.
    """
    expected = tuple(audiences)
    other = _verifying_audience(pop, key=key, audiences=others, client_id=client_id)
    if other is not None:
        return ProofError(
            f"the proof was made for `{other}`, this broker is"
            f" {' or '.join(f'`{audience}`' for audience in expected)}",
            reason=ReasonCode.WRONG_AUDIENCE,
        )
    own_id = key_id_text(key)
    if _verifying_audience(pop, key=key, audiences=expected, client_id=own_id) is not None:
        return ProofError(
            f"the proof was made for client id `{own_id}`, the CONNECT says `{client_id}`",
            reason=ReasonCode.WRONG_CLIENT_ID,
        )
    return ProofError(
        f"the proof was made by another key than `{own_id}`, for another client id than"
        f" `{client_id}`, or for another broker than"
        f" {' or '.join(f'`{audience}`' for audience in expected)}",
    )


def subject_key(grants: Iterable[Grant], wanted: KeyId) -> PublicKey | None:
    """Find the key of which only the id was sent, among the subjects of grants."""
    for grant in grants:
        # Exactly this class: a TLS key's digest is filed alike, and is no key.
        if type(grant.subject) is KeySubject and key_id(grant.subject.key) == wanted:
            return grant.subject.key
    return None
