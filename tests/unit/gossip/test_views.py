import pytest

from authd.gossip.messages import Sample, sign_sample
from authd.gossip.views import (
    MAX_ACTIVE,
    MAX_PASSIVE,
    NEW_AFTER_S,
    SHUNNED_S,
    Allowance,
    Views,
)
from tests.unit.dht.nodes import make_key

OWN = make_key("own").public


def sample(number: int, *, issued_at: int = 1, address: str = "") -> Sample:
    return sign_sample(
        make_key(f"peer {number}"),
        address=address or f"192.0.2.1:{1 + number}",
        issued_at=issued_at,
    )


def make_views(*static: str) -> Views:
    views = Views(own_key=OWN)
    for address in static:
        views.add_static(address)
    return views


def test_static_addresses_are_dialled_first_and_each_once() -> None:
    views = make_views("static:1")
    views.learn(sample(1), chance=0.0)
    assert views.to_dial(now=0.0) == ["static:1", "192.0.2.1:2"]
    assert views.to_dial(now=0.0) == []


def test_no_more_are_dialled_than_the_active_view_has_room_for() -> None:
    views = make_views(*(f"host{number}:1" for number in range(20)))
    views.on_up(make_key("somebody").public)
    assert len(views.to_dial(now=0.0)) == MAX_ACTIVE - 1
    assert views.to_dial(now=0.0) == []


def test_a_live_stream_that_was_dialled_takes_one_place_only() -> None:
    views = make_views(*(f"host{number}:1" for number in range(20)))
    for number, address in enumerate(views.to_dial(now=0.0)[:4]):
        key = make_key(f"peer {number}").public
        views.on_identified(address, key)
        views.on_up(key)
    assert len(views.active) == 4
    assert views.to_dial(now=0.0) == []


def test_a_failed_address_waits_with_full_jitter_and_grows() -> None:
    views = make_views("host:1")
    for expected in (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0):
        assert views.to_dial(now=1_000.0) == ["host:1"]
        views.on_dial_end("host:1", worked=False, now=0.0, chance=1.0)
        assert views.next_dial_at() == expected
    views.on_dial_end("host:1", worked=False, now=0.0, chance=0.0)
    assert views.next_dial_at() == 0.0
    views.on_dial_end("host:1", worked=True, now=0.0, chance=1.0)
    assert views.next_dial_at() == 0.5
    views.on_dial_end("elsewhere:1", worked=False, now=0.0, chance=1.0)


def test_a_learnt_address_that_keeps_failing_is_forgotten_and_a_static_one_is_not() -> None:
    views = make_views("static:1")
    views.learn(sample(1), chance=0.0)
    for _ in range(6):
        views.to_dial(now=1_000.0)
        for address in ("static:1", "192.0.2.1:2"):
            views.on_dial_end(address, worked=False, now=0.0, chance=0.0)
    assert views.to_dial(now=1_000.0) == ["static:1"]
    assert views.sample(make_key("peer 1").public) is None


def test_a_peer_with_a_stream_is_not_dialled_nor_are_we_ourselves() -> None:
    views = make_views("self:1")
    views.learn(sample(1), chance=0.0)
    views.on_up(make_key("peer 1").public)
    views.on_identified("self:1", OWN)
    assert views.to_dial(now=0.0) == []
    assert views.next_dial_at() is None
    views.on_down(make_key("peer 1").public, now=0.0)
    assert views.to_dial(now=0.0) == ["192.0.2.1:2"]


def test_only_news_is_new() -> None:
    views = make_views()
    assert views.learn(sample(1), chance=0.0)
    assert not views.learn(sample(1), chance=0.0)
    assert not views.learn(sample(1, issued_at=2), chance=0.0)
    assert views.learn(sample(1, issued_at=3, address="moved:1"), chance=0.0)
    assert not views.learn(sample(1, issued_at=1), chance=0.0)
    assert views.to_dial(now=0.0) == ["moved:1"]
    own = sign_sample(make_key("own"), address="here:1", issued_at=9)
    assert not views.learn(own, chance=0.0)


def test_the_passive_view_is_bounded_and_keeps_those_with_a_stream() -> None:
    views = make_views()
    keys = [make_key(f"peer {number}").public for number in range(MAX_PASSIVE)]
    for number, key in enumerate(keys):
        assert views.learn(sample(number), chance=0.0)
        views.on_up(key)
    assert not views.learn(sample(99), chance=0.0)
    views.on_down(keys[7], now=0.0)
    assert views.learn(sample(99), chance=0.99)
    assert views.sample(keys[7]) is None
    assert views.sample(make_key("peer 99").public) == sample(99)


def test_samples_told_to_a_peer_are_of_others_and_vary() -> None:
    views = make_views()
    for number in range(4):
        views.learn(sample(number), chance=0.0)
    told = views.samples(but=make_key("peer 0").public, count=2, chance=0.0)
    assert told == [sample(1), sample(2)]
    assert views.addresses() == [f"192.0.2.1:{1 + number}" for number in range(4)]
    assert views.samples(but=OWN, count=2, chance=0.99) == [sample(3), sample(0)]


def test_a_forgotten_node_is_neither_active_nor_dialled() -> None:
    views = make_views()
    views.learn(sample(1), chance=0.0)
    views.on_up(make_key("peer 1").public)
    views.forget(make_key("peer 1").public)
    assert views.active == frozenset()
    assert views.to_dial(now=0.0) == []


def test_a_static_address_added_later_is_tried() -> None:
    views = make_views()
    views.learn(sample(1), chance=0.0)
    views.add_static("192.0.2.1:2")
    views.add_static("late:1")
    assert views.to_dial(now=0.0) == ["192.0.2.1:2", "late:1"]


def test_an_allowance_says_how_long_to_wait() -> None:
    allowance = Allowance(rate_per_s=10, burst=5, now=0.0)
    assert allowance.charge(5, now=0.0) == 0.0
    assert allowance.charge(1, now=0.0) == pytest.approx(0.1)
    assert allowance.charge(1, now=0.0) == pytest.approx(0.2)
    assert allowance.charge(1, now=10.0) == 0.0


def test_no_dial_is_planned_while_every_place_is_taken() -> None:
    views = make_views(*(f"host{number}:1" for number in range(20)))
    for number in range(MAX_ACTIVE):
        views.on_up(make_key(f"peer {number}").public)
    assert views.next_dial_at() is None
    views.on_down(make_key("peer 0").public, now=0.0)
    assert views.next_dial_at() == 0.0


def test_a_node_that_was_of_no_use_is_left_alone_for_a_while() -> None:
    views = make_views()
    views.learn(sample(1), chance=0.0)
    key = sample(1).key
    views.shun(key, now=100.0)
    assert views.is_shunned(key, now=100.0 + SHUNNED_S - 1)
    assert views.to_dial(now=100.0) == []
    assert not views.is_shunned(key, now=100.0 + SHUNNED_S)
    assert views.to_dial(now=100.0 + SHUNNED_S) == ["192.0.2.1:2"]
    assert not views.is_shunned(None, now=100.0)


def test_whoever_has_a_stream_is_not_passive() -> None:
    views = make_views()
    for number in (1, 2):
        views.learn(sample(number), chance=0.0)
    views.on_up(sample(1).key)
    assert [one.key for one in views.passive()] == [sample(2).key]


def test_only_a_newer_sample_of_somebody_else_is_news() -> None:
    views = make_views()
    views.learn(sample(1, issued_at=5), chance=0.0)
    assert not views.is_news(sample(1, issued_at=5))
    assert views.is_news(sample(1, issued_at=6))
    assert not views.is_news(sign_sample(make_key("own"), address="192.0.2.1:9", issued_at=9))


def test_whoever_left_a_moment_ago_is_not_new() -> None:
    views, key = make_views(), make_key("peer").public
    assert views.is_new(key, now=0.0)
    views.on_up(key)
    views.on_down(key, now=100.0)
    assert not views.is_new(key, now=100.0 + NEW_AFTER_S - 1)
    assert views.is_new(key, now=100.0 + NEW_AFTER_S)
