"""Proofs: grammar, what they are bound to, and time."""

import hashlib
import itertools
from typing import Any

import pytest

from authd.core import limits
from authd.core.encoding import decode_base64url, encode, encode_base64url
from authd.core.grants import Form
from authd.core.identity import DomainId, KeyId, key_id
from authd.core.proofs import (
    Audience,
    DevicePassword,
    UnverifiedPop,
    VerifiedProof,
    explain_mismatch,
    make_pop,
    parse_credentials,
    parse_stapled,
    password_key,
    pop_message,
    subject_key,
    verify_pop,
    verify_stapled,
)
from authd.errors import FormatError, LimitError, ProofError, ReasonCode, SignatureError
from tests.unit.core.world import NOW, flipped, id_of, key, make_grant

HERE = Audience(DomainId(bytes(16)), "broker:1883")
THERE = Audience(DomainId(bytes(16)), "broker:8883")
ELSEWHERE = Audience(DomainId(bytes([1]) * 16), "broker:1883")
NONCE = bytes(range(8))
HINT = KeyId(bytes(range(16)))
GRANTS = [make_grant("X", "gate", depth=1), make_grant("gate", "lamp")]
PASSWORD = encode_base64url(bytes(range(16)))
PASSWORD_ID = encode_base64url(key_id(password_key(PASSWORD).public))


def pop_of(name: str = "lamp", **changes: Any) -> str:
    values: dict[str, Any] = {
        "audience": HERE,
        "client_id": id_of(name),
        "time": NOW,
        "nonce": NONCE,
        **changes,
    }
    return make_pop(key(name), **values)


def parsed(password: str, username: str = id_of("lamp")) -> UnverifiedPop:
    pop = parse_credentials(username, password)
    assert isinstance(pop, UnverifiedPop)
    return pop


def verified(password: str, **changes: Any) -> VerifiedProof:
    values: dict[str, Any] = {
        "key": key("lamp").public,
        "audiences": [HERE],
        "client_id": id_of("lamp"),
        "now": NOW,
        **changes,
    }
    return verify_pop(parsed(password), **values)


# --- pop ----------------------------------------------------------------------------------------


def test_a_pop_is_104_characters_or_126_with_a_hint() -> None:
    assert len(pop_of()) == 104
    assert len(pop_of(issuer_hint=HINT)) == 126


def test_a_pop_is_read_as_it_was_made() -> None:
    pop = parsed(pop_of(issuer_hint=HINT))
    assert (pop.key_id, pop.time, pop.nonce) == (key_id(key("lamp").public), NOW, NONCE)
    assert (pop.issuer_hint, pop.stapled, pop.form) == (HINT, (), Form.POP)
    assert parsed(pop_of()).issuer_hint is None


def test_a_pop_proves_key_audience_client_id_and_time() -> None:
    proof = verified(pop_of())
    assert proof == VerifiedProof(
        key=key("lamp").public,
        form=Form.POP,
        client_id=id_of("lamp"),
        audience=HERE,
        time=NOW,
        nonce=NONCE,
    )
    assert proof.replay_id == key_id(key("lamp").public) + NONCE
    assert proof.expires_at == NOW + 61


def test_what_is_signed_is_one_array() -> None:
    message = pop_message(form=Form.POP, audience=HERE, client_id="c", time=1, nonce=NONCE)
    assert message == encode(["authd/pop/1", 1, bytes(16), "broker:1883", "c", 1, NONCE])


def test_any_audience_the_broker_goes_by_will_do() -> None:
    assert verified(pop_of(), audiences=[THERE, HERE]).audience == HERE
    assert str(HERE) == "AAAAAAAAAAAAAAAAAAAAAA/broker:1883"


@pytest.mark.parametrize(
    "changes",
    [
        {"audiences": [THERE]},
        {"audiences": [ELSEWHERE]},
        {"audiences": []},
        {"client_id": "other"},
        {"key": key("other").public},
    ],
)
def test_a_pop_counts_for_nothing_else(changes: dict[str, object]) -> None:
    with pytest.raises(ProofError) as refusal:
        verified(pop_of(), **changes)
    assert refusal.value.reason is ReasonCode.BAD_SIGNATURE


def test_every_changed_bit_is_noticed() -> None:
    data = decode_base64url(pop_of())
    for bit in range(8 * len(data)):
        with pytest.raises((FormatError, ProofError)):
            verified(encode_base64url(flipped(data, bit)))


@pytest.mark.parametrize("skew_s", [-60, -59, 0, 59, 60])
def test_a_clock_may_be_a_minute_off(skew_s: int) -> None:
    assert verified(pop_of(time=NOW + skew_s)).time == NOW + skew_s


@pytest.mark.parametrize(("skew_s", "word"), [(-61, "behind"), (61, "ahead of")])
def test_and_no_more(skew_s: int, word: str) -> None:
    with pytest.raises(ProofError, match=f"61 s {word}") as refusal:
        verified(pop_of(time=NOW + skew_s))
    assert refusal.value.reason is ReasonCode.CLOCK_SKEW


def test_a_wrong_clock_is_told_to_the_holder_of_the_key_alone() -> None:
    with pytest.raises(ProofError) as refusal:
        verified(pop_of(time=NOW + 1_000), key=key("other").public)
    assert refusal.value.reason is ReasonCode.BAD_SIGNATURE


@pytest.mark.parametrize("nonce", [b"", bytes(7), bytes(9)])
def test_a_nonce_is_eight_bytes(nonce: bytes) -> None:
    with pytest.raises(FormatError, match="8 bytes"):
        pop_of(nonce=nonce)


def test_an_odd_client_id_is_not_signed() -> None:
    with pytest.raises(FormatError, match="client id"):
        pop_of(client_id="a/b")


# --- pop + path ---------------------------------------------------------------------------------


def test_stapled_grants_travel_behind_a_dot() -> None:
    pop = parsed(pop_of(path=GRANTS))
    assert pop.form is Form.POP_PATH
    assert verify_stapled(pop.stapled) == tuple(GRANTS)
    assert verified(pop_of(path=GRANTS)).form is Form.POP_PATH


def test_the_form_is_signed() -> None:
    bare, _, stapled = pop_of(path=GRANTS).partition(".")
    for other in (bare, f"{pop_of()}.{stapled}"):
        with pytest.raises(ProofError):
            verified(other)


@pytest.mark.parametrize(
    "value",
    [[], {}, 7, b"", [7], ["text"], [b"", 7], [b""] * 5],
)
def test_a_stapled_path_is_one_to_four_byte_strings(value: object) -> None:
    with pytest.raises(FormatError):
        parse_stapled(encode_base64url(encode(value)))  # type: ignore[arg-type]  # odd on purpose


def test_a_stapled_path_is_bounded() -> None:
    with pytest.raises(LimitError):
        parse_stapled(encode_base64url(encode([bytes(limits.MAX_STAPLED_BYTES)])))


def test_a_dot_without_a_path_is_no_pop() -> None:
    with pytest.raises(FormatError):
        parsed(pop_of() + ".")


def test_a_stapled_grant_must_verify() -> None:
    with pytest.raises(SignatureError):
        verify_stapled([flipped(GRANTS[0].encoded, 8 * len(GRANTS[0].encoded) - 20)])


def test_the_key_of_an_id_is_found_among_subjects() -> None:
    assert subject_key(GRANTS, key_id(key("lamp").public)) == key("lamp").public
    assert subject_key(GRANTS, key_id(key("X").public)) is None
    assert subject_key([], key_id(key("X").public)) is None


# --- grammar ------------------------------------------------------------------------------------


@pytest.mark.parametrize("username", ["", "lamp", id_of("lamp")[:-1], id_of("lamp") + "A"])
def test_the_user_name_of_a_pop_is_a_key_id(username: str) -> None:
    with pytest.raises(FormatError):
        parse_credentials(username, pop_of())


def test_every_other_length_is_refused() -> None:
    whole = pop_of(issuer_hint=HINT)
    for length in set(range(len(whole))) - {22, 104}:
        with pytest.raises(FormatError):
            parse_credentials(id_of("lamp"), whole[:length])


@pytest.mark.parametrize("length", [104, 126])
@pytest.mark.parametrize("char", ["\x00", "=", "+", "/", " ", "\n", "\u00e4", "\ud800"])
def test_every_other_character_is_refused(length: int, char: str) -> None:
    password = pop_of(issuer_hint=HINT if length == 126 else None)
    with pytest.raises(FormatError):
        parse_credentials(id_of("lamp"), char + password[1:])
    with pytest.raises(FormatError):
        parse_credentials(id_of("lamp"), password[:-1] + char)


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version_is_refused(version: int) -> None:
    data = bytes([version]) + decode_base64url(pop_of())[1:]
    with pytest.raises(FormatError, match=f"version {version}"):
        parsed(encode_base64url(data))


@pytest.mark.parametrize(
    ("username", "password"),
    [("x" * 65, pop_of()), (id_of("lamp"), "x" * (limits.MAX_PASSWORD_CHARS + 1))],
)
def test_lengths_are_bounded_before_anything_else(username: str, password: str) -> None:
    with pytest.raises(LimitError):
        parse_credentials(username, password)


# --- device password ----------------------------------------------------------------------------


def test_the_key_of_a_device_password_follows_from_it() -> None:
    seed = hashlib.sha256(b"authd/password/1" + bytes(range(16))).digest()
    assert password_key(PASSWORD).seed == seed
    credentials = parse_credentials("kitchen", PASSWORD)
    assert credentials == DevicePassword(key=password_key(PASSWORD).public, username="kitchen")
    assert credentials.key_id == key_id(password_key(PASSWORD).public)


@pytest.mark.parametrize("username", ["a", "x" * 64, "Lamp_1.2-3", PASSWORD_ID])
def test_a_device_password_goes_with_a_plain_name_or_its_own_id(username: str) -> None:
    assert isinstance(parse_credentials(username, PASSWORD), DevicePassword)


@pytest.mark.parametrize(
    "username",
    ["", "a b", "a/b", "\u00e4", "a\x00", "authd-evict", id_of("lamp"), "a:b"],
)
def test_and_with_no_other(username: str) -> None:
    with pytest.raises(FormatError):
        parse_credentials(username, PASSWORD)


@pytest.mark.parametrize("text", ["", "A" * 21, "A" * 23, "A" * 21 + "B", "A" * 24])
def test_a_device_password_is_22_canonical_characters(text: str) -> None:
    with pytest.raises(FormatError):
        password_key(text)


def test_nothing_of_a_device_password_can_be_replayed_twice() -> None:
    proof = VerifiedProof(
        key=key("lamp").public, form=Form.PASSWORD, client_id="lamp", audience=HERE
    )
    assert (proof.replay_id, proof.expires_at) == (None, 0)


# --- explanations -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("password", "client_id", "expected", "says"),
    [
        (pop_of(audience=THERE), id_of("lamp"), ReasonCode.WRONG_AUDIENCE, "broker:8883"),
        (pop_of(), "kitchen", ReasonCode.WRONG_CLIENT_ID, "the CONNECT says `kitchen`"),
        (pop_of("other"), id_of("lamp"), ReasonCode.BAD_SIGNATURE, "another key"),
    ],
)
def test_a_mismatch_is_explained_and_stays_refused(
    password: str, client_id: str, expected: ReasonCode, says: str
) -> None:
    error = explain_mismatch(
        parsed(password),
        key=key("lamp").public,
        audiences=[HERE],
        others=[ELSEWHERE, THERE],
        client_id=client_id,
    )
    assert error.reason is expected
    assert says in str(error)


def test_no_two_passwords_of_one_device_are_equal() -> None:
    passwords = {
        pop_of(time=NOW + i, nonce=bytes([j]) * 8) for i, j in itertools.product(range(3), range(3))
    }
    assert len(passwords) == 9
