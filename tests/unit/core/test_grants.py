"""Grants: what is a grant, claim by claim, and what its rules allow."""

from typing import Any

import pytest

from authd.core import limits
from authd.core.claims import Claim, Kind
from authd.core.grants import (
    DEFAULT_FORMS,
    ClientIdMatch,
    ClientIdRule,
    DomainSubject,
    Form,
    Grant,
    HeldGrant,
    KeySubject,
    check_client_id_rule,
    is_client_id,
    recall_grant,
    verify_grant,
)
from authd.core.identity import DomainId
from authd.core.topics import Action, make_scope
from authd.errors import FormatError, LimitError, SignatureError, WeakKeyError
from tests.unit.core.forge import DROP, forge, forge_payload, payload_of
from tests.unit.core.world import BOTH, DAY, NOW, flipped, key, make_grant, scope

PLAIN = make_grant("issuer", "subject", scope("a/#"))
NEUTRAL = (1).to_bytes(32, "little")


def altered(**changes: object) -> bytes:
    return forge(Kind.GRANT, key("issuer"), PLAIN.encoded, **changes)


def test_a_plain_grant_has_the_defaults() -> None:
    assert verify_grant(PLAIN.encoded) == PLAIN
    assert (PLAIN.depth, PLAIN.client_id, PLAIN.audiences, PLAIN.replaces) == (
        0,
        None,
        frozenset(),
        None,
    )
    assert PLAIN.forms == DEFAULT_FORMS == {Form.POP, Form.POP_PATH, Form.CHALLENGE}


def test_every_claim_survives_the_wire() -> None:
    grant = make_grant(
        "issuer",
        "subject",
        make_scope({"a/#": BOTH, "b": Action.PUB, "c/#": Action.SERVE}),
        depth=2,
        client_id=ClientIdRule(ClientIdMatch.PREFIX, "lamp-"),
        forms=[Form.CHALLENGE, Form.POP],
        audiences=["b/host:1883", "a/host:1883"],
        replaces=key("old").public,
    )
    read = verify_grant(grant.encoded)
    assert read == grant
    assert read.subject == KeySubject(key("subject").public)
    assert read.client_id == ClientIdRule(ClientIdMatch.PREFIX, "lamp-")
    assert read.forms == {Form.POP, Form.CHALLENGE}
    assert read.audiences == {"a/host:1883", "b/host:1883"}
    assert read.replaces == key("old").public


def test_a_domain_can_be_the_subject() -> None:
    subject = DomainSubject(DomainId(bytes(range(16))))
    grant = make_grant("issuer", "", to=subject, depth=1)
    assert verify_grant(grant.encoded).subject == subject


def test_a_common_grant_is_small() -> None:
    grant = make_grant("issuer", "subject", scope("home/kitchen/#", actions=Action.PUB))
    assert len(grant.encoded) <= 220


def test_the_signature_is_the_issuers() -> None:
    forged = forge_payload(Kind.GRANT, key("mallory"), payload_of(PLAIN.encoded))
    with pytest.raises(SignatureError):
        verify_grant(forged)


def test_every_changed_bit_is_noticed() -> None:
    for bit in range(8 * len(PLAIN.encoded)):
        with pytest.raises((FormatError, LimitError, SignatureError, WeakKeyError)):
            verify_grant(flipped(PLAIN.encoded, bit))


@pytest.mark.parametrize("payload", [[], 7, {}, {Claim.ISS: "text"}, {Claim.ISS: 7}])
def test_a_payload_without_an_issuer_is_refused(payload: object) -> None:
    with pytest.raises(FormatError, match="no issuer key"):
        verify_grant(forge_payload(Kind.GRANT, key("issuer"), payload))


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": bytes(31)},
        {"iat": DROP},
        {"iat": -1},
        {"iat": "now"},
        {"exp": DROP},
        {"exp": 2**40},
        {"cnf": DROP},
        {"cnf": {}},
        {"cnf": {1: {1: 1, -1: 6}}},
        {"cnf": {1: {1: 1, -1: 6, -2: bytes(31)}}},
        {"cnf": {1: {1: 1, -1: 4, -2: key("subject").public}}},
        {"cnf": {1: {1: 2, -1: 6, -2: key("subject").public}}},
        {"cnf": {1: {1: 1, -1: 6, -2: key("subject").public, 2: b"kid"}}},
        {"cnf": {1: {1: 1, -1: 6, -2: key("subject").public}, 3: b"kid"}},
        {"sub": bytes(16)},
        {"sub": bytes(15), "cnf": DROP},
        {"sub": "text", "cnf": DROP},
        {"scope": DROP},
        {"scope": []},
        {"scope": "a/#"},
        {"scope": [["a"]]},
        {"scope": [["a", []]]},
        {"scope": [["a", "pub"]]},
        {"scope": [["a", ["pub"], 1]]},
        {"scope": [[7, ["pub"]]]},
        {"scope": [["a", ["read"]]]},
        {"scope": [["a", ["sub", "pub"]]]},
        {"scope": [["a", [["pub"]]]]},
        {"scope": [["a", ["pub", {1: "sub"}]]]},
        {"scope": [["a", ["pub", "sub", 7]]]},
        {"scope": [["a", ["pub", "pub"]]]},
        {"scope": [["a", [1]]]},
        {"scope": [["b", ["pub"]], ["a", ["pub"]]]},
        {"scope": [["a", ["pub"]], ["a", ["sub"]]]},
        {"scope": [["a#", ["pub"]]]},
        {"scope": [["$share/g/a", ["sub"]]]},
        {"scope": [[f"{i:02}", ["pub"]] for i in range(17)]},
        {"depth": -1},
        {"depth": limits.MAX_DEPTH + 1},
        {"depth": "1"},
        {"client_id": "lamp"},
        {"client_id": [0]},
        {"client_id": [3, "lamp"]},
        {"client_id": [0, 7]},
        {"client_id": [0, ""]},
        {"client_id": [0, "a+"]},
        {"client_id": [1, "lamp"]},
        {"client_id": [1, ""]},
        {"client_id": [2, "lamp"]},
        {"forms": []},
        {"forms": [0]},
        {"forms": [7]},
        {"forms": ["pop"]},
        {"forms": [2, 1]},
        {"forms": [1, 1]},
        {"aud": []},
        {"aud": ["host:1883"]},
        {"aud": ["b/x", "a/x"]},
        {"aud": ["a/x", "a/x"]},
        {"aud": [b"a/x"]},
        {"aud": ["a/\x07"]},
        {"aud": ["a/" + "x" * 127]},
        {"aud": [f"{i}/x" for i in range(9)]},
        {"replaces": bytes(31)},
        {"replaces": "key"},
        {"reason": "a claim of another kind"},
        {"version": 1},
    ],
)
def test_a_claim_that_is_not_as_it_must_be_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(FormatError):
        verify_grant(altered(**changes))


def test_a_claim_that_nobody_knows_is_refused() -> None:
    claims = {**payload_of(PLAIN.encoded), -70_000: 1}
    with pytest.raises(FormatError, match="unknown claim `-70000`"):
        verify_grant(forge_payload(Kind.GRANT, key("issuer"), claims))


@pytest.mark.parametrize(
    "changes",
    [
        {"cnf": {1: {1: 1, -1: 6, -2: NEUTRAL}}},
        {"replaces": NEUTRAL},
        {"iss": NEUTRAL},
    ],
)
def test_a_weak_key_is_refused_wherever_it_stands(changes: dict[str, object]) -> None:
    with pytest.raises(WeakKeyError):
        verify_grant(altered(**changes))


@pytest.mark.parametrize("life_s", [0, -1, limits.MAX_GRANT_LIFE_S + 1])
def test_a_grant_lives_from_one_second_to_400_days(life_s: int) -> None:
    with pytest.raises(LimitError, match="400 days"):
        make_grant("issuer", "subject", expires_at=NOW - 10 + life_s)


@pytest.mark.parametrize("life_s", [1, limits.MAX_GRANT_LIFE_S])
def test_the_ends_of_that_range_are_allowed(life_s: int) -> None:
    grant = make_grant("issuer", "subject", expires_at=NOW - 10 + life_s)
    assert grant.expires_at - grant.issued_at == life_s


def test_a_grant_is_bounded_in_bytes() -> None:
    filters = scope(*(f"{i:02}/{'x' * 30}" for i in range(16)))
    with pytest.raises(LimitError, match="600"):
        make_grant("issuer", "subject", filters)


def test_sixteen_short_filters_fit() -> None:
    grant = make_grant("issuer", "subject", scope(*(f"home/room{i:02}/#" for i in range(16))))
    assert len(grant.scope) == 16


def test_nobody_grants_to_himself() -> None:
    with pytest.raises(FormatError, match="same key"):
        make_grant("issuer", "issuer")


@pytest.mark.parametrize(
    "options",
    [
        {"forms": [Form.PASSWORD]},
        {"forms": [Form.PASSWORD, Form.POP], "audiences": ["a/x"]},
        {"forms": [Form.PASSWORD], "audiences": ["a/x"], "depth": 1},
    ],
)
def test_the_form_password_goes_alone_with_an_audience_and_without_depth(
    options: dict[str, Any],
) -> None:
    with pytest.raises(FormatError, match="`password` goes alone"):
        make_grant("issuer", "subject", **options)
    grant = make_grant("issuer", "subject", forms=[Form.PASSWORD], audiences=["a/x"])
    assert grant.forms == {Form.PASSWORD}


@pytest.mark.parametrize(
    ("rule", "allowed", "refused", "written"),
    [
        (ClientIdRule(ClientIdMatch.EXACT, "lamp"), "lamp", "lamp-1", "lamp"),
        (ClientIdRule(ClientIdMatch.PREFIX, "lamp-"), "lamp-1", "lamp", "lamp-*"),
        (ClientIdRule(ClientIdMatch.ANY), "anything", None, "*"),
    ],
)
def test_a_client_id_rule_says_who_may_come(
    rule: ClientIdRule, allowed: str, refused: str | None, written: str
) -> None:
    assert check_client_id_rule(rule) is rule
    assert rule.allows(allowed)
    assert refused is None or not rule.allows(refused)
    assert str(rule) == written


@pytest.mark.parametrize("text", ["a", "x" * 128, "a b", "lamp-1:2.3_4", "!~"])
def test_a_client_id_is_printable_ascii(text: str) -> None:
    assert is_client_id(text)


@pytest.mark.parametrize(
    "text", ["", "x" * 129, "a+", "#", "a/b", "/", "a\x00", "a\n", "\u00e4", "\ufffd", "a\x7f"]
)
def test_a_client_id_holds_no_wildcard_separator_or_control(text: str) -> None:
    assert not is_client_id(text)


def test_a_grant_expires_at_its_last_second_plus_one() -> None:
    grant: Grant = make_grant("issuer", "subject")
    assert grant.expires_at - grant.issued_at == DAY + 10


def test_a_grant_that_is_kept_as_bytes_reads_as_it_was_verified() -> None:
    kept = [
        make_grant("a", "b"),
        make_grant("a", "b", depth=2, audiences=("AAECAwQFBgcICQoLDA0ODw/broker:1883",)),
        make_grant("a", "b", replaces=key("old").public),
    ]
    for grant in kept:
        assert recall_grant(HeldGrant(grant.encoded)) == verify_grant(grant.encoded)


def test_bytes_that_were_damaged_where_they_were_kept_are_no_grant() -> None:
    encoded = make_grant("a", "b").encoded
    with pytest.raises(FormatError):
        recall_grant(HeldGrant(encoded[:-1]))
    with pytest.raises(FormatError, match="key of 31 bytes"):
        recall_grant(HeldGrant(altered(cnf={1: {1: 1, -1: 6, -2: b"k" * 31}})))
