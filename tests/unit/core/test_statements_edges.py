"""What a statement is refused for is told with its kind and claim; bounds at their edge."""

from typing import Any

import pytest

from authd.core import limits
from authd.core.claims import LABELS, Claim, Kind
from authd.core.encoding import decode, encode
from authd.core.envelope import parse_envelope, seal_envelope
from authd.core.grants import (
    DEFAULT_FORMS,
    ClientIdMatch,
    ClientIdRule,
    Form,
    Grant,
    HeldGrant,
    check_client_id_rule,
    recall_grant,
)
from authd.core.roots import parse_root
from authd.core.statements import Revoke, verify
from authd.errors import FormatError, LimitError
from tests.unit.core.test_revocations import IDS, beat
from tests.unit.core.test_statements import BROKER
from tests.unit.core.world import NOW, authority, key, make_grant, make_revoke, make_root, scope

ROOT = make_root(authority("X"))
SEEDS = {
    Kind.GRANT: (make_grant("X", "lamp", scope("a")).encoded, "X"),
    Kind.REVOKE: (make_revoke("X", "lamp").encoded, "X"),
    Kind.HEARTBEAT: (beat(ids=IDS[:3]).encoded, "h1"),
    Kind.BROKER: (BROKER.encoded, "server"),
}


def changed(kind: Kind, changes: dict[int, Any]) -> bytes:
    """Sign the seed of a kind again with other claims; None takes a claim out."""
    encoded, signer = SEEDS[kind]
    payload = parse_envelope(LABELS[kind], encoded, max_bytes=limits.MAX_STATEMENT_BYTES).payload
    claims = decode(payload, max_bytes=limits.MAX_STATEMENT_BYTES)
    assert isinstance(claims, dict)
    kept = {name: value for name, value in {**claims, **changes}.items() if value is not None}
    return seal_envelope(LABELS[kind], encode(kept), key(signer))


def test_forms_and_matches_have_their_numbers_on_the_wire() -> None:
    assert {form.name: form.value for form in Form} == {
        "POP": 1,
        "POP_PATH": 2,
        "CHALLENGE": 3,
        "COUNTER": 4,
        "PASSWORD": 5,
        "TLS": 6,
    }
    assert [(match.name, match.value) for match in ClientIdMatch] == [
        ("EXACT", 0),
        ("PREFIX", 1),
        ("ANY", 2),
    ]


@pytest.mark.parametrize("kind", SEEDS)
def test_an_unknown_claim_is_told_with_its_kind_and_number(kind: Kind) -> None:
    name = kind.name.lower()
    with pytest.raises(FormatError, match=f"^{name}: unknown claim `77`$"):
        verify(kind, changed(kind, {99: 1, 77: 1}))


def test_a_prefix_ends_in_one_of_four_characters() -> None:
    allowed = set()
    for char in map(chr, range(0x20, 0x7F)):
        try:
            check_client_id_rule(ClientIdRule(ClientIdMatch.PREFIX, f"lamp{char}"))
        except FormatError:
            continue
        allowed.add(char)
    assert allowed == set("-_.:")


def test_a_scope_is_signed_in_its_order_however_it_is_given() -> None:
    entries = scope("c", "a", "b")
    assert make_grant("X", "lamp", entries[::-1]) == make_grant("X", "lamp", entries)


def test_a_damaged_grant_of_the_store_is_told_as_a_grant() -> None:
    with pytest.raises(FormatError, match=r"^grant: unknown claim `77`$"):
        recall_grant(HeldGrant(changed(Kind.GRANT, {77: 1})))


def test_a_grant_gives_no_more_than_it_says() -> None:
    named = ("statement_id", "encoded", "issuer", "subject", "scope", "issued_at", "expires_at")
    whole = make_grant("X", "lamp", scope("a"))
    grant = Grant(**{name: getattr(whole, name) for name in named})
    assert grant == whole
    assert (grant.depth, grant.client_id, grant.replaces) == (0, None, None)
    assert (grant.forms, grant.audiences) == (DEFAULT_FORMS, frozenset())


@pytest.mark.parametrize("kind", SEEDS)
def test_a_claim_that_is_missing_is_told_with_its_kind_and_name(kind: Kind) -> None:
    name = kind.name.lower()
    with pytest.raises(FormatError, match=f"^{name}: claim `iat` is not an integer from 0 to "):
        verify(kind, changed(kind, {int(Claim.IAT): None}))


def root_payload(**changes: Any) -> bytes:
    claims = decode(ROOT.payload, max_bytes=limits.MAX_ROOT_PAYLOAD_BYTES)
    assert isinstance(claims, dict)
    named = {int(Claim[name.upper()]): value for name, value in changes.items()}
    return encode([encode({**claims, **named}), []])


def test_a_claim_of_a_root_is_told_by_name() -> None:
    with pytest.raises(FormatError, match=r"^root: claim `exp` is not an integer from 0 to "):
        parse_root(root_payload(exp=-1))


@pytest.mark.parametrize("odd", [5, "text", b"bytes", [], [[1, 2]]])
def test_a_payload_that_is_no_map_is_told_so(odd: Any) -> None:
    with pytest.raises(FormatError, match=r"^root: the payload is not a map$"):
        parse_root(encode([encode(odd), []]))


def test_a_reset_has_its_number_on_the_wire() -> None:
    assert not parse_root(root_payload()).claims.reset
    assert parse_root(root_payload(reset=1)).claims.reset
    assert int(Claim.RESET) == -65557


def entry(depth: int, expires_at: int, filters: int = 1) -> list[Any]:
    names = sorted(f"a/{number}" for number in range(filters))
    return [key("X").public, [[name, ["pub"]] for name in names], depth, expires_at]


@pytest.mark.parametrize(
    "good", [entry(0, 1), entry(limits.MAX_DEPTH, 2**40 - 1), entry(0, 0), entry(1, 1, filters=16)]
)
def test_an_entry_may_go_to_its_bounds(good: list[Any]) -> None:
    (authority_entry,) = parse_root(root_payload(authorities=[good])).claims.authorities
    assert [authority_entry.depth, authority_entry.expires_at] == good[2:]
    assert len(authority_entry.scope) == len(good[1])


@pytest.mark.parametrize(
    "bad",
    [
        entry(-1, 1),
        entry(limits.MAX_DEPTH + 1, 1),
        entry(0, -1),
        entry(0, 2**40),
        entry(0, 1, filters=0),
        entry(0, 1, filters=17),
        [*entry(0, 1), 1],
    ],
)
def test_an_entry_beyond_its_bounds_is_refused(bad: list[Any]) -> None:
    with pytest.raises(FormatError, match=r"^root: an authority"):
        parse_root(root_payload(authorities=[bad]))


@pytest.mark.parametrize("name", ["root_keys", "heartbeat_keys"])
@pytest.mark.parametrize("odd", [1, "text", []])
def test_a_key_that_is_no_byte_string_is_refused(name: str, odd: object) -> None:
    with pytest.raises(FormatError, match=rf"^root: `{name}` holds something that is not a key$"):
        parse_root(root_payload(**{name: [odd]}))


@pytest.mark.parametrize(
    ("kind", "claim", "most"),
    [
        (Kind.GRANT, Claim.DEPTH, limits.MAX_DEPTH),
        (Kind.HEARTBEAT, Claim.EPOCH, 2**40 - 1),
        (Kind.HEARTBEAT, Claim.VERSION, 2**40 - 1),
        (Kind.REVOKE, Claim.IAT, 2**40 - 1),
    ],
)
def test_an_integer_may_be_as_large_as_its_bound(kind: Kind, claim: Claim, most: int) -> None:
    verify(kind, changed(kind, {int(claim): most}))
    with pytest.raises(FormatError, match=f"from 0 to {most}$"):
        verify(kind, changed(kind, {int(claim): most + 1}))


@pytest.mark.parametrize(("life_s", "fits"), [(400 * 86_400, True), (400 * 86_400 + 1, False)])
def test_a_grant_lives_400_days_at_most(life_s: int, *, fits: bool) -> None:
    data = changed(Kind.GRANT, {int(Claim.IAT): NOW, int(Claim.EXP): NOW + life_s})
    if fits:
        verify(Kind.GRANT, data)
    else:
        with pytest.raises(LimitError):
            verify(Kind.GRANT, data)


@pytest.mark.parametrize(("text", "fits"), [("x" * 64, True), ("x" * 65, False), ("", False)])
def test_a_reason_is_1_to_64_bytes(text: str, *, fits: bool) -> None:
    data = changed(Kind.REVOKE, {int(Claim.REASON): text})
    if fits:
        verify(Kind.REVOKE, data)
    else:
        with pytest.raises(FormatError, match="revoke: claim `reason` is not printable text of 1"):
            verify(Kind.REVOKE, data)


def test_a_root_may_be_as_long_as_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_ROOT_PAYLOAD_BYTES", len(ROOT.payload))
    assert make_root(authority("X")) == ROOT
    monkeypatch.setattr(limits, "MAX_ROOT_PAYLOAD_BYTES", len(ROOT.payload) - 1)
    with pytest.raises(LimitError):
        make_root(authority("X"))


def test_a_revocation_gives_no_reason_unless_it_has_one() -> None:
    silent = make_revoke("X", "lamp")
    assert silent.reason == ""
    assert make_revoke("X", "lamp", reason="") == silent
    named = ("statement_id", "encoded", "issuer", "target", "issued_at")
    assert Revoke(**{name: getattr(silent, name) for name in named}) == silent


@pytest.mark.parametrize(("life_s", "fits"), [(0, False), (1, True), (60, True), (61, False)])
def test_a_heartbeat_lives_1_to_60_seconds(life_s: int, *, fits: bool) -> None:
    data = changed(Kind.HEARTBEAT, {int(Claim.IAT): NOW, int(Claim.EXP): NOW + life_s})
    if fits:
        verify(Kind.HEARTBEAT, data)
    else:
        with pytest.raises(LimitError):
            verify(Kind.HEARTBEAT, data)


@pytest.mark.parametrize("odd", [b"", bytes(15), bytes(17), 1, "text"])
def test_a_recent_id_of_another_shape_is_told_so(odd: Any) -> None:
    ids = [*IDS[:2], odd]
    with pytest.raises(FormatError, match=r"^heartbeat: a recent id that is not 16 bytes$"):
        verify(Kind.HEARTBEAT, changed(Kind.HEARTBEAT, {int(Claim.RECENT): ids}))
