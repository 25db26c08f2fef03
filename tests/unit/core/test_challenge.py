"""Enhanced authentication: messages of ``authd-1``, each bound to its exchange."""

from typing import Any

import pytest

from authd.core.challenge import (
    Exchange,
    Hello,
    begin_exchange,
    make_hello,
    make_response,
    make_single,
    parse_first,
    verify_response,
)
from authd.core.grants import Form
from authd.core.identity import DomainId, KeyId, key_id
from authd.core.proofs import Audience, UnverifiedPop, VerifiedProof, make_pop, verify_pop
from authd.errors import FormatError, ProofError, ReasonCode
from tests.unit.core.world import NOW, World, flipped, key, scope

HERE = Audience(DomainId(bytes(range(16))), "broker.example:1883")
THERE = Audience(DomainId(bytes(16)), "broker.example:1883")
CLIENT_NONCE, SERVER_NONCE = bytes(16), bytes(range(16))
HINT = KeyId(key_id(key("X").public))


def exchange(name: str = "lamp", nonce: bytes = SERVER_NONCE) -> Exchange:
    hello = parse_first(make_hello(key(name).public, nonce=CLIENT_NONCE))
    assert isinstance(hello, Hello)
    return begin_exchange(hello, nonce=nonce)


def response(**changes: Any) -> bytes:
    options = {"audience": HERE, "client_id": "lamp-1", "nonce": CLIENT_NONCE, **changes}
    return make_response(key("lamp"), options.pop("challenge", exchange().challenge), **options)


def verified(data: bytes, started: Exchange | None = None, **changes: Any) -> VerifiedProof:
    options: dict[str, Any] = {
        "key": key("lamp").public,
        "audiences": [HERE],
        "client_id": "lamp-1",
        **changes,
    }
    return verify_response(started or exchange(), data, **options)


def single(**changes: Any) -> bytes:
    options: dict[str, Any] = {
        "audience": HERE,
        "client_id": "lamp-1",
        "time": NOW,
        "nonce": bytes(8),
        **changes,
    }
    return make_single(key("lamp"), **options)


def test_a_response_proves_the_key_for_this_exchange() -> None:
    proof = verified(response(), audiences=[THERE, HERE])
    assert (proof.key, proof.form, proof.audience) == (key("lamp").public, Form.CHALLENGE, HERE)
    assert (proof.client_id, proof.replay_id, proof.counter) == ("lamp-1", None, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"key": key("other").public},
        {"audiences": [THERE]},
        {"audiences": []},
        {"client_id": "lamp-2"},
        {"started": exchange(nonce=bytes(16))},
        {"started": exchange("other")},
    ],
)
def test_a4_a5_a_response_counts_for_nothing_else(changes: dict[str, Any]) -> None:
    with pytest.raises(ProofError) as caught:
        verified(response(), **changes)
    assert caught.value.reason is ReasonCode.BAD_SIGNATURE


def test_both_nonces_are_signed() -> None:
    with pytest.raises(ProofError):
        verified(response(nonce=SERVER_NONCE))
    with pytest.raises(ProofError):
        verified(response(challenge=exchange(nonce=bytes(16)).challenge))


def test_every_changed_byte_of_a_response_is_noticed() -> None:
    for bit in range(0, 8 * 65, 41):
        with pytest.raises((ProofError, FormatError)):
            verified(flipped(response(), bit))


@pytest.mark.parametrize("data", [b"", b"\x04", response() + b"\x00", single(), bytes(65)])
def test_nothing_else_is_a_response(data: bytes) -> None:
    with pytest.raises(FormatError, match="not a response"):
        verified(data)


@pytest.mark.parametrize("data", [b"", b"\x03", bytes(17), exchange().challenge + b"\x00"])
def test_nothing_else_is_a_challenge(data: bytes) -> None:
    with pytest.raises(FormatError, match="not a challenge"):
        response(challenge=data)


def test_a_hello_may_carry_a_hint() -> None:
    data = make_hello(key("lamp").public, nonce=CLIENT_NONCE, issuer_hint=HINT)
    assert parse_first(data) == Hello(
        key_id=key_id(key("lamp").public), nonce=CLIENT_NONCE, issuer_hint=HINT
    )


@pytest.mark.parametrize("nonce", [b"", bytes(15), bytes(17)])
def test_nonces_of_an_exchange_are_sixteen_bytes(nonce: bytes) -> None:
    with pytest.raises(FormatError):
        make_hello(key("lamp").public, nonce=nonce)
    with pytest.raises(FormatError):
        begin_exchange(exchange().hello, nonce=nonce)


# --- single step --------------------------------------------------------------------------------


def test_a_single_step_is_a_pop_in_binary() -> None:
    pop = parse_first(single())
    assert isinstance(pop, UnverifiedPop)
    proof = verify_pop(
        pop, key=key("lamp").public, audiences=[HERE], client_id="lamp-1", now=NOW + 60
    )
    assert (proof.form, proof.time, proof.nonce) == (Form.CHALLENGE, NOW, bytes(8))
    assert proof.replay_id == key_id(key("lamp").public) + bytes(8)


def test_a_single_step_may_carry_a_hint() -> None:
    pop = parse_first(single(issuer_hint=HINT))
    assert isinstance(pop, UnverifiedPop)
    assert (pop.issuer_hint, pop.key_id) == (HINT, key_id(key("lamp").public))


def test_a7_a_pop_is_no_single_step_and_a_single_step_no_pop() -> None:
    pop = parse_first(single())
    assert isinstance(pop, UnverifiedPop)
    as_pop = UnverifiedPop(
        key_id=pop.key_id, time=pop.time, nonce=pop.nonce, issuer_hint=None, signature=pop.signature
    )
    with pytest.raises(ProofError):
        verify_pop(as_pop, key=key("lamp").public, audiences=[HERE], client_id="lamp-1", now=NOW)
    text = make_pop(key("lamp"), audience=HERE, client_id="lamp-1", time=NOW, nonce=bytes(8))
    with pytest.raises(FormatError):
        parse_first(text.encode())


@pytest.mark.parametrize("size", [0, 1, 33, 48, 50, 93, 95, 109, 111])
@pytest.mark.parametrize("first", [0, 1, 2, 3, 4, 255])
def test_a15_every_other_length_and_kind_is_refused(first: int, size: int) -> None:
    data = (bytes([first]) + bytes(size))[:size]
    if (first, size) == (2, 33):
        assert isinstance(parse_first(data), Hello)
    else:
        with pytest.raises(FormatError):
            parse_first(data)


@pytest.mark.parametrize("changes", [{"nonce": bytes(7)}, {"client_id": "a/b"}])
def test_odd_values_are_not_signed(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        single(**changes)


def test_a_grant_says_whether_the_form_may_be_used() -> None:
    world = World()
    world.grant("X", "lamp", scope("a"))
    assert world.connect("lamp", form=Form.CHALLENGE).allowed
    world.grant("X", "other", scope("a"), forms=[Form.POP])
    assert not world.connect("other", form=Form.CHALLENGE).allowed
