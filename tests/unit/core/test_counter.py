"""The counter form: what it proves, and that each counter is taken once."""

from typing import Any

import pytest

from authd.core.counter import (
    MAX_COUNTER,
    check_rises,
    counter_slot,
    is_counter_password,
    make_counter,
    parse_counter,
    verify_counter,
)
from authd.core.grants import Form
from authd.core.identity import DomainId, KeyId, key_id
from authd.core.proofs import Audience, VerifiedProof, parse_credentials
from authd.errors import FormatError, ProofError, ReasonCode
from tests.unit.core.world import World, flipped, id_of, key, scope

HERE = Audience(DomainId(bytes(range(16))), "broker.example:1883")
THERE = Audience(DomainId(bytes(range(16))), "broker.example:8883")


def password(counter: int = 7, **changes: Any) -> str:
    options = {"audience": HERE, "client_id": "lamp-1", "counter": counter, **changes}
    return make_counter(key("lamp"), **options)


def verified(text: str, **changes: Any) -> VerifiedProof:
    options: dict[str, Any] = {
        "key": key("lamp").public,
        "audiences": [HERE],
        "client_id": "lamp-1",
        **changes,
    }
    return verify_counter(parse_counter(id_of("lamp"), text), **options)


def test_a_counter_proof_is_98_characters_or_119_with_a_hint() -> None:
    hint = KeyId(key_id(key("X").public))
    assert [len(password()), len(password(issuer_hint=hint))] == [98, 119]
    assert parse_counter(id_of("lamp"), password(issuer_hint=hint)).issuer_hint == hint
    assert parse_counter(id_of("lamp"), password()).issuer_hint is None


def test_it_proves_key_audience_client_id_and_counter() -> None:
    proof = verified(password(), audiences=[THERE, HERE])
    assert (proof.form, proof.counter, proof.audience) == (Form.COUNTER, 7, HERE)
    assert (proof.key, proof.client_id) == (key("lamp").public, "lamp-1")
    assert (proof.time, proof.nonce, proof.replay_id) == (None, None, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"key": key("other").public},
        {"audiences": [THERE]},
        {"audiences": []},
        {"client_id": "lamp-2"},
    ],
)
def test_a5_it_counts_for_nothing_else(changes: dict[str, Any]) -> None:
    with pytest.raises(ProofError) as caught:
        verified(password(), **changes)
    assert caught.value.reason is ReasonCode.BAD_SIGNATURE


def test_every_changed_byte_is_noticed() -> None:
    proof = parse_counter(id_of("lamp"), password())
    for bit in range(0, 512, 37):
        text = password()
        assert proof.signature != flipped(proof.signature, bit)
        with pytest.raises((ProofError, FormatError)):
            verified(text[:20] + ("A" if text[20] != "A" else "B") + text[21:])


@pytest.mark.parametrize(("last", "counter"), [(None, 0), (None, 7), (6, 7), (0, MAX_COUNTER)])
def test_a6_a_higher_counter_is_taken_however_much_higher(last: int | None, counter: int) -> None:
    assert check_rises(verified(password(counter)), last=last) == counter


@pytest.mark.parametrize(("last", "counter"), [(7, 7), (7, 6), (7, 0), (MAX_COUNTER, MAX_COUNTER)])
def test_a4_a6_an_equal_or_lower_counter_is_a_replay(last: int, counter: int) -> None:
    with pytest.raises(ProofError) as caught:
        check_rises(verified(password(counter)), last=last)
    assert caught.value.reason is ReasonCode.REPLAYED


def test_a_proof_of_another_form_has_no_counter_to_rise() -> None:
    with pytest.raises(ProofError):
        check_rises(World().proof("lamp"), last=None)


def test_counters_are_kept_by_key_and_audience() -> None:
    proof = verified(password())
    other = verified(password(audience=THERE), audiences=[THERE])
    assert len(counter_slot(proof)) == 32
    assert counter_slot(proof) == counter_slot(verified(password(9)))
    assert counter_slot(proof) != counter_slot(other)
    assert counter_slot(proof)[:16] == key_id(key("lamp").public)


@pytest.mark.parametrize("text", ["", "A" * 98, "A" * 119, "*" * 98, password()[:-1]])
def test_nothing_else_is_a_counter_proof(text: str) -> None:
    with pytest.raises(FormatError):
        parse_counter(id_of("lamp"), text)


def test_the_user_name_is_a_key_id() -> None:
    with pytest.raises(FormatError, match="not a counter proof"):
        parse_counter("lamp", password())


def test_a7_the_forms_are_told_apart_by_length_and_cannot_be_exchanged() -> None:
    assert is_counter_password(password())
    assert not is_counter_password("A" * 104)
    with pytest.raises(FormatError):
        parse_credentials(id_of("lamp"), password())


@pytest.mark.parametrize(
    "changes", [{"counter": -1}, {"counter": MAX_COUNTER + 1}, {"client_id": "a/b"}]
)
def test_odd_values_are_not_signed(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        password(**changes)


def test_a6_a_counter_counts_only_with_a_grant_for_one_audience() -> None:
    for audiences, allowed in (
        ([], False),
        (["here"], True),
        (["here", "AAECAwQFBgcICQoLDA0ODw/other:1"], False),
    ):
        world = World()
        names = [str(world.audience) if one == "here" else one for one in audiences]
        world.grant("X", "lamp", scope("a"), forms=[Form.COUNTER, Form.POP], audiences=names)
        decision = world.connect("lamp", form=Form.COUNTER)
        assert decision.allowed is allowed
        assert allowed or decision.reason is ReasonCode.FORM_NOT_ALLOWED
        assert world.connect("lamp").allowed


def test_a7_a_grant_that_does_not_list_the_counter_refuses_it() -> None:
    world = World()
    world.grant("X", "lamp", scope("a"), audiences=[str(world.audience)])
    assert world.connect("lamp", form=Form.COUNTER).reason is ReasonCode.FORM_NOT_ALLOWED
