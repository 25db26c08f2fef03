from collections.abc import Iterable
from dataclasses import dataclass, field

from authd.core.records import Record, RecordKind, encode_record, make_record, record_salt
from authd.dht.messages import Verdict
from authd.dht.shelf import MAX_REPUBLISH_S, MIN_REPUBLISH_S, TIME_TO_LIVE_S, Shelf
from tests.unit.dht.nodes import make_key

NOW = 1_800_000_000


def record(
    name: str = "issuer",
    *,
    about: bytes = b"subject",
    seq: int = 1,
    content: bytes = b"content",
    life_s: int = 3_600,
) -> Record:
    key = make_key(name)
    salt = record_salt(RecordKind.GRANTS, key.public, about)
    return make_record(key, salt=salt, seq=seq, content=content, expires_at=NOW + life_s)


@dataclass
class Rows:
    """A record store in memory, of the shape the daemon's has."""

    rows: dict[bytes, tuple[bytes, int, bool]] = field(default_factory=dict)

    def save_record(self, target: bytes, data: bytes, *, expires_at: int, own: bool) -> None:
        self.rows[target] = (data, expires_at, own)

    def delete_records(self, *, expired_at: int) -> None:
        self.rows = {t: row for t, row in self.rows.items() if row[1] > expired_at}

    def load_records(self) -> Iterable[tuple[bytes, bool]]:
        return [(data, own) for data, _, own in self.rows.values()]


def take(shelf: Shelf, one: Record, *, now: int = NOW, own: bool = False) -> Verdict:
    return shelf.take(one, now=now, chance=0.0, own=own)


def test_newer_replaces_older_and_older_is_stale() -> None:
    shelf = Shelf()
    old, new = record(seq=1), record(seq=2, content=b"new")
    assert take(shelf, old) is Verdict.ACCEPTED
    assert take(shelf, new) is Verdict.ACCEPTED
    assert take(shelf, old) is Verdict.STALE
    assert take(shelf, new) is Verdict.ACCEPTED
    assert shelf.get(new.target, now=NOW) == new
    assert len(shelf) == 1


def test_two_records_of_one_seq_are_kept_as_evidence_and_the_first_stays() -> None:
    shelf = Shelf()
    first, second = record(content=b"a"), record(content=b"b")
    take(shelf, first)
    assert take(shelf, second) is Verdict.STALE
    assert shelf.get(first.target, now=NOW) == first
    assert shelf.equivocations == [(first, second)]
    for number in range(40):
        take(shelf, record(content=b"%d" % number))
    assert len(shelf.equivocations) == 16


def test_a_record_dies_at_its_end_of_life_exactly() -> None:
    shelf = Shelf()
    one = record(life_s=100)
    take(shelf, one)
    assert shelf.get(one.target, now=NOW + 99) == one
    assert shelf.get(one.target, now=NOW + 100) is None
    assert len(shelf) == 0


def test_others_records_leave_after_the_time_to_live_and_our_own_stay() -> None:
    shelf = Shelf()
    theirs, ours = record("theirs", life_s=10**7), record("ours", life_s=10**7)
    take(shelf, theirs)
    take(shelf, ours, own=True)
    later = NOW + TIME_TO_LIVE_S
    assert shelf.get(theirs.target, now=later) is None
    assert shelf.get(ours.target, now=later) == ours
    assert shelf.is_own(ours.target)
    assert not shelf.is_own(theirs.target)


def test_quotas_refuse_newcomers_but_not_updates_nor_our_own() -> None:
    shelf = Shelf(max_records=3, max_per_publisher=2)
    for about in (b"1", b"2"):
        assert take(shelf, record(about=about)) is Verdict.ACCEPTED
    assert take(shelf, record(about=b"3")) is Verdict.QUOTA
    assert take(shelf, record(about=b"1", seq=2)) is Verdict.ACCEPTED
    assert take(shelf, record("another")) is Verdict.ACCEPTED
    assert take(shelf, record("a third")) is Verdict.QUOTA
    assert take(shelf, record("a third"), own=True) is Verdict.ACCEPTED


def test_a_dead_record_gives_its_place_back() -> None:
    shelf = Shelf(max_per_publisher=1)
    take(shelf, record(about=b"1", life_s=10))
    assert shelf.get(record(about=b"1").target, now=NOW + 10) is None
    assert take(shelf, record(about=b"2"), now=NOW + 10) is Verdict.ACCEPTED


def test_republishing_comes_at_half_of_the_remaining_life_and_at_most_daily() -> None:
    for life_s, due_s in ((3_600, 1_440), (10 * 86_400, None), (20, MIN_REPUBLISH_S)):
        shelf = Shelf()
        one = record(life_s=life_s)
        take(shelf, one, own=True)
        due_at = NOW + (int(0.8 * MAX_REPUBLISH_S) if due_s is None else due_s)
        assert shelf.due(now=due_at - 1, most=9) == []
        assert shelf.due(now=due_at, most=9) == [one]
        assert shelf.due(now=due_at, most=9) == []
        shelf.postpone(one.target, now=due_at, chance=0.0)
        assert shelf.due(now=due_at + MAX_REPUBLISH_S, most=9) in ([one], [])


def test_only_renewed_records_outlive_the_time_to_live() -> None:
    shelf = Shelf()
    kept, left = record("kept", life_s=10**7), record("left", life_s=10**7)
    take(shelf, kept)
    take(shelf, left)
    later = NOW + MAX_REPUBLISH_S
    assert {one.publisher for one in shelf.due(now=later, most=9)} == {
        kept.publisher,
        left.publisher,
    }
    shelf.renew(kept.target, now=later, chance=0.0)
    shelf.postpone(left.target, now=later, chance=0.0)
    assert shelf.records(now=NOW + TIME_TO_LIVE_S) == [kept]
    shelf.renew(bytes(20), now=later, chance=0.0)
    shelf.postpone(bytes(20), now=later, chance=0.0)


def test_what_was_kept_is_there_after_a_restart_and_what_died_is_not() -> None:
    rows = Rows()
    before = Shelf(store=rows)
    alive, dead, ours = record("alive"), record("dead", life_s=5), record("ours")
    take(before, alive)
    take(before, dead)
    take(before, ours, own=True)
    rows.rows[b"junk"] = (b"junk", NOW + 99, False)
    after = Shelf(store=rows)
    after.load(now=NOW + 5, chance=0.5)
    assert {one.publisher for one in after.records(now=NOW + 5)} == {
        alive.publisher,
        ours.publisher,
    }
    assert after.is_own(ours.target)
    assert rows.rows[alive.target][0] == encode_record(alive)
    assert dead.target not in rows.rows
    after.forget_expired(now=NOW + 10**6)
    assert rows.rows == {}


def test_a_shelf_without_a_store_starts_empty() -> None:
    shelf = Shelf()
    shelf.load(now=NOW, chance=0.0)
    shelf.forget_expired(now=NOW)
    assert len(shelf) == 0
