"""Base64url and the CBOR subset: one spelling of everything, and no other is read."""

import enum

import pytest

from authd.core import limits
from authd.core.encoding import (
    CborValue,
    decode,
    decode_base64url,
    encode,
    encode_base64url,
)
from authd.errors import FormatError, LimitError

# (hex, value): the examples of RFC 8949 appendix A that lie in the subset.
RFC_8949 = [
    ("00", 0),
    ("01", 1),
    ("17", 23),
    ("1818", 24),
    ("1903e8", 1000),
    ("1a000f4240", 1_000_000),
    ("1b000000e8d4a51000", 1_000_000_000_000),
    ("1bffffffffffffffff", 2**64 - 1),
    ("20", -1),
    ("3863", -100),
    ("3903e7", -1000),
    ("3bffffffffffffffff", -(2**64)),
    ("40", b""),
    ("4401020304", bytes([1, 2, 3, 4])),
    ("60", ""),
    ("6449455446", "IETF"),
    ("62c3bc", "\u00fc"),
    ("64f0908591", "\U00010151"),
    ("80", []),
    ("8301820203820405", [1, [2, 3], [4, 5]]),
    ("a0", {}),
    ("a201020304", {1: 2, 3: 4}),
    ("a2016161206162", {1: "a", -1: "b"}),
]
NOT_CANONICAL = [
    ("1817", "an integer of two bytes that fits one"),
    ("190017", "an integer of three bytes that fits one"),
    ("1900ff", "an integer of three bytes that fits two"),
    ("1a0000ffff", "an integer of five bytes that fits three"),
    ("1b00000000ffffffff", "an integer of nine bytes that fits five"),
    ("3817", "a negative integer that is too long"),
    ("580100", "a length that is too long"),
    ("5f4100ff", "an indefinite byte string"),
    ("7f6161ff", "an indefinite text"),
    ("9f01ff", "an indefinite array"),
    ("bf0102ff", "an indefinite map"),
    ("1c", "reserved additional information"),
    ("ff", "a break without a beginning"),
    ("c24101", "a tag"),
    ("d28440a0f640", "a tagged COSE_Sign1"),
    ("f4", "false"),
    ("f5", "true"),
    ("f6", "null"),
    ("f93c00", "a half float"),
    ("fb3ff0000000000000", "a float"),
    ("e0", "a simple value"),
    ("a161610a", "a text as map key"),
    ("a1410a0a", "a byte string as map key"),
    ("a1800a", "an array as map key"),
    ("a203040102", "map keys in descending order"),
    ("a201020102", "a map key twice"),
    ("a220010102", "a negative key before a positive one"),
    ("61ff", "text that is not UTF-8"),
    ("62c080", "text with an overlong zero"),
    ("63eda080", "text with a surrogate"),
    ("0000", "a second value after the first"),
    ("", "nothing"),
    ("19", "a head that is cut"),
    ("1900", "an argument that is cut"),
    ("4201", "a byte string that is cut"),
    ("8201", "an array that is cut"),
    ("a101", "a map that is cut"),
    ("9b7fffffffffffffff", "an array of 2^63 items"),
    ("bb7fffffffffffffff", "a map of 2^63 entries"),
    ("5b7fffffffffffffff", "a byte string of 2^63 bytes"),
    ("9a000186a0", "an array of 100,000 items in five bytes"),
]


@pytest.mark.parametrize(("text", "value"), RFC_8949)
def test_the_examples_of_rfc_8949_are_encoded_and_decoded(text: str, value: CborValue) -> None:
    assert encode(value).hex() == text
    assert decode(bytes.fromhex(text), max_bytes=100) == value


@pytest.mark.parametrize(("text", "why"), NOT_CANONICAL)
def test_whatever_is_not_the_one_encoding_is_refused(text: str, why: str) -> None:
    with pytest.raises(FormatError):
        decode(bytes.fromhex(text), max_bytes=100)


def test_map_keys_are_sorted_by_their_encoded_bytes() -> None:
    assert encode({-1: 0, 1000: 0, 10: 0, -65537: 0}).hex() == "a40a001903e80020003a0001000000"


@pytest.mark.parametrize("value", [True, None, 1.0, {"a": 1}, {True: 1}, {b"": 1}, {1, 2}])
def test_a_value_outside_the_subset_is_not_encoded(value: object) -> None:
    with pytest.raises(FormatError):
        encode(value)  # type: ignore[arg-type]  # what the types forbid is refused at run time too


@pytest.mark.parametrize("value", [2**64, -(2**64) - 1])
def test_an_integer_of_more_than_64_bits_is_not_encoded(value: int) -> None:
    with pytest.raises(FormatError, match="64 bits"):
        encode(value)


def test_a_lone_surrogate_is_not_encoded() -> None:
    with pytest.raises(FormatError, match="surrogate"):
        encode("\ud800")


def test_enumerated_claims_are_encoded_as_their_numbers() -> None:
    number = enum.IntEnum("number", {"ONE": 1})
    assert encode({number(1): number(1)}) == encode({1: 1})


def test_longer_input_than_allowed_is_refused_unread() -> None:
    with pytest.raises(LimitError, match="3 bytes where at most 2"):
        decode(b"\xff\xff\xff", max_bytes=2)


def test_nesting_is_bounded() -> None:
    deepest = limits.MAX_CBOR_DEPTH
    assert decode(b"\x81" * deepest + b"\x00", max_bytes=100)
    with pytest.raises(LimitError, match="nested deeper"):
        decode(b"\x81" * (deepest + 1) + b"\x00", max_bytes=100)


@pytest.mark.parametrize("length", range(5))
def test_base64url_is_read_as_it_is_written(length: int) -> None:
    data = b"\xfb\xff\xbf\x00"[:length]
    assert decode_base64url(encode_base64url(data)) == data


@pytest.mark.parametrize(
    "text",
    ["A", "AA==", "AB", "AAB", "AA\n", " AA", "A A", "+w", "/w", "A\x00", "\u00e4A", "AAAAA", "="],
)
def test_any_other_spelling_of_base64url_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        decode_base64url(text)
