"""An encoder of its own for the vectors: it shares no code with what the vectors judge.

It writes whatever it is told to, canonical or not: a `Raw` goes out as it is, and maps keep the
order they are given in.
"""

import hashlib
from dataclasses import dataclass

from nacl.signing import SigningKey

PROTECTED = bytes.fromhex("a10127")
# The claim keys by name: those of CWT, then the private ones, in order.
CLAIMS = {"iss": 1, "sub": 2, "aud": 3, "exp": 4, "iat": 6, "cnf": 8, "scope": 9}
CLAIMS |= {
    name: -65537 - place
    for place, name in enumerate(
        (
            "depth",
            "client_id",
            "forms",
            "replaces",
            "target",
            "reason",
            "revoker_grant",
            "domain",
            "version",
            "epoch",
            "count",
            "head",
            "recent",
            "previous",
            "root_keys",
            "threshold",
            "authorities",
            "heartbeat_keys",
            "publisher",
            "next_publisher",
            "reset",
            "broker_id",
            "endpoints",
            "tls_fingerprint",
            "prefixes",
            "previous_list",
        ),
    )
}


@dataclass(frozen=True)
class Raw:
    """Bytes that go out as they are."""

    data: bytes


def head(major: int, argument: int, *, width: int | None = None) -> bytes:
    """Write a CBOR head (RFC 8949 §3); in its shortest form unless a width is given."""
    if width is None:
        if argument < 24:
            return bytes([major << 5 | argument])
        width = next(one for one in (1, 2, 4, 8) if argument < 1 << 8 * one)
    return bytes([major << 5 | {1: 24, 2: 25, 4: 26, 8: 27}[width]]) + argument.to_bytes(width)


def cbor(value: object) -> bytes:
    """Encode integers, bytes, text, lists and dicts; the caller orders the keys of dicts."""
    match value:
        case Raw(data):
            return data
        case int():
            return head(0, value) if value >= 0 else head(1, -1 - value)
        case bytes():
            return head(2, len(value)) + value
        case str():
            return head(3, len(value.encode())) + value.encode()
        case list() | tuple():
            return head(4, len(value)) + b"".join(map(cbor, value))
        case dict():
            pairs = b"".join(cbor(key) + cbor(item) for key, item in value.items())
            return head(5, len(value)) + pairs
        case _:
            raise TypeError(type(value))


def ordered(claims: dict[int, object]) -> dict[int, object]:
    """Order the keys as RFC 8949 §4.2.1 asks: by their encoded bytes."""
    return dict(sorted(claims.items(), key=lambda pair: cbor(pair[0])))


def claims_of(*layers: dict[str, object]) -> dict[int, object]:
    """Return claims by number, in canonical order; later layers win, a None takes one out."""
    named = {name: value for layer in layers for name, value in layer.items()}
    return ordered({CLAIMS[name]: value for name, value in named.items() if value is not None})


def key(name: str) -> SigningKey:
    """Return the key of a name, the same in every run."""
    return SigningKey(hashlib.sha256(b"authd vector key " + name.encode()).digest())


def public(name: str) -> bytes:
    """Return the public key of a name."""
    return bytes(key(name).verify_key)


def to_sign(label: str, payload: bytes) -> bytes:
    """Write the Sig_structure of COSE_Sign1 (RFC 9052 §4.4)."""
    return cbor(["Signature1", PROTECTED, label.encode(), payload])


def sign(name: str, message: bytes) -> bytes:
    """Sign with the key of a name."""
    return bytes(key(name).sign(message).signature)


def envelope(label: str, signer: str, payload: bytes) -> bytes:
    """Wrap and sign a payload."""
    return cbor([PROTECTED, {}, payload, sign(signer, to_sign(label, payload))])


def short_hash(*parts: bytes) -> bytes:
    """Return the first 16 bytes of SHA-256 over the parts."""
    return hashlib.sha256(b"".join(parts)).digest()[:16]
