"""The vectors of bundles and tickets, whose contents nobody has verified yet."""

from collections.abc import Iterator

from tests.vectors.make_grants import PLAIN
from tests.vectors.make_records import record
from tests.vectors.make_roots import BY_TWO, FIRST, FIRST_ID, root
from tests.vectors.vector import Vector
from tests.vectors.wire import cbor, public


def bundle(
    *,
    version: int = 1,
    statements: object = ((1, PLAIN),),
    records: object = (record(),),
) -> bytes:
    """Encode a bundle of a grant and a record."""
    return cbor([version, statements, records])


def ticket(
    *,
    version: int = 1,
    seed: bytes = bytes(32),
    operator: int = 0,
    peers: object = ("a.example:8184",),
) -> bytes:
    """Encode a ticket; its seed is all zero."""
    roots, grants = [root(FIRST, *BY_TWO)], [PLAIN]
    parts = [FIRST_ID, seed, operator, roots, grants, public("publisher"), peers]
    return cbor([version, *parts])


def bundles() -> Iterator[Vector]:
    """Yield the bundles and tickets."""
    table: dict[tuple[str, str], tuple[str, str, bytes]] = {
        ("bundle", "plain"): ("ok", "a grant and the record that carries grants", bundle()),
        ("bundle", "empty"): ("ok", "nothing in it", bundle(statements=(), records=())),
        ("bundle", "version-2"): ("malformed", "another version", bundle(version=2)),
        ("bundle", "odd-kind"): ("malformed", "kind 5", bundle(statements=((5, PLAIN),))),
        ("bundle", "no-pair"): ("malformed", "a bare statement", bundle(statements=(PLAIN,))),
        ("bundle", "odd-record"): ("malformed", "a text", bundle(records=("record",))),
        ("bundle", "sixty-five"): ("malformed", "one too many", bundle(records=(b"",) * 65)),
        ("bundle", "trailing-byte"): ("malformed", "a byte after the end", bundle() + b"\x00"),
        ("ticket", "plain"): ("ok", "one root, one grant, one peer", ticket()),
        ("ticket", "version-2"): ("malformed", "another version", ticket(version=2)),
        ("ticket", "nine-peers"): ("malformed", "one too many", ticket(peers=("a:1",) * 9)),
        ("ticket", "peer-no-text"): ("malformed", "a peer that is a number", ticket(peers=(7,))),
        ("ticket", "operator-two"): (
            "malformed",
            "neither an operator nor none",
            ticket(operator=2),
        ),
        ("ticket", "seed-short"): ("malformed", "a seed of 31 bytes", ticket(seed=bytes(31))),
        ("ticket", "no-array"): ("malformed", "a map", cbor({1: 1})),
    }
    for (kind, name), (expect, comment, body) in table.items():
        yield Vector(name=name, kind=kind, expect=expect, comment=comment, body=body)
