"""The vectors of proofs: one scenario a file, one failure each."""

from collections.abc import Iterator
from typing import Final

from tests.vectors.make_grants import grant, subject
from tests.vectors.vector import DOMAIN_ID, NOW, Vector, text_id
from tests.vectors.wire import cbor, public, short_hash, sign

ENDPOINT: Final = "broker.example:1883"
NONCE: Final = bytes(range(8))


def pop(
    *,
    signer: str = "device",
    form: int = 1,
    endpoint: str = ENDPOINT,
    domain: bytes = DOMAIN_ID,
    client_id: str = "kitchen",
    time: int = NOW,
    version: int = 1,
    hint: bytes = b"",
    stapled: list[bytes] | None = None,
) -> str:
    """Write the password of a CONNECT."""
    message = cbor(["authd/pop/1", form, domain, endpoint, client_id, time, NONCE])
    shown = bytes([version]) + time.to_bytes(5) + NONCE + hint + sign(signer, message)
    return text_id(shown) + ("" if stapled is None else f".{text_id(cbor(stapled))}")


def proofs() -> Iterator[Vector]:
    """Yield the proofs."""
    path = [grant(cnf=subject("device"))]
    table: dict[str, tuple[str, str, str]] = {
        "pop": ("ok", "a proof", pop()),
        "pop-hint": ("ok", "with the id of the issuer", pop(hint=bytes(16))),
        "pop-path": ("ok", "with a stapled grant", pop(form=2, stapled=path)),
        "early": ("ok", "60 s ahead", pop(time=NOW + 60)),
        "late": ("ok", "60 s behind", pop(time=NOW - 60)),
        "too-early": ("clock_skew", "61 s ahead", pop(time=NOW + 61)),
        "too-late": ("clock_skew", "61 s behind", pop(time=NOW - 61)),
        "other-key": ("bad_signature", "signed by another key", pop(signer="mallory")),
        "other-endpoint": (
            "bad_signature",
            "for another port",
            pop(endpoint="broker.example:8883"),
        ),
        "other-domain": ("bad_signature", "for another domain", pop(domain=bytes(16))),
        "other-client-id": ("bad_signature", "for another client id", pop(client_id="bath")),
        "path-cut-off": ("bad_signature", "the stapled grant was taken off", pop(form=2)),
        "path-put-on": ("bad_signature", "a grant was stapled on", pop(stapled=path)),
        "version-2": ("malformed", "another version", pop(version=2)),
        "empty-path": ("malformed", "no grant is stapled", pop(form=2, stapled=[])),
        "five-stapled": ("malformed", "one too many", pop(form=2, stapled=[b""] * 5)),
        "long-path": ("limit_exceeded", "2,049 bytes or more", pop(form=2, stapled=[bytes(2_048)])),
        "padded": ("malformed", "with padding", pop()[:-2] + "=="),
        "standard-alphabet": ("malformed", "`+` and `/`", "+/" + pop()[2:]),
        "cut": ("malformed", "103 characters", pop()[:-1]),
        "nul": ("malformed", "a NUL inside", "\x00" + pop()[1:]),
        "unused-bits": ("malformed", "bits set that no byte needs", pop(hint=bytes(16))[:-1] + "_"),
    }
    for name, (expect, comment, password) in table.items():
        yield Vector(
            name=name,
            kind="proof",
            expect=expect,
            comment=comment,
            body=password.encode(),
            more={
                "username": text_id(short_hash(b"authd/id/v1", public("device"))),
                "client-id": "kitchen",
                "audience": f"{text_id(DOMAIN_ID)}/{ENDPOINT}",
                "key": public("device").hex(),
                "now": str(NOW),
            },
        )
