"""The vectors of grants: one scenario a file, one failure each."""

from collections.abc import Iterator
from typing import Final

from tests.vectors.vector import DOMAIN_ID, GRANT, NOW, REVOKE, WEAK, Vector, payload_of, text_id
from tests.vectors.wire import (
    CLAIMS,
    PROTECTED,
    Raw,
    cbor,
    claims_of,
    envelope,
    head,
    ordered,
    public,
    short_hash,
)


def subject(name: str) -> dict[int, object]:
    """Write the claim `cnf` for a key."""
    return {1: {1: 1, -1: 6, -2: public(name)}}


# SHA-256 of a SubjectPublicKeyInfo; any 32 bytes will do.
TLS_KEY: Final[dict[int, object]] = {-65537: bytes(range(32))}


def grant_claims(**changes: object) -> dict[int, object]:
    """Return the claims of a plain grant, some changed; a None takes one out."""
    plain: dict[str, object] = {
        "iss": public("issuer"),
        "cnf": subject("subject"),
        "scope": [["home/kitchen/#", ["pub", "sub"]]],
        "iat": NOW,
        "exp": NOW + 90 * 86_400,
    }
    return claims_of(plain, changes)


def grant(*, signer: str = "issuer", label: str = GRANT, **changes: object) -> bytes:
    """Sign a grant."""
    return envelope(label, signer, cbor(grant_claims(**changes)))


PLAIN: Final = grant()
PLAIN_PAYLOAD: Final = cbor(grant_claims())
PLAIN_SIGNATURE: Final = PLAIN[-64:]
FULL: Final = grant(
    depth=2,
    client_id=[1, "kitchen-"],
    forms=[1, 2],
    aud=[f"{text_id(DOMAIN_ID)}/broker.example:1883"],
    replaces=public("former"),
)


def _grant_ok(name: str, comment: str, body: bytes) -> Vector:
    payload = payload_of(body)
    more = {"id": text_id(short_hash(GRANT.encode(), payload))}
    return Vector(name=name, kind="grant", expect="ok", comment=comment, body=body, more=more)


def _wrapped(*parts: object) -> bytes:
    return cbor(list(parts))


def grants() -> Iterator[Vector]:
    """Yield the grants."""
    yield _grant_ok("plain", "issuer, subject, scope and times, nothing else", PLAIN)
    yield _grant_ok("full", "every optional claim", FULL)
    yield _grant_ok(
        "to-domain",
        "the subject is a domain",
        grant(cnf=None, sub=DOMAIN_ID, depth=1),
    )
    yield _grant_ok(
        "password",
        "the form `password`, with an audience",
        grant(forms=[5], aud=["x/broker:1883"]),
    )
    yield _grant_ok("tls", "the subject is a TLS key", grant(cnf=TLS_KEY, forms=[6]))
    odd: dict[str, tuple[str, str, bytes]] = {
        "tls-with-depth": (
            "malformed",
            "a TLS key that may delegate",
            grant(cnf=TLS_KEY, forms=[6], depth=1),
        ),
        "tls-with-pop": (
            "malformed",
            "a TLS key with another form",
            grant(cnf=TLS_KEY, forms=[1, 6]),
        ),
        "tls-default-forms": ("malformed", "a TLS key without forms", grant(cnf=TLS_KEY)),
        "tls-short": (
            "malformed",
            "a digest of 31 bytes",
            grant(cnf={-65537: bytes(31)}, forms=[6]),
        ),
        "tls-and-key": (
            "malformed",
            "a key and a TLS key",
            grant(cnf={**subject("device"), **TLS_KEY}, forms=[6]),
        ),
        "signed-by-another": (
            "bad_signature",
            "another key signed it than the issuer it names",
            grant(signer="mallory"),
        ),
        "signed-as-revoke": (
            "bad_signature",
            "the signature is over another kind's label",
            grant(label=REVOKE),
        ),
        "signature-changed": (
            "bad_signature",
            "the last bit of the signature is flipped",
            PLAIN[:-1] + bytes([PLAIN[-1] ^ 1]),
        ),
        "tagged": ("malformed", "a tagged COSE_Sign1", b"\xd2" + PLAIN),
        "trailing-byte": ("malformed", "a byte after the end", PLAIN + b"\x00"),
        "cut": ("malformed", "the last byte is missing", PLAIN[:-1]),
        "unprotected-header": (
            "malformed",
            "a key id in the unprotected header",
            _wrapped(PROTECTED, {4: b"kid"}, PLAIN_PAYLOAD, PLAIN_SIGNATURE),
        ),
        "other-algorithm": (
            "malformed",
            "the protected header says ES256",
            _wrapped(bytes.fromhex("a10126"), {}, PLAIN_PAYLOAD, PLAIN_SIGNATURE),
        ),
        "long-array-head": (
            "malformed",
            "the envelope's array length takes two bytes",
            head(4, 4, width=1) + PLAIN[1:],
        ),
        "indefinite-array": (
            "malformed",
            "the envelope is an array of indefinite length",
            b"\x9f" + PLAIN[1:] + b"\xff",
        ),
        "short-signature": (
            "malformed",
            "a signature of 63 bytes",
            _wrapped(PROTECTED, {}, PLAIN_PAYLOAD, PLAIN_SIGNATURE[:63]),
        ),
        "weak-issuer": ("weak_key", "the issuer is a point of small order", grant(iss=WEAK)),
        "weak-subject": (
            "weak_key",
            "the subject is a point of small order",
            grant(cnf={1: {1: 1, -1: 6, -2: WEAK}}),
        ),
        "no-issuer": ("malformed", "no issuer", grant(iss=None)),
        "no-subject": ("malformed", "no subject", grant(cnf=None)),
        "two-subjects": ("malformed", "a key and a domain as subject", grant(sub=DOMAIN_ID)),
        "to-itself": ("malformed", "issuer and subject are one key", grant(cnf=subject("issuer"))),
        "no-expiry": ("malformed", "no expiry", grant(exp=None)),
        "expires-when-issued": ("limit_exceeded", "a life of 0 s", grant(exp=NOW)),
        "lives-too-long": (
            "limit_exceeded",
            "a life of 400 days and a second",
            grant(exp=NOW + 400 * 86_400 + 1),
        ),
        "too-long": (
            "limit_exceeded",
            "601 bytes or more",
            grant(scope=[[f"{i}/{'x' * 60}", ["pub"]] for i in range(8)]),
        ),
        "no-scope": ("malformed", "an empty scope", grant(scope=[])),
        "scope-descending": (
            "malformed",
            "filters in descending order",
            grant(scope=[["b", ["pub"]], ["a", ["pub"]]]),
        ),
        "scope-twice": (
            "malformed",
            "one filter twice",
            grant(scope=[["a", ["pub"]], ["a", ["sub"]]]),
        ),
        "scope-share": (
            "malformed",
            "a shared subscription is granted",
            grant(scope=[["$share/g/a", ["sub"]]]),
        ),
        "scope-odd-filter": ("malformed", "`#` before the end", grant(scope=[["#/a", ["pub"]]])),
        "scope-odd-action": ("malformed", "an unknown action", grant(scope=[["a", ["read"]]])),
        "seventeen-filters": (
            "malformed",
            "one filter more than allowed",
            grant(scope=[[f"{i:02}", ["pub"]] for i in range(17)]),
        ),
        "depth-nine": ("malformed", "a depth above 8", grant(depth=9)),
        "depth-negative": ("malformed", "a negative depth", grant(depth=-1)),
        "client-id-prefix": (
            "malformed",
            "a prefix that does not end in one of `-_.:`",
            grant(client_id=[1, "kitchen"]),
        ),
        "client-id-wildcard": ("malformed", "a client id with `+`", grant(client_id=[0, "a+"])),
        "forms-unknown": ("malformed", "a form that nobody knows", grant(forms=[7])),
        "forms-empty": ("malformed", "an empty list of forms", grant(forms=[])),
        "password-and-pop": (
            "malformed",
            "`password` beside another form",
            grant(forms=[1, 5], aud=["x/broker:1883"]),
        ),
        "password-everywhere": ("malformed", "`password` without an audience", grant(forms=[5])),
        "password-with-depth": (
            "malformed",
            "`password` with a depth",
            grant(forms=[5], aud=["x/broker:1883"], depth=1),
        ),
        "audience-odd": ("malformed", "an audience without a slash", grant(aud=["broker:1883"])),
        "unknown-claim": (
            "malformed",
            "a claim that this version does not know: it might restrict",
            envelope(GRANT, "issuer", cbor(ordered({**grant_claims(), -70_000: 1}))),
        ),
        "claims-unordered": (
            "malformed",
            "the claims are not in canonical order",
            envelope(GRANT, "issuer", cbor(dict(reversed(grant_claims().items())))),
        ),
        "claim-twice": (
            "malformed",
            "the claim `exp` stands twice",
            envelope(GRANT, "issuer", _with_expiry_twice()),
        ),
        "long-integer": (
            "malformed",
            "a time that is not in its shortest form",
            grant(iat=Raw(head(0, NOW, width=8))),
        ),
        "float-time": ("malformed", "a time as a float", grant(iat=Raw(b"\xfa\x4e\xd6\x93\xa4"))),
        "payload-no-map": (
            "malformed",
            "the payload is an array",
            envelope(GRANT, "issuer", cbor([public("issuer")])),
        ),
    }
    for name, (expect, comment, body) in odd.items():
        yield Vector(name=name, kind="grant", expect=expect, comment=comment, body=body)


def _with_expiry_twice() -> bytes:
    claims = grant_claims()
    pairs = [cbor(name) + cbor(value) for name, value in claims.items()]
    place = list(claims).index(CLAIMS["exp"])
    return head(5, len(pairs) + 1) + b"".join([*pairs[:place], pairs[place], *pairs[place:]])
