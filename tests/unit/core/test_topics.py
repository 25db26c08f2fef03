"""Topic names, filters and scopes; the rules of matching are in the vectors."""

import pytest

from authd.core.topics import (
    POWER_ADMIN,
    POWER_REVOKE,
    Action,
    check_granted_filter,
    covers,
    has_power,
    is_topic_filter,
    is_topic_name,
    make_scope,
    matches,
    meet,
    meet_scopes,
    overlaps,
    unwrap_share,
)
from authd.errors import FormatError
from tests.unit.core.world import BOTH, scope


@pytest.mark.parametrize("name", ["a", "/", "a//b", "$SYS/x", "a b", "l" * 256, "\u00e4" * 128])
def test_a_topic_name_has_no_wildcards(name: str) -> None:
    assert is_topic_name(name)
    assert is_topic_filter(name)


@pytest.mark.parametrize(
    "text",
    ["", "a\x00", "a\n", "\x7f", "a\ud800", "l" * 257, "\u00e4" * 129],
)
def test_control_characters_surrogates_and_length_are_checked(text: str) -> None:
    assert not is_topic_name(text)
    assert not is_topic_filter(text)


@pytest.mark.parametrize("text", ["#", "+", "a/#", "+/+", "/+", "+/#", "/#"])
def test_wildcards_stand_for_whole_levels(text: str) -> None:
    assert is_topic_filter(text)
    assert not is_topic_name(text)


@pytest.mark.parametrize("text", ["a#", "#/a", "a/#/b", "##", "+a", "a+", "a/++", "a/b#"])
def test_a_misplaced_wildcard_makes_no_filter(text: str) -> None:
    assert not is_topic_filter(text)
    with pytest.raises(FormatError, match="can be granted"):
        check_granted_filter(text)


@pytest.mark.parametrize("text", ["$share/g/a", "$share", "$shared/a", "a#", "", "a\x00"])
def test_a_share_is_never_granted(text: str) -> None:
    with pytest.raises(FormatError):
        check_granted_filter(text)


def test_a_filter_can_be_granted_as_it_is() -> None:
    assert check_granted_filter("$SYS/#") == "$SYS/#"
    assert check_granted_filter("a/$share/b") == "a/$share/b"


@pytest.mark.parametrize(
    ("requested", "inner"),
    [
        ("a/b", "a/b"),
        ("$share/g/a/b", "a/b"),
        ("$share/g/#", "#"),
        ("$share/g//", "/"),
        ("$share", None),
        ("$share/", None),
        ("$share/g", None),
        ("$share/g/", None),
        ("$share//a", None),
        ("$share/+/a", None),
        ("$share/a#/a", None),
        ("$shared/g/a", None),
    ],
)
def test_a_share_is_unwrapped_or_refused(requested: str, inner: str | None) -> None:
    assert unwrap_share(requested) == inner


def test_a_name_that_is_none_is_under_nothing() -> None:
    for name in ("", "a/+", "#", "a\n", "$share/g/a", "$shared/a"):
        assert not matches("#", name)


def test_a_request_that_is_no_filter_is_covered_by_nothing() -> None:
    for requested in ("", "a/#/b", "a+", "$share/g", "$share/g/$share/h/a", "a\x00"):
        assert not covers("#", requested)


def test_a_wildcard_never_reaches_a_first_level_with_a_dollar() -> None:
    for wildcard in ("#", "+/x", "+/#"):
        assert not matches(wildcard, "$SYS/x")
        assert not covers(wildcard, "$SYS/x")
        assert meet(wildcard, "$SYS/x") is None
        assert meet("$SYS/x", wildcard) is None
    assert matches("$SYS/#", "$SYS/x")


def test_filters_of_different_length_or_words_do_not_meet() -> None:
    assert meet("a", "a/b") is None
    assert meet("a/b/c", "a/+") is None
    assert meet("a/+", "b/+") is None
    assert meet("a/+/c", "+/b/#") == "a/b/c"
    assert meet("a/#", "a/b/#") == "a/b/#"


def test_a_filter_that_is_malformed_covers_nothing() -> None:
    assert not matches("a/#/b", "a/x/b")
    assert not covers("#/a", "x/a")


def test_no_name_is_under_two_filters_that_only_the_empty_text_would_meet() -> None:
    assert meet("/#", "+") is None
    assert meet("+", "/#") is None
    assert not overlaps("/#", "+")
    assert meet("/#", "+/+") == "/+"


def test_scopes_meet_filter_by_filter_and_action_by_action() -> None:
    first = make_scope({"a/#": BOTH, "b": Action.PUB})
    second = make_scope({"a/+": Action.SUB, "+/x": Action.PUB, "b": Action.SUB})
    assert meet_scopes(first, second) == make_scope({"a/+": Action.SUB, "a/x": Action.PUB})


def test_entries_that_meet_in_one_filter_are_merged() -> None:
    first = make_scope({"+/x": Action.PUB, "a/+": Action.SUB})
    assert meet_scopes(first, scope("a/x")) == scope("a/x")


def test_serve_is_never_implied() -> None:
    assert meet_scopes(scope("#", actions=Action.SERVE), scope("#")) == ()


def test_a_power_is_met_by_its_literal_name_alone() -> None:
    power = scope(POWER_ADMIN, actions=Action.PUB)
    assert meet_scopes(power, power) == power
    for wider in ("$authd/+", "$authd/#", "#", "+/admin"):
        assert meet_scopes(power, scope(wider)) == ()
    assert has_power(power, POWER_ADMIN)
    assert not has_power(power, POWER_REVOKE)
    assert not has_power(scope("$authd/#"), POWER_ADMIN)


def test_an_empty_scope_meets_nothing() -> None:
    assert meet_scopes((), scope("#")) == ()
    assert meet_scopes(scope("#"), ()) == ()
