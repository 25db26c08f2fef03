from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authd.core.claims import Kind
from authd.core.encoding import encode
from authd.core.identity import DomainId, StatementId
from authd.errors import (
    AuthdError,
    ExpiredError,
    FormatError,
    LimitError,
    SignatureError,
    WeakKeyError,
)
from authd.gossip.messages import (
    HAVE_LIFE_S,
    MAX_ANNOUNCED,
    MAX_CHAIN_IDS,
    MAX_FRAME_BYTES,
    MAX_ITEMS,
    MAX_RANGE_IDS,
    MAX_RANGES,
    MAX_SAMPLES,
    MAX_WANTED,
    SAMPLE_LIFE_S,
    Ask,
    ChainAsk,
    ChainPart,
    Challenge,
    Deliver,
    Frame,
    Hello,
    Peers,
    Proof,
    Push,
    Range,
    Reconcile,
    Sample,
    Tick,
    Want,
    batches,
    sign_have,
    sign_sample,
    verify_have,
    verify_sample,
)
from authd.gossip.wire import encode_frame, parse_frame
from authd.service.ports import Item
from tests.unit.dht.nodes import make_key

KEY, OTHER = make_key("node"), make_key("other")
NOW = 1_800_000_000
ONE, TWO = StatementId(bytes(16)), StatementId(bytes(range(16)))
DOMAIN = DomainId(b"domain..........")
SAMPLE = sign_sample(KEY, address="192.0.2.1:8184", issued_at=NOW)
FRAMES: list[Frame] = [
    Hello(key=KEY.public, nonce=bytes(32), run=bytes(16)),
    Proof(signature=bytes(64), grants=(b"one", b"two")),
    Push((Item(Kind.GRANT, b"grant"), Item(Kind.HEARTBEAT, b"beat"))),
    Push(()),
    Want((ONE, TWO)),
    Reconcile((Range(low=bytes(16), high=b"", count=5, fingerprint=bytes(16)),)),
    Reconcile((Range(low=ONE, high=TWO, count=1, ids=(ONE,)),)),
    Reconcile(
        (
            Range(low=ONE, high=TWO, count=1, ids=(ONE,)),
            Range(low=TWO, high=b"", count=1, ids=(TWO,)),
        )
    ),
    ChainAsk(domain=DOMAIN, key=KEY.public, epoch=3, start=0, end=9),
    ChainPart(domain=DOMAIN, key=KEY.public, epoch=3, start=0, ids=(ONE, TWO)),
    Peers((SAMPLE,)),
    Tick(),
    Reconcile(()),
    sign_have(KEY, [ONE, TWO], issued_at=NOW),
    Ask(bytes(16), (ONE,)),
    Ask(bytes(16), ()),
    Deliver(bytes(16), (Item(Kind.GRANT, b"grant"),)),
]


@pytest.mark.parametrize("frame", FRAMES)
def test_a_frame_comes_back_as_it_was_encoded(frame: Frame) -> None:
    assert parse_frame(encode_frame(frame)) == frame


def test_the_largest_frames_fit() -> None:
    full = Range(low=ONE, high=TWO, count=MAX_RANGE_IDS, ids=(ONE,) * MAX_RANGE_IDS)
    frames: list[Frame] = [
        Push((Item(Kind.ROOT, bytes(1_600)),) * MAX_ITEMS),
        Want((ONE,) * MAX_WANTED),
        Reconcile((full,) * MAX_RANGES),
        ChainPart(domain=DOMAIN, key=KEY.public, epoch=0, start=0, ids=(ONE,) * MAX_CHAIN_IDS),
        sign_have(KEY, [ONE] * MAX_ANNOUNCED, issued_at=NOW),
        Ask(bytes(16), (ONE,) * MAX_ANNOUNCED),
        Deliver(bytes(16), (Item(Kind.ROOT, bytes(1_600)),) * MAX_ITEMS),
        Peers((sign_sample(KEY, address="a" * 249 + ":65535", issued_at=NOW),) * MAX_SAMPLES),
    ]
    for frame in frames:
        assert len(encode_frame(frame)) <= MAX_FRAME_BYTES
        assert parse_frame(encode_frame(frame)) == frame


@given(st.binary(max_size=200))
def test_any_bytes_give_a_frame_or_a_known_error(data: bytes) -> None:
    try:
        frame = parse_frame(data)
    except (FormatError, LimitError, WeakKeyError):
        return
    assert encode_frame(frame) == data


BODIES = st.recursive(
    st.integers(-(2**63), 2**63) | st.binary(max_size=40) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=16,
)


@given(st.integers(0, 12), st.lists(BODIES, max_size=6))
def test_any_array_gives_a_frame_or_a_known_error(kind: int, body: list[object]) -> None:
    data = encode([kind, *body])  # type: ignore[list-item]  # hypothesis builds nested lists
    try:
        frame = parse_frame(data)
    except (FormatError, LimitError, WeakKeyError):
        return
    assert encode_frame(frame) == data


@pytest.mark.parametrize(
    "body",
    [
        [4, [[bytes(16), bytes(16), 0, bytes(16), []]]],
        [4, [[bytes(16), b"", 1, b"", []]]],
        [4, [[bytes(16), b"", 1, bytes(16), [bytes(16)]]]],
        [4, [[bytes(15), b"", 0, bytes(16), []]]],
        [4, [[b"", b"", 0, bytes(16), []]]],
        [4, [[bytes(16), TWO, 0, b"", []], [TWO, b"", 0, b"", []]]],
        [5, bytes(16), KEY.public, 0, 5, 5],
        [5, bytes(16), KEY.public, 0, 0, MAX_CHAIN_IDS + 1],
        [2, [[9, b"unknown kind"]]],
        [2, [[1, bytes(1_601)]]],
        [3, [bytes(15)]],
        [8, 1],
        [7, [[KEY.public, "no port", 1, bytes(64)]]],
        [0, 2, KEY.public, bytes(32), bytes(16)],
        [9, KEY.public, NOW, [], bytes(64)],
        [9, KEY.public, NOW, [ONE] * (MAX_ANNOUNCED + 1), bytes(64)],
        [9, KEY.public, -1, [ONE], bytes(64)],
        [9, KEY.public, NOW, [ONE], bytes(63)],
        [9, KEY.public, NOW, [bytes(15)], bytes(64)],
        [10, bytes(15), [ONE]],
        [10, bytes(16), [ONE] * (MAX_ANNOUNCED + 1)],
        [11, bytes(17), []],
        [11, bytes(16), [[9, b"unknown kind"]]],
        [11, bytes(16), [[1, b"x"]] * (MAX_ITEMS + 1)],
    ],
)
def test_what_contradicts_itself_is_refused(body: list[object]) -> None:
    with pytest.raises(FormatError):
        parse_frame(encode(body))  # type: ignore[arg-type]  # written out by hand


def challenge() -> Challenge:
    return Challenge(
        dialler=Hello(key=KEY.public, nonce=b"d" * 32, run=bytes(16)),
        acceptor=Hello(key=OTHER.public, nonce=b"a" * 32, run=bytes(16)),
    )


def test_each_end_proves_itself_and_cannot_be_reflected() -> None:
    one = challenge()
    one.verify(KEY.public, one.sign(KEY))
    one.verify(OTHER.public, one.sign(OTHER))
    with pytest.raises(SignatureError):
        one.verify(OTHER.public, one.sign(KEY))
    turned = Challenge(dialler=one.acceptor, acceptor=one.dialler)
    with pytest.raises(SignatureError):
        turned.verify(KEY.public, one.sign(KEY))


def test_a_proof_is_of_one_stream_only() -> None:
    again = Challenge(
        dialler=challenge().dialler,
        acceptor=Hello(key=OTHER.public, nonce=b"b" * 32, run=bytes(16)),
    )
    with pytest.raises(SignatureError):
        again.verify(KEY.public, challenge().sign(KEY))
    assert again.stream_key() != challenge().stream_key()


def test_a_sample_is_believed_for_a_day_and_only_from_its_node() -> None:
    assert verify_sample(SAMPLE, now=NOW + SAMPLE_LIFE_S) == SAMPLE
    for now in (NOW + SAMPLE_LIFE_S + 1, NOW - 61):
        with pytest.raises(ExpiredError):
            verify_sample(SAMPLE, now=now)
    moved = Sample(
        key=KEY.public, address="203.0.113.1:1", issued_at=NOW, signature=SAMPLE.signature
    )
    with pytest.raises(AuthdError):
        verify_sample(moved, now=NOW)


def test_an_announcement_is_believed_for_a_minute_and_only_from_its_node() -> None:
    have = sign_have(KEY, [ONE], issued_at=NOW)
    for now in (NOW - HAVE_LIFE_S, NOW + HAVE_LIFE_S):
        assert verify_have(have, now=now) == have
    for now in (NOW - HAVE_LIFE_S - 1, NOW + HAVE_LIFE_S + 1):
        with pytest.raises(ExpiredError):
            verify_have(have, now=now)
    for odd in (replace(have, ids=(TWO,)), replace(have, key=OTHER.public)):
        with pytest.raises(SignatureError):
            verify_have(odd, now=NOW)


def test_batches_keep_everything_in_order() -> None:
    assert list(batches(range(5), 2)) == [(0, 1), (2, 3), (4,)]
    assert list(batches([], 2)) == []
