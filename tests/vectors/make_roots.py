"""The vectors of roots: one scenario a file, one failure each."""

from collections.abc import Iterator
from typing import Final

from tests.vectors.vector import NOW, ROOT, WEAK, Vector, text_id
from tests.vectors.wire import cbor, claims_of, public, short_hash, sign, to_sign


def root_payload(**changes: object) -> bytes:
    """Encode the claims of version 1: three root keys of which two must sign."""
    plain: dict[str, object] = {
        "version": 1,
        "root_keys": [public("r1"), public("r2"), public("r3")],
        "threshold": 2,
        "authorities": [[public("authority"), [["#", ["pub", "serve", "sub"]]], 4, NOW + 86_400]],
        "heartbeat_keys": [public("heartbeat")],
        "publisher": public("publisher"),
        "next_publisher": public("publisher"),
        "exp": NOW + 86_400,
    }
    return cbor(claims_of(plain, changes))


def root(payload: bytes, *signatures: tuple[int, int, str]) -> bytes:
    """Sign a root: which list, which place in it, whose key."""
    message = to_sign(ROOT, payload)
    return cbor([payload, [[where, place, sign(by, message)] for where, place, by in signatures]])


FIRST: Final = root_payload()
FIRST_ID: Final = short_hash(ROOT.encode(), FIRST)
BY_TWO: Final = ((1, 0, "r1"), (1, 2, "r3"))
# r1 leaves and n1 comes: r2 and r3 stand in both lists and sign once, indexed in the new.
SECOND: Final = root_payload(
    version=2, previous=FIRST_ID, root_keys=[public("n1"), public("r2"), public("r3")]
)


def roots() -> Iterator[Vector]:
    """Yield the roots."""
    previous = {"previous": root(FIRST, *BY_TWO).hex()}
    table: dict[str, tuple[str, str, bytes, dict[str, str]]] = {
        "first": ("ok", "version 1 by two of three keys", root(FIRST, *BY_TWO), {}),
        "second": (
            "ok",
            "version 2: two keys of both lists sign once and count for both",
            root(SECOND, (1, 1, "r2"), (1, 2, "r3")),
            previous,
        ),
        "second-with-leaver": (
            "ok",
            "version 2: one key of the old list alone, one of both, one of the new alone",
            root(SECOND, (0, 0, "r1"), (1, 0, "n1"), (1, 1, "r2")),
            previous,
        ),
        "one-signature": ("bad_signature", "one of two", root(FIRST, (1, 0, "r1")), {}),
        "same-key-twice": (
            "malformed",
            "one signature twice",
            root(FIRST, (1, 0, "r1"), (1, 0, "r1")),
            {},
        ),
        "wrong-place": (
            "bad_signature",
            "a signature under another key's index",
            root(FIRST, (1, 0, "r1"), (1, 1, "r3")),
            {},
        ),
        "unordered": (
            "malformed",
            "signatures in descending order",
            root(FIRST, (1, 2, "r3"), (1, 0, "r1")),
            {},
        ),
        "new-keys-alone": (
            "bad_signature",
            "version 2 without the old threshold",
            root(SECOND, (1, 0, "n1"), (1, 1, "r2")),
            previous,
        ),
        "old-keys-alone": (
            "bad_signature",
            "version 2 without the new threshold",
            root(SECOND, (0, 0, "r1"), (1, 1, "r2")),
            previous,
        ),
        "as-old-key": (
            "bad_signature",
            "a key of both lists is indexed in the old one",
            root(SECOND, (0, 1, "r2"), (1, 2, "r3")),
            previous,
        ),
        "skipped": (
            "stale_record",
            "version 3 after version 1",
            root(root_payload(version=3, previous=FIRST_ID), *BY_TWO),
            previous,
        ),
        "other-previous": (
            "stale_record",
            "version 2 of another version 1",
            root(root_payload(version=2, previous=bytes(16)), *BY_TWO),
            previous,
        ),
        "lives-eleven-years": (
            "ok",
            "the longest life: 11 times 366 days",
            root(root_payload(exp=NOW + 11 * 366 * 86_400), *BY_TWO),
            {"now": str(NOW)},
        ),
        "lives-too-long": (
            "limit_exceeded",
            "one second more than 11 times 366 days",
            root(root_payload(exp=NOW + 11 * 366 * 86_400 + 1), *BY_TWO),
            {"now": str(NOW)},
        ),
        "threshold-too-high": (
            "malformed",
            "four of three",
            root(root_payload(threshold=4), *BY_TWO),
            {},
        ),
        "two-heartbeat-keys": (
            "malformed",
            "an even number of heartbeat keys",
            root(root_payload(heartbeat_keys=[public("h1"), public("h2")]), *BY_TWO),
            {},
        ),
        "root-key-as-publisher": (
            "malformed",
            "a root key has another part as well",
            root(root_payload(publisher=public("r2")), *BY_TWO),
            {},
        ),
        "weak-root-key": (
            "weak_key",
            "one root key is a point of small order",
            root(root_payload(root_keys=[public("r1"), WEAK, public("r3")]), *BY_TWO),
            {},
        ),
    }
    for name, (expect, comment, body, more) in table.items():
        found = {"id": text_id(short_hash(ROOT.encode(), _root_payload_of(body)))}
        yield Vector(
            name=name,
            kind="root",
            expect=expect,
            comment=comment,
            body=body,
            more=({**found, **more} if expect == "ok" else more),
        )


def _root_payload_of(body: bytes) -> bytes:
    # [payload, [...]]: every payload here is 256 bytes or longer, so its length takes two bytes.
    return body[4 : 4 + int.from_bytes(body[2:4], "big")]
