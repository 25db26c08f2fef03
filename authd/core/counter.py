"""The counter form: a proof for boards without a clock.

User name = key id; password = base64url of
``version(1) = 2 ‖ counter(8) ‖ [issuer hint(16)] ‖ signature(64)``: 98 or 119 characters. It signs
the deterministic CBOR array of label, form, domain id, endpoint, client id and counter.

Nothing but the counter stops a repeat: whoever judges keeps the last one per key and audience,
durably, and takes only a higher one. Two brokers of two audiences cannot compare theirs, so the
form counts only with grants whose audience set has exactly one member (`core.compilation`).
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from authd.core.encoding import decode_base64url, encode, encode_base64url
from authd.core.grants import Form, is_client_id
from authd.core.identity import (
    ID_BYTES,
    KeyId,
    PublicKey,
    SigningKey,
    key_id,
    key_id_text,
    looks_like_key_id,
    parse_id,
    verify_signature,
)
from authd.core.proofs import POP_LABEL, Audience, VerifiedProof
from authd.errors import FormatError, ProofError, ReasonCode, SignatureError

COUNTER_VERSION: Final = 2
COUNTER_BYTES: Final = 8
# A store keeps it as a signed 64-bit integer.
MAX_COUNTER: Final = 2**63 - 1
_HEAD_BYTES: Final = 1 + COUNTER_BYTES
_CHARS: Final = (98, 119)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedCounter:
    """A well-formed counter proof that nobody has verified."""

    key_id: KeyId
    counter: int
    issuer_hint: KeyId | None
    signature: bytes


def is_counter_password(password: str) -> bool:
    """Say whether a password has the length of the counter form, which no other form has."""
    return len(password) in _CHARS


def parse_counter(username: str, password: str) -> UnverifiedCounter:
    """Read a counter proof.

    Args:
        username: Untrusted.
        password: Untrusted; 98 characters, or 119 with a hint.

    Raises:
        FormatError: Anything else, or a counter above ``MAX_COUNTER``.
    """
    if not is_counter_password(password) or not looks_like_key_id(username):
        raise FormatError("not a counter proof (user name: 22 characters, password: 98 or 119)")
    data = decode_base64url(password)
    counter = int.from_bytes(data[1:_HEAD_BYTES], "big")
    if data[0] != COUNTER_VERSION or counter > MAX_COUNTER:
        raise FormatError(f"a counter proof of version {data[0]} with counter {counter}")
    hint = data[_HEAD_BYTES:-64]
    return UnverifiedCounter(
        key_id=KeyId(parse_id(username)),
        counter=counter,
        issuer_hint=KeyId(hint) if hint else None,
        signature=data[-64:],
    )


def counter_message(*, audience: Audience, client_id: str, counter: int) -> bytes:
    """Build what a counter proof signs; one deterministic CBOR array."""
    form = int(Form.COUNTER)
    return encode([POP_LABEL, form, audience.domain, audience.endpoint, client_id, counter])


def make_counter(
    key: SigningKey,
    *,
    audience: Audience,
    client_id: str,
    counter: int,
    issuer_hint: KeyId | None = None,
) -> str:
    """Make the password of one CONNECT.

    Args:
        key: The device's.
        audience: The broker's domain and the ``host:port`` to be dialled, lower case.
        client_id: As the CONNECT will carry it.
        counter: Higher than in every CONNECT before; kept by the device over restarts.
        issuer_hint: Id of the key that issued the device's grant.

    Raises:
        FormatError: An odd client id, or a counter outside ``[0, MAX_COUNTER]``.
    """
    if not is_client_id(client_id) or not 0 <= counter <= MAX_COUNTER:
        raise FormatError(f"a client id and a counter are needed, not `{client_id}`, `{counter}`")
    message = counter_message(audience=audience, client_id=client_id, counter=counter)
    head = bytes([COUNTER_VERSION]) + counter.to_bytes(COUNTER_BYTES, "big") + (issuer_hint or b"")
    return encode_base64url(head + key.sign(message))


def verify_counter(
    proof: UnverifiedCounter,
    *,
    key: PublicKey,
    audiences: Iterable[Audience],
    client_id: str,
) -> VerifiedProof:
    """Verify a counter proof against every audience the broker goes by.

    It may still be a repeat: `check_rises` says so, with the last counter taken for
    `counter_slot`.

    Raises:
        ProofError: `ReasonCode.BAD_SIGNATURE`.
    """
    for audience in audiences:
        message = counter_message(audience=audience, client_id=client_id, counter=proof.counter)
        try:
            verify_signature(key, message, proof.signature)
        except SignatureError:
            continue
        return VerifiedProof(
            key=key,
            form=Form.COUNTER,
            client_id=client_id,
            audience=audience,
            counter=proof.counter,
        )
    raise ProofError(
        f"the proof does not verify for key `{key_id_text(key)}` and client id `{client_id}`",
    )


def counter_slot(proof: VerifiedProof) -> bytes:
    """Return what a store keeps the last counter under: 32 bytes for key and audience."""
    audience = hashlib.sha256(str(proof.audience).encode("utf-8")).digest()[:ID_BYTES]
    return key_id(proof.key) + audience


def check_rises(proof: VerifiedProof, *, last: int | None) -> int:
    """Return the counter to be kept as the last one of its slot.

    The store must compare and write in one step, and be on disk before the verdict is given.

    Args:
        proof: Verified.
        last: What the slot holds; None if nothing.

    Raises:
        ProofError: `ReasonCode.REPLAYED`: equal to or lower than ``last``, or not of this form.
    """
    if proof.counter is None or (last is not None and proof.counter <= last):
        raise ProofError(
            f"counter {proof.counter} where more than {last} is needed: each CONNECT counts up",
            reason=ReasonCode.REPLAYED,
        )
    return proof.counter
