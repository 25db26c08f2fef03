import hashlib
import random

import pytest

from authd.dht.messages import Address, node_id
from authd.dht.table import BUCKET_SIZE, MAX_STRIKES, Contact, Table
from tests.unit.dht.nodes import make_key

OWN = hashlib.sha256(b"own").digest()[:20]
KEY = make_key("node").public


def contact(number: int, *, address: Address | None = None) -> Contact:
    name = hashlib.sha256(b"%d" % number).digest()[:20]
    return Contact(node_id=name, address=address or ("192.0.2.1", 1 + number), key=KEY)


def distance(first: bytes, second: bytes) -> int:
    return int.from_bytes(first) ^ int.from_bytes(second)


def filled(count: int) -> Table:
    table = Table(own_id=OWN)
    for number in range(count):
        table.admit(contact(number), rtt_s=0.01, now=float(number))
    return table


@pytest.mark.parametrize("count", [0, 1, 15, 200, 1_000])
def test_the_nearest_are_exactly_the_nearest_of_all_contacts(count: int) -> None:
    table = filled(count)
    known = table.contacts()
    rng = random.Random(count)
    for _ in range(20):
        target = rng.randbytes(20)
        wanted = sorted(known, key=lambda one: distance(one.node_id, target))[:16]
        assert table.nearest(target, count=16) == wanted


def test_nodes_near_to_ourselves_are_all_kept_and_the_rest_is_bounded() -> None:
    table = filled(2_000)
    everyone = [contact(number) for number in range(2_000)]
    everyone.sort(key=lambda one: distance(one.node_id, OWN))
    assert all(one.node_id in table for one in everyone[:BUCKET_SIZE])
    assert len(table) < 1_000


def test_every_contact_is_found_again_and_counts_once() -> None:
    table = filled(500)
    known = table.contacts()
    assert len({one.node_id for one in known}) == len(known) == len(table)
    assert all(table.get(one.node_id) == one for one in known)


def test_an_id_on_a_bucket_boundary_is_sought_where_it_was_filed() -> None:
    table = Table(own_id=bytes(20), bucket_size=1)
    boundary = Contact(node_id=(2**159).to_bytes(20), address=("192.0.2.9", 9), key=KEY)
    others = [
        Contact(node_id=first, address=("192.0.2.8", 8), key=KEY)
        for first in (b"\xff" * 20, b"\x01" * 20)
    ]
    for one in (others[0], boundary, others[1]):
        table.admit(one, rtt_s=0.1, now=0.0)
    assert table.get(boundary.node_id) == boundary
    table.remove(boundary.node_id)
    assert boundary.node_id not in table
    assert all(table.get(one.node_id) == one for one in others)


def test_our_own_id_is_never_a_contact() -> None:
    table = Table(own_id=OWN)
    assert not table.admit(
        Contact(node_id=OWN, address=("192.0.2.1", 1), key=KEY), rtt_s=0.1, now=0.0
    )
    assert len(table) == 0


def test_a_contact_leaves_after_unanswered_requests_in_a_row_only() -> None:
    table = filled(1)
    node = contact(0).node_id
    for _ in range(MAX_STRIKES - 1):
        assert not table.strike(node)
    table.admit(contact(0), rtt_s=0.01, now=9.0)
    for _ in range(MAX_STRIKES - 1):
        assert not table.strike(node)
    assert table.strike(node)
    assert node not in table
    assert not table.strike(node)


def test_a_full_bucket_keeps_the_old_and_a_newcomer_moves_up_when_one_leaves() -> None:
    table = Table(own_id=bytes(20), bucket_size=2)
    # Far from our own id, and the first two share ten bits: their bucket is not split.
    far = [
        Contact(
            node_id=b"\xfc" + bytes([number << 4]) + bytes(18), address=("192.0.2.1", 1), key=KEY
        )
        for number in (0, 2, 1)
    ]
    assert [table.admit(one, rtt_s=0.1, now=0.0) for one in far] == [True, True, False]
    assert table.contacts() == far[:2]
    table.remove(far[0].node_id)
    assert table.contacts() == far[1:]


def test_an_answer_from_elsewhere_does_not_move_a_contact_that_still_answers() -> None:
    table = filled(1)
    moved = contact(0, address=("203.0.113.9", 9))
    table.admit(moved, rtt_s=0.01, now=1.0)
    assert table.get(moved.node_id) == contact(0)
    table.strike(moved.node_id)
    table.admit(moved, rtt_s=0.01, now=2.0)
    assert table.get(moved.node_id) == moved


def test_round_trip_times_are_smoothed() -> None:
    table = Table(own_id=OWN)
    one = contact(0)
    table.admit(one, rtt_s=0.1, now=0.0)
    table.admit(one, rtt_s=0.9, now=1.0)
    assert table.srtt_s(one.node_id) == pytest.approx(0.2)
    assert table.srtt_s(contact(1).node_id) is None


def test_the_longest_silent_are_named_first() -> None:
    table = filled(5)
    assert [one.address[1] for one in table.silent(since=3.0, count=2)] == [1, 2]
    assert table.silent(since=0.0, count=2) == []


def test_ids_are_hashes_of_keys() -> None:
    assert node_id(KEY) == hashlib.sha256(KEY).digest()[:20]
