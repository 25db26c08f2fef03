"""The lookup on a network of values and a clock of our own."""

import hashlib
import heapq
import random
from dataclasses import dataclass, field

import pytest

from authd.core.records import Record
from authd.dht.lookup import (
    ALPHA,
    MAX_REQUESTS,
    MAX_TIMEOUT_S,
    MIN_TIMEOUT_S,
    REPLICAS,
    Finding,
    Lookup,
    timeout_s,
)
from authd.dht.table import Contact
from tests.unit.dht.nodes import make_test_record

OWN = bytes(20)


def make_contact(number: int) -> Contact:
    name = hashlib.sha256(b"node %d" % number).digest()[:20]
    return Contact(node_id=name, address=("192.0.2.1", 1 + number))


def distance(one: Contact, target: bytes) -> int:
    return int.from_bytes(one.node_id) ^ int.from_bytes(target)


@dataclass
class World:
    """Nodes that all know each other well; some are dead, slow or hold a record."""

    count: int
    seed: int = 1
    rtt_s: float = 0.02
    dead: set[int] = field(default_factory=set)
    holders: dict[bytes, Record] = field(default_factory=dict)
    requests: int = 0
    most_under_way: int = 0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.contacts = [make_contact(number) for number in range(self.count)]
        self.dead_ids = {self.contacts[number].node_id for number in self.dead}

    def answer(self, one: Contact, target: bytes, have_seq: int) -> Finding:
        known = self.rng.sample(self.contacts, k=min(len(self.contacts), 60))
        near = sorted(known, key=lambda other: distance(other, target))[:16]
        record = self.holders.get(one.node_id)
        shown = record if record and record.seq > have_seq else None
        seq = record.seq if record else -1
        return Finding(contact=one, token=b"token", seq=seq, record=shown, nodes=tuple(near))

    def run(self, lookup: Lookup, target: bytes) -> float:
        now = 0.0
        pending: list[tuple[float, int, Contact]] = []
        asked = lookup.start(now)
        while not lookup.done:
            for one in asked:
                self.requests += 1
                if one.node_id not in self.dead_ids:
                    arrival = now + self.rtt_s * self.rng.uniform(0.5, 1.5)
                    heapq.heappush(pending, (arrival, self.requests, one))
            self.most_under_way = max(self.most_under_way, len(pending))
            wakes_at = lookup.wakes_at()
            assert wakes_at is not None
            if pending and pending[0][0] <= wakes_at:
                now, _, one = heapq.heappop(pending)
                asked = lookup.on_answer(self.answer(one, target, -1), now)
            else:
                now = max(now, wakes_at)
                asked = lookup.on_timer(now)
        return now


def look_up(world: World, target: bytes, *, reading: bool) -> tuple[Lookup, float]:
    begin = world.contacts[:20]
    lookup = Lookup(
        target=target,
        own_id=OWN,
        reading=reading,
        contacts=begin,
        srtt_s=lambda _: world.rtt_s,
    )
    return lookup, world.run(lookup, target)


def place(world: World, record: Record, *, copies: int = REPLICAS) -> None:
    near = sorted(world.contacts, key=lambda one: distance(one, record.target))[:copies]
    world.holders |= {one.node_id: record for one in near}


@pytest.mark.parametrize("count", [1, 2, 5, 20, 100, 500])
def test_a_write_ends_at_the_nearest_nodes(count: int) -> None:
    world = World(count)
    target = hashlib.sha256(b"target").digest()[:20]
    lookup, _ = look_up(world, target, reading=False)
    nearest = sorted(world.contacts, key=lambda one: distance(one, target))[:REPLICAS]
    found = [finding.contact for finding in lookup.findings()[:REPLICAS]]
    wanted = [one.node_id for one in nearest]
    assert len({one.node_id for one in found} & set(wanted)) >= 0.9 * len(wanted)


@pytest.mark.parametrize("seed", range(10))
def test_a_read_finds_the_record_and_asks_few(seed: int) -> None:
    world = World(200, seed=seed)
    record = make_test_record(f"issuer {seed}")
    place(world, record)
    lookup, took_s = look_up(world, record.target, reading=True)
    assert lookup.newest_record() == record
    assert world.requests < 30
    assert took_s < 10 * world.rtt_s


@pytest.mark.parametrize("seed", range(10))
def test_a_read_finds_the_record_with_a_third_of_the_nodes_dead(seed: int) -> None:
    rng = random.Random(seed)
    world = World(100, seed=seed, dead=set(rng.sample(range(100), 30)))
    record = make_test_record(f"issuer {seed}")
    place(world, record)
    lookup, took_s = look_up(world, record.target, reading=True)
    assert lookup.newest_record() == record
    assert took_s < 1.0


@pytest.mark.parametrize("seed", range(5))
def test_an_absence_is_known_in_bounded_time_with_a_third_dead(seed: int) -> None:
    rng = random.Random(seed)
    world = World(100, seed=seed, dead=set(rng.sample(range(100), 30)))
    lookup, took_s = look_up(world, make_test_record().target, reading=True)
    assert lookup.newest_record() is None
    assert len(lookup.findings()) >= 8
    assert took_s < 1.5


def test_the_newest_of_several_records_is_taken() -> None:
    world = World(60)
    old, new = make_test_record(age_s=100), make_test_record(content=b"new")
    place(world, old)
    near = sorted(world.contacts, key=lambda one: distance(one, new.target))
    world.holders[near[1].node_id] = new
    lookup, _ = look_up(world, new.target, reading=True)
    assert lookup.newest_record() == new


def test_everyone_dead_ends_within_the_timeouts_and_finds_nothing() -> None:
    world = World(20, dead=set(range(20)))
    lookup, took_s = look_up(world, bytes(20), reading=False)
    assert lookup.findings() == []
    assert world.requests <= MAX_REQUESTS
    assert took_s <= 20 / ALPHA * 2 * MAX_TIMEOUT_S


def test_requests_stay_within_the_budget_whatever_nodes_name() -> None:
    world = World(5_000)
    liar = Lookup(
        target=bytes(20),
        own_id=OWN,
        reading=True,
        contacts=world.contacts[:20],
        srtt_s=lambda _: 0.01,
    )
    asked = liar.start(0.0)
    total, now = len(asked), 0.0
    made_up = 0
    while not liar.done:
        now += 0.001
        more: list[Contact] = []
        for one in asked:
            names = []
            for _ in range(16):
                made_up += 1
                nearer = bytes(4) + hashlib.sha256(b"%d" % made_up).digest()[:16]
                names.append(Contact(node_id=nearer, address=("192.0.2.1", 1)))
            # Named nodes do not answer; the namers do.
            if one.address[1] > 1:
                more += liar.on_answer(Finding(contact=one, nodes=tuple(names)), now)
        wakes_at = liar.wakes_at()
        if not more and wakes_at is not None:
            now = max(now, wakes_at)
            more = liar.on_timer(now)
        asked = more
        total += len(asked)
    assert total <= MAX_REQUESTS


def test_a_dead_list_saves_asking_and_a_refusal_moves_on() -> None:
    contacts = [make_contact(number) for number in range(8)]
    skipped = contacts[0].node_id
    lookup = Lookup(
        target=bytes(20),
        own_id=contacts[1].node_id,
        reading=True,
        contacts=contacts,
        srtt_s=lambda _: 0.1,
        dead=frozenset({skipped}),
    )
    asked = lookup.start(0.0)
    assert len(asked) == ALPHA
    assert skipped not in {one.node_id for one in asked}
    for one in asked:
        assert lookup.on_failure(one.node_id, 0.1) == []
    assert lookup.done
    assert sorted(lookup.failed()) == sorted(one.node_id for one in asked)


def test_a_late_answer_still_counts() -> None:
    one = make_contact(0)
    lookup = Lookup(
        target=bytes(20), own_id=OWN, reading=True, contacts=[one], srtt_s=lambda _: 0.1
    )
    assert lookup.start(0.0) == [one]
    assert lookup.on_timer(0.4) == [one]
    record = make_test_record()
    lookup.on_answer(Finding(contact=one, seq=record.seq, record=record), 0.7)
    assert lookup.done
    assert lookup.newest_record() == record


def test_answers_after_the_end_or_from_nobody_asked_are_ignored() -> None:
    one, stranger = make_contact(0), make_contact(1)
    lookup = Lookup(
        target=bytes(20), own_id=OWN, reading=True, contacts=[one], srtt_s=lambda _: 0.1
    )
    lookup.start(0.0)
    assert lookup.on_answer(Finding(contact=stranger), 0.1) == []
    assert lookup.findings() == []
    lookup.on_answer(Finding(contact=one), 0.1)
    assert lookup.done
    assert lookup.on_answer(Finding(contact=one, nodes=(stranger,)), 0.2) == []


@pytest.mark.parametrize(
    ("srtt_s", "expected"), [(0.0, MIN_TIMEOUT_S), (0.1, 0.4), (10.0, MAX_TIMEOUT_S)]
)
def test_timeouts_are_four_round_trips_within_bounds(srtt_s: float, expected: float) -> None:
    assert timeout_s(srtt_s) == pytest.approx(expected)
