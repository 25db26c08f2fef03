"""The vectors of records: one scenario a file, one failure each."""

import hashlib
from collections.abc import Iterator
from typing import Final

from tests.vectors.vector import NOW, WEAK, Vector
from tests.vectors.wire import cbor, public, short_hash, sign

SALT: Final = hashlib.sha256(
    b"authd/salt/1" + cbor(["grants", public("issuer"), short_hash(b"authd/id/v1", public("x"))]),
).digest()[:20]
SEQ: Final = NOW * 1_000_000


def record(
    *,
    signer: str = "issuer",
    salt: bytes = SALT,
    seq: int = SEQ,
    value: bytes | None = None,
) -> bytes:
    """Sign a record (BEP 44)."""
    kept = cbor([NOW + 60, b"content"]) if value is None else value
    buffer = b"4:salt%d:%b3:seqi%de1:v%d:%b" % (len(salt), salt, seq, len(kept), kept)
    return cbor([public("issuer"), salt, seq, kept, sign(signer, buffer)])


def records() -> Iterator[Vector]:
    """Yield the records."""
    weak = record()
    table: dict[str, tuple[str, str, bytes]] = {
        "plain": ("ok", "seven bytes for a minute", record()),
        "ahead": ("ok", "an hour ahead", record(seq=SEQ + 3_600_000_000)),
        "too-far-ahead": ("limit_exceeded", "a microsecond more", record(seq=SEQ + 3_600_000_001)),
        "dead": ("stale_record", "at its end of life", record(value=cbor([NOW, b""]))),
        "signed-by-another": ("bad_signature", "another key signed it", record(signer="mallory")),
        "short-salt": ("malformed", "a salt of 19 bytes", record(salt=bytes(19))),
        "negative-seq": ("malformed", "a negative seq", record(seq=-1)),
        "odd-value": ("malformed", "a value of one part", record(value=cbor([NOW + 60]))),
        "long-value": (
            "limit_exceeded",
            "a value of 901 bytes",
            record(value=cbor([NOW + 60, bytes(892)])),
        ),
        "weak-publisher": ("weak_key", "a small-order point", weak.replace(public("issuer"), WEAK)),
        "trailing-byte": ("malformed", "a byte after the end", record() + b"\x00"),
    }
    for name, (expect, comment, body) in table.items():
        yield Vector(
            name=name,
            kind="record",
            expect=expect,
            comment=comment,
            body=body,
            more={"now": str(NOW)},
        )
