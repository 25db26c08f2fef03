"""TLS keys as subjects: a digest in the place of a key, for one form alone."""

import hashlib
from typing import Any

import pytest

from authd.core.decision import Decision, decide_connect
from authd.core.formation import Formation
from authd.core.grants import (
    ClientIdMatch,
    ClientIdRule,
    Form,
    Grant,
    KeySubject,
    TlsSubject,
    tls_subject,
    verify_grant,
)
from authd.core.identity import PublicKey, key_id, key_id_text
from authd.core.paths import Evaluation, find_paths
from authd.core.policy import GuardedPrefix
from authd.core.proofs import subject_key
from authd.errors import FormatError, ReasonCode
from tests.unit.core.world import NOW, World, authority, key, make_grant, make_root, scope

KEY_INFO = b"0Y0\x13 a SubjectPublicKeyInfo in DER"
SUBJECT = tls_subject(KEY_INFO)
TLS: dict[str, Any] = {"to": SUBJECT, "forms": [Form.TLS]}


def paths(world: World, *, tls: bool = True, digest: PublicKey = SUBJECT.key) -> Evaluation:
    return find_paths(
        world.state, digest, policy=world.policy, freshness=world.freshness, now=NOW, tls=tls
    )


def connect(world: World, *, tls: bool = True, **changes: Any) -> Decision:
    own = {"key": SUBJECT.key, "client_id": key_id_text(SUBJECT.key), "form": Form.TLS}
    return decide_connect(
        paths(world, tls=tls),
        world.proof("lamp", **{**own, "nonce": None, "time": None, **changes}),
        policy=world.policy,
        freshness=world.freshness,
        now=NOW,
    )


def test_the_subject_is_the_digest_of_the_key_whatever_the_algorithm() -> None:
    assert hashlib.sha256(KEY_INFO).digest() == SUBJECT.key
    assert len({SUBJECT, KeySubject(SUBJECT.key)}) == 2


def test_a_grant_to_a_tls_key_is_read_as_it_was_made() -> None:
    grant = make_grant("X", "", **TLS)
    assert isinstance(grant.subject, TlsSubject)
    assert verify_grant(grant.encoded) == grant


@pytest.mark.parametrize("changes", [{"depth": 1}, {"forms": []}, {"forms": [Form.POP, Form.TLS]}])
def test_it_goes_with_the_form_tls_alone_and_without_depth(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match="a TLS key goes with the form `tls` alone"):
        make_grant("X", "", **{**TLS, **changes})


def test_whoever_holds_the_tls_key_gets_the_rights() -> None:
    world = World()
    world.grant("X", "gate", depth=1)
    world.grant("gate", "", scope("a"), **TLS)
    decision = connect(world)
    assert [one.topic_filter for one in decision.rights.entries] == ["a"]
    assert SUBJECT.key in decision.rights.keys


def test_a7_the_digest_is_no_key_for_any_other_form() -> None:
    world = World()
    world.grant("X", "", **TLS)
    for form in Form:
        assert connect(world, form=form).allowed is (form is Form.TLS)
        assert not connect(world, form=form, tls=False).allowed
    assert paths(world, tls=False).first_failure().reason is ReasonCode.UNTRUSTED
    assert world.state.key_of(key_id(SUBJECT.key)) is None
    assert subject_key(world.state.grants_to(key_id(SUBJECT.key)), key_id(SUBJECT.key)) is None


def test_a_key_is_no_tls_key() -> None:
    world = World()
    world.grant("X", "lamp", forms=[Form.TLS])
    assert paths(world, digest=key("lamp").public, tls=True).paths == ()
    assert world.connect("lamp", form=Form.TLS).allowed


def test_an_issuer_may_write_any_digest_and_it_is_never_used_as_a_key() -> None:
    posing = make_grant("X", "", to=TlsSubject(key("victim").public), forms=[Form.TLS])
    world = World()
    world.add(posing)
    assert world.state.key_of(key_id(key("victim").public)) is None
    assert not world.connect("victim").allowed
    assert not world.connect("victim", form=Form.TLS).allowed


def test_a_grant_to_a_tls_key_is_revoked_by_id() -> None:
    world = World()
    grant: Grant = world.grant("X", "", **TLS)
    assert connect(world).allowed
    world.revoke("X", grant)
    assert connect(world).reason is ReasonCode.REVOKED


def test_client_ids_follow_the_same_rules() -> None:
    world = World()
    world.grant("X", "", client_id=ClientIdRule(ClientIdMatch.EXACT, "bridge"), **TLS)
    assert connect(world, client_id="bridge").allowed
    assert not connect(world, client_id="other").allowed
    assert not connect(world, client_id=key_id_text(key("lamp").public)).allowed


def test_guarded_prefixes_count_paths_to_tls_keys_too() -> None:
    guard = GuardedPrefix(topic_filter="door/#", grace_s=60, k=2)
    world = World(root=make_root(authority("A"), authority("B")), guarded=(guard,))
    world.grant("A", "", scope("door/1"), **TLS)
    assert not connect(world).allowed
    world.grant("B", "", scope("door/1"), **TLS)
    assert connect(world).allowed
    formation = Formation(
        state=world.state, policy=world.policy, freshness=world.freshness, now=NOW
    )
    assert not formation.counts(make_grant("A", "", **TLS), KeySubject(SUBJECT.key))
