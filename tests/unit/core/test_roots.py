"""Roots: thresholds, succession, and what a root may say."""

from dataclasses import replace
from typing import Any

import pytest

from authd.core import limits
from authd.core.claims import LABELS, Claim, Kind
from authd.core.encoding import CborValue, decode, encode
from authd.core.envelope import signing_bytes
from authd.core.identity import SigningKey, StatementId
from authd.core.roots import (
    Root,
    RootClaims,
    encode_root_payload,
    parse_root,
    sign_root,
    verify_root,
)
from authd.errors import (
    AuthdError,
    FormatError,
    LimitError,
    SignatureError,
    StaleRecordError,
    WeakKeyError,
)
from tests.unit.core.world import (
    NOW,
    authority,
    flipped,
    key,
    make_root,
    publics,
    root_claims,
    scope,
)

NEUTRAL = (1).to_bytes(32, "little")
FIRST = make_root(authority("X"))


def of_three(**changes: Any) -> RootClaims:
    """Version 1 with three root keys of which two must sign."""
    keys = publics(["r1", "r2", "r3"])
    return root_claims(authority("X"), root_keys=keys, threshold=2, **changes)


def signers(*names: str) -> tuple[SigningKey, ...]:
    return tuple(map(key, names))


def after(previous: Root, **changes: Any) -> RootClaims:
    values = {name: getattr(previous, name) for name in RootClaims.__slots__}
    values |= {"version": previous.version + 1, "previous": previous.statement_id, **changes}
    return RootClaims(**values)


def wire(payload: bytes, *signatures: tuple[int, int, SigningKey | bytes]) -> bytes:
    message = signing_bytes(LABELS[Kind.ROOT], payload)
    items: list[CborValue] = [
        [key_list, index, by if isinstance(by, bytes) else by.sign(message)]
        for key_list, index, by in signatures
    ]
    return encode([payload, items])


def forged(**changes: object) -> bytes:
    """Version 1, signed well, with some claims changed."""
    claims = decode(FIRST.payload, max_bytes=5_000)
    assert isinstance(claims, dict)
    odd: dict[int, Any] = {**claims, **{Claim[name.upper()]: v for name, v in changes.items()}}
    return wire(encode({k: v for k, v in odd.items() if v is not None}), (1, 0, key("own root")))


def test_version_1_names_its_domain() -> None:
    assert verify_root(FIRST.encoded, previous=None) == FIRST
    assert bytes(FIRST.domain) == bytes(FIRST.statement_id)
    assert FIRST.version == 1
    assert FIRST.previous is None


def test_a_root_finds_its_authorities() -> None:
    assert FIRST.authority(key("X").public) == FIRST.authorities[0]
    assert FIRST.authority(key("Y").public) is None


@pytest.mark.parametrize("names", [("r1", "r2"), ("r3", "r1"), ("r1", "r2", "r3")])
def test_k_of_n_keys_make_a_root(names: tuple[str, ...]) -> None:
    assert sign_root(of_three(), previous=None, keys=signers(*names)).threshold == 2


@pytest.mark.parametrize("names", [(), ("r1",), ("r1", "stranger")])
def test_fewer_do_not(names: tuple[str, ...]) -> None:
    with pytest.raises(SignatureError, match="of 2 new signatures"):
        sign_root(of_three(), previous=None, keys=signers(*names))


def test_one_key_does_not_sign_twice() -> None:
    payload = encode_root_payload(of_three())
    for places in ([0, 0], [1, 0]):
        data = wire(payload, *((1, place, key("r1")) for place in places))
        with pytest.raises(FormatError, match="ascending"):
            parse_root(data)


def test_a_signature_stands_under_its_own_key() -> None:
    data = wire(encode_root_payload(of_three()), (1, 0, key("r1")), (1, 1, key("r1")))
    with pytest.raises(SignatureError):
        verify_root(data, previous=None)


def test_a_bad_signature_is_not_outvoted() -> None:
    data = wire(
        encode_root_payload(of_three()), (1, 0, key("r1")), (1, 1, key("r2")), (1, 2, bytes(64))
    )
    with pytest.raises(SignatureError):
        verify_root(data, previous=None)


@pytest.mark.parametrize(("key_list", "index"), [(1, 3), (0, 0)])
def test_a_signature_by_a_key_that_is_not_there_is_refused(key_list: int, index: int) -> None:
    data = wire(
        encode_root_payload(of_three()),
        *sorted([(1, 0, key("r1")), (1, 1, key("r2")), (key_list, index, key("r3"))], key=_place),
    )
    with pytest.raises(SignatureError, match="a signature by key"):
        verify_root(data, previous=None)


def _place(signature: tuple[int, int, SigningKey]) -> tuple[int, int]:
    return signature[0], signature[1]


# --- succession ---------------------------------------------------------------------------------


def test_the_next_version_keeps_the_domain() -> None:
    second = sign_root(after(FIRST), previous=FIRST, keys=signers("own root"))
    assert (second.version, second.domain) == (2, FIRST.domain)
    assert second.statement_id != FIRST.statement_id


def test_a_new_set_needs_the_old_threshold_and_the_new() -> None:
    first = sign_root(of_three(), previous=None, keys=signers("r1", "r2"))
    claims = after(first, root_keys=publics(["r3", "n1", "n2"]), threshold=2)
    for names in [("r1", "r2", "n1"), ("r1", "n1", "n2"), ("n1", "n2"), ("r1", "r2")]:
        with pytest.raises(SignatureError):
            sign_root(claims, previous=first, keys=signers(*names))
    assert sign_root(claims, previous=first, keys=signers("r1", "r2", "n1", "n2")).version == 2


def test_a_key_of_both_sets_signs_once_and_counts_for_both() -> None:
    first = sign_root(of_three(), previous=None, keys=signers("r1", "r2"))
    claims = after(first, root_keys=publics(["r1", "n1"]), threshold=2)
    second = sign_root(claims, previous=first, keys=signers("r1", "r2", "n1"))
    places = [(one.key_list, one.index) for one in parse_root(second.encoded).signatures]
    assert places == [(0, 1), (1, 0), (1, 1)]


def test_a_key_of_both_sets_does_not_sign_as_an_old_key() -> None:
    first = sign_root(of_three(), previous=None, keys=signers("r1", "r2"))
    payload = encode_root_payload(after(first))
    data = wire(payload, (0, 0, key("r1")), (1, 1, key("r2")))
    with pytest.raises(SignatureError, match="signs as an old key"):
        verify_root(data, previous=first)


def test_the_threshold_cannot_be_lowered_by_the_new_keys_alone() -> None:
    first = sign_root(of_three(), previous=None, keys=signers("r1", "r2"))
    claims = after(first, root_keys=publics(["r1"]), threshold=1)
    with pytest.raises(SignatureError, match="1 of 2 old ones"):
        sign_root(claims, previous=first, keys=signers("r1"))


def test_no_version_is_skipped_repeated_or_swapped() -> None:
    second = sign_root(after(FIRST), previous=FIRST, keys=signers("own root"))
    third = sign_root(after(second), previous=second, keys=signers("own root"))
    for data, previous in (
        (third.encoded, FIRST),
        (second.encoded, second),
        (second.encoded, None),
        (FIRST.encoded, FIRST),
    ):
        with pytest.raises(StaleRecordError, match="comes next"):
            verify_root(data, previous=previous)


def test_a_successor_names_its_predecessor() -> None:
    claims = replace(after(FIRST), previous=StatementId(bytes(16)))
    with pytest.raises(StaleRecordError, match="names another version 1"):
        sign_root(claims, previous=FIRST, keys=signers("own root"))


def test_reset_is_a_claim() -> None:
    assert not FIRST.reset
    second = sign_root(after(FIRST, reset=True), previous=FIRST, keys=signers("own root"))
    assert second.reset
    assert not verify_root(forged(reset=0), previous=None).reset


# --- form ---------------------------------------------------------------------------------------


def test_every_changed_bit_is_noticed() -> None:
    for bit in range(8 * len(FIRST.encoded)):
        with pytest.raises(AuthdError):
            verify_root(flipped(FIRST.encoded, bit), previous=None)


@pytest.mark.parametrize(
    "value",
    [
        7,
        [],
        [b""],
        [FIRST.payload, 1],
        [FIRST.payload, [], 1],
        [FIRST.payload, [[1, 0]]],
        [FIRST.payload, [[2, 0, bytes(64)]]],
        [FIRST.payload, [[1, -1, bytes(64)]]],
        [FIRST.payload, [[1, 5, bytes(64)]]],
        [FIRST.payload, [[1, 0, "signature"]]],
        [FIRST.payload, [7]],
        ["payload", []],
        [encode([]), []],
    ],
)
def test_a_root_is_a_payload_and_signatures(value: CborValue) -> None:
    with pytest.raises(FormatError):
        parse_root(encode(value))


def test_a_signature_of_another_length_is_refused() -> None:
    with pytest.raises(SignatureError, match="64 are needed"):
        verify_root(wire(FIRST.payload, (1, 0, bytes(63))), previous=None)


X = [authority("X").key, [["#", ["pub"]]], 1, 2_000_000_000]


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 0},
        {"version": None},
        {"version": 2**40},
        {"version": 2},
        {"previous": bytes(16)},
        {"root_keys": []},
        {"root_keys": ["key"]},
        {"root_keys": [key("own root").public] * 2},
        {"root_keys": [key(f"r{i}").public for i in range(6)]},
        {"threshold": 0},
        {"threshold": 2},
        {"authorities": []},
        {"authorities": [X[:3]]},
        {"authorities": [["key", *X[1:]]]},
        {"authorities": [[X[0], X[1], "1", X[3]]]},
        {"authorities": [[X[0], X[1], 9, X[3]]]},
        {"authorities": [[X[0], X[1], -1, X[3]]]},
        {"authorities": [[X[0], X[1], 1, -1]]},
        {"authorities": [[X[0], X[1], 1, 2**40]]},
        {"authorities": [[X[0], [], 1, X[3]]]},
        {"authorities": [[X[0], [[f"{i:02}", ["pub"]] for i in range(17)], 1, X[3]]]},
        {"authorities": [X, X]},
        {"authorities": [[key("own root").public, *X[1:]]]},
        {"heartbeat_keys": [key("own root").public]},
        {"heartbeat_keys": publics(["h1", "h2"])},
        {"heartbeat_keys": publics(["h1", "h2", "h1"])},
        {"heartbeat_keys": publics(["h1", "h2", "h3", "h4", "h5", "h6"])},
        {"publisher": key("own root").public},
        {"next_publisher": key("own root").public},
        {"publisher": bytes(31)},
        {"exp": None},
        {"exp": "never"},
        {"reset": 2},
        {"iss": key("own root").public},
    ],
)
def test_a_claim_that_is_not_as_it_must_be_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(FormatError):
        verify_root(forged(**changes), previous=None)


@pytest.mark.parametrize(
    "changes",
    [
        {"root_keys": [NEUTRAL]},
        {"heartbeat_keys": [NEUTRAL]},
        {"publisher": NEUTRAL},
        {"next_publisher": NEUTRAL},
        {"authorities": [[NEUTRAL, *X[1:]]]},
    ],
)
def test_a_weak_key_is_refused_wherever_it_stands(changes: dict[str, object]) -> None:
    with pytest.raises(WeakKeyError):
        verify_root(forged(**changes), previous=None)


def test_the_payload_is_bounded() -> None:
    entries = [authority(f"a{i}", scope=scope("x" * 100)) for i in range(8)]
    with pytest.raises(LimitError, match="fit a record"):
        encode_root_payload(root_claims(*entries))


def test_the_largest_root_set_fits() -> None:
    names = [f"r{i}" for i in range(5)]
    old = sign_root(
        root_claims(authority("X"), root_keys=publics(names), threshold=5),
        previous=None,
        keys=signers(*names),
    )
    fresh = [f"n{i}" for i in range(5)]
    claims = after(
        old,
        root_keys=publics(fresh),
        heartbeat_keys=publics(["h1", "h2", "h3", "h4", "h5"]),
    )
    new = sign_root(claims, previous=old, keys=signers(*names, *fresh))
    assert len(new.encoded) <= limits.MAX_ROOT_BYTES
    assert len(parse_root(new.encoded).signatures) == 10


def test_signing_refuses_claims_that_contradict_each_other() -> None:
    claims = replace(root_claims(authority("X")), threshold=3)
    with pytest.raises(FormatError, match="threshold"):
        sign_root(claims, previous=None, keys=signers("own root"))


# --- life ---------------------------------------------------------------------------------------


def test_a26_a_root_lives_no_longer_than_any_root_may() -> None:
    longest = make_root(authority("X"), expires_at=NOW + limits.MAX_ROOT_LIFE_S)
    assert verify_root(longest.encoded, previous=None, now=NOW) == longest
    with pytest.raises(LimitError, match="at most 11 years"):
        verify_root(longest.encoded, previous=None, now=NOW - 1)
    # What was accepted once is not judged again.
    assert verify_root(longest.encoded, previous=None) == longest
