"""Attacks by number, as far as the core stops them; each test shows the refusal."""

import itertools
from typing import Any

import pytest

from authd.core.claims import Kind
from authd.core.encoding import encode
from authd.core.envelope import PROTECTED, signing_bytes
from authd.core.grants import ClientIdMatch, ClientIdRule, DomainSubject, Form, verify_grant
from authd.core.identity import DomainId, PublicKey, key_id_text
from authd.core.policy import DomainPolicy
from authd.core.proofs import Audience, UnverifiedPop, make_pop, parse_credentials, verify_pop
from authd.core.revocations import KeyView, observe
from authd.core.roots import sign_root, verify_root
from authd.core.statements import verify
from authd.core.topics import POWER_REVOKE, Action, covers
from authd.errors import (
    AuthdError,
    FormatError,
    LimitError,
    ReasonCode,
    SignatureError,
    StaleRecordError,
)
from tests.unit.core.test_revocations import IDS, beat
from tests.unit.core.test_roots import after, of_three, signers
from tests.unit.core.world import (
    DAY,
    ENDPOINT,
    NOW,
    World,
    authority,
    id_of,
    key,
    make_grant,
    make_revoke,
    make_root,
    publics,
    scope,
)

GRANT = make_grant("issuer", "subject", scope("a/#"))


# --- tokens -------------------------------------------------------------------------------------


def _rewrapped() -> dict[str, bytes]:
    data = GRANT.encoded
    protected, payload = encode(PROTECTED), encode(GRANT.encoded[8:])
    assert data[:1] == b"\x84"
    return {
        "trailing byte": data + b"\x00",
        "tag 18": b"\xd2" + data,
        "tag 18, not minimal": b"\xd8\x12" + data,
        "tag 61": b"\xd8\x3d" + data,
        "unprotected header": data.replace(protected + b"\xa0", protected + b"\xa1\x04\x41k"),
        "indefinite array": b"\x9f" + data[1:] + b"\xff",
        "indefinite map": data.replace(protected + b"\xa0", protected + b"\xbf\xff"),
        "length not minimal": b"\x98\x04" + data[1:],
        "five parts": b"\x85" + data[1:] + b"\x40",
        "protected not minimal": data.replace(protected, b"\x44\xa1\x01\x38\x07"),
        "protected empty": data.replace(protected, b"\x40"),
        "wrapped in an array": b"\x81" + payload,
    }


@pytest.mark.parametrize("name", _rewrapped())
def test_a2_a_grant_that_is_wrapped_anew_is_refused(name: str) -> None:
    assert _rewrapped()[name] != GRANT.encoded
    with pytest.raises(FormatError):
        verify_grant(_rewrapped()[name])


def test_a2_another_signature_over_the_same_payload_keeps_the_id() -> None:
    unsigned = GRANT.encoded[:-64]
    again = unsigned + key("issuer").sign(signing_bytes("authd/grant/1", _payload()))
    assert verify_grant(again).statement_id == GRANT.statement_id


def _payload() -> bytes:
    start = GRANT.encoded.index(b"\xa0\x58") + 3
    return GRANT.encoded[start:-66]


@pytest.mark.parametrize(
    ("audience", "client_id"),
    [
        (Audience(DomainId(bytes(16)), "other:1883"), "KEY"),
        (Audience(DomainId(bytes(16)), "broker:8883"), "KEY"),
        (Audience(DomainId(bytes([1]) * 16), "broker:1883"), "KEY"),
        (Audience(DomainId(bytes(16)), "broker:1883"), "other"),
        (Audience(DomainId(bytes(16)), "broker:1883"), ""),
    ],
)
def test_a5_a_proof_counts_for_one_broker_listener_and_client_id(
    audience: Audience, client_id: str
) -> None:
    here = Audience(DomainId(bytes(16)), "broker:1883")
    password = make_pop(key("a"), audience=here, client_id=id_of("a"), time=NOW, nonce=bytes(8))
    pop = parse_credentials(id_of("a"), password)
    assert isinstance(pop, UnverifiedPop)
    with pytest.raises(AuthdError) as refusal:
        verify_pop(
            pop,
            key=key("a").public,
            audiences=[audience],
            client_id={"KEY": id_of("a")}.get(client_id, client_id),
            now=NOW,
        )
    assert refusal.value.reason is ReasonCode.BAD_SIGNATURE


def test_a7_no_form_can_be_downgraded() -> None:
    world = World()
    for form in Form:
        if form is Form.PASSWORD:
            continue
        world = World()
        world.grant("X", "lamp", forms=[form], audiences=[str(world.audience)])
        for shown in Form:
            assert world.connect("lamp", form=shown).allowed is (shown is form)


def test_a8_attenuation_is_intersected_when_checked() -> None:
    world = World()
    world.grant("X", "gate", scope("a/#", actions=Action.PUB), depth=1, expires_at=NOW + 100)
    world.grant("gate", "lamp", scope("#"), depth=8, expires_at=NOW + DAY)
    (path,) = world.paths_to("lamp").paths
    assert world.reach("lamp") == {("a/#", "PUB")}
    assert (path.expires_at, path.depth) == (NOW + 100, 0)


def test_a9_a_grant_for_another_key_widens_nothing() -> None:
    world = World()
    world.grants("X -> gate -> lamp", scope("a/#"))
    before = world.reach("lamp")
    for name in ("door", "stranger", "gate2"):
        world.grant("X", name, depth=3)
        world.grant("gate", name, depth=3)
    assert world.reach("lamp") == before


def test_a10_every_omission_and_order_gives_no_more_than_the_whole() -> None:
    grants = [
        make_grant("X", "a", scope("1/#"), depth=3),
        make_grant("a", "b", scope("1/+", "2"), depth=2),
        make_grant("b", "c", scope("#")),
    ]
    whole = World()
    whole.add(*grants)
    for count in range(4):
        for some in itertools.permutations(grants, count):
            world = World()
            world.add(*some, *some)
            assert world.reach("c") <= whole.reach("c")
            assert bool(world.reach("c")) is (count == 3)


@pytest.mark.parametrize(
    ("options", "shown", "reason"),
    [
        ({"expires_at": NOW}, {}, ReasonCode.EXPIRED),
        ({"issued_at": NOW + 61}, {}, ReasonCode.NOT_YET_VALID),
        ({"forms": [Form.TLS]}, {}, ReasonCode.FORM_NOT_ALLOWED),
        ({"audiences": ["other/x:1"]}, {}, ReasonCode.WRONG_AUDIENCE),
        ({}, {"client_id": "other"}, ReasonCode.CLIENT_ID_REFUSED),
        (
            {"client_id": ClientIdRule(ClientIdMatch.EXACT, "a")},
            {"client_id": "b"},
            ReasonCode.CLIENT_ID_REFUSED,
        ),
        ({"given": scope("a", actions=Action.SERVE)}, {}, ReasonCode.NOT_GRANTED),
    ],
)
def test_a11_each_mismatch_denies_with_its_own_reason(
    options: dict[str, Any], shown: dict[str, Any], reason: ReasonCode
) -> None:
    world = World()
    world.grant("X", "lamp", **options)
    decision = world.connect("lamp", **shown)
    assert (decision.allowed, decision.reason) == (False, reason)


def test_a12_keys_that_the_requester_brings_are_nobodys_authority() -> None:
    world = World()
    world.grant("mallory", "gate", depth=3)
    world.grant("gate", "lamp")
    assert world.connect("lamp").reason is ReasonCode.UNTRUSTED


@pytest.mark.parametrize(
    "data",
    [
        b"\x81" * 600,
        b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x5b\x00\x00\x00\xff\xff\xff\xff\xff",
        b"\xbb\x00\x00\x00\xff\xff\xff\xff\xff",
        b"\x9a\x00\x01\x86\xa0",
        b"\xa1" * 600,
        b"\x84" + b"\xa0" * 100_000,
    ],
)
def test_a13_deep_and_huge_input_is_refused_before_it_costs_anything(data: bytes) -> None:
    for kind in set(Kind) - {Kind.ROOT}:
        with pytest.raises((FormatError, LimitError)):
            verify(kind, data)
    with pytest.raises((FormatError, LimitError)):
        verify_root(data, previous=None)


def test_a15_every_truncation_of_a_password_is_refused() -> None:
    audience = Audience(DomainId(bytes(16)), ENDPOINT)
    whole = make_pop(
        key("a"), audience=audience, client_id="a", time=NOW, nonce=bytes(8), path=[GRANT]
    )
    for length in range(len(whole)):
        if length == 104:
            continue
        with pytest.raises((FormatError, LimitError)):
            parse_credentials(id_of("a"), whole[:length])
    for odd in (whole + "=", whole[:50] + "\x00" + whole[51:], "\x00", whole + "\x00"):
        with pytest.raises(FormatError):
            parse_credentials(id_of("a"), odd)


# --- names and topics ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "client_id",
    ["+", "#", "a/b", "/", "a+", "", "x" * 65_536, "\ufffd", "\x00", "a\x00b"],
)
def test_a16_a_client_id_is_never_a_wildcard_or_a_path(client_id: str) -> None:
    world = World()
    world.grant("X", "lamp", client_id=ClientIdRule(ClientIdMatch.EXACT, "lamp"))
    assert world.connect("lamp", client_id=client_id).reason is ReasonCode.CLIENT_ID_REFUSED
    with pytest.raises((FormatError, LimitError)):
        parse_credentials(client_id, "x")


@pytest.mark.parametrize("text", ["$x", "%u", "%c", "{name}", "${clientid}"])
def test_a16_nothing_is_substituted(text: str) -> None:
    world = World()
    world.grant("X", "lamp", scope(f"home/{text}/#"), client_id=ClientIdRule(ClientIdMatch.ANY))
    rights = world.connect("lamp", client_id="kitchen").rights
    assert [entry.topic_filter for entry in rights.entries] == [f"home/{text}/#"]


def test_a20_no_wildcard_reaches_sys_or_control() -> None:
    world = World()
    world.grant("X", "lamp", scope("#", "+/#", "$CONTROL/#"))
    for name, _ in world.reach("lamp"):
        assert not covers(name, "$SYS/x")
        assert not covers(name, "$CONTROL/dynamic-security/v1")


def test_a20_sys_can_be_read_where_a_grant_names_it() -> None:
    world = World()
    world.grant("X", "monitor", scope("$SYS/#"))
    assert world.reach("monitor") == {("$SYS/#", "SUB")}


def test_a20_control_needs_an_explicit_grant_from_the_top() -> None:
    explicit = scope("#", "$CONTROL/#")
    world = World(root=make_root(authority("X", scope=explicit)))
    world.domains[world.root.domain] = DomainPolicy(scope=explicit)
    world.grant("X", "plain", scope("#"))
    world.grant("X", "admin", scope("$CONTROL/#", actions=Action.PUB))
    assert ("$CONTROL/#", "PUB") in world.reach("admin")
    assert all(not covers(name, "$CONTROL/x") for name, _ in world.reach("plain"))


# --- trust graph and network data ---------------------------------------------------------------


def test_a23_sybils_without_a_path_give_nothing() -> None:
    world = World()
    for i in range(50):
        world.grant(f"sybil{i}", "lamp", depth=3)
        world.grant(f"sybil{i}", f"sybil{(i + 1) % 50}", depth=8)
    decision = world.connect("lamp")
    assert not decision.allowed
    assert decision.reason in (ReasonCode.UNTRUSTED, ReasonCode.DEPTH_EXCEEDED)


def test_a24_a_bush_behind_one_introducer_never_exceeds_the_introducer() -> None:
    world = World()
    world.grant("X", "gate", scope("a/#"), depth=3)
    for i in range(10):
        world.grant("gate", f"sybil{i}", depth=2)
        world.grant(f"sybil{i}", "lamp", scope("#"))
    assert {name for name, _ in world.reach("lamp")} == {"a/#"}
    world.revoke("X", "gate")
    assert not world.connect("lamp").allowed


def test_a25_a_loop_does_not_restore_depth_or_scope() -> None:
    world = World()
    world.grant("X", "a", scope("a/#"), depth=1)
    world.grant("a", "b", depth=8)
    world.grant("b", "a", scope("#"), depth=8)
    world.grant("b", "c", scope("#"))
    assert {name for name, _ in world.reach("a")} == {"a/#"}
    assert not world.connect("c").allowed


def test_a26_a_stolen_root_key_is_one_of_k() -> None:
    first = sign_root(of_three(), previous=None, keys=signers("r1", "r2"))
    taken = after(first, root_keys=publics(["thief"]), threshold=1)
    with pytest.raises(SignatureError):
        sign_root(taken, previous=first, keys=signers("r1", "thief"))
    rotated = after(first, root_keys=publics(["r2", "r3", "n1"]), threshold=2)
    assert sign_root(rotated, previous=first, keys=signers("r2", "r3")).version == 2


def test_a27_a_thousand_children_die_by_one_record() -> None:
    world = World()
    world.grant("X", "gate", depth=1)
    world.add(*(make_grant("gate", f"child{i}") for i in range(1_000)))
    world.revoke("X", "gate")
    for i in (0, 1, 499, 998, 999):
        assert world.connect(f"child{i}").reason is ReasonCode.REVOKED


def test_a28_without_news_nothing_is_allowed_after_the_grace() -> None:
    world = World()
    world.domains[world.root.domain] = DomainPolicy(grace_s=0)
    world.grants("X -> lamp")
    assert world.connect("lamp", now=NOW + 59).allowed
    decision = world.connect("lamp", now=NOW + 60)
    assert (decision.reason, decision.temporary) == (ReasonCode.STALE, True)


def test_a29_an_old_head_and_an_old_root_are_not_taken_again() -> None:
    view = observe(KeyView(), beat(ids=IDS[:3]), now=NOW)
    with pytest.raises(StaleRecordError):
        observe(view, beat(ids=IDS[:2], issued_at=NOW + 1), now=NOW)
    world = World()
    second = sign_root(after(world.root), previous=world.root, keys=signers("own root"))
    world.add_root(second)
    with pytest.raises(StaleRecordError):
        world.state.apply_root(world.root)


def test_a29_an_enormous_version_does_not_skip_ahead() -> None:
    first = make_root(authority("X"))
    leap = after(first, threshold=1)
    assert sign_root(leap, previous=first, keys=signers("own root")).version == 2
    second = sign_root(leap, previous=first, keys=signers("own root"))
    third = sign_root(after(second), previous=second, keys=signers("own root"))
    with pytest.raises(StaleRecordError, match="version 3 where version 2"):
        verify_root(third.encoded, previous=first)


def test_a33_nobody_revokes_who_did_not_grant() -> None:
    world = World(root=make_root(authority("X"), authority("Y", scope=scope("#"))))
    (grant, below) = world.grants("X -> gate -> lamp")
    posing = make_grant("Y", "mallory", scope(POWER_REVOKE))
    for rogue in ("mallory", "lamp", "Y"):
        for target in (grant, below, "gate", "lamp", "X"):
            if rogue != target:
                world.add(make_revoke(rogue, target))
    world.add(make_revoke("mallory", "gate", revoker_grant=posing))
    assert world.paths_to("gate").paths


def test_a35_validity_never_depends_on_the_second_of_issue() -> None:
    for issued_at in (NOW - 1, NOW, NOW + 1):
        world = World(root=make_root(authority("X", scope=scope("#"))))
        old = world.grant("X", "lamp", scope("old"), issued_at=NOW - 5)
        world.revoke("X", old)
        new = world.grant("X", "lamp", scope("new"), issued_at=issued_at)
        assert {name for name, _ in world.reach("lamp")} == {"new"}
        world.revoke("X", "lamp")
        backdated = world.grant("X", "lamp", scope("newer"), issued_at=NOW - 50)
        assert new.statement_id != backdated.statement_id
        assert world.connect("lamp").reason is ReasonCode.REVOKED


# --- hostile authorities ------------------------------------------------------------------------


def test_a_hostile_domain_gives_no_more_than_was_given_to_it() -> None:
    world = World()
    foreign = world.add_root(
        make_root(authority("F"), authority("X"), domain="foreign", root_keys=_with_victims())
    )
    world.grant("X", "", scope("shared/#"), to=DomainSubject(foreign.domain), depth=4)
    world.grant("F", "spy", scope("#", POWER_REVOKE), depth=3)
    world.grants("X -> lamp", scope("home/#"))
    for target in ("X", "lamp"):
        world.revoke("F", target)
    assert {name for name, _ in world.reach("spy")} == {"shared/#"}
    assert {name for name, _ in world.reach("lamp")} == {"home/#"}


def _with_victims() -> tuple[PublicKey, ...]:
    return publics(["foreign root", "lamp", "gate"])


def test_a_hostile_gateway_cannot_hide_a_short_path_in_a_bush() -> None:
    world = World()
    world.grants("X -> lamp", scope("home/#"))
    world.grant("X", "gate", depth=4)
    names = [f"n{i}" for i in range(20)]
    for name in names:
        world.grant("gate", name, scope("x"), depth=8)
        world.grant(name, "lamp", scope("x"))
    for first, second in itertools.permutations(names, 2):
        world.grant(first, second, scope("x"), depth=8)
    evaluation = world.paths_to("lamp")
    assert evaluation.truncated
    assert ("home/#", "PUB") in world.reach("lamp")


def test_a_client_id_of_key_id_shape_belongs_to_that_key_alone() -> None:
    world = World()
    world.grant("X", "mallory", client_id=ClientIdRule(ClientIdMatch.ANY))
    victim = key_id_text(key("lamp").public)
    assert world.connect("mallory", client_id=victim).reason is ReasonCode.CLIENT_ID_REFUSED
