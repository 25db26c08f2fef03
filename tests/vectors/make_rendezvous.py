"""The vectors of rendezvous records: what a node says about where its gossip listens."""

import hashlib
from collections.abc import Iterator
from typing import Final

from tests.vectors.make_records import SEQ, record
from tests.vectors.vector import DOMAIN_ID, NOW, Vector
from tests.vectors.wire import cbor, public

SLOT: Final = hashlib.sha256(public("issuer")).digest()[0] % 64
LIFE_S: Final = 3_600


def salt(*, domain: bytes = DOMAIN_ID, slot: int = SLOT, kind: str = "rendezvous") -> bytes:
    """Compute the salt of the node's record."""
    parts = cbor([kind, public("issuer"), domain, bytes([slot])])
    return hashlib.sha256(b"authd/salt/1" + parts).digest()[:20]


def rendezvous(
    addresses: object,
    *,
    at: bytes | None = None,
    expires_at: int = NOW + LIFE_S,
    seq: int = SEQ,
) -> bytes:
    """Sign a record that names addresses."""
    value = cbor([expires_at, cbor(addresses)])
    return record(salt=salt() if at is None else at, value=value, seq=seq)


def rendezvous_records() -> Iterator[Vector]:
    """Yield the rendezvous records."""
    one = ["192.0.2.1:8184"]
    table: dict[str, tuple[str, str, bytes]] = {
        "plain": ("ok", "one address, for an hour", rendezvous(one)),
        "four": (
            "ok",
            "the most addresses there may be",
            rendezvous([*one, "[2001:db8::1]:8184", "a.example:1", "b.example:65535"]),
        ),
        "none": ("malformed", "no address", rendezvous([])),
        "five": ("malformed", "an address too many", rendezvous(one * 5)),
        "no-list": ("malformed", "an address that is in no list", rendezvous(one[0])),
        "bytes": ("malformed", "an address that is no text", rendezvous([one[0].encode()])),
        "no-port": ("malformed", "a host alone", rendezvous(["192.0.2.1"])),
        "scheme": ("malformed", "an address with a scheme", rendezvous(["unix:///run/x:1"])),
        "another-slot": (
            "malformed",
            "the slot after its own",
            rendezvous(one, at=salt(slot=SLOT + 1)),
        ),
        "another-domain": (
            "malformed",
            "of another domain",
            rendezvous(one, at=salt(domain=bytes(16))),
        ),
        "another-kind": (
            "malformed",
            "under another kind",
            rendezvous(one, at=salt(kind="broker")),
        ),
        "a-second-more": (
            "limit_exceeded",
            "a life of an hour and a second",
            rendezvous(one, expires_at=NOW + LIFE_S + 1),
        ),
        "dead": ("stale_record", "at its end of life", rendezvous(one, expires_at=NOW)),
    }
    for name, (expect, comment, body) in table.items():
        yield Vector(
            name=name,
            kind="rendezvous",
            expect=expect,
            comment=comment,
            body=body,
            more={"now": str(NOW), "domain": DOMAIN_ID.hex()},
        )
