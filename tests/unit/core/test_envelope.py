"""The envelope: one wrapping, and an id that does not depend on it."""

import hashlib

import pytest

from authd.core.encoding import CborValue, encode
from authd.core.envelope import (
    PROTECTED,
    parse_envelope,
    seal_envelope,
    signing_bytes,
    statement_id,
    verify_envelope,
)
from authd.errors import FormatError, LimitError, SignatureError
from tests.unit.core.world import flipped, key

LABEL = "authd/test/1"
SEALED = seal_envelope(LABEL, b"payload", key("a"))


def test_the_protected_header_is_eddsa_and_nothing_else() -> None:
    assert PROTECTED.hex() == "a10127"


def test_what_is_signed_is_the_sig_structure_of_rfc_9052() -> None:
    assert signing_bytes(LABEL, b"payload").hex() == (
        "846a" + b"Signature1".hex() + "43a101274c" + LABEL.encode().hex() + "47" + b"payload".hex()
    )


def test_a_sealed_envelope_opens_and_verifies() -> None:
    envelope = parse_envelope(LABEL, SEALED, max_bytes=200)
    verify_envelope(envelope, key("a").public)
    assert envelope.payload == b"payload"
    assert envelope.statement_id == statement_id(LABEL, b"payload")


def test_the_id_is_a_hash_of_label_and_payload_alone() -> None:
    digest = hashlib.sha256(LABEL.encode() + b"payload").digest()[:16]
    other = parse_envelope(LABEL, seal_envelope(LABEL, b"payload", key("b")), max_bytes=200)
    assert statement_id(LABEL, b"payload") == digest == other.statement_id


def test_a_signature_under_one_label_does_not_count_under_another() -> None:
    envelope = parse_envelope("authd/other/1", SEALED, max_bytes=200)
    with pytest.raises(SignatureError):
        verify_envelope(envelope, key("a").public)


def test_every_changed_bit_is_noticed() -> None:
    for bit in range(8 * len(SEALED)):
        with pytest.raises((FormatError, SignatureError)):
            verify_envelope(
                parse_envelope(LABEL, flipped(SEALED, bit), max_bytes=200), key("a").public
            )


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [PROTECTED, {}, b"p"],
        [PROTECTED, {}, b"p", bytes(64), b""],
        [b"", {}, b"p", bytes(64)],
        [encode({1: -7}), {}, b"p", bytes(64)],
        [encode({1: -8, 4: b"kid"}), {}, b"p", bytes(64)],
        [PROTECTED, {4: b"kid"}, b"p", bytes(64)],
        [PROTECTED, [], b"p", bytes(64)],
        [PROTECTED, {}, "p", bytes(64)],
        [PROTECTED, {}, b"p", bytes(63)],
        [PROTECTED, {}, b"p", bytes(65)],
        [PROTECTED, {}, b"p", b""],
        {1: 2},
        7,
    ],
)
def test_any_other_wrapping_is_refused(parts: CborValue) -> None:
    with pytest.raises(FormatError):
        parse_envelope(LABEL, encode(parts), max_bytes=200)


def test_a_longer_envelope_than_the_kind_allows_is_refused() -> None:
    with pytest.raises(LimitError):
        parse_envelope(LABEL, SEALED, max_bytes=len(SEALED) - 1)
