"""Statements, roots and records as targets."""

from random import Random
from typing import Any

from authd.core import limits
from authd.core.claims import LABELS, Claim, Kind
from authd.core.encoding import decode, encode
from authd.core.envelope import parse_envelope, seal_envelope, signing_bytes
from authd.core.grants import ClientIdMatch, ClientIdRule, DomainSubject
from authd.core.records import (
    RecordKind,
    encode_record,
    make_record,
    record_salt,
    record_signing_bytes,
    seal,
    unseal,
    verify_record,
)
from authd.core.roots import parse_root, verify_root
from authd.core.statements import verify
from authd.errors import (
    StaleRecordError,
    WeakKeyError,
)
from tests.bench.fuzz_inputs import damaged, encoded, odd_value
from tests.bench.fuzz_target import KEY, PARSED, ROOT, VERIFIED, Target, vectors_of
from tests.unit.core.test_revocations import IDS, beat
from tests.unit.core.test_statements import BROKER
from tests.unit.core.world import (
    NOW,
    key,
    make_grant,
    make_revoke,
    scope,
)


def _statement(kind: Kind, *seeds: bytes) -> Target:
    def resealed(rng: Random, seed: bytes) -> bytes:
        envelope = parse_envelope(LABELS[kind], seed, max_bytes=limits.MAX_STATEMENT_BYTES)
        claims = decode(envelope.payload, max_bytes=limits.MAX_STATEMENT_BYTES)
        changed = odd_value(rng, claims)
        if isinstance(changed, dict) and rng.random() < 0.95:
            changed[int(Claim.ISS)] = KEY.public
        return seal_envelope(LABELS[kind], encoded(changed), KEY)

    return Target(
        name=kind.name.lower(),
        decode=lambda data: verify(kind, data),
        refusals=VERIFIED,
        seeds=[*seeds, *vectors_of(kind.name.lower())],
        resealed=lambda rng, _: resealed(rng, rng.choice(seeds)),
        again=lambda statement: bytes(statement.encoded),
    )


def statements() -> list[Target]:
    rich = make_grant(
        "X",
        "lamp",
        scope("a/#", "b/+"),
        depth=2,
        audiences=["a/b:1"],
        client_id=ClientIdRule(ClientIdMatch.PREFIX, "lamp-"),
        replaces=key("old").public,
    )
    foreign = make_grant("X", "lamp", scope("a"), to=DomainSubject(ROOT.domain), depth=1)
    revoker = make_grant("Y", "X", scope("$authd/revoke"))
    revokes = [make_revoke("X", "lamp"), make_revoke("X", "lamp", revoker_grant=revoker)]
    return [
        _statement(Kind.GRANT, rich.encoded, foreign.encoded),
        _statement(Kind.REVOKE, *(one.encoded for one in revokes)),
        _statement(Kind.HEARTBEAT, beat(ids=IDS[:3]).encoded),
        _statement(Kind.BROKER, BROKER.encoded),
    ]


def roots() -> list[Target]:
    previous, signer = ROOT, key("own root")

    def resealed(rng: Random, _: bytes) -> bytes:
        claims: Any = decode(previous.payload, max_bytes=limits.MAX_ROOT_BYTES)
        if rng.random() < 0.5:
            claims |= {int(Claim.VERSION): 2, int(Claim.PREVIOUS): previous.statement_id}
        payload = encoded(odd_value(rng, claims))
        signature = signer.sign(signing_bytes(LABELS[Kind.ROOT], payload))
        entry: Any = [1, 0, signature]
        return encoded([payload, [entry if rng.random() < 0.8 else odd_value(rng, entry)]])

    def both(data: bytes) -> object:
        version = parse_root(data).claims.version
        return verify_root(data, previous=previous if version > 1 else None, now=NOW)

    seeds = [previous.encoded, *vectors_of("root")]
    return [
        Target(
            name="root",
            decode=both,
            refusals=(*VERIFIED, StaleRecordError),
            seeds=seeds,
            resealed=resealed,
        ),
        Target(
            name="root, unverified",
            decode=parse_root,
            refusals=(*PARSED, WeakKeyError),
            seeds=seeds,
            resealed=resealed,
        ),
    ]


def records() -> list[Target]:
    issuer, subject = KEY.public, bytes(16)
    content = encode([make_grant("X", "lamp").encoded])
    salt = record_salt(RecordKind.GRANTS, issuer)
    record = make_record(KEY, salt=salt, seq=NOW * 10**6, content=content, expires_at=NOW + 60)

    def resealed(rng: Random, _: bytes) -> bytes:
        value = encoded(odd_value(rng, decode(record.value, max_bytes=2_000)))
        salt, seq = record.salt, record.seq + rng.choice((0, -1, 3_700_000_000))
        signature = KEY.sign(record_signing_bytes(salt, seq, value))
        items = [issuer, salt, seq, value, signature]
        return encoded(items if rng.random() < 0.7 else odd_value(rng, items))

    return [
        Target(
            name="record",
            decode=lambda data: verify_record(data, now=NOW),
            refusals=(*VERIFIED, StaleRecordError),
            seeds=[encode_record(record), *vectors_of("record")],
            resealed=resealed,
            again=encode_record,
        ),
        Target(
            name="sealed content",
            decode=lambda data: unseal(data, issuer=issuer, subject_id=subject),
            refusals=PARSED,
            seeds=[seal(content, issuer=issuer, subject_id=subject), record.value],
            resealed=lambda rng, _: seal(
                damaged(rng, content, [content]), issuer=issuer, subject_id=subject
            ),
        ),
    ]
