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
    reader = _Reader(data)
    value = reader.value(0)
    if reader.position != len(data):
        msg = f"{len(data) - reader.position} bytes after the end of the value"
        raise FormatError(msg)
    return value


class _Reader:
    """A cursor over untrusted bytes; every read is checked before anything is allocated."""

    __slots__ = ("_data", "position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def value(self, depth: int) -> CborValue:
        if depth > limits.MAX_CBOR_DEPTH:
            msg = f"nested deeper than {limits.MAX_CBOR_DEPTH}"
            raise LimitError(msg)
        major, argument = self._head()
        handler = _HANDLERS.get(major)
        if handler is None:
            msg = f"major type {major} is not of the subset"
            raise FormatError(msg)
        return handler(self, argument, depth)

    def _head(self) -> tuple[int, int]:
        first = self.take(1)[0]
        major, info = first >> 5, first & 31
        if info < 24:  # noqa: PLR2004 - RFC 8949 §3
            return major, info
        width = _WIDTHS.get(info)
        if width is None:
            msg = "an indefinite or reserved length"
            raise FormatError(msg)
        argument = int.from_bytes(self.take(width), "big")
        smallest = 24 if width == 1 else 1 << (4 * width)
        if argument < smallest:
            msg = "an integer that is not in its shortest form"
            raise FormatError(msg)
        return major, argument

    def take(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self._data):
            msg = "the input ends inside a value"
            raise FormatError(msg)
        chunk = self._data[self.position : end]
        self.position = end
        return chunk

    def text(self, length: int) -> str:
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError as error:
            msg = "text that is not UTF-8"
            raise FormatError(msg) from error

    def array(self, length: int, depth: int) -> list[CborValue]:
        self._check_count(length)
        return [self.value(depth + 1) for _ in range(length)]

    def mapping(self, length: int, depth: int) -> dict[int, CborValue]:
        self._check_count(2 * length)
        result: dict[int, CborValue] = {}
        previous = b""
        for _ in range(length):
            start = self.position
            key = self.value(depth + 1)
            encoded_key = self._data[start : self.position]
            if not isinstance(key, int):
                msg = "a map key that is not an integer"
                raise FormatError(msg)
            if encoded_key <= previous:
                msg = "map keys that are not strictly ascending"
                raise FormatError(msg)
            previous = encoded_key
            result[key] = self.value(depth + 1)
        return result

    def _check_count(self, count: int) -> None:
        # Each item takes a byte at least: a larger count is a lie, refused before allocation.
        if count > len(self._data) - self.position:
            msg = "more items announced than bytes left"
            raise FormatError(msg)


_HANDLERS: Final[dict[int, Callable[[_Reader, int, int], CborValue]]] = {
    _UINT: lambda _reader, argument, _depth: argument,
    _NINT: lambda _reader, argument, _depth: -1 - argument,
    _BYTES: lambda reader, argument, _depth: reader.take(argument),
    _TEXT: lambda reader, argument, _depth: reader.text(argument),
    _ARRAY: lambda reader, argument, depth: reader.array(argument, depth),
    _MAP: lambda reader, argument, depth: reader.mapping(argument, depth),
}
