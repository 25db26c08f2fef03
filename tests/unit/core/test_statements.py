"""Revocations, heartbeats, brokers: claim by claim."""

import pytest

from authd.core import limits
from authd.core.claims import Kind
from authd.core.identity import DomainId, StatementId
from authd.core.revocations import EMPTY_HEAD
from authd.core.statements import (
    Heartbeat,
    ListEnd,
    kind_of,
    recall,
    sign_broker,
    sign_heartbeat,
    verify,
    verify_broker,
    verify_heartbeat,
    verify_revoke,
)
from authd.core.topics import POWER_REVOKE, Action, make_scope
from authd.errors import AuthdError, FormatError, LimitError, SignatureError, WeakKeyError
from tests.unit.core.forge import DROP, forge, forge_payload, payload_of
from tests.unit.core.world import (
    NOW,
    authority,
    flipped,
    key,
    make_grant,
    make_revoke,
    make_root,
    scope,
)

NEUTRAL = (1).to_bytes(32, "little")
DOMAIN = DomainId(bytes(16))
REVOKE = make_revoke("issuer", "target")
HEARTBEAT = sign_heartbeat(
    key("beat"),
    domain=DOMAIN,
    root_version=1,
    epoch=NOW,
    count=0,
    head=EMPTY_HEAD,
    recent=(),
    issued_at=NOW,
)
BROKER = sign_broker(
    key("server"),
    domain=DOMAIN,
    broker_id="site-a",
    endpoints=["b:1883", "a:1883"],
    prefixes=["site/a/#"],
    issued_at=NOW,
    expires_at=NOW + 1,
)
EACH = [
    (Kind.REVOKE, REVOKE, "issuer"),
    (Kind.HEARTBEAT, HEARTBEAT, "beat"),
    (Kind.BROKER, BROKER, "server"),
    (Kind.GRANT, make_grant("issuer", "subject"), "issuer"),
]


@pytest.mark.parametrize(("kind", "statement", "signer"), EACH)
def test_each_kind_is_read_as_it_was_made(kind: Kind, statement: Heartbeat, signer: str) -> None:
    assert verify(kind, statement.encoded) == statement
    assert kind_of(statement) is kind
    assert statement.issuer == key(signer).public


@pytest.mark.parametrize(("kind", "statement", "signer"), EACH)
def test_no_kind_passes_for_another(kind: Kind, statement: Heartbeat, signer: str) -> None:
    for other in set(Kind) - {kind}:
        with pytest.raises(AuthdError):
            verify(other, statement.encoded)


@pytest.mark.parametrize(("kind", "statement", "signer"), EACH)
def test_a_claim_that_nobody_knows_is_refused(
    kind: Kind, statement: Heartbeat, signer: str
) -> None:
    claims = {**payload_of(statement.encoded), -70_000: 1}
    with pytest.raises(FormatError, match="unknown claim"):
        verify(kind, forge_payload(kind, key(signer), claims))


@pytest.mark.parametrize(("kind", "statement", "signer"), EACH)
def test_a_statement_signed_by_somebody_else_is_refused(
    kind: Kind, statement: Heartbeat, signer: str
) -> None:
    with pytest.raises(SignatureError):
        verify(kind, forge_payload(kind, key("mallory"), payload_of(statement.encoded)))


def test_a_root_is_no_statement_of_its_own() -> None:
    root = make_root(authority("X"))
    assert kind_of(root) is Kind.ROOT
    with pytest.raises(FormatError, match="by itself"):
        verify(Kind.ROOT, root.encoded)


# --- revoke -------------------------------------------------------------------------------------


def test_a_revocation_names_a_key_or_a_grant() -> None:
    grant = make_grant("issuer", "subject")
    assert REVOKE.is_key
    assert not make_revoke("issuer", grant).is_key
    assert make_revoke("issuer", grant).target == grant.statement_id


def test_a_revocation_carries_its_reason_and_the_revokers_grant() -> None:
    grant = make_grant("X", "operator", scope(POWER_REVOKE))
    revoke = make_revoke("operator", "target", reason="lost", revoker_grant=grant)
    assert verify_revoke(revoke.encoded) == revoke
    assert (revoke.reason, revoke.revoker_grant) == ("lost", grant)


def test_a_plain_revocation_is_small() -> None:
    assert len(REVOKE.encoded) <= 180


def test_the_revokers_grant_is_the_signers_own() -> None:
    grant = make_grant("X", "operator", scope(POWER_REVOKE))
    with pytest.raises(FormatError, match="another key than the signer"):
        make_revoke("mallory", "target", revoker_grant=grant)


@pytest.mark.parametrize(
    "changes",
    [
        {"target": DROP},
        {"target": bytes(17)},
        {"target": "key"},
        {"iat": DROP},
        {"reason": ""},
        {"reason": "a\nb"},
        {"reason": "x" * 65},
        {"reason": 7},
        {"revoker_grant": "grant"},
        {"revoker_grant": b""},
        {"revoker_grant": b"\x80"},
        {"exp": NOW},
    ],
)
def test_a_revocation_that_is_not_as_it_must_be_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(FormatError):
        verify_revoke(forge(Kind.REVOKE, key("issuer"), REVOKE.encoded, **changes))


def test_a_revokers_grant_must_verify() -> None:
    grant = make_grant("X", "issuer", scope(POWER_REVOKE))
    changed = forge(
        Kind.REVOKE,
        key("issuer"),
        REVOKE.encoded,
        revoker_grant=flipped(grant.encoded, 8 * len(grant.encoded) - 20),
    )
    with pytest.raises(SignatureError):
        verify_revoke(changed)


def test_a_weak_key_is_no_target() -> None:
    with pytest.raises(WeakKeyError):
        verify_revoke(forge(Kind.REVOKE, key("issuer"), REVOKE.encoded, target=NEUTRAL))


# --- heartbeat ----------------------------------------------------------------------------------


def altered_heartbeat(**changes: object) -> bytes:
    return forge(Kind.HEARTBEAT, key("beat"), HEARTBEAT.encoded, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"domain": bytes(15)},
        {"version": -1},
        {"epoch": "now"},
        {"count": limits.MAX_CHAIN_ENTRIES + 1},
        {"head": bytes(31)},
        {"recent": []},
        {"recent": [bytes(15)], "count": 1},
        {"recent": ["id"], "count": 1},
        {"recent": [bytes(16)] * 17, "count": 17},
        {"recent": [bytes(16)], "count": 2},
        {"recent": [bytes(16)], "count": 0},
        {"count": 1},
        {"recent": [bytes(16)] * 15, "count": 20},
        {"reason": "text"},
        {"previous_list": [NOW, 0, bytes(32)]},
        {"previous_list": [-1, 0, bytes(32)]},
        {"previous_list": ["now", 0, bytes(32)]},
        {"previous_list": [NOW - 1, -1, bytes(32)]},
        {"previous_list": [NOW - 1, limits.MAX_CHAIN_ENTRIES + 1, bytes(32)]},
        {"previous_list": [NOW - 1, 0, bytes(33)]},
        {"previous_list": [NOW - 1, 0]},
        {"previous_list": [NOW - 1, 0, bytes(32), 0]},
        {"previous_list": []},
        {"previous_list": bytes(32)},
    ],
)
def test_a_heartbeat_that_is_not_as_it_must_be_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(FormatError):
        verify_heartbeat(altered_heartbeat(**changes))


@pytest.mark.parametrize(("epoch", "count"), [(0, 0), (NOW - 1, limits.MAX_CHAIN_ENTRIES)])
def test_a_heartbeat_says_how_the_list_before_ended(epoch: int, count: int) -> None:
    encoded = altered_heartbeat(previous_list=[epoch, count, bytes(32)])
    assert verify_heartbeat(encoded).previous == ListEnd(epoch, count, bytes(32))


def test_a_heartbeat_carries_at_most_sixteen_ids() -> None:
    ids = [StatementId(bytes([i]) * 16) for i in range(20)]
    beat = sign_heartbeat(
        key("beat"),
        domain=DOMAIN,
        root_version=1,
        epoch=NOW,
        count=20,
        head=bytes(32),
        recent=tuple(ids[-16:]),
        issued_at=NOW,
    )
    assert verify_heartbeat(beat.encoded).recent == tuple(ids[-16:])
    assert len(beat.encoded) <= limits.MAX_HEARTBEAT_BYTES


@pytest.mark.parametrize("life_s", [0, -1, limits.HEARTBEAT_LIFE_S + 1])
def test_a_heartbeat_lives_for_a_minute_at_most(life_s: int) -> None:
    with pytest.raises(LimitError, match="1 to 60 s"):
        verify_heartbeat(altered_heartbeat(exp=NOW + life_s))


# --- broker -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"domain": bytes(17)},
        {"broker_id": ""},
        {"tls_fingerprint": b"k" * 31},
        {"broker_id": "x" * 65},
        {"endpoints": []},
        {"endpoints": DROP},
        {"endpoints": ["b", "a"]},
        {"endpoints": ["a", "a"]},
        {"endpoints": [7]},
        {"endpoints": ["\x07"]},
        {"endpoints": ["x" * 129]},
        {"endpoints": [str(i) for i in range(9)]},
        {"prefixes": []},
        {"prefixes": "a"},
    ],
)
def test_a_broker_that_is_not_as_it_must_be_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(FormatError):
        verify_broker(forge(Kind.BROKER, key("server"), BROKER.encoded, **changes))


def test_a_broker_may_name_the_key_of_its_certificate() -> None:
    assert BROKER.tls_key is None
    named = sign_broker(
        key("server"),
        domain=BROKER.domain,
        broker_id="site-a",
        endpoints=["broker.example:8883"],
        prefixes=["site/a/"],
        issued_at=NOW,
        expires_at=NOW + 60,
        tls_key=b"k" * 32,
    )
    assert verify_broker(named.encoded).tls_key == b"k" * 32


def test_a_broker_does_not_expire_before_it_is_issued() -> None:
    with pytest.raises(LimitError, match="expires before"):
        verify_broker(forge(Kind.BROKER, key("server"), BROKER.encoded, exp=NOW))


# --- recall -------------------------------------------------------------------------------------


def test_what_was_verified_before_is_read_as_it_was_verified() -> None:
    power = make_grant("X", "operator", make_scope({POWER_REVOKE: Action.PUB}))
    revocations = [
        REVOKE,
        make_revoke("issuer", make_grant("issuer", "subject")),
        make_revoke("operator", "subject", revoker_grant=power, reason="lost"),
    ]
    for revoke in revocations:
        assert recall(Kind.REVOKE, revoke.encoded) == revoke
    grant = make_grant("issuer", "subject")
    assert recall(Kind.GRANT, grant.encoded) == grant
    assert recall(Kind.HEARTBEAT, HEARTBEAT.encoded) == HEARTBEAT
    assert recall(Kind.BROKER, BROKER.encoded) == BROKER


def test_what_was_damaged_where_it_was_kept_is_refused_or_has_another_id() -> None:
    for place in range(len(REVOKE.encoded) - 64):
        damaged = bytearray(REVOKE.encoded)
        damaged[place] ^= 1
        try:
            found = recall(Kind.REVOKE, bytes(damaged))
        except (FormatError, LimitError):
            continue
        assert found.statement_id != REVOKE.statement_id, place


def test_a_root_is_not_recalled_by_itself() -> None:
    with pytest.raises(FormatError):
        recall(Kind.ROOT, REVOKE.encoded)
