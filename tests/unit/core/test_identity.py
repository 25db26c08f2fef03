"""Keys and ids: what is admitted, and how it is written."""

import hashlib

import pytest

from authd.core.identity import (
    SigningKey,
    admit_key,
    key_id,
    key_id_text,
    looks_like_key_id,
    parse_id,
    verify_signature,
)
from authd.errors import FormatError, SignatureError
from tests.unit.core.world import flipped, id_of, key

# RFC 8032 §7.1, test 1 and test 3: seed, public key, message, signature.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
            "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
            "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
]


@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC_8032)
def test_keys_and_signatures_are_those_of_rfc_8032(
    seed: str, public: str, message: str, signature: str
) -> None:
    signing = SigningKey.from_seed(bytes.fromhex(seed))
    assert signing.public.hex() == public
    assert signing.sign(bytes.fromhex(message)).hex() == signature
    verify_signature(signing.public, bytes.fromhex(message), bytes.fromhex(signature))


def test_a_signature_counts_for_its_key_and_message_alone() -> None:
    signature = key("a").sign(b"message")
    verify_signature(key("a").public, b"message", signature)
    for public, message, offered in (
        (key("b").public, b"message", signature),
        (key("a").public, b"messagE", signature),
        (key("a").public, b"message", flipped(signature, 3)),
        (key("a").public, b"message", signature[:-1]),
        (key("a").public, b"message", signature + b"\x00"),
        (key("a").public, b"message", b""),
    ):
        with pytest.raises(SignatureError):
            verify_signature(public, message, offered)


def test_a_key_id_is_a_hash_under_a_label() -> None:
    public = key("a").public
    assert key_id(public) == hashlib.sha256(b"authd/id/v1" + public).digest()[:16]
    assert parse_id(key_id_text(public)) == key_id(public)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(FormatError, match="32 are needed"):
        admit_key(key("a").public.ljust(64)[:length])


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_seed_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(FormatError, match="32 are needed"):
        SigningKey.from_seed(bytes(length))


@pytest.mark.parametrize("text", ["", "A" * 21, "A" * 23, "A" * 24, "A" * 21 + "B", "A" * 21 + "="])
def test_an_id_is_22_canonical_characters(text: str) -> None:
    with pytest.raises(FormatError):
        parse_id(text)
    assert not looks_like_key_id(text)


def test_a_key_id_looks_like_one() -> None:
    assert looks_like_key_id(id_of("a"))
    assert looks_like_key_id("A" * 22)
    assert not looks_like_key_id("kitchen-sensor-number1")


def test_a_signing_key_shows_its_public_id_only() -> None:
    assert repr(key("a")) == f"SigningKey({id_of('a')})"
    assert key("a").seed.hex() not in repr(key("a"))
