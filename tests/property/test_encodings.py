"""Decoders: what is accepted has one spelling, and any bytes give a value or a clean refusal."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from authd.core import limits
from authd.core.challenge import make_hello, parse_first
from authd.core.claims import Kind
from authd.core.counter import make_counter, parse_counter
from authd.core.encoding import (
    CborValue,
    decode,
    decode_base64url,
    encode,
    encode_base64url,
)
from authd.core.proofs import make_pop, parse_credentials, parse_stapled
from authd.core.records import RecordKind, encode_record, make_record, record_salt, verify_record
from authd.core.roots import parse_root, verify_root
from authd.core.statements import verify
from authd.errors import FormatError, LimitError, VerificationError
from authd.service.issuing import (
    Bundle,
    Ticket,
    decode_bundle,
    decode_ticket,
    encode_bundle,
    encode_ticket,
)
from authd.service.ports import Item
from tests.unit.core.test_revocations import IDS, beat
from tests.unit.core.test_statements import BROKER, REVOKE
from tests.unit.core.world import NOW, World, authority, id_of, key, make_grant, make_root, scope

WORLD = World()
ROOT = make_root(authority("X"))
GRANT = make_grant("X", "lamp", scope("a/#", "b/+"), depth=2, audiences=["a/b:1"])
RECORD = make_record(
    key("X"),
    salt=record_salt(RecordKind.GRANTS, key("X").public),
    seq=NOW * 1_000_000,
    content=GRANT.encoded,
    expires_at=NOW + 60,
)
BUNDLE = Bundle(
    statements=(Item(Kind.GRANT, GRANT.encoded), Item(Kind.REVOKE, REVOKE.encoded)),
    records=(encode_record(RECORD),),
)
TICKET = Ticket(
    domain=ROOT.domain,
    seed=bytes(32),
    operator=True,
    roots=(ROOT.encoded,),
    grants=(GRANT.encoded,),
    publisher=ROOT.publisher,
    peers=("a:1", "b:2"),
)
POP = make_pop(
    key("lamp"),
    audience=WORLD.audience,
    client_id="lamp",
    time=NOW,
    nonce=bytes(8),
    path=[GRANT],
)


def _credentials(data: bytes) -> object:
    return parse_credentials(id_of("lamp"), data.decode("latin-1"))


def _stapled(data: bytes) -> object:
    return parse_stapled(encode_base64url(data))


COUNTER = make_counter(key("lamp"), audience=WORLD.audience, client_id="lamp", counter=7)
HELLO = make_hello(key("lamp").public, nonce=bytes(16))


def _counter(data: bytes) -> object:
    return parse_counter(id_of("lamp"), data.decode("latin-1"))


DECODERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "grant": (lambda data: verify(Kind.GRANT, data), GRANT.encoded),
    "revoke": (lambda data: verify(Kind.REVOKE, data), REVOKE.encoded),
    "heartbeat": (lambda data: verify(Kind.HEARTBEAT, data), beat(ids=IDS[:3]).encoded),
    "broker": (lambda data: verify(Kind.BROKER, data), BROKER.encoded),
    "root": (lambda data: verify_root(data, previous=None), ROOT.encoded),
    "unverified root": (parse_root, ROOT.encoded),
    "record": (lambda data: verify_record(data, now=NOW), encode_record(RECORD)),
    "bundle": (decode_bundle, encode_bundle(BUNDLE)),
    "ticket": (decode_ticket, encode_ticket(TICKET)),
    "credentials": (_credentials, POP.encode()),
    "stapled": (_stapled, encode([GRANT.encoded])),
    "counter": (_counter, COUNTER.encode()),
    "first of an exchange": (parse_first, HELLO),
}
# What is well-formed may still not verify; nothing but these three families may come out.
REFUSALS = (FormatError, LimitError, VerificationError)

INTEGERS = st.integers(min_value=-(2**64), max_value=2**64 - 1)
VALUES: st.SearchStrategy[CborValue] = st.recursive(
    INTEGERS | st.binary(max_size=40) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(INTEGERS, inner, max_size=4),
    max_leaves=12,
)


def _depth(value: object) -> int:
    match value:
        case dict():
            return 1 + max(map(_depth, value.values()), default=0)
        case list():
            return 1 + max(map(_depth, value), default=0)
        case _:
            return 0


@given(VALUES)
def test_what_is_encoded_is_decoded_to_the_same(value: CborValue) -> None:
    data = encode(value)
    if _depth(value) <= limits.MAX_CBOR_DEPTH:
        assert decode(data, max_bytes=10_000) == value


@given(st.binary(max_size=64))
@example(b"\xa2\x20\x01\x01\x02")
def test_what_is_decoded_is_encoded_to_the_same(data: bytes) -> None:
    try:
        value = decode(data, max_bytes=64)
    except (FormatError, LimitError):
        return
    assert encode(value) == data


@given(st.binary(max_size=80))
def test_base64url_goes_there_and_back(data: bytes) -> None:
    assert decode_base64url(encode_base64url(data)) == data


@given(st.text(max_size=40) | st.text("AQgw-_=+/ \n", max_size=8))
def test_base64url_has_one_spelling(text: str) -> None:
    try:
        data = decode_base64url(text)
    except FormatError:
        return
    assert encode_base64url(data) == text


@pytest.mark.parametrize("name", DECODERS)
def test_the_seed_of_every_decoder_is_accepted(name: str) -> None:
    decoder, seed = DECODERS[name]
    assert decoder(seed) is not None


@pytest.mark.parametrize("name", DECODERS)
@given(data=st.binary(max_size=200))
def test_any_bytes_give_a_value_or_a_refusal(name: str, data: bytes) -> None:
    _try(DECODERS[name][0], data)


@pytest.mark.parametrize("name", DECODERS)
@given(value=VALUES)
def test_any_canonical_value_gives_a_value_or_a_refusal(name: str, value: CborValue) -> None:
    _try(DECODERS[name][0], encode(value))


@pytest.mark.parametrize("name", DECODERS)
@given(choice=st.data())
def test_a_valid_input_that_was_tampered_with_gives_a_value_or_a_refusal(
    name: str, choice: st.DataObject
) -> None:
    decoder, seed = DECODERS[name]
    start = choice.draw(st.integers(0, len(seed)))
    end = choice.draw(st.integers(start, min(start + 8, len(seed))))
    _try(decoder, seed[:start] + choice.draw(st.binary(max_size=8)) + seed[end:])


def _try(decoder: Callable[[bytes], Any], data: bytes) -> None:
    try:
        decoder(data)
    except REFUSALS:
        return


SMALL = st.binary(max_size=60)


@given(st.lists(st.tuples(st.sampled_from(Kind), SMALL), max_size=5), st.lists(SMALL, max_size=5))
def test_a_bundle_goes_there_and_back(
    statements: list[tuple[Kind, bytes]], records: list[bytes]
) -> None:
    bundle = Bundle(
        statements=tuple(Item(kind, data) for kind, data in statements), records=tuple(records)
    )
    assert decode_bundle(encode_bundle(bundle)) == bundle


@given(text=st.text(max_size=130), username=st.text(max_size=70))
def test_any_text_as_credentials_gives_a_value_or_a_refusal(text: str, username: str) -> None:
    try:
        parse_credentials(username, text)
    except (FormatError, LimitError):
        return
