"""Peers that fell silent are looked for, also where all places are taken by others."""

from authd.core.identity import PublicKey
from authd.gossip.views import MAX_ACTIVE, MAX_MISSED, MISSED_S, Views
from tests.unit.dht.nodes import make_key
from tests.unit.gossip.test_views import make_views, sample


def key_of(number: int) -> PublicKey:
    return make_key(f"peer {number}").public


def lost(*numbers: int, silent: bool = True) -> Views:
    """Return views with every place taken, after some peers' streams ended."""
    views = make_views()
    for at, number in enumerate(numbers):
        views.learn(sample(number), near=True, chance=0.0)
        views.on_up(key_of(number), near=True)
        views.on_down(key_of(number), now=float(at), silent=silent)
    for number in range(100, 100 + MAX_ACTIVE):
        views.on_up(key_of(number), near=True)
    return views


def address(number: int) -> str:
    return sample(number).address


def test_a_silent_peer_is_dialled_where_no_place_is_free_and_one_that_left_is_not() -> None:
    assert lost(1).next_dial_at() == 0.0
    assert lost(1).to_dial(now=10.0) == [address(1)]
    assert lost(1, silent=False).next_dial_at() is None
    assert lost(1, silent=False).to_dial(now=10.0) == []


def test_it_is_not_forgotten_for_a_day_however_often_it_fails() -> None:
    views, now = lost(1), 0.0
    while now < MISSED_S:
        assert views.to_dial(now=now) == [address(1)]
        views.on_dial_end(address(1), worked=False, now=now, chance=1.0)
        now += 600.0
    assert views.to_dial(now=now) == [address(1)]
    views.on_dial_end(address(1), worked=False, now=now + 600.0, chance=1.0)
    assert views.sample(key_of(1)) is None
    assert views.next_dial_at() is None


def test_once_it_is_back_it_is_missed_no_more() -> None:
    views = lost(1)
    views.on_up(key_of(1), near=True)
    views.on_down(key_of(1), now=50.0)
    assert views.to_dial(now=100.0) == []


def test_the_last_ones_are_missed() -> None:
    views = lost(*range(MAX_MISSED + 2))
    assert set(views.to_dial(now=100.0)) == {address(one) for one in range(2, MAX_MISSED + 2)}


def test_samples_of_others_do_not_push_it_out() -> None:
    views = lost(1)
    for number in range(200, 300):
        views.learn(sample(number), near=True, chance=0.0)
    assert views.sample(key_of(1)) is not None
