"""Scopes in order, and shares inside shares."""

from authd.core.topics import Action, covers, make_scope


def test_a_scope_is_in_the_order_of_its_filters() -> None:
    scope = make_scope({"b": Action.PUB, "+": Action.SUB, "a/#": Action.PUB, "a": Action.SUB})
    assert [entry.topic_filter for entry in scope] == ["+", "a", "a/#", "b"]


def test_a_share_inside_a_share_is_covered_by_nothing() -> None:
    for granted in ("$share/a/#", "$share/a/b", "#", "+/a/b"):
        assert not covers(granted, "$share/group/$share/a/b")
