"""Inputs for decoders: random, valid ones that were damaged, and odd values well encoded."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

from authd.core.encoding import encode
from authd.errors import FormatError

# Heads of CBOR items of every width, of indefinite length, tags and simple values; the edges of
# ASCII, base64url and UTF-8.
_ODD_BYTES: Final = bytes.fromhex("00011718191a1b1f203b405b5f60787b7f809b9fa0bbbfc0d2e0f4f6f9fbff")
_ODD_BYTES_OF_TEXT: Final = b"\x00+-._/=AZaz{}\"'\\\x7f\x80\xc3\xff"
_ODD_INTEGERS: Final = (
    *(edge + near for edge in (0, 24, 2**8, 2**16, 2**32, 2**40, 2**63) for near in (-1, 0, 1)),
    2**64 - 1,
    -(2**63),
    -(2**64),
)
_ODD_TEXTS: Final = ("", "a", "#", "+", "a/#", "$SYS", "$share/g/a", "\x00", "\u00e9", "\U0001f600")
_ODD_LENGTHS: Final = (0, 1, 15, 16, 17, 20, 31, 32, 33, 63, 64, 65, 128)
_MOST_CHANGES: Final = 4


def random_bytes(rng: Random) -> bytes:
    """Make up to 80 bytes, the odd ones more often."""
    size = rng.randrange(80)
    if rng.random() < 0.5:
        return rng.randbytes(size)
    return bytes(rng.choices(_ODD_BYTES, k=size))


def damaged(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Return a few changes away from ``data``; pieces of the others may come in."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, _MOST_CHANGES)):
        at = rng.randrange(len(changed) + 1)
        rng.choice(_DAMAGES)(rng, changed, at, others)
    return bytes(changed)


def _flip(rng: Random, data: bytearray, at: int, _: Sequence[bytes]) -> None:
    if at < len(data):
        data[at] ^= 1 << rng.randrange(8)


def _set(rng: Random, data: bytearray, at: int, _: Sequence[bytes]) -> None:
    data[at : at + 1] = [rng.choice(rng.choice((_ODD_BYTES, _ODD_BYTES_OF_TEXT)))]


def _insert(rng: Random, data: bytearray, at: int, _: Sequence[bytes]) -> None:
    data[at:at] = rng.randbytes(rng.randint(1, 4))


def _delete(rng: Random, data: bytearray, at: int, _: Sequence[bytes]) -> None:
    del data[at : at + rng.randint(1, 8)]


def _double(rng: Random, data: bytearray, at: int, _: Sequence[bytes]) -> None:
    data[at:at] = data[at : at + rng.randint(1, 40)]


def _cut(_: Random, data: bytearray, at: int, __: Sequence[bytes]) -> None:
    del data[at:]


def _splice(rng: Random, data: bytearray, at: int, others: Sequence[bytes]) -> None:
    other = rng.choice(others)
    data[at:] = other[rng.randrange(len(other) + 1) :]


_DAMAGES: Final[tuple[Callable[[Random, bytearray, int, Sequence[bytes]], None], ...]] = (
    _flip,
    _flip,
    _set,
    _set,
    _insert,
    _delete,
    _double,
    _cut,
    _splice,
)


def odd_leaf(rng: Random) -> Any:
    """Make a value without others in it."""
    match rng.randrange(4):
        case 0:
            return rng.choice(_ODD_INTEGERS)
        case 1:
            return rng.randbytes(rng.choice(_ODD_LENGTHS))
        case 2:
            return rng.choice(_ODD_TEXTS) * rng.choice((1, 1, 2, 300))
        case _:
            return rng.choice(([], {}, [0], {0: 0}, [[]], [b""], [""]))


def odd_value(rng: Random, value: Any) -> Any:
    """Return a value that differs from ``value`` in one place, near the top or deep inside."""
    if isinstance(value, list) and value and rng.random() < 0.8:
        return _odd_list(rng, value)
    if isinstance(value, dict) and value and rng.random() < 0.9:
        return _odd_dict(rng, value)
    if isinstance(value, bytes) and rng.random() < 0.6:
        return damaged(rng, value, (value,))
    if isinstance(value, int) and rng.random() < 0.4:
        return value + rng.choice((-1, 1))
    return odd_leaf(rng)


def _odd_list(rng: Random, value: list[Any]) -> list[Any]:
    changed, at = list(value), rng.randrange(len(value))
    match rng.randrange(8):
        case 0:
            del changed[at]
        case 1:
            changed.insert(at, changed[at])
        case 2:
            changed.insert(at, odd_leaf(rng))
        case 3:
            changed.reverse()
        case 4 if len(changed) < 8:
            changed *= rng.choice((2, 17))
        case _:
            changed[at] = odd_value(rng, changed[at])
    return changed


def _odd_dict(rng: Random, value: dict[int, Any]) -> dict[int, Any]:
    changed, at = dict(value), rng.choice(list(value))
    match rng.randrange(6):
        case 0:
            del changed[at]
        case 1:
            changed[rng.choice(_ODD_INTEGERS)] = odd_leaf(rng)
        case 2:
            changed[at + rng.choice((-1, 1))] = changed.pop(at)
        case _:
            changed[at] = odd_value(rng, changed[at])
    return changed


def encoded(value: Any) -> bytes:
    """Encode a value, or nothing if it cannot be."""
    try:
        return encode(value)
    except FormatError:
        return b""
