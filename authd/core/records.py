"""DHT records: BEP 44 mutable items, and the sealing of what they hold.

A record is one value of at most 900 bytes that one key may write under one salt. Its target, where
it lives in the id space, is SHA-1(publisher key ‖ salt) (BEP 44). Salts are hashes under
``authd/salt/1`` of what is stored for whom, so that a reader who knows issuer and subject finds
the record and a storing node learns neither. Values that name people's devices are sealed: a
storing node that does not know the subject id learns only publisher, size and time.
"""

import enum
import hashlib
from dataclasses import dataclass
from typing import Final

from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from authd.core import limits
from authd.core.encoding import decode, encode
from authd.core.identity import PublicKey, SigningKey, admit_key, verify_signature
from authd.errors import (
    EquivocationError,
    FormatError,
    LimitError,
    StaleRecordError,
    VerificationError,
)

SALT_BYTES: Final = 20
TARGET_BYTES: Final = 20
_SALT_LABEL: Final = b"authd/salt/1"
_SEAL_LABEL: Final = b"authd/seal/1"
_NONCE_LABEL: Final = b"authd/seal-nonce/1"
_MICROSECONDS: Final = 1_000_000


class RecordKind(enum.StrEnum):
    """What a record is about; part of its salt."""

    GRANTS = "grants"
    ROOT_PAYLOAD = "root-payload"
    ROOT_SIGNATURES = "root-signatures"
    AUTHORITY = "authority"
    SELF_REVOCATION = "self-revocation"
    HEARTBEAT = "heartbeat"
    RENDEZVOUS = "rendezvous"
    BROKER = "broker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A verified record.

    Attributes:
        publisher: Who wrote it.
        salt: 20 bytes.
        seq: Microseconds since the Unix epoch; a newer record has a higher one.
        value: At most ``limits.MAX_RECORD_VALUE_BYTES`` bytes: canonical CBOR ``[eol, content]``.
        signature: Over the BEP 44 signing buffer.
    """

    publisher: PublicKey
    salt: bytes
    seq: int
    value: bytes
    signature: bytes

    @property
    def target(self) -> bytes:
        """Where it lives: SHA-1(publisher ‖ salt), 20 bytes."""
        return record_target(self.publisher, self.salt)

    @property
    def content(self) -> bytes:
        """What it holds, sealed or not."""
        return _split_value(self.value)[1]

    @property
    def expires_at(self) -> int:
        """When it dies, wherever it is; seconds since the Unix epoch."""
        return _split_value(self.value)[0]


def _split_value(value: bytes) -> tuple[int, bytes]:
    match decode(value, max_bytes=limits.MAX_RECORD_VALUE_BYTES):
        case [int() as expires_at, bytes() as content] if expires_at >= 0:
            return expires_at, content
        case _:
            raise FormatError("record: the value is not an end of life and content")


def record_salt(kind: RecordKind, publisher: PublicKey, *parts: bytes) -> bytes:
    """Compute the salt for what a publisher stores about ``parts``; 20 bytes."""
    digest = hashlib.sha256(_SALT_LABEL + encode([kind.value, publisher, *parts]))
    return digest.digest()[:SALT_BYTES]


def record_target(publisher: PublicKey, salt: bytes) -> bytes:
    """Compute where a record lives (BEP 44): SHA-1(publisher ‖ salt), 20 bytes."""
    return hashlib.sha1(publisher + salt, usedforsecurity=False).digest()


def record_signing_bytes(salt: bytes, seq: int, value: bytes) -> bytes:
    """Build the BEP 44 signing buffer; ``value`` travels bencoded as one byte string."""
    return b"4:salt%d:%s3:seqi%de1:v%d:%s" % (len(salt), salt, seq, len(value), value)


def make_record(
    key: SigningKey,
    *,
    salt: bytes,
    seq: int,
    content: bytes,
    expires_at: int,
) -> Record:
    """Sign a record.

    Raises:
        LimitError: ``content`` does not fit.
    """
    value = encode([expires_at, content])
    if len(value) > limits.MAX_RECORD_VALUE_BYTES:
        raise LimitError(
            f"record: {len(value)} bytes where {limits.MAX_RECORD_VALUE_BYTES} fit",
        )
    signature = key.sign(record_signing_bytes(salt, seq, value))
    return Record(publisher=key.public, salt=salt, seq=seq, value=value, signature=signature)


def encode_record(record: Record) -> bytes:
    """Encode a record for our own datagrams and for bundles."""
    return encode([record.publisher, record.salt, record.seq, record.value, record.signature])


MAX_RECORD_BYTES: Final = limits.MAX_RECORD_VALUE_BYTES + 160


def verify_record(data: bytes, *, now: int) -> Record:
    """Parse and verify a record.

    Args:
        data: Untrusted.
        now: Seconds since the Unix epoch.

    Raises:
        FormatError: Not the canonical form of a record.
        LimitError: Too long, or a seq more than an hour ahead of ``now``.
        WeakKeyError: The publisher fails the point check.
        SignatureError: The signature does not verify.
        StaleRecordError: Past its end of life.
    """
    match decode(data, max_bytes=MAX_RECORD_BYTES):
        case [
            bytes() as raw,
            bytes() as salt,
            int() as seq,
            bytes() as value,
            bytes() as sig,
        ]:
            pass
        case _:
            raise FormatError("record: not a publisher, salt, seq, value and signature")
    if len(salt) != SALT_BYTES or seq < 0:
        raise FormatError("record: a salt of another length or a negative seq")
    expires_at, _ = _split_value(value)
    if seq > (now + limits.MAX_RECORD_AHEAD_S) * _MICROSECONDS:
        raise LimitError("record: seq is more than an hour ahead of this host's clock")
    if expires_at <= now:
        raise StaleRecordError("record: past its end of life")
    publisher = admit_key(raw)
    verify_signature(publisher, record_signing_bytes(salt, seq, value), sig)
    return Record(publisher=publisher, salt=salt, seq=seq, value=value, signature=sig)


def newest(held: Record | None, offered: Record) -> Record:
    """Choose between two verified records of one target.

    Raises:
        StaleRecordError: ``offered`` is older.
        EquivocationError: Same seq, other value: its publisher signed both.
        VerificationError: They are not of one target.
    """
    if held is None or held == offered:
        return offered
    if held.target != offered.target:
        raise VerificationError("record: of another target")
    if offered.seq < held.seq:
        raise StaleRecordError(f"record: seq {offered.seq} where {held.seq} is held")
    if offered.seq == held.seq:
        if offered.value == held.value:
            return held
        raise EquivocationError(f"record: two values with seq {offered.seq}")
    return offered


def _seal_key(issuer: PublicKey, subject_id: bytes) -> bytes:
    return hashlib.sha256(_SEAL_LABEL + issuer + subject_id).digest()


def seal(content: bytes, *, issuer: PublicKey, subject_id: bytes) -> bytes:
    """Encrypt a record's content for those who know issuer and subject id (NaCl SecretBox).

    The nonce follows from the content: the same content always gives the same bytes, so holders
    can compare, and one nonce never serves two contents.
    """
    key = _seal_key(issuer, subject_id)
    nonce = hashlib.sha256(_NONCE_LABEL + key + content).digest()[: SecretBox.NONCE_SIZE]
    return bytes(SecretBox(key).encrypt(content, nonce))


def unseal(sealed: bytes, *, issuer: PublicKey, subject_id: bytes) -> bytes:
    """Decrypt what `seal` made.

    Raises:
        FormatError: Sealed for others, or changed.
    """
    try:
        return SecretBox(_seal_key(issuer, subject_id)).decrypt(sealed)
    except (CryptoError, ValueError) as error:
        raise FormatError("record: the seal does not open with this issuer and subject") from error
