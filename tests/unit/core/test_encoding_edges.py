"""Encodings and records to the letter: counts, nesting, labels and names on the wire."""

import hashlib
from functools import reduce
from typing import Any

import pytest
from nacl.secret import SecretBox

from authd.core import limits
from authd.core.encoding import CborValue, decode, encode
from authd.core.records import (
    MAX_RECORD_BYTES,
    SALT_BYTES,
    TARGET_BYTES,
    RecordKind,
    record_signing_bytes,
    record_target,
    seal,
    verify_record,
)
from authd.errors import FormatError, LimitError, StaleRecordError
from tests.unit.core.world import NOW, key


@pytest.mark.parametrize(
    "text", ["81", "8201", "a1", "a101", "a20101", "9bffffffffffffffff01", "ba7fffffff"]
)
def test_more_items_than_bytes_are_refused_before_any_is_read(text: str) -> None:
    with pytest.raises(FormatError, match=r"^more items announced than bytes left$"):
        decode(bytes.fromhex(text), max_bytes=100)


@pytest.mark.parametrize(
    ("text", "value"), [("80", []), ("8101", [1]), ("a0", {}), ("a10102", {1: 2})]
)
def test_as_many_items_as_bytes_are_read(text: str, value: CborValue) -> None:
    assert decode(bytes.fromhex(text), max_bytes=100) == value


def wrapped(inner: Any, depth: int) -> Any:
    return reduce(lambda value, _: {1: value}, range(depth), inner)


def test_maps_nest_as_deep_as_the_bound() -> None:
    deepest = wrapped(7, limits.MAX_CBOR_DEPTH)
    assert decode(encode(deepest), max_bytes=100) == deepest
    with pytest.raises(LimitError, match=r"^nested deeper than 8$"):
        decode(encode(wrapped(7, limits.MAX_CBOR_DEPTH + 1)), max_bytes=100)


# --- records --------------------------------------------------------------------------------------


def test_kinds_of_records_have_their_names_in_the_salt() -> None:
    assert [kind.value for kind in RecordKind] == [
        "grants",
        "root-payload",
        "root-signatures",
        "authority",
        "self-revocation",
        "heartbeat",
        "rendezvous",
        "broker",
    ]


def test_a_target_is_the_sha_1_of_publisher_and_salt() -> None:
    public, salt = key("X").public, bytes(range(SALT_BYTES))
    target = record_target(public, salt)
    assert target == hashlib.sha1(public + salt, usedforsecurity=False).digest()
    assert (len(target), TARGET_BYTES, SALT_BYTES) == (20, 20, 20)


def test_a_seal_is_a_secret_box_whose_key_and_nonce_follow() -> None:
    issuer, subject, content = key("X").public, bytes(range(16)), b"content"
    secret = hashlib.sha256(b"authd/seal/1" + issuer + subject).digest()
    nonce = hashlib.sha256(b"authd/seal-nonce/1" + secret + content).digest()[:24]
    expected = bytes(SecretBox(secret).encrypt(content, nonce))
    assert seal(content, issuer=issuer, subject_id=subject) == expected


def signed(expires_at: int) -> bytes:
    signer, salt, seq = key("X"), bytes(SALT_BYTES), NOW * 1_000_000
    value = encode([expires_at, b""])
    signature = signer.sign(record_signing_bytes(salt, seq, value))
    return encode([signer.public, salt, seq, value, signature])


def test_a_record_may_end_at_any_time_but_none_before_the_epoch() -> None:
    assert verify_record(signed(NOW + 1), now=NOW).salt == bytes(SALT_BYTES)
    with pytest.raises(StaleRecordError):
        verify_record(signed(0), now=NOW)
    with pytest.raises(FormatError):
        verify_record(signed(-1), now=NOW)


def test_a_record_is_its_value_and_160_bytes_at_most() -> None:
    assert limits.MAX_RECORD_VALUE_BYTES + 160 == MAX_RECORD_BYTES
    with pytest.raises(LimitError):
        verify_record(bytes(limits.MAX_RECORD_VALUE_BYTES + 161), now=NOW)
    with pytest.raises(FormatError):
        verify_record(bytes(limits.MAX_RECORD_VALUE_BYTES + 160), now=NOW)
