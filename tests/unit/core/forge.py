"""Statements that are signed well and say something odd."""

from typing import Final

from authd.core.claims import LABELS, Claim, Kind
from authd.core.encoding import CborValue, decode, encode
from authd.core.envelope import seal_envelope
from authd.core.identity import SigningKey

DROP: Final = object()


def payload_of(encoded: bytes) -> dict[int, CborValue]:
    """Return the claims of a statement in an envelope."""
    parts = decode(encoded, max_bytes=5_000)
    assert isinstance(parts, list)
    assert isinstance(parts[2], bytes)
    claims = decode(parts[2], max_bytes=5_000)
    assert isinstance(claims, dict)
    return claims


def forge(kind: Kind, signer: SigningKey, encoded: bytes, **changes: object) -> bytes:
    """Sign a statement anew with some claims set, or left out with `DROP`."""
    claims: dict[int, object] = dict(payload_of(encoded))
    for name, value in changes.items():
        claim = Claim[name.upper()]
        if value is DROP:
            claims.pop(claim, None)
        else:
            claims[claim] = value
    return forge_payload(kind, signer, claims)


def forge_payload(kind: Kind, signer: SigningKey, payload: object) -> bytes:
    """Sign any payload as a kind."""
    return seal_envelope(LABELS[kind], encode(payload), signer)  # type: ignore[arg-type]  # odd on purpose
