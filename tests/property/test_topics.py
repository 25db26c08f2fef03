"""Filters against brute force: exact but for three known shapes, and never too wide."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authd.core.topics import (
    Action,
    covers,
    is_topic_filter,
    is_topic_name,
    matches,
    meet,
    meet_scopes,
    overlaps,
)
from tests.unit.core.world import scope
from tests.vectors.make_topics import FILTERS, NAMES, NOT_SEEN, masks

LEVELS = st.sampled_from(["a", "b", "", "$x", "z", "\u00e4"])
NAME = st.lists(LEVELS, min_size=1, max_size=5).map("/".join).filter(is_topic_name)
FILTER = (
    st.tuples(st.lists(LEVELS | st.just("+"), min_size=0, max_size=4), st.sampled_from([[], ["#"]]))
    .map(lambda parts: "/".join(parts[0] + parts[1]))
    .filter(is_topic_filter)
)


@pytest.mark.timeout(120)
def test_a17_covers_is_what_brute_force_says_but_for_three_shapes() -> None:
    sets = masks()
    refused = set()
    for granted, requested in itertools.product(FILTERS, FILTERS):
        truth = not sets[requested] & ~sets[granted]
        answer = covers(granted, requested)
        assert truth or not answer, (granted, requested)
        if truth and not answer:
            refused.add((granted, requested))
    assert len(FILTERS) ** 2 == 34_225
    assert refused == NOT_SEEN


def test_a17_meet_is_the_intersection_and_overlaps_says_whether_there_is_one() -> None:
    sets = masks()
    for first, second in itertools.combinations_with_replacement(FILTERS, 2):
        met = meet(first, second)
        assert (sets[met] if met else 0) == sets[first] & sets[second], (first, second)
        assert overlaps(first, second) is bool(sets[first] & sets[second])
        assert meet(second, first) == met


def test_a17_matches_is_what_brute_force_says() -> None:
    for topic_filter, names in itertools.islice(masks().items(), 0, None, 3):
        for bit, name in enumerate(NAMES):
            assert matches(topic_filter, name) is bool(names >> bit & 1)


@given(FILTER, FILTER, NAME)
def test_a_name_under_a_covered_filter_is_under_the_covering_one(
    granted: str, requested: str, name: str
) -> None:
    if covers(granted, requested) and matches(requested, name):
        assert matches(granted, name)


@given(FILTER, FILTER, FILTER)
def test_covers_is_transitive(first: str, second: str, third: str) -> None:
    if covers(first, second) and covers(second, third):
        assert covers(first, third)


@given(FILTER)
def test_a_filter_covers_and_meets_itself(topic_filter: str) -> None:
    assert covers(topic_filter, topic_filter)
    assert meet(topic_filter, topic_filter) == topic_filter


@given(FILTER, NAME)
def test_a_name_is_a_filter_without_wildcards(topic_filter: str, name: str) -> None:
    assert covers(topic_filter, name) == matches(topic_filter, name)


@given(FILTER, FILTER, NAME)
def test_what_two_filters_share_is_under_both(first: str, second: str, name: str) -> None:
    met = meet(first, second)
    both = matches(first, name) and matches(second, name)
    assert (met is not None and matches(met, name)) is both
    assert met is None or is_topic_filter(met)


@given(FILTER, FILTER, st.sampled_from(["g", "group", "$g"]))
def test_a_share_gets_the_same_verdict_as_what_is_in_it(
    granted: str, requested: str, group: str
) -> None:
    assert covers(granted, f"$share/{group}/{requested}") == covers(granted, requested)


@given(st.sampled_from(FILTERS), st.text(max_size=12))
def test_a17_any_text_is_answered(granted: str, text: str) -> None:
    assert covers(granted, text) in (True, False)
    assert matches(granted, text) in (True, False)
    if matches(granted, text):
        assert is_topic_name(text)


SCOPES = st.sets(FILTER, max_size=4).map(lambda names: scope(*names))


@given(SCOPES, SCOPES, NAME)
def test_a8_a_scope_met_with_another_is_no_wider_than_either(
    first: tuple[object, ...], second: tuple[object, ...], name: str
) -> None:
    met = meet_scopes(first, second)  # type: ignore[arg-type]  # the strategy hides the type

    def allows(entries: object) -> bool:
        return any(
            matches(entry.topic_filter, name) and Action.PUB in entry.actions
            for entry in entries  # type: ignore[attr-defined]  # the same
        )

    assert allows(met) is (allows(first) and allows(second))
