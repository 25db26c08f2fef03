"""Heartbeat chains at the edge of their bounds, and methods by their names on the wire."""

from dataclasses import replace
from typing import Any

import pytest

from authd.core import limits
from authd.core.challenge import METHOD
from authd.core.revocations import (
    Chain,
    DomainView,
    Gap,
    KeyView,
    fill,
    gap,
    observe,
    prove,
)
from authd.core.statements import ListEnd
from authd.errors import LimitError, StaleRecordError
from tests.unit.core.test_revocations import IDS, beat, everything, proven
from tests.unit.core.world import NOW, authority, key, make_root, publics


def test_the_method_is_called_as_clients_call_it() -> None:
    assert METHOD == "authd-1"


def test_nothing_is_live_or_signed_of_a_key_nobody_has_heard_of() -> None:
    view = KeyView()
    assert (view.live_until, view.signed_version, view.chain.epoch) == (0, 0, 0)
    assert (view.newest, view.proven, view.closed, view.end) == (None, None, None, None)
    assert not view.equivocated


def test_a_chain_may_be_as_long_as_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_CHAIN_ENTRIES", 3)
    chain = Chain(epoch=1).append(IDS[:2]).append(IDS[2:3])
    assert chain.ids == IDS[:3]
    with pytest.raises(LimitError):
        chain.append(IDS[3:4])


def test_a_gap_behind_known_entries_is_filled_by_just_those_that_are_missing() -> None:
    known = proven(beat(ids=IDS[:5]))
    seen = observe(known, beat(ids=IDS[:30]), now=NOW)
    wanted = Gap(key("h1").public, 7, 5, 30)
    assert gap(seen) == wanted
    assert fill(seen, wanted, IDS[5:29]) == seen
    filled = fill(seen, wanted, IDS[5:30])
    assert filled.chain.ids == IDS[:30]
    assert prove(filled, holds=everything, received_at=NOW).proven == filled.newest


def test_a_list_older_than_the_stored_one_is_refused_even_if_it_names_its_head() -> None:
    stored = KeyView(chain=Chain(epoch=7).append(IDS[:3]))
    with pytest.raises(StaleRecordError, match="closed"):
        observe(stored, beat(epoch=6, previous=ListEnd(5, 3, stored.chain.head)), now=NOW)
    assert observe(stored, beat(epoch=8, previous=stored.end), now=NOW).chain.epoch == 8


# --- five keys ------------------------------------------------------------------------------------

FIVE = tuple(f"h{number}" for number in range(1, 6))
FIVE_ROOT = make_root(authority("X"), domain="five", heartbeat_keys=publics(FIVE))


def five(count: int, **changes: Any) -> DomainView:
    """Return a domain of five heartbeat keys, so many of which signed a head."""
    changes = {"domain": FIVE_ROOT.domain, "ids": IDS[:1], **changes}
    views = {key(name).public: proven(beat(name, **changes)) for name in FIVE[:count]}
    return DomainView(root=FIVE_ROOT, views=views)


@pytest.mark.parametrize(("count", "fresh"), [(2, False), (3, True), (5, True)])
def test_three_of_five_make_fresh_and_put_in_force(count: int, *, fresh: bool) -> None:
    view = five(count)
    assert view.fresh_until() == (NOW + 60 if fresh else 0)
    assert view.in_force(IDS[0]) is fresh


def test_fresh_ends_with_the_third_of_five() -> None:
    view = five(5)
    for place, name in enumerate(FIVE):
        public = key(name).public
        view = view.with_view(public, replace(view.view(public), live_until=NOW + place))
    assert view.fresh_until() == NOW + 2


@pytest.mark.parametrize(("count", "over"), [(2, False), (3, True)])
def test_three_of_five_hand_over(count: int, *, over: bool) -> None:
    following = replace(FIVE_ROOT, version=2, heartbeat_keys=publics(("n1",)))
    view = five(count, root_version=2).with_root(following)
    assert view.handed_over is over


def test_a_list_of_the_right_length_that_leads_elsewhere_proves_nothing() -> None:
    view = KeyView(chain=Chain(epoch=7).append(IDS[:2]), newest=beat(ids=IDS[2:4]))
    assert prove(view, holds=everything, received_at=NOW) == view
