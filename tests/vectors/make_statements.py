"""The vectors of revocations, heartbeats and brokers: one scenario a file, one failure each."""

import hashlib
from collections.abc import Iterator
from typing import Final

from tests.vectors.make_grants import PLAIN_PAYLOAD, grant, subject
from tests.vectors.vector import (
    BROKER,
    DOMAIN_ID,
    GRANT,
    HEARTBEAT,
    NOW,
    REVOKE,
    WEAK,
    Vector,
    payload_of,
    text_id,
)
from tests.vectors.wire import cbor, claims_of, envelope, public, short_hash


def _statement(label: str, signer: str, claims: dict[str, object], **changes: object) -> bytes:
    return envelope(label, signer, cbor(claims_of(claims, changes)))


REVOKE_CLAIMS: Final[dict[str, object]] = {
    "iss": public("issuer"),
    "target": public("subject"),
    "iat": NOW,
}
HEARTBEAT_CLAIMS: Final[dict[str, object]] = {
    "iss": public("heartbeat"),
    "domain": DOMAIN_ID,
    "version": 1,
    "epoch": NOW,
    "count": 0,
    "head": bytes(32),
    "iat": NOW,
    "exp": NOW + 60,
}
BROKER_CLAIMS: Final[dict[str, object]] = {
    "iss": public("server"),
    "domain": DOMAIN_ID,
    "broker_id": "site-a",
    "endpoints": ["broker.example:1883"],
    "prefixes": ["site/a/#"],
    "iat": NOW,
    "exp": NOW + 86_400,
}


def revoke(**changes: object) -> bytes:
    """Sign a revocation of a key."""
    return _statement(REVOKE, "issuer", REVOKE_CLAIMS, **changes)


def heartbeat(**changes: object) -> bytes:
    """Sign a heartbeat over an empty list."""
    return _statement(HEARTBEAT, "heartbeat", HEARTBEAT_CLAIMS, **changes)


def broker(**changes: object) -> bytes:
    """Sign a broker announcement."""
    return _statement(BROKER, "server", BROKER_CLAIMS, **changes)


def operators_grant(name: str) -> bytes:
    """Sign a grant of the power to revoke."""
    return grant(
        cnf=subject(name),
        scope=[["$authd/revoke", ["pub"]]],
        signer="authority",
        iss=public("authority"),
    )


def chain(ids: list[bytes]) -> bytes:
    """Compute h_n = SHA-256(h_{n-1} ‖ id), h_0 = 32 zero bytes."""
    value = bytes(32)
    for one in ids:
        value = hashlib.sha256(value + one).digest()
    return value


def statements() -> Iterator[Vector]:
    """Yield the other signed statements."""
    plain = short_hash(GRANT.encode(), PLAIN_PAYLOAD)
    by_operator = _statement(
        REVOKE,
        "operator",
        REVOKE_CLAIMS,
        iss=public("operator"),
        reason="lost",
        revoker_grant=operators_grant("operator"),
    )
    ids = [bytes([i]) * 16 for i in range(1, 19)]
    table: dict[tuple[str, str], tuple[str, str, bytes]] = {
        ("revoke", "key"): ("ok", "an issuer takes back what it gave a key", revoke()),
        ("revoke", "grant"): ("ok", "a grant by its id", revoke(target=plain)),
        ("revoke", "by-operator"): ("ok", "with the grant that allows it", by_operator),
        ("revoke", "odd-target"): ("malformed", "a target of 17 bytes", revoke(target=bytes(17))),
        ("revoke", "weak-target"): ("weak_key", "a small-order point", revoke(target=WEAK)),
        ("revoke", "reason-control"): ("malformed", "a line feed in it", revoke(reason="a\nb")),
        ("revoke", "expires"): ("malformed", "a revocation never expires", revoke(exp=NOW)),
        ("revoke", "grant-of-another"): (
            "malformed",
            "the revoker's grant names another key than the signer",
            revoke(revoker_grant=operators_grant("operator")),
        ),
        ("revoke", "signed-by-another"): (
            "bad_signature",
            "another key signed it",
            _statement(REVOKE, "mallory", REVOKE_CLAIMS),
        ),
        ("heartbeat", "empty"): ("ok", "no revocation is known", heartbeat()),
        ("heartbeat", "eighteen"): (
            "ok",
            "eighteen revocations, the last sixteen named",
            heartbeat(count=18, head=chain(ids), recent=ids[2:]),
        ),
        ("heartbeat", "new-epoch"): (
            "ok",
            "a list begun anew names how the one before ended",
            heartbeat(epoch=NOW, previous_list=[NOW - 9, 18, chain(ids)]),
        ),
        ("heartbeat", "previous-list-short-head"): (
            "malformed",
            "a head of 31 bytes",
            heartbeat(epoch=NOW, previous_list=[NOW - 9, 0, bytes(31)]),
        ),
        ("heartbeat", "previous-list-of-two"): (
            "malformed",
            "an epoch and a length, no head",
            heartbeat(epoch=NOW, previous_list=[NOW - 9, 0]),
        ),
        ("heartbeat", "previous-list-too-long"): (
            "malformed",
            "1 000 001 entries",
            heartbeat(epoch=NOW, previous_list=[NOW - 9, 1_000_001, bytes(32)]),
        ),
        ("heartbeat", "previous-list-bare-head"): (
            "malformed",
            "a head without epoch and length",
            heartbeat(epoch=NOW, previous_list=bytes(32)),
        ),
        ("heartbeat", "previous-list-not-before"): (
            "malformed",
            "begun in the same second",
            heartbeat(epoch=NOW, previous_list=[NOW, 0, bytes(32)]),
        ),
        ("heartbeat", "too-few-recent"): (
            "malformed",
            "one of the last two is missing",
            heartbeat(count=2, head=chain(ids[:2]), recent=ids[1:2]),
        ),
        ("heartbeat", "lives-too-long"): ("limit_exceeded", "61 s", heartbeat(exp=NOW + 61)),
        ("heartbeat", "short-head"): ("malformed", "31 bytes", heartbeat(head=bytes(31))),
        ("broker", "plain"): ("ok", "one endpoint, one prefix", broker()),
        ("broker", "tls-key"): ("ok", "its certificate's key", broker(tls_fingerprint=b"k" * 32)),
        ("broker", "tls-key-short"): (
            "malformed",
            "a key digest of 31 bytes",
            broker(tls_fingerprint=b"k" * 31),
        ),
        ("broker", "endpoints-unordered"): (
            "malformed",
            "two endpoints in descending order",
            broker(endpoints=["b:1", "a:1"]),
        ),
        ("broker", "expires-when-issued"): ("limit_exceeded", "a life of 0 s", broker(exp=NOW)),
    }
    for (kind, name), (expect, comment, body) in table.items():
        label = f"authd/{kind}/1".encode()
        more = {"id": text_id(short_hash(label, payload_of(body)))} if expect == "ok" else {}
        yield Vector(name=name, kind=kind, expect=expect, comment=comment, body=body, more=more)
