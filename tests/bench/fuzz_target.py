"""What is fuzzed: a decoder, inputs that pass, and a way to sign what was changed.

What is signed is checked after its signature, so that a changed input reaches little of the code:
`Target.resealed` changes what is inside and signs it again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

from authd.errors import (
    AuthdError,
    FormatError,
    LimitError,
    SignatureError,
    WeakKeyError,
)
from tests.unit.core.world import (
    World,
    authority,
    key,
    make_root,
)

_VECTORS: Final = Path(__file__).parents[1] / "vectors"
KEY: Final = key("X")
LAMP: Final = key("lamp")
WORLD: Final = World()
ROOT: Final = make_root(authority("X"))
PARSED: Final = (FormatError, LimitError)
VERIFIED: Final = (*PARSED, SignatureError, WeakKeyError)

Sign = Callable[[Random, bytes], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One decoder.

    Attributes:
        name: What it reads.
        decode: Takes untrusted bytes.
        refusals: The errors its docstring lists.
        seeds: Inputs it accepts, and from the vectors also such as it refuses.
        resealed: Changes what is inside a seed, and signs it.
        again: Encodes what was read; the same bytes must come out.
    """

    name: str
    decode: Callable[[bytes], Any]
    refusals: tuple[type[AuthdError], ...]
    seeds: Sequence[bytes]
    resealed: Sign | None = None
    again: Callable[[Any], bytes] | None = None


def as_text(read: Callable[[str], Any]) -> Callable[[bytes], Any]:
    """Return a decoder of bytes from one of text."""
    return lambda data: read(data.decode("latin-1"))


def vectors_of(kind: str) -> list[bytes]:
    """Read the bodies of the vectors of one kind."""
    bodies = (path.read_text("ascii").partition("\n\n")[2] for path in _files(kind))
    return [bytes.fromhex(body.replace("\n", "")) for body in bodies]


def _files(kind: str) -> list[Path]:
    return sorted((_VECTORS / kind).glob("*.txt"))
