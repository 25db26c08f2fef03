"""What daemons send one another, as targets."""

from random import Random
from typing import Any

from authd.core.encoding import decode
from authd.dht.messages import (
    Find,
    Found,
    NodeInfo,
    Ping,
    Pong,
    Refused,
    Retry,
    Store,
    Stored,
    Verdict,
    seal_datagram,
    verify_datagram,
)
from authd.errors import (
    ExpiredError,
)
from authd.gossip.messages import MAX_FRAME_BYTES, Frame, Peers, verify_sample
from authd.gossip.wire import encode_frame, parse_frame
from tests.bench.fuzz_inputs import encoded, odd_value
from tests.bench.fuzz_target import KEY, VERIFIED, Target
from tests.unit.core.world import (
    NOW,
    make_grant,
)
from tests.unit.gossip.test_messages import FRAMES


def datagrams() -> Target:
    node = NodeInfo(bytes(20), ("192.0.2.1", 8184))
    grant = make_grant("X", "lamp").encoded
    found = Found(token=bytes(8), seq=3, record=b"record", nodes=(node,))
    messages = (
        Ping(cookie=bytes(8), offset=1, grants=(grant,)),
        Find(cookie=bytes(8), target=bytes(20)),
        Store(token=bytes(8), record=b"record"),
        Pong(cookie=bytes(8), total=2, grants=(grant,)),
        found,
        Stored(verdict=Verdict.STALE, seq=2),
        Retry(cookie=bytes(8)),
        Refused(),
    )
    seeds = [seal_datagram(one, nonce=bytes(8), receiver=bytes(20), key=KEY) for one in messages]

    def resealed(rng: Random, seed: bytes) -> bytes:
        items = decode(seed, max_bytes=2_000)
        assert isinstance(items, list)
        changed: Any = [*items[:4], odd_value(rng, items[4]), *items[5:6]]
        if rng.random() < 0.2:
            changed = odd_value(rng, items[:6])
        signed = encoded(changed)[1:]
        return encoded([0] * 7)[:1] + signed + b"\x58\x40" + KEY.sign(b"authd/dht/1" + signed)

    return Target(
        name="datagram", decode=verify_datagram, refusals=VERIFIED, seeds=seeds, resealed=resealed
    )


def frames() -> Target:
    def read(data: bytes) -> Frame:
        frame = parse_frame(data)
        if isinstance(frame, Peers):
            for sample in frame.samples:
                verify_sample(sample, now=NOW)
        return frame

    def resealed(rng: Random, seed: bytes) -> bytes:
        return encoded(odd_value(rng, decode(seed, max_bytes=MAX_FRAME_BYTES)))

    return Target(
        name="gossip frame",
        decode=read,
        refusals=(*VERIFIED, ExpiredError),
        seeds=[encode_frame(one) for one in FRAMES],
        resealed=resealed,
        again=encode_frame,
    )
