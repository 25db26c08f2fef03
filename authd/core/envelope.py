"""The envelope of every statement but `root`: an untagged COSE_Sign1 (RFC 9052 §4.2).

``[protected, {}, payload, signature]`` with the protected header exactly ``{1: -8}`` (alg EdDSA)
and an empty unprotected header. The external_aad is a label per kind, so that a signature over
one kind never counts for another. The statement id is a hash of label and payload: it does not
depend on signature bytes or wrapping, so a revocation by id cannot be dodged by re-wrapping.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from authd.core.encoding import decode, encode
from authd.core.identity import (
    ID_BYTES,
    SIGNATURE_BYTES,
    PublicKey,
    SigningKey,
    StatementId,
    verify_signature,
)
from authd.errors import FormatError

PROTECTED: Final = encode({1: -8})


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedEnvelope:
    """A well-formed envelope whose signature nobody has checked."""

    label: str
    payload: bytes
    signature: bytes

    @property
    def statement_id(self) -> StatementId:
        """Id of the statement inside."""
        return statement_id(self.label, self.payload)


def statement_id(label: str, payload: bytes) -> StatementId:
    """Compute SHA-256(label ‖ payload), first 16 bytes."""
    return StatementId(hashlib.sha256(label.encode("ascii") + payload).digest()[:ID_BYTES])


def signing_bytes(label: str, payload: bytes) -> bytes:
    """Build the Sig_structure to be signed (RFC 9052 §4.4)."""
    return _before_payload(label) + encode(payload)


@lru_cache(maxsize=16)
def _before_payload(label: str) -> bytes:
    # Of an array the last item stands last: what is before it is the same for a kind.
    empty = encode(["Signature1", PROTECTED, label.encode("ascii"), b""])
    return empty[: -len(encode(b""))]


def seal_envelope(label: str, payload: bytes, key: SigningKey) -> bytes:
    """Sign ``payload`` under ``label`` and wrap it."""
    return encode([PROTECTED, {}, payload, key.sign(signing_bytes(label, payload))])


def parse_envelope(label: str, data: bytes, *, max_bytes: int) -> UnverifiedEnvelope:
    """Read an envelope.

    Args:
        label: The kind's external_aad.
        data: Untrusted.
        max_bytes: Longer input is refused unread.

    Raises:
        LimitError: ``data`` is too long or too deep.
        FormatError: Not exactly the form in the module docstring.
    """
    match decode(data, max_bytes=max_bytes):
        case [
            bytes() as protected,
            dict() as other,
            bytes() as payload,
            bytes() as signature,
        ]:
            pass
        case _:
            msg = "not a COSE_Sign1 of four parts"
            raise FormatError(msg)
    if protected != PROTECTED or other or len(signature) != SIGNATURE_BYTES:
        msg = "a COSE_Sign1 with other headers or another signature length than ours"
        raise FormatError(msg)
    return UnverifiedEnvelope(label=label, payload=payload, signature=signature)


def verify_envelope(envelope: UnverifiedEnvelope, key: PublicKey) -> None:
    """Check the envelope's signature under ``key``.

    Raises:
        SignatureError: It does not verify.
    """
    verify_signature(key, signing_bytes(envelope.label, envelope.payload), envelope.signature)
