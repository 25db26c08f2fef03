import pytest
from hypothesis import given
from hypothesis import strategies as st

from authd.core.encoding import encode
from authd.dht.messages import (
    MAX_DATAGRAM_BYTES,
    Find,
    Found,
    Message,
    NodeInfo,
    Ping,
    Pong,
    Refused,
    Retry,
    Store,
    Stored,
    Verdict,
    claimed_nonce,
    claimed_sender,
    node_id,
    seal_datagram,
    verify_datagram,
)
from authd.errors import FormatError, LimitError, SignatureError, VerificationError
from tests.unit.dht.nodes import make_key

KEY = make_key("node")
NONCE = b"nonce..."
RECEIVER = bytes(range(20))
COOKIE = b"cookie.."
NODES = (
    NodeInfo(bytes(20), ("192.0.2.1", 8184)),
    NodeInfo(bytes(range(20)), ("2001:db8::1", 1)),
)
MESSAGES: list[Message] = [
    Ping(),
    Ping(cookie=COOKIE, reachable=False, offset=2, grants=(b"a", b"b")),
    Find(target=RECEIVER),
    Find(cookie=COOKIE, target=RECEIVER, have_seq=2**50),
    Store(token=COOKIE, record=b"record"),
    Pong(cookie=COOKIE, total=3, grants=(b"one",)),
    Found(token=COOKIE),
    Found(token=COOKIE, seq=7, record=b"record", nodes=NODES),
    Stored(verdict=Verdict.QUOTA, seq=12),
    Retry(cookie=COOKIE),
    Refused(),
]


@pytest.mark.parametrize("message", MESSAGES)
def test_a_datagram_comes_back_as_it_was_sealed(message: Message) -> None:
    data = seal_datagram(message, nonce=NONCE, receiver=RECEIVER, key=KEY)
    datagram = verify_datagram(data)
    assert datagram.message == message
    assert (datagram.nonce, datagram.receiver, datagram.sender) == (NONCE, RECEIVER, KEY.public)
    assert datagram.sender_id == node_id(KEY.public)


@pytest.mark.parametrize("message", MESSAGES)
def test_any_changed_byte_is_refused(message: Message) -> None:
    data = seal_datagram(message, nonce=NONCE, receiver=RECEIVER, key=KEY)
    for place in range(len(data)):
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises((FormatError, LimitError, VerificationError)):
            verify_datagram(changed)


@given(st.binary(max_size=MAX_DATAGRAM_BYTES + 10))
def test_any_bytes_give_a_known_error(data: bytes) -> None:
    with pytest.raises((FormatError, LimitError, VerificationError)):
        verify_datagram(data)


BODIES = st.recursive(
    st.integers(-(2**63), 2**63) | st.binary(max_size=40) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=12,
)


@given(st.integers(0, 9), st.lists(BODIES, max_size=5))
def test_any_signed_body_gives_a_message_or_a_known_error(kind: int, body: list[object]) -> None:
    signed = encode([1, kind, NONCE, RECEIVER, body, KEY.public])[1:]  # type: ignore[list-item]
    signature = KEY.sign(b"authd/dht/1" + signed)
    data = b"\x87" + signed + b"\x58\x40" + signature
    try:
        datagram = verify_datagram(data)
    except (FormatError, LimitError, VerificationError):
        return
    assert seal_datagram(datagram.message, nonce=NONCE, receiver=RECEIVER, key=KEY) == data


def test_another_version_is_refused() -> None:
    signed = encode([2, 7, NONCE, RECEIVER, [], KEY.public])[1:]
    data = b"\x87" + signed + b"\x58\x40" + KEY.sign(b"authd/dht/1" + signed)
    with pytest.raises(FormatError):
        verify_datagram(data)


def test_a_signature_under_another_label_is_refused() -> None:
    signed = encode([1, 7, NONCE, RECEIVER, [], KEY.public])[1:]
    data = b"\x87" + signed + b"\x58\x40" + KEY.sign(b"authd/gossip/1" + signed)
    with pytest.raises(SignatureError):
        verify_datagram(data)


@pytest.mark.parametrize(
    "address",
    [("0.0.0.0", 1), ("224.0.0.1", 1), ("ff02::1", 1), ("192.0.2.1", 0)],  # noqa: S104 - refused here
)
def test_a_node_nobody_can_reach_is_refused(address: tuple[str, int]) -> None:
    found = Found(token=COOKIE, nodes=(NodeInfo(bytes(20), address),))
    data = seal_datagram(found, nonce=NONCE, receiver=RECEIVER, key=KEY)
    with pytest.raises(FormatError):
        verify_datagram(data)


def test_what_does_not_fit_a_datagram_is_not_sealed() -> None:
    store = Store(token=COOKIE, record=bytes(MAX_DATAGRAM_BYTES))
    with pytest.raises(FormatError):
        seal_datagram(store, nonce=NONCE, receiver=RECEIVER, key=KEY)


def test_the_largest_record_fits_both_ways() -> None:
    for message in (
        Store(token=COOKIE, record=bytes(1_035)),
        Found(token=COOKIE, seq=2**51, record=bytes(1_035)),
    ):
        data = seal_datagram(message, nonce=NONCE, receiver=RECEIVER, key=KEY)
        assert len(data) <= MAX_DATAGRAM_BYTES


def test_what_a_datagram_claims_is_read_without_checking_it() -> None:
    key = make_key("node")
    data = seal_datagram(Ping(), nonce=b"01234567", receiver=bytes(20), key=key)
    assert claimed_sender(data) == key.public
    assert claimed_nonce(data) == b"01234567"
    for junk in (b"", b"\x87", bytes(70), bytes(1_200)):
        assert len(claimed_sender(junk)) <= 32
        assert len(claimed_nonce(junk)) <= 8
