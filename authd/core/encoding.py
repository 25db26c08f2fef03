"""Strict encodings: base64url without padding and deterministic CBOR.

The CBOR is a subset of RFC 8949 §4.2.1 (core deterministic encoding): unsigned and negative
integers of at most 64 bits, byte strings, text strings, arrays, and maps whose keys are integers.
No tags, floats, simple values or indefinite lengths. Everything has exactly one encoding, so
``encode(decode(data)) == data`` for all accepted ``data`` and ``decode(encode(value)) == value``.
"""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias, Union

from authd.core import limits
from authd.errors import FormatError, LimitError

# A union at run time, so that annotations such as ``CborValue | None`` can be evaluated.
CborValue: TypeAlias = Union[int, bytes, str, "Sequence[CborValue]", "Mapping[int, CborValue]"]

_UINT, _NINT, _BYTES, _TEXT, _ARRAY, _MAP = range(6)
_MAX_ARGUMENT: Final = 2**64 - 1
# Additional information 24…27 announces an argument of 1, 2, 4 or 8 bytes (RFC 8949 §3).
_WIDTHS: Final = {24: 1, 25: 2, 26: 4, 27: 8}


def encode_base64url(data: bytes) -> str:
    """Encode ``data`` as base64url without padding (RFC 4648 §5)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode_base64url(text: str) -> bytes:
    """Decode canonical, unpadded base64url (RFC 4648 §5).

    Args:
        text: Untrusted; only the 64 characters, no padding, unused bits zero.

    Raises:
        FormatError: Any other spelling.
    """
    try:
        data = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    except (UnicodeEncodeError, binascii.Error, ValueError) as error:
        msg = "not base64url"
        raise FormatError(msg) from error
    # The library skips characters that are not of the alphabet: comparing catches all of that.
    if encode_base64url(data) != text:
        msg = "not canonical base64url"
        raise FormatError(msg)
    return data


def encode(value: CborValue) -> bytes:
    """Encode ``value`` in the one deterministic way.

    Raises:
        FormatError: A type or an integer outside the subset.
    """
    out = bytearray()
    _encode_into(out, value)
    return bytes(out)


def _encode_into(out: bytearray, value: object) -> None:
    match value:
        case bool():
            msg = "a boolean is not of the subset"
            raise FormatError(msg)
        case int() if value >= 0:
            _encode_head(out, _UINT, value)
        case int():
            _encode_head(out, _NINT, -1 - value)
        case bytes():
            _encode_head(out, _BYTES, len(value))
            out += value
        case str():
            _encode_text(out, value)
        case Mapping():
            _encode_map(out, value)
        case Sequence():
            _encode_head(out, _ARRAY, len(value))
            for item in value:
                _encode_into(out, item)
        case _:
            msg = f"a value of type `{type(value).__name__}` is not of the subset"
            raise FormatError(msg)


def _encode_text(out: bytearray, value: str) -> None:
    try:
        data = value.encode("utf-8")
    except UnicodeEncodeError as error:
        msg = "text with a lone surrogate"
        raise FormatError(msg) from error
    _encode_head(out, _TEXT, len(data))
    out += data


def _encode_map(out: bytearray, value: Mapping[object, object]) -> None:
    _encode_head(out, _MAP, len(value))
    items = []
    for key, item in value.items():
        if not isinstance(key, int) or isinstance(key, bool):
            msg = "a map key that is not an integer"
            raise FormatError(msg)
        items.append((encode(key), item))
    for encoded_key, item in sorted(items, key=lambda pair: pair[0]):
        out += encoded_key
        _encode_into(out, item)


def _encode_head(out: bytearray, major: int, argument: int) -> None:
    if argument > _MAX_ARGUMENT:
        msg = "an integer of more than 64 bits"
        raise FormatError(msg)
    if argument < 24:  # noqa: PLR2004 - RFC 8949 §3: smaller arguments sit in the first byte
        out.append(major << 5 | argument)
        return
    info, width = next(pair for pair in _WIDTHS.items() if argument < 1 << (8 * pair[1]))
    out.append(major << 5 | info)
    out += argument.to_bytes(width, "big")


def decode(data: bytes, *, max_bytes: int) -> CborValue:
    """Decode one value that fills ``data`` exactly.

    Args:
        data: Untrusted.
        max_bytes: Longer input is refused unread.

    Returns:
        Integers, ``bytes``, ``str``, ``list`` and ``dict``.

    Raises:
        LimitError: ``data`` is longer than ``max_bytes`` or nested deeper than
            ``limits.MAX_CBOR_DEPTH``.
        FormatError: Not the deterministic encoding of a value of the subset.
    """
    if len(data) > max_bytes:
        msg = f"{len(data)} bytes where at most {max_bytes} are allowed"
        raise LimitError(msg)
    value, end = _item(data, 0, 0)
    if end != len(data):
        msg = f"{len(data) - end} bytes after the end of the value"
        raise FormatError(msg)
    return value


# Readers take a position and return the next one: half the time of a cursor that moves itself.
# Every read is checked before anything is allocated.


def _item(data: bytes, at: int, depth: int) -> tuple[CborValue, int]:
    if depth > limits.MAX_CBOR_DEPTH:
        msg = f"nested deeper than {limits.MAX_CBOR_DEPTH}"
        raise LimitError(msg)
    if at >= len(data):
        raise FormatError(_ENDS)
    major, argument = data[at] >> 5, data[at] & 31
    at += 1
    if argument >= 24:  # noqa: PLR2004 - RFC 8949 §3
        argument, at = _wide(data, at, argument)
    if major == _UINT:
        return argument, at
    if major == _NINT:
        return -1 - argument, at
    if major == _BYTES:
        return _take(data, at, argument), at + argument
    reader = _READERS.get(major)
    if reader is None:
        msg = f"major type {major} is not of the subset"
        raise FormatError(msg)
    return reader(data, at, argument, depth + 1)


def _wide(data: bytes, at: int, info: int) -> tuple[int, int]:
    width = _WIDTHS.get(info)
    if width is None:
        msg = "an indefinite or reserved length"
        raise FormatError(msg)
    argument = int.from_bytes(_take(data, at, width), "big")
    if argument < (24 if width == 1 else 1 << (4 * width)):
        msg = "an integer that is not in its shortest form"
        raise FormatError(msg)
    return argument, at + width


def _take(data: bytes, at: int, count: int) -> bytes:
    if at + count > len(data):
        raise FormatError(_ENDS)
    return data[at : at + count]


def _text(data: bytes, at: int, length: int, _depth: int) -> tuple[str, int]:
    try:
        return _take(data, at, length).decode("utf-8"), at + length
    except UnicodeDecodeError as error:
        msg = "text that is not UTF-8"
        raise FormatError(msg) from error


def _array(data: bytes, at: int, length: int, depth: int) -> tuple[list[CborValue], int]:
    _check_count(length, len(data) - at)
    items: list[CborValue] = []
    for _ in range(length):
        item, at = _item(data, at, depth)
        items.append(item)
    return items, at


def _map(data: bytes, at: int, length: int, depth: int) -> tuple[dict[int, CborValue], int]:
    _check_count(2 * length, len(data) - at)
    result: dict[int, CborValue] = {}
    previous = b""
    for _ in range(length):
        start = at
        key, at = _item(data, at, depth)
        if not isinstance(key, int):
            msg = "a map key that is not an integer"
            raise FormatError(msg)
        if data[start:at] <= previous:
            msg = "map keys that are not strictly ascending"
            raise FormatError(msg)
        previous = data[start:at]
        result[key], at = _item(data, at, depth)
    return result, at


def _check_count(count: int, left: int) -> None:
    # Each item takes a byte at least: a larger count is a lie, refused before allocation.
    if count > left:
        msg = "more items announced than bytes left"
        raise FormatError(msg)


_ENDS: Final = "the input ends inside a value"
_Reader: TypeAlias = Callable[[bytes, int, int, int], tuple[CborValue, int]]
_READERS: Final[dict[int, _Reader]] = {_TEXT: _text, _ARRAY: _array, _MAP: _map}
