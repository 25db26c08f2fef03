"""The vectors of proofs: one scenario a file, one failure each."""

from collections.abc import Iterator
from typing import Final

from tests.vectors.make_grants import grant, subject
from tests.vectors.vector import DOMAIN_ID, NOW, Vector, text_id
from tests.vectors.wire import cbor, public, short_hash, sign

ENDPOINT: Final = "broker.example:1883"
NONCE: Final = bytes(range(8))
DEVICE_ID: Final = short_hash(b"authd/id/v1", public("device"))


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


def counter(
    *,
    signer: str = "device",
    form: int = 4,
    endpoint: str = ENDPOINT,
    client_id: str = "kitchen",
    count: int = 7,
    version: int = 2,
    hint: bytes = b"",
) -> bytes:
    """Write the password of a CONNECT without a clock."""
    message = cbor(["authd/pop/1", form, DOMAIN_ID, endpoint, client_id, count])
    shown = bytes([version]) + count.to_bytes(8) + hint + sign(signer, message)
    return text_id(shown).encode()


def single(*, signer: str = "device", form: int = 3, time: int = NOW, hint: bytes = b"") -> bytes:
    """Write the AUTH data of a single step."""
    message = cbor(["authd/pop/1", form, DOMAIN_ID, ENDPOINT, "kitchen", time, NONCE])
    return b"\x01" + DEVICE_ID + time.to_bytes(5) + NONCE + hint + sign(signer, message)


def response(
    *,
    signer: str = "device",
    label: str = "authd/challenge/1",
    client_id: str = "kitchen",
    client_nonce: bytes = bytes(16),
    server_nonce: bytes = bytes(range(16)),
) -> bytes:
    """Write the response to the challenge of 16 ascending bytes, after a nonce of 16 zeros."""
    message = cbor([label, DOMAIN_ID, ENDPOINT, client_id, client_nonce, server_nonce])
    return b"\x04" + sign(signer, message)


HELLO: Final = b"\x02" + DEVICE_ID + bytes(16)


def counters_and_challenges() -> Iterator[Vector]:
    """Yield the proofs of the forms without a password's clock."""
    table: dict[tuple[str, str], tuple[str, str, bytes]] = {
        ("counter", "plain"): ("ok", "a counter of 7", counter()),
        ("counter", "hint"): ("ok", "with the id of the issuer", counter(hint=bytes(16))),
        ("counter", "highest"): ("ok", "the highest counter", counter(count=2**63 - 1)),
        ("counter", "too-high"): ("malformed", "one more than that", counter(count=2**63)),
        ("counter", "version-1"): ("malformed", "the version of a pop", counter(version=1)),
        ("counter", "form-of-pop"): ("bad_signature", "signed as a pop", counter(form=1)),
        ("counter", "other-key"): ("bad_signature", "another signer", counter(signer="mallory")),
        ("counter", "other-endpoint"): (
            "bad_signature",
            "for another port",
            counter(endpoint="broker.example:8883"),
        ),
        ("counter", "other-client-id"): (
            "bad_signature",
            "for another client id",
            counter(client_id="bath"),
        ),
        ("counter", "cut"): ("malformed", "97 characters", counter()[:-1]),
        ("counter", "stapled"): (
            "malformed",
            "no path is stapled to a counter",
            counter() + b".gA",
        ),
        ("single", "plain"): ("ok", "a single step", single()),
        ("single", "hint"): ("ok", "with the id of the issuer", single(hint=bytes(16))),
        ("single", "form-of-pop"): ("bad_signature", "signed as a pop", single(form=1)),
        ("single", "other-key"): ("bad_signature", "another signer", single(signer="mallory")),
        ("single", "too-late"): ("clock_skew", "61 s behind", single(time=NOW - 61)),
        ("single", "cut"): ("malformed", "one byte short", single()[:-1]),
        ("single", "empty"): ("malformed", "no AUTH data", b""),
        ("single", "hello-cut"): ("malformed", "a hello, one byte short", HELLO[:-1]),
        ("response", "plain"): ("ok", "the response to a challenge", response()),
        ("response", "other-key"): ("bad_signature", "another signer", response(signer="mallory")),
        ("response", "other-label"): (
            "bad_signature",
            "signed as a pop",
            response(label="authd/pop/1"),
        ),
        ("response", "other-client-id"): (
            "bad_signature",
            "for another client id",
            response(client_id="bath"),
        ),
        ("response", "other-client-nonce"): (
            "bad_signature",
            "to another hello",
            response(client_nonce=bytes(15) + b"\x01"),
        ),
        ("response", "other-server-nonce"): (
            "bad_signature",
            "to another challenge",
            response(server_nonce=bytes(16)),
        ),
        ("response", "cut"): ("malformed", "one byte short", response()[:-1]),
        ("response", "a-hello"): ("malformed", "a hello where a response is due", HELLO),
    }
    for (kind, name), (expect, comment, body) in table.items():
        exchange = {"hello": HELLO.hex(), "challenge": (b"\x03" + bytes(range(16))).hex()}
        yield Vector(
            name=name,
            kind=kind,
            expect=expect,
            comment=comment,
            body=body,
            more={**_context(), **(exchange if kind == "response" else {})},
        )


def _context() -> dict[str, str]:
    return {
        "username": text_id(DEVICE_ID),
        "client-id": "kitchen",
        "audience": f"{text_id(DOMAIN_ID)}/{ENDPOINT}",
        "key": public("device").hex(),
        "now": str(NOW),
    }


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
            more=_context(),
        )
    yield from counters_and_challenges()
