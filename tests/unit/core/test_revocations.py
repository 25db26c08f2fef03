"""Heartbeat chains: a head counts only where its whole list is held; majorities make fresh."""

from collections.abc import Iterable
from typing import Any

import pytest

from authd.core import limits
from authd.core.identity import StatementId
from authd.core.revocations import (
    EMPTY_HEAD,
    Chain,
    DomainView,
    Gap,
    KeyView,
    contradict,
    extend_head,
    fill,
    gap,
    mark_equivocation,
    observe,
    prove,
)
from authd.core.roots import Root, RootClaims, sign_root
from authd.core.statements import Heartbeat, ListEnd, sign_heartbeat
from authd.errors import EquivocationError, LimitError, StaleRecordError
from tests.unit.core.world import NOW, authority, key, make_root, publics

IDS = tuple(StatementId(bytes([i]) * 16) for i in range(40))
NAMES = ("h1", "h2", "h3")
ROOT = make_root(authority("X"), heartbeat_keys=publics(NAMES))


def beat(name: str = "h1", ids: Iterable[StatementId] = (), **changes: Any) -> Heartbeat:
    listed = tuple(ids)
    values: dict[str, Any] = {
        "domain": ROOT.domain,
        "root_version": 1,
        "epoch": 7,
        "count": len(listed),
        "head": extend_head(EMPTY_HEAD, listed),
        "recent": listed[-16:],
        "issued_at": NOW,
        **changes,
    }
    return sign_heartbeat(key(name), **values)


def everything(_: StatementId) -> bool:
    return True


def proven(heartbeat: Heartbeat, view: KeyView | None = None) -> KeyView:
    seen = observe(view or KeyView(), heartbeat, now=NOW)
    return prove(seen, holds=everything, received_at=NOW)


def domain(root: Root = ROOT, /, **views: KeyView) -> DomainView:
    return DomainView(root=root, views={key(name).public: view for name, view in views.items()})


def test_the_head_is_a_hash_chain_from_zero() -> None:
    assert bytes(32) == EMPTY_HEAD
    assert extend_head(EMPTY_HEAD, ()) == EMPTY_HEAD
    one = extend_head(EMPTY_HEAD, IDS[:1])
    assert extend_head(one, IDS[1:2]) == extend_head(EMPTY_HEAD, IDS[:2])
    assert extend_head(EMPTY_HEAD, IDS[1::-1]) != extend_head(EMPTY_HEAD, IDS[:2])


def test_a_chain_is_bounded() -> None:
    full = Chain(epoch=1, ids=(IDS[0],) * limits.MAX_CHAIN_ENTRIES)
    with pytest.raises(LimitError, match="new epoch"):
        full.append(IDS[:1])


# --- one key ------------------------------------------------------------------------------------


def test_an_empty_list_is_proven_at_once() -> None:
    view = proven(beat())
    assert view.proven == view.newest
    assert view.live_until == NOW + 60


def test_a_head_is_not_proven_before_every_entry_is_held() -> None:
    seen = observe(KeyView(), beat(ids=IDS[:3]), now=NOW)
    assert prove(seen, holds=lambda one: one != IDS[1], received_at=NOW).proven is None
    assert prove(seen, holds=everything, received_at=NOW).proven == seen.newest


def test_a_head_with_a_gap_is_not_proven_before_the_gap_is_filled() -> None:
    seen = observe(KeyView(), beat(ids=IDS[:20]), now=NOW)
    assert gap(seen) == Gap(key("h1").public, 7, 0, 20)
    assert prove(seen, holds=everything, received_at=NOW).proven is None
    filled = fill(seen, Gap(key("h1").public, 7, 0, 20), IDS[:20])
    assert gap(filled) is None
    assert prove(filled, holds=everything, received_at=NOW).proven == seen.newest


def test_entries_that_do_not_lead_to_the_head_are_left_out() -> None:
    seen = observe(KeyView(), beat(ids=IDS[:20]), now=NOW)
    wanted = Gap(key("h1").public, 7, 0, 20)
    for found, ids in (
        (wanted, IDS[1:21]),
        (wanted, IDS[:19]),
        (wanted, IDS[:21]),
        (wanted, IDS[19::-1]),
        (Gap(key("h1").public, 7, 0, 19), IDS[:19]),
        (Gap(key("h1").public, 8, 0, 20), IDS[:20]),
        (Gap(key("h2").public, 7, 0, 20), IDS[:20]),
    ):
        assert fill(seen, found, ids) == seen
    assert fill(KeyView(), wanted, IDS[:20]) == KeyView()


def test_recent_ids_extend_a_list_that_is_known_so_far() -> None:
    view = proven(beat(ids=IDS[:10]))
    view = proven(beat(ids=IDS[:26], issued_at=NOW + 1), view)
    assert view.chain.ids == IDS[:26]
    assert view.proven == view.newest


def test_recent_ids_that_do_not_lead_to_the_head_are_no_news() -> None:
    lying = beat(ids=IDS[:3], head=bytes([9]) * 32)
    seen = observe(KeyView(), lying, now=NOW)
    assert seen.chain.ids == ()
    assert prove(seen, holds=everything, received_at=NOW).proven is None


def test_a_list_that_was_rewritten_is_never_proven() -> None:
    view = proven(beat(ids=IDS[:2]))
    other = beat(ids=IDS[5:24], issued_at=NOW + 1)
    view = observe(view, other, now=NOW)
    assert prove(view, holds=everything, received_at=NOW).proven != other
    assert fill(view, Gap(key("h1").public, 7, 2, 19), IDS[7:24]) == view


def test_proving_twice_changes_nothing() -> None:
    view = proven(beat(ids=IDS[:2]))
    assert prove(view, holds=everything, received_at=NOW + 30) is view
    assert prove(KeyView(), holds=everything, received_at=NOW) == KeyView()


def test_only_new_entries_are_asked_for() -> None:
    asked: list[StatementId] = []

    def holds(one: StatementId) -> bool:
        asked.append(one)
        return True

    seen = observe(proven(beat(ids=IDS[:3])), beat(ids=IDS[:5], issued_at=NOW + 1), now=NOW)
    prove(seen, holds=holds, received_at=NOW)
    assert asked == list(IDS[3:5])


def test_a_head_lives_until_its_end_and_no_longer_than_a_minute_from_receipt() -> None:
    assert proven(beat(life_s=20)).live_until == NOW + 20
    seen = observe(KeyView(), beat(issued_at=NOW + 5), now=NOW)
    assert prove(seen, holds=everything, received_at=NOW).live_until == NOW + 60


def test_an_earlier_head_of_longer_life_is_still_good() -> None:
    view = proven(beat())
    assert proven(beat(issued_at=NOW + 1, life_s=5), view).live_until == NOW + 60


def test_a_head_from_the_future_does_not_count() -> None:
    assert observe(KeyView(), beat(issued_at=NOW + 5), now=NOW).newest
    with pytest.raises(LimitError, match="6 s ahead"):
        observe(KeyView(), beat(issued_at=NOW + 6), now=NOW)


@pytest.mark.parametrize(
    "older",
    [
        beat(ids=IDS[:2]),
        beat(ids=IDS[:2], issued_at=NOW - 1),
        beat(ids=IDS[:1], issued_at=NOW + 1),
        beat(ids=IDS[:9], epoch=6, issued_at=NOW + 1),
    ],
)
def test_an_older_head_never_replaces_a_newer(older: Heartbeat) -> None:
    view = proven(beat(ids=IDS[:2]))
    with pytest.raises(StaleRecordError):
        observe(view, older, now=NOW)


def test_two_lists_of_one_length_are_equivocation() -> None:
    view = proven(beat(ids=IDS[:2]))
    with pytest.raises(EquivocationError):
        observe(view, beat(ids=IDS[1:3]), now=NOW)
    marked = mark_equivocation(view)
    assert (marked.proven, marked.live_until, gap(marked)) == (None, 0, None)
    later = observe(marked, beat(ids=IDS[:3], issued_at=NOW + 1), now=NOW)
    assert prove(later, holds=everything, received_at=NOW).proven is None


A, AB, AC = (extend_head(EMPTY_HEAD, ids) for ids in (IDS[:1], IDS[:2], IDS[:3:2]))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"ids": IDS[:2]}, {"ids": IDS[:3:2]}),
        # Two lists that go on from different ones, in one epoch.
        ({"previous": ListEnd(5, 1, A)}, {"previous": ListEnd(5, 2, AB), "ids": IDS[:3]}),
        ({"previous": ListEnd(5, 1, A)}, {"previous": ListEnd(6, 1, A), "ids": IDS[:3]}),
        # A list that goes on after it was closed, or was another when it was.
        ({"ids": IDS[:2]}, {"epoch": 8, "previous": ListEnd(7, 1, A)}),
        ({"ids": IDS[:2]}, {"epoch": 8, "previous": ListEnd(7, 2, AC)}),
        # A list that begins where another had begun already.
        (
            {"ids": IDS[:2], "previous": ListEnd(6, 1, A)},
            {"epoch": 8, "previous": ListEnd(6, 2, AB)},
        ),
        # The last ids lead there from another list.
        ({"ids": IDS[:2]}, {"ids": IDS[5:8]}),
        ({}, {"ids": IDS[:16], "head": A}),
    ],
)
def test_a31_two_heads_of_no_one_history_contradict_each_other(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    one, other = beat(**first), beat(**second, issued_at=NOW + 1)
    assert contradict(one, other)
    assert contradict(other, one)
    with pytest.raises(EquivocationError):
        observe(proven(one), other, now=NOW)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"ids": IDS[:2]}, {"ids": IDS[:2], "previous": ListEnd(0, 0, EMPTY_HEAD)}),
        ({"ids": IDS[:2]}, {"ids": IDS[:3]}),
        ({"ids": IDS[:2]}, {"epoch": 8, "previous": ListEnd(7, 2, AB)}),
        # The rest of the list is not known here.
        ({"ids": IDS[:1]}, {"epoch": 8, "previous": ListEnd(7, 2, AC)}),
        # There may have been a list between.
        ({"ids": IDS[:2]}, {"epoch": 9, "previous": ListEnd(8, 1, A)}),
        # Too many ids are between.
        ({"ids": IDS[:2]}, {"ids": IDS[5:24]}),
        # A key that lost what it knew has not lied.
        ({"ids": IDS[:2]}, {"epoch": 8, "previous": ListEnd(6, 2, AB)}),
        ({"ids": IDS[:2]}, {"epoch": 8, "ids": IDS[2:]}),
        ({"ids": IDS[:2]}, {"ids": IDS[:3], "previous": ListEnd(6, 1, A)}),
    ],
)
def test_heads_of_one_history_do_not_contradict(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    one, other = beat(**first), beat(**second, issued_at=NOW + 1)
    assert not contradict(one, other)
    assert not contradict(other, one)


def test_a_new_epoch_begins_a_new_list() -> None:
    old = proven(beat(ids=IDS[:2]))
    first = beat(ids=IDS[2:3], epoch=8, previous=old.end)
    view = observe(old, first, now=NOW)
    assert view.chain == Chain(epoch=8).append(IDS[2:3])
    assert view.closed == old.newest
    assert domain(h1=view).in_force(IDS[0]) is False
    longer = proven(beat(ids=IDS[2:4], epoch=8, issued_at=NOW + 1), view)
    assert longer.chain.ids == IDS[2:4]
    assert not longer.equivocated


@pytest.mark.parametrize("named", [None, ListEnd(7, 3, extend_head(EMPTY_HEAD, IDS[:3]))])
def test_a30_a_new_epoch_counts_only_under_the_end_of_the_old(named: ListEnd | None) -> None:
    view = proven(beat(ids=IDS[:2]))
    with pytest.raises(StaleRecordError, match="does not name the end"):
        observe(view, beat(epoch=8, previous=named), now=NOW)


def test_a_daemon_that_was_behind_follows_over_the_end_of_the_old_epoch() -> None:
    behind = proven(beat(ids=IDS[:1]))
    last = beat(ids=IDS[:2], issued_at=NOW + 1)
    first = beat(epoch=8, issued_at=NOW + 2, previous=last.end)
    with pytest.raises(StaleRecordError):
        observe(behind, first, now=NOW)
    followed = observe(observe(behind, last, now=NOW), first, now=NOW)
    assert (followed.newest, followed.closed) == (first, last)


def test_a29_a_closed_epoch_is_never_gone_back_to() -> None:
    old = proven(beat(ids=IDS[:2]))
    view = observe(old, beat(epoch=8, previous=old.end), now=NOW)
    with pytest.raises(StaleRecordError):
        observe(view, beat(ids=IDS[:2], issued_at=NOW + 1), now=NOW)


def test_a29_entries_kept_over_a_restart_bind_the_key_as_a_head_does() -> None:
    kept = KeyView(chain=Chain(epoch=7).append(IDS[:2]))
    assert kept.end == ListEnd(7, 2, extend_head(EMPTY_HEAD, IDS[:2]))
    for refused in (
        beat(epoch=6),
        beat(epoch=8),
        beat(epoch=8, previous=ListEnd(7, 0, EMPTY_HEAD)),
    ):
        with pytest.raises(StaleRecordError):
            observe(kept, refused, now=NOW)
    follower = beat(epoch=8, previous=kept.end)
    assert observe(kept, follower, now=NOW).newest == follower
    assert KeyView().end is None
    assert observe(KeyView(), beat(epoch=8), now=NOW).closed is None


# --- a domain -----------------------------------------------------------------------------------


def test_one_key_alone_is_its_own_majority() -> None:
    root = make_root(authority("X"), heartbeat_keys=publics(["h1"]))
    assert domain(root).fresh_until() == 0
    assert domain(root, h1=proven(beat())).fresh_until() == NOW + 60


def test_fresh_needs_more_than_half_of_the_keys_alive() -> None:
    first, second = proven(beat("h1", life_s=50)), proven(beat("h2", life_s=30))
    assert domain().fresh_until() == 0
    assert domain(h1=first).fresh_until() == 0
    assert domain(h1=first, h2=second).fresh_until() == NOW + 30
    third = proven(beat("h3", life_s=40))
    assert domain(h1=first, h2=second, h3=third).fresh_until() == NOW + 40


def test_the_denominator_does_not_shrink_by_equivocation() -> None:
    views = {name: proven(beat(name)) for name in ("h1", "h2")}
    views["h2"] = mark_equivocation(views["h2"])
    assert domain(**views).fresh_until() == 0


def test_a_key_that_is_not_in_the_root_does_not_count() -> None:
    views = {name: proven(beat(name)) for name in ("h1", "h4", "h5")}
    assert domain(**views).fresh_until() == 0


def test_a_view_is_replaced_whole() -> None:
    before = domain()
    after = before.with_view(key("h1").public, proven(beat()))
    assert before.view(key("h1").public) == KeyView()
    assert after.view(key("h1").public).proven is not None


def test_a_revocation_is_in_force_when_a_majority_has_signed_it() -> None:
    with_it, without = IDS[:2], IDS[1:2]
    one = domain(h1=proven(beat("h1", with_it)), h2=proven(beat("h2", without)))
    two = one.with_view(key("h3").public, proven(beat("h3", with_it)))
    assert not one.in_force(IDS[0])
    assert two.in_force(IDS[0])
    assert one.in_force(IDS[1])
    assert not two.in_force(IDS[9])


def test_a_head_that_is_signed_and_not_proven_puts_nothing_in_force() -> None:
    view = observe(KeyView(), beat(ids=IDS[:1]), now=NOW)
    root = make_root(authority("X"), heartbeat_keys=publics(["h1"]))
    assert not domain(root, h1=view).in_force(IDS[0])


# --- a new root ---------------------------------------------------------------------------------


def next_root(previous: Root, names: Iterable[str], *, reset: bool = False) -> Root:
    values = {name: getattr(previous, name) for name in RootClaims.__slots__}
    values |= {
        "version": previous.version + 1,
        "previous": previous.statement_id,
        "heartbeat_keys": publics(names),
        "reset": reset,
    }
    return sign_root(RootClaims(**values), previous=previous, keys=(key("own root"),))


def test_heads_under_a_new_root_count_after_a_majority_of_the_old_keys_named_it() -> None:
    view = domain(**{name: proven(beat(name)) for name in NAMES})
    view = view.with_root(next_root(ROOT, ["n1"]))
    assert view.keys == (key("n1").public, *publics(NAMES))
    view = view.with_view(key("n1").public, proven(beat("n1", root_version=2)))
    assert (view.handed_over, view.fresh_until()) == (False, 0)
    for name, over in (("h1", False), ("h2", True)):
        old = view.view(key(name).public)
        new = proven(beat(name, root_version=2, issued_at=NOW + 1), old)
        view = view.with_view(key(name).public, new)
        assert view.handed_over is over
    assert view.fresh_until() == NOW + 60


def signed_for(view: DomainView, name: str, version: int, *, at: int = NOW + 1) -> DomainView:
    """Let a key sign an empty list for a root version."""
    held = view.view(key(name).public)
    new = proven(beat(name, root_version=version, issued_at=at), held)
    return view.with_view(key(name).public, new)


def test_two_roots_in_a_row_skip_no_hand_over() -> None:
    second = next_root(ROOT, ["n1"])
    third = next_root(second, ["m1"])
    view = domain(**{name: proven(beat(name)) for name in NAMES})
    view = view.with_root(second).with_root(third)
    assert view.keys == publics(["m1", "n1", *NAMES])
    view = signed_for(signed_for(view, "m1", 3), "n1", 3)
    # Version 1's keys may not have heard of any of this: elsewhere they still make fresh.
    assert (view.handed_over, view.fresh_until()) == (False, 0)
    view = signed_for(view, "h1", 2)
    assert not view.handed_over
    view = signed_for(view, "h2", 3)
    assert view.handed_over
    assert view.fresh_until() == NOW + 60


def test_a_hand_over_that_is_complete_is_not_kept() -> None:
    second = next_root(ROOT, ["n1"])
    view = domain().with_root(second)
    view = signed_for(signed_for(view, "h1", 2), "h3", 2)
    view = view.with_root(next_root(second, ["m1"]))
    assert view.keys == publics(["m1", "n1"])
    assert not view.handed_over
    assert signed_for(view, "n1", 3).handed_over


def test_a31_a_key_that_equivocated_hands_nothing_over() -> None:
    view = domain().with_root(next_root(ROOT, ["n1"]))
    dishonest = mark_equivocation(view.view(key("h2").public))
    view = view.with_view(key("h2").public, dishonest)
    view = signed_for(signed_for(view, "h1", 2), "h2", 2)
    assert not view.handed_over
    assert signed_for(view, "h3", 2).handed_over


def test_a31_a_hand_over_that_is_complete_is_not_undone_by_a_former_key() -> None:
    view = domain().with_root(next_root(ROOT, ["n1"]))
    view = signed_for(signed_for(view, "h1", 2), "h2", 2)
    assert view.handed_over
    dishonest = mark_equivocation(view.view(key("h2").public))
    assert view.with_view(key("h2").public, dishonest).handed_over


def test_reset_skips_every_hand_over_that_is_open() -> None:
    second = next_root(ROOT, ["n1"])
    view = domain().with_root(second).with_root(next_root(second, ["m1"], reset=True))
    assert (view.handed_over, view.keys) == (True, publics(["m1"]))


def test_heads_that_name_the_old_root_do_not_count_under_the_new() -> None:
    view = domain(**{name: proven(beat(name)) for name in NAMES})
    assert view.fresh_until() == NOW + 60
    assert view.with_root(next_root(ROOT, NAMES, reset=True)).fresh_until() == 0


def test_reset_skips_the_hand_over() -> None:
    view = domain().with_root(next_root(ROOT, ["n1"], reset=True))
    assert view.handed_over
    view = view.with_view(key("n1").public, proven(beat("n1", root_version=2)))
    assert view.fresh_until() == NOW + 60


# --- a new list ---------------------------------------------------------------------------------


def closing(view: KeyView, ids: Iterable[StatementId], **changes: Any) -> Heartbeat:
    return beat(ids=ids, epoch=view.chain.epoch + 1, previous=view.end, **changes)


def test_a_new_list_counts_without_what_has_ended_or_is_not_known() -> None:
    old = proven(beat(ids=IDS[:4]))
    asked: list[tuple[StatementId, int]] = []

    def needed(one: StatementId, at: int) -> bool:
        asked.append((one, at))
        return False

    view = observe(old, closing(old, IDS[2:4], issued_at=NOW + 3), now=NOW)
    assert view.closed_ids == set(IDS[:4])
    assert view.live_until == NOW + 60, "the old list's head lives on meanwhile"
    view = prove(view, holds=everything, received_at=NOW, needed=needed)
    assert view.proven == view.newest
    assert sorted(asked) == [(IDS[0], NOW + 3), (IDS[1], NOW + 3)]
    assert view.closed_ids == frozenset()


def test_a_new_list_that_leaves_out_what_is_needed_is_a_lie_for_ever() -> None:
    old = proven(beat(ids=IDS[:4]))
    view = observe(old, closing(old, IDS[:3]), now=NOW)
    lied = prove(view, holds=everything, received_at=NOW, needed=lambda one, _: one == IDS[3])
    assert (lied.equivocated, lied.proven, lied.live_until) == (True, None, 0)
    assert domain(h1=lied).fresh_until() == 0
    assert lied.closed_ids == set(IDS[:4]), "kept as evidence"


def test_a_list_between_that_nobody_could_prove_forgets_nothing() -> None:
    old = proven(beat(ids=IDS[:10]))
    empty = observe(old, closing(old, (), head=bytes([9]) * 32, count=1, recent=IDS[:1]), now=NOW)
    third = observe(empty, closing(empty, IDS[1:3], issued_at=NOW + 1), now=NOW)
    assert third.closed_ids == set(IDS[:10])
    lied = prove(third, holds=everything, received_at=NOW, needed=lambda one, _: one == IDS[0])
    assert lied.equivocated


def test_the_last_heads_of_so_many_lists_are_kept_the_oldest_first() -> None:
    view, heads = proven(beat(ids=IDS[:1])), list[Heartbeat]()
    for place in range(1, 10):
        assert view.newest is not None
        heads.append(view.newest)
        view = proven(closing(view, IDS[place : place + 1]), view)
        assert view.closed == heads[-1]
        assert list(view.closed_heads) == heads[-limits.MAX_CLOSED_HEADS :]
