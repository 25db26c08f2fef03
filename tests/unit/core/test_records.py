"""DHT records: BEP 44 byte for byte, one writer per address, sealed values."""

import hashlib
from typing import Any

import pytest

from authd.core import limits
from authd.core.encoding import CborValue, decode, encode
from authd.core.identity import key_id
from authd.core.records import (
    MAX_RECORD_BYTES,
    Record,
    RecordKind,
    encode_record,
    make_record,
    newest,
    record_salt,
    record_signing_bytes,
    record_target,
    seal,
    unseal,
    verify_record,
)
from authd.errors import (
    AuthdError,
    EquivocationError,
    FormatError,
    LimitError,
    SignatureError,
    StaleRecordError,
    VerificationError,
    WeakKeyError,
)
from tests.unit.core.world import NOW, flipped, key

SALT = record_salt(RecordKind.GRANTS, key("X").public, key_id(key("lamp").public))
SEQ = NOW * 1_000_000


def record(**changes: Any) -> Record:
    values = {"salt": SALT, "seq": SEQ, "content": b"content", "expires_at": NOW + 60, **changes}
    return make_record(key("X"), **values)


def altered(place: int, value: CborValue) -> bytes:
    parts = decode(encode_record(record()), max_bytes=2_000)
    assert isinstance(parts, list)
    return encode([*parts[:place], value, *parts[place + 1 :]])


def test_a_record_is_read_as_it_was_made() -> None:
    made = record()
    assert verify_record(encode_record(made), now=NOW) == made
    assert (made.content, made.expires_at) == (b"content", NOW + 60)


def test_the_target_is_the_sha1_of_key_and_salt() -> None:
    digest = hashlib.sha1(key("X").public + SALT, usedforsecurity=False).digest()
    assert record().target == record_target(key("X").public, SALT) == digest


def test_what_is_signed_is_the_buffer_of_bep_44() -> None:
    assert record_signing_bytes(b"foobar", 4, b"Hello World!") == (
        b"4:salt6:foobar3:seqi4e1:v12:Hello World!"
    )


def test_a_salt_is_a_hash_of_what_is_stored_for_whom() -> None:
    publisher = key("X").public
    digest = hashlib.sha256(b"authd/salt/1" + encode(["grants", publisher, b"a", b"b"])).digest()
    assert record_salt(RecordKind.GRANTS, publisher, b"a", b"b") == digest[:20]
    assert record_salt(RecordKind.GRANTS, publisher, b"ab") != digest[:20]
    assert len({record_salt(kind, publisher) for kind in RecordKind}) == len(RecordKind)


def test_every_changed_bit_is_noticed() -> None:
    data = encode_record(record())
    for bit in range(8 * len(data)):
        with pytest.raises(AuthdError):
            verify_record(flipped(data, bit), now=NOW)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, "key"),
        (0, bytes(31)),
        (1, bytes(19)),
        (1, 7),
        (2, -1),
        (2, b""),
        (3, "value"),
        (3, b""),
        (3, encode([NOW + 60])),
        (3, encode([-1, b""])),
        (3, encode([NOW + 60, "text"])),
        (3, encode([NOW + 60, b"", 1])),
        (4, 7),
    ],
)
def test_a_record_that_is_not_as_it_must_be_is_refused(place: int, value: CborValue) -> None:
    with pytest.raises(FormatError):
        verify_record(altered(place, value), now=NOW)


@pytest.mark.parametrize("value", [7, [], {}, [b""] * 4, [b""] * 6])
def test_a_record_has_five_parts(value: CborValue) -> None:
    with pytest.raises(FormatError):
        verify_record(encode(value), now=NOW)


@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(64), bytes(65)])
def test_a_record_carries_its_publishers_signature(signature: bytes) -> None:
    with pytest.raises(SignatureError):
        verify_record(altered(4, signature), now=NOW)


def test_a_weak_publisher_is_refused() -> None:
    with pytest.raises(WeakKeyError):
        verify_record(altered(0, (1).to_bytes(32, "little")), now=NOW)


def test_a_record_dies_at_its_end_of_life() -> None:
    data = encode_record(record())
    assert verify_record(data, now=NOW + 59) == record()
    with pytest.raises(StaleRecordError):
        verify_record(data, now=NOW + 60)


def test_a_seq_is_at_most_an_hour_ahead() -> None:
    ahead = limits.MAX_RECORD_AHEAD_S * 1_000_000
    assert verify_record(encode_record(record(seq=SEQ + ahead)), now=NOW).seq == SEQ + ahead
    with pytest.raises(LimitError, match="an hour ahead"):
        verify_record(encode_record(record(seq=SEQ + ahead + 1)), now=NOW)


def test_a_value_is_bounded() -> None:
    room = limits.MAX_RECORD_VALUE_BYTES - len(encode([NOW + 60, bytes(800)])) + 800
    full = record(content=bytes(room))
    assert len(encode_record(full)) <= MAX_RECORD_BYTES
    assert verify_record(encode_record(full), now=NOW) == full
    with pytest.raises(LimitError, match="fit"):
        record(content=bytes(room + 1))
    with pytest.raises(LimitError):
        verify_record(bytes(MAX_RECORD_BYTES + 1), now=NOW)


# --- which one counts ---------------------------------------------------------------------------


def test_the_newer_record_counts() -> None:
    old, new = record(), record(seq=SEQ + 1)
    assert newest(None, old) == old
    assert newest(old, new) == new
    assert newest(old, old) == old
    with pytest.raises(StaleRecordError):
        newest(new, old)


def test_two_values_of_one_seq_are_equivocation() -> None:
    with pytest.raises(EquivocationError):
        newest(record(), record(content=b"other"))


def test_the_first_signature_of_one_value_is_kept() -> None:
    held = record()
    other = Record(
        publisher=held.publisher,
        salt=held.salt,
        seq=held.seq,
        value=held.value,
        signature=bytes(64),
    )
    assert newest(held, other) is held


def test_records_of_two_targets_are_not_compared() -> None:
    with pytest.raises(VerificationError, match="another target"):
        newest(record(), record(salt=bytes(20), seq=SEQ + 1))


# --- seal ---------------------------------------------------------------------------------------


def test_a_seal_opens_for_those_who_know_issuer_and_subject() -> None:
    issuer, subject = key("X").public, key_id(key("lamp").public)
    sealed = seal(b"content", issuer=issuer, subject_id=subject)
    assert b"content" not in sealed
    assert unseal(sealed, issuer=issuer, subject_id=subject) == b"content"
    for who, about, data in (
        (key("Y").public, subject, sealed),
        (issuer, key_id(key("other").public), sealed),
        (issuer, subject, flipped(sealed, 300)),
        (issuer, subject, sealed[:-1]),
        (issuer, subject, sealed[:20]),
        (issuer, subject, b""),
    ):
        with pytest.raises(FormatError):
            unseal(data, issuer=who, subject_id=about)


def test_the_same_content_always_gives_the_same_seal() -> None:
    issuer, subject = key("X").public, bytes(16)
    first, again, other = (
        seal(content, issuer=issuer, subject_id=subject) for content in (b"a", b"a", b"b")
    )
    assert first == again
    assert first[:24] != other[:24]
