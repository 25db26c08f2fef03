import random

import pytest

from authd.core.identity import PublicKey
from authd.gossip.messages import Sample, sign_sample
from authd.gossip.views import (
    MAX_ACTIVE,
    MAX_CANDIDATES,
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
    views.learn(sample(1), near=True, chance=0.0)
    assert views.to_dial(now=0.0) == ["static:1", "192.0.2.1:2"]
    assert views.to_dial(now=0.0) == []


def test_no_more_are_dialled_than_the_active_view_has_room_for() -> None:
    views = make_views(*(f"host{number}:1" for number in range(20)))
    views.on_up(make_key("somebody").public, near=True)
    assert len(views.to_dial(now=0.0)) == MAX_ACTIVE - 1
    assert views.to_dial(now=0.0) == []


def test_a_live_stream_that_was_dialled_takes_one_place_only() -> None:
    views = make_views(*(f"host{number}:1" for number in range(20)))
    for number, address in enumerate(views.to_dial(now=0.0)[:4]):
        key = make_key(f"peer {number}").public
        views.on_identified(address, key)
        views.on_up(key, near=True)
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
    views.learn(sample(1), near=True, chance=0.0)
    for _ in range(6):
        views.to_dial(now=1_000.0)
        for address in ("static:1", "192.0.2.1:2"):
            views.on_dial_end(address, worked=False, now=0.0, chance=0.0)
    assert views.to_dial(now=1_000.0) == ["static:1"]
    assert views.sample(make_key("peer 1").public) is None


def test_a_peer_with_a_stream_is_not_dialled_nor_are_we_ourselves() -> None:
    views = make_views("self:1")
    views.learn(sample(1), near=True, chance=0.0)
    views.on_up(make_key("peer 1").public, near=True)
    views.on_identified("self:1", OWN)
    assert views.to_dial(now=0.0) == []
    assert views.next_dial_at() is None
    views.on_down(make_key("peer 1").public, now=0.0)
    assert views.to_dial(now=0.0) == ["192.0.2.1:2"]


def test_only_news_is_new() -> None:
    views = make_views()
    assert views.learn(sample(1), near=True, chance=0.0)
    assert not views.learn(sample(1), near=True, chance=0.0)
    assert not views.learn(sample(1, issued_at=2), near=True, chance=0.0)
    assert views.learn(sample(1, issued_at=3, address="moved:1"), near=True, chance=0.0)
    assert not views.learn(sample(1, issued_at=1), near=True, chance=0.0)
    assert views.to_dial(now=0.0) == ["moved:1"]
    own = sign_sample(make_key("own"), address="here:1", issued_at=9)
    assert not views.learn(own, near=True, chance=0.0)


def test_the_passive_view_is_bounded_and_keeps_those_with_a_stream() -> None:
    views = make_views()
    keys = [make_key(f"peer {number}").public for number in range(MAX_PASSIVE)]
    for number, key in enumerate(keys):
        assert views.learn(sample(number), near=True, chance=0.0)
        views.on_up(key, near=True)
    assert not views.learn(sample(99), near=True, chance=0.0)
    views.on_down(keys[7], now=0.0)
    assert views.learn(sample(99), near=True, chance=0.99)
    assert views.sample(keys[7]) is None
    assert views.sample(make_key("peer 99").public) == sample(99)


def test_samples_told_to_a_peer_are_of_others_and_vary() -> None:
    views = make_views()
    for number in range(4):
        views.learn(sample(number), near=True, chance=0.0)
    told = views.samples(but=make_key("peer 0").public, count=2, chance=0.0)
    assert told == [sample(1), sample(2)]
    assert views.addresses() == [f"192.0.2.1:{1 + number}" for number in range(4)]
    assert views.samples(but=OWN, count=2, chance=0.99) == [sample(3), sample(0)]


def test_a_forgotten_node_is_neither_active_nor_dialled() -> None:
    views = make_views()
    views.learn(sample(1), near=True, chance=0.0)
    views.on_up(make_key("peer 1").public, near=True)
    views.forget(make_key("peer 1").public)
    assert views.active == frozenset()
    assert views.to_dial(now=0.0) == []


def test_a_static_address_added_later_is_tried() -> None:
    views = make_views()
    views.learn(sample(1), near=True, chance=0.0)
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
        views.on_up(make_key(f"peer {number}").public, near=True)
    assert views.next_dial_at() is None
    views.on_down(make_key("peer 0").public, now=0.0)
    assert views.next_dial_at() == 0.0


def test_a_node_that_was_of_no_use_is_left_alone_for_a_while() -> None:
    views = make_views()
    views.learn(sample(1), near=True, chance=0.0)
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
        views.learn(sample(number), near=True, chance=0.0)
    views.on_up(sample(1).key, near=True)
    assert [one.key for one in views.passive()] == [sample(2).key]


def test_only_a_newer_sample_of_somebody_else_is_news() -> None:
    views = make_views()
    views.learn(sample(1, issued_at=5), near=True, chance=0.0)
    assert not views.is_news(sample(1, issued_at=5))
    assert views.is_news(sample(1, issued_at=6))
    assert not views.is_news(sign_sample(make_key("own"), address="192.0.2.1:9", issued_at=9))


def test_whoever_left_a_moment_ago_is_not_new() -> None:
    views, key = make_views(), make_key("peer").public
    assert views.is_new(key, now=0.0)
    views.on_up(key, near=True)
    views.on_down(key, now=100.0)
    assert not views.is_new(key, now=100.0 + NEW_AFTER_S - 1)
    assert views.is_new(key, now=100.0 + NEW_AFTER_S)


# --- near and far ---------------------------------------------------------------------------


def up(views: Views, name: str, *, near: bool) -> PublicKey:
    key = make_key(name).public
    views.on_up(key, near=near)
    return key


def fill(views: Views, *, near: int, far: int) -> None:
    for number in range(near):
        up(views, f"near {number}", near=True)
    for number in range(far):
        up(views, f"far {number}", near=False)


def test_near_nodes_are_dialled_before_far_ones() -> None:
    views = make_views()
    views.learn(sample(1), near=False, chance=0.0)
    views.learn(sample(2), near=True, chance=0.0)
    views.add_static("remembered:1", configured=False)
    assert views.to_dial(now=0.0) == ["remembered:1", sample(2).address, sample(1).address]


@pytest.mark.parametrize(("near", "far", "dialled"), [(0, 8, 4), (3, 5, 1), (4, 4, 0), (0, 10, 5)])
def test_while_too_few_are_near_near_ones_are_dialled_though_no_place_is_free(
    near: int, far: int, dialled: int
) -> None:
    views = make_views()
    fill(views, near=near, far=far)
    for number in range(10):
        views.learn(sample(number), near=True, chance=0.0)
        views.learn(sample(100 + number), near=False, chance=0.0)
    expected = [sample(number).address for number in range(dialled)]
    assert (views.next_dial_at() is None) == (not dialled)
    assert views.to_dial(now=0.0) == expected
    assert views.next_dial_at() is None, "what is being dialled counts"


def test_where_no_near_node_is_known_far_ones_take_every_place() -> None:
    views = make_views()
    for number in range(10):
        views.learn(sample(number), near=False, chance=0.0)
    assert len(views.to_dial(now=0.0)) == MAX_ACTIVE


@pytest.mark.parametrize(
    ("near", "far", "newcomer_is_near", "far_goes"),
    [
        (4, 6, True, True),
        (5, 5, True, False),
        (4, 6, False, True),
        (5, 5, False, True),
        (6, 4, False, False),
        (0, 10, False, True),
        (10, 0, True, False),
    ],
)
def test_a_newcomer_never_brings_the_near_ones_below_half(
    *, near: int, far: int, newcomer_is_near: bool, far_goes: bool
) -> None:
    views = make_views()
    fill(views, near=near, far=far)
    choices = {views.to_displace(near=newcomer_is_near, chance=n / 100) for n in range(100)}
    assert (choices <= views.active - views.near) == far_goes
    assert choices


def test_newcomers_in_any_order_leave_half_near() -> None:
    rng = random.Random(1)
    for _ in range(50):
        views = make_views()
        fill(views, near=5, far=5)
        for number in range(200):
            newcomer_is_near = rng.random() < 0.2
            gone = views.to_displace(near=newcomer_is_near, chance=rng.random())
            views.on_down(gone, now=0.0)
            up(views, f"new {number}", near=newcomer_is_near)
            assert 2 * len(views.near) >= len(views.active) == 10


def test_whoever_answers_at_a_configured_address_is_near_and_at_a_remembered_one_not() -> None:
    views = make_views("configured:1")
    views.add_static("remembered:1", configured=False)
    for address, name in (("configured:1", "one"), ("remembered:1", "other")):
        views.on_identified(address, make_key(name).public)
    one, _ = up(views, "one", near=False), up(views, "other", near=False)
    assert views.near == {one}
    views.on_down(one, now=0.0)
    assert views.near == frozenset()


def test_samples_of_made_up_nodes_push_out_each_other_and_not_the_near_ones() -> None:
    views = make_views()
    for number in range(MAX_PASSIVE // 2):
        views.learn(sample(number), near=True, chance=0.0)
    for number in range(100, 1_000):
        views.learn(sample(number), near=False, chance=(number % 97) / 97)
    held = {one.key for one in views.passive()}
    assert len(held) == MAX_PASSIVE
    assert {sample(number).key for number in range(MAX_PASSIVE // 2)} <= held
    assert views.learn(sample(50), near=True, chance=0.5)
    assert {sample(number).key for number in range(MAX_PASSIVE // 2)} <= {
        one.key for one in views.passive()
    }


def test_addresses_that_nobody_vouches_for_are_dialled_a_few_times_a_second() -> None:
    views = make_views()
    dialled = 0
    for tick in range(100):
        views.learn(sample(tick), near=False, chance=0.5)
        for address in views.to_dial(now=tick / 10):
            dialled += 1
            views.on_dial_end(address, worked=False, now=tick / 10, chance=0.0)
    assert dialled <= 16 + 4 * 10


# --- candidates -----------------------------------------------------------------------------


def test_a_candidate_is_dialled_and_forgotten_when_it_keeps_failing() -> None:
    views, key = make_views("static:1"), make_key("somebody").public
    assert views.suggest("hint:1", key, near=True, chance=0.0)
    assert not views.suggest("hint:1", key, near=True, chance=0.0)
    assert not views.suggest("static:1", key, near=True, chance=0.0)
    assert not views.suggest("self:1", OWN, near=True, chance=0.0)
    assert views.candidates == ["hint:1"]
    for _ in range(6):
        assert "hint:1" in views.to_dial(now=1_000.0)
        views.on_dial_end("hint:1", worked=False, now=0.0, chance=0.0)
    assert views.candidates == []
    assert views.suggest("hint:1", key, near=True, chance=0.0), "it may be there again"


def test_no_candidate_is_taken_for_a_node_that_has_a_stream() -> None:
    views = make_views()
    key = up(views, "somebody", near=True)
    assert not views.suggest("hint:1", key, near=True, chance=0.0)


def test_candidates_are_bounded_and_those_being_dialled_stay() -> None:
    views = make_views()
    for number in range(MAX_CANDIDATES):
        views.suggest(f"hint:{1 + number}", None, near=False, chance=0.0)
    dialled = set(views.to_dial(now=0.0))
    assert len(dialled) == MAX_ACTIVE
    for number in range(100, 200):
        assert views.suggest(f"hint:{number}", None, near=False, chance=0.99)
    assert len(views.candidates) == MAX_CANDIDATES
    assert dialled <= set(views.candidates)


def test_a_candidate_that_tells_of_itself_is_a_sample_like_others() -> None:
    views = make_views()
    views.suggest(sample(1).address, sample(1).key, near=True, chance=0.0)
    views.learn(sample(1), near=True, chance=0.0)
    assert views.candidates == []
    assert views.to_dial(now=0.0) == [sample(1).address]


def test_an_address_whose_sample_is_gone_is_not_tried_again() -> None:
    views = make_views()
    views.learn(sample(1), near=False, chance=0.0)
    views.to_dial(now=0.0)
    views.learn(sample(1, issued_at=5, address="moved:1"), near=False, chance=0.0)
    views._samples.clear()
    views.on_dial_end(sample(1).address, worked=False, now=0.0, chance=0.0)
    assert views.to_dial(now=99.0) == ["moved:1"]
