"""Keys, key ids and domain ids.

A device *is* its Ed25519 key (RFC 8032). A key enters only through `admit_key`, which refuses
everything but points of the prime-order group: under a small-order "key" anyone can make
signatures that verify, so such a key would be an identity everybody can speak for.
"""

import hashlib
from functools import lru_cache
from typing import Final, NewType

from nacl.bindings import (
    crypto_core_ed25519_is_valid_point,
    crypto_sign,
    crypto_sign_BYTES,
    crypto_sign_open,
    crypto_sign_seed_keypair,
)
from nacl.exceptions import CryptoError

from authd.core.encoding import decode_base64url, encode_base64url
from authd.errors import FormatError, SignatureError, WeakKeyError

PublicKey = NewType("PublicKey", bytes)
"""32 bytes that `admit_key` has accepted."""

KeyId = NewType("KeyId", bytes)
"""SHA-256 of the key under ``authd/id/v1``, first 16 bytes."""

DomainId = NewType("DomainId", bytes)
"""Statement id of version 1 of a domain's root: 16 bytes."""

StatementId = NewType("StatementId", bytes)
"""16 bytes; independent of signatures and wrapping."""

KEY_BYTES: Final = 32
ID_BYTES: Final = 16
SEED_BYTES: Final = 32
SIGNATURE_BYTES: Final = crypto_sign_BYTES
KEY_ID_CHARS: Final = 22
_ID_LABEL: Final = b"authd/id/v1"


@lru_cache(maxsize=65_536)
def _is_valid_point(raw: bytes) -> bool:
    return bool(crypto_core_ed25519_is_valid_point(raw))


def admit_key(raw: bytes) -> PublicKey:
    """Accept 32 bytes as a public key.

    Args:
        raw: Untrusted.

    Raises:
        FormatError: Not 32 bytes.
        WeakKeyError: Not a canonical point of the prime-order group (small order, mixed order,
            not on the curve, or not in its shortest form).
    """
    if len(raw) != KEY_BYTES:
        msg = f"a key of {len(raw)} bytes where {KEY_BYTES} are needed"
        raise FormatError(msg)
    if not _is_valid_point(raw):
        msg = "a public key that is not a point of the prime-order group"
        raise WeakKeyError(msg)
    return PublicKey(raw)


def key_id(key: PublicKey) -> KeyId:
    """Compute the id of a key."""
    return _ids_of(key)[0]


def key_id_text(key: PublicKey) -> str:
    """Write the id of a key as 22 base64url characters."""
    return _ids_of(key)[1]


# One decision asks for the ids of a few keys many times over.
@lru_cache(maxsize=256)
def _ids_of(key: PublicKey) -> tuple[KeyId, str]:
    raw = hashlib.sha256(_ID_LABEL + key).digest()[:ID_BYTES]
    return KeyId(raw), encode_base64url(raw)


def parse_id(text: str) -> bytes:
    """Read a key, domain or statement id: 22 base64url characters.

    Raises:
        FormatError: Anything else.
    """
    data = decode_base64url(text)
    if len(data) != ID_BYTES:
        msg = f"an id of {len(data)} bytes where {ID_BYTES} are needed"
        raise FormatError(msg)
    return data


def looks_like_key_id(text: str) -> bool:
    """Say whether ``text`` has the shape of a key id: 22 canonical base64url characters."""
    if len(text) != KEY_ID_CHARS:
        return False
    try:
        decode_base64url(text)
    except FormatError:
        return False
    return True


def verify_signature(key: PublicKey, message: bytes, signature: bytes) -> None:
    """Verify an Ed25519 signature with libsodium.

    Args:
        key: Admitted key.
        message: What was signed.
        signature: Untrusted, 64 bytes.

    Raises:
        SignatureError: It does not verify (RFC 8032 §5.1.7), or has another length.
    """
    if len(signature) != SIGNATURE_BYTES:
        msg = f"a signature of {len(signature)} bytes where {SIGNATURE_BYTES} are needed"
        raise SignatureError(msg)
    try:
        crypto_sign_open(signature + message, key)
    except CryptoError as error:
        msg = f"the signature does not verify under key `{key_id_text(key)}`"
        raise SignatureError(msg) from error


class SigningKey:
    """A private Ed25519 key; never printed, never compared."""

    __slots__ = ("_secret", "public", "seed")

    def __init__(self, seed: bytes, secret: bytes, public: PublicKey) -> None:
        """Use `from_seed`."""
        self.seed = seed
        self._secret = secret
        self.public = public

    @classmethod
    def from_seed(cls, seed: bytes) -> "SigningKey":
        """Derive the key pair of a 32-byte seed (RFC 8032 §5.1.5).

        Raises:
            FormatError: Not 32 bytes.
        """
        if len(seed) != SEED_BYTES:
            msg = f"a seed of {len(seed)} bytes where {SEED_BYTES} are needed"
            raise FormatError(msg)
        public, secret = crypto_sign_seed_keypair(seed)
        return cls(seed, secret, admit_key(public))

    def sign(self, message: bytes) -> bytes:
        """Sign ``message``; 64 bytes, the same for the same message."""
        return crypto_sign(message, self._secret)[:SIGNATURE_BYTES]

    def __repr__(self) -> str:
        """Show the public id only."""
        return f"SigningKey({key_id_text(self.public)})"
