import hashlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authd.core.identity import StatementId
from authd.gossip.messages import Reconcile
from authd.gossip.reconcile import Reconciler
from authd.gossip.wire import encode_frame, parse_frame

KEY = b"stream key"


def make_id(number: int) -> StatementId:
    return StatementId(hashlib.sha256(b"%d" % number).digest()[:16])


class Ends:
    """Two sides that exchange ranges until nothing is left to say."""

    def __init__(self, one: set[StatementId], other: set[StatementId]) -> None:
        self.sets = [set(one), set(other)]
        self.sides = [Reconciler(one, key=KEY), Reconciler(other, key=KEY)]
        self.messages = 0
        self.sent_bytes = 0

    def run(self) -> None:
        ranges, turn = self.sides[0].opening(), 1
        while ranges:
            self.messages += 1
            for start in range(0, len(ranges), 64):
                frame = encode_frame(Reconcile(ranges[start : start + 64]))
                self.sent_bytes += len(frame)
                assert parse_frame(frame) == Reconcile(ranges[start : start + 64])
            found = self.sides[turn].compare(ranges)
            self.sets[1 - turn] |= set(found.surplus)
            self.sets[turn] |= set(found.lacking)
            ranges, turn = found.ranges, 1 - turn


@settings(max_examples=60, deadline=None)
@given(
    shared=st.sets(st.integers(0, 2_000), max_size=400),
    one=st.sets(st.integers(2_001, 4_000), max_size=100),
    other=st.sets(st.integers(4_001, 6_000), max_size=100),
)
def test_both_sides_end_with_the_union(shared: set[int], one: set[int], other: set[int]) -> None:
    ends = Ends({make_id(i) for i in shared | one}, {make_id(i) for i in shared | other})
    ends.run()
    wanted = {make_id(i) for i in shared | one | other}
    assert ends.sets == [wanted, wanted]


@pytest.mark.parametrize(("one", "other"), [(0, 0), (0, 1_000), (1_000, 0), (33, 32), (1, 0)])
def test_empty_and_uneven_sets_meet(one: int, other: int) -> None:
    ends = Ends({make_id(i) for i in range(one)}, {make_id(i) for i in range(other)})
    ends.run()
    assert ends.sets[0] == ends.sets[1] == {make_id(i) for i in range(max(one, other))}


def test_equal_sets_need_one_fingerprint() -> None:
    ids = {make_id(i) for i in range(10_000)}
    ends = Ends(ids, ids)
    ends.run()
    assert (ends.messages, ends.sets[0]) == (1, ids)
    assert ends.sent_bytes < 60


def test_ten_differences_among_many_cost_few_messages_and_bytes() -> None:
    ids = {make_id(i) for i in range(20_000)}
    rng = random.Random(5)
    gone = set(rng.sample(sorted(ids), 10))
    ends = Ends(ids, ids - gone)
    ends.run()
    assert ends.sets[1] == ids
    assert ends.messages <= 6
    assert ends.sent_bytes < 12_000


def test_sets_of_equal_plain_sum_are_told_apart_under_the_stream_key() -> None:
    ids = [int.from_bytes(make_id(i)) for i in range(4)]
    low = [StatementId((n - 1).to_bytes(16)) for n in ids[:2]]
    high = [StatementId((n + 1).to_bytes(16)) for n in ids[2:]]
    plain = {make_id(i) for i in range(4)}
    forged = set(low + high)
    assert sum(map(int.from_bytes, plain)) == sum(map(int.from_bytes, forged))
    ends = Ends(plain, forged)
    ends.run()
    assert ends.sets[0] == ends.sets[1] == plain | forged


def test_fingerprints_differ_from_stream_to_stream() -> None:
    ids = [make_id(i) for i in range(3)]
    assert Reconciler(ids, key=b"a").opening() != Reconciler(ids, key=b"b").opening()
