"""Compiling many rights: as much work as there are rights, and the same result in any number."""

import itertools

import pytest

from authd.core import limits
from authd.core.policy import GuardedPrefix
from authd.core.rights import Right, Rights
from tests.unit.core.world import NOW, World, authority, make_root, scope

PARTS = limits.MAX_GRANTS_PER_PAIR
EACH = limits.MAX_FILTERS_PER_GRANT


def colluding(issuers: int) -> World:
    """Let so many gateways grant all that one may to ``lamp``."""
    world = World()
    for number in range(issuers):
        world.grant("X", f"gate {number}", scope("site/#"), depth=1)
        for part in range(PARTS):
            names = (f"site/{number}/{part}/{place}" for place in range(EACH))
            world.grant(f"gate {number}", "lamp", scope(*names), issued_at=NOW - 1 - part)
    return world


def test_rights_are_not_compared_with_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    world, compared = colluding(16), itertools.count()
    monkeypatch.setattr(Right, "__eq__", lambda one, other: bool(next(compared)) and one is other)
    rights = world.connect("lamp").rights
    assert len(rights.entries) == limits.MAX_COMPILED_FILTERS
    given = 16 * PARTS * EACH
    assert next(compared) < given, "each with every other would be half a million"


@pytest.mark.parametrize("issuers", [1, 2, 5])
def test_what_is_kept_is_the_first_of_what_the_paths_give(issuers: int) -> None:
    world = colluding(issuers)
    given = [
        (entry.topic_filter, place)
        for place, path in enumerate(world.paths_to("lamp").paths)
        for entry in path.scope
    ]
    kept = [(one.topic_filter, one.path) for one in world.connect("lamp").rights.entries]
    assert kept == given[: limits.MAX_COMPILED_FILTERS]


def test_what_two_paths_prove_together_is_there_once() -> None:
    guard = GuardedPrefix(topic_filter="door/#", grace_s=3_600, k=2)
    world = World(root=make_root(authority("A"), authority("B")), guarded=(guard,))
    for name in "AB":
        world.grant(name, "lamp", scope("door/1", f"site/{name}"))
    entries = world.connect("lamp").rights.entries
    assert [one.topic_filter for one in entries] == ["door/1", "site/A", "site/B"]
    assert entries[0].proof == (0, 1)
    assert world.connect("lamp").rights != Rights()
