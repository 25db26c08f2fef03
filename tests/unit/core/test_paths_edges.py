"""The search for paths to the letter: which failure is told, and work counted step by step."""

from dataclasses import replace

import pytest

from authd.core import limits
from authd.core.formation import Failure
from authd.core.grants import DomainSubject
from authd.core.paths import Evaluation
from authd.core.policy import DomainPolicy
from authd.errors import ReasonCode
from tests.unit.core.world import DAY, NOW, World, authority, make_root, scope


def test_the_failure_that_got_furthest_is_told() -> None:
    failures = tuple(
        Failure(reason, str(reason))
        for reason in (
            ReasonCode.UNKNOWN_KEY,
            ReasonCode.UNTRUSTED,
            ReasonCode.STALE,
            ReasonCode.EXPIRED,
        )
    )
    assert Evaluation(paths=(), failures=failures).first_failure().reason is ReasonCode.STALE


def test_a_search_that_finds_everything_complains_of_nothing() -> None:
    world = World()
    world.grants("X -> gate -> lamp")
    assert world.paths_to("lamp").failures == ()


@pytest.mark.parametrize("dead", [0, 1])
def test_an_entry_that_ended_hides_no_entry_of_another_domain(dead: int) -> None:
    ends = [NOW + DAY, NOW + DAY]
    world = World(root=make_root(authority("X"), domain="one"))
    other = world.add_root(make_root(authority("X"), domain="two"), listed=DomainPolicy())
    in_order = sorted([world.root, other], key=lambda root: root.domain)
    ends[dead] = NOW
    for root, end in zip(in_order, ends, strict=True):
        entries = tuple(replace(one, expires_at=end) for one in root.authorities)
        roots = world.state.roots.set(root.domain, replace(root, authorities=entries))
        world.state = replace(world.state, roots=roots)
    world.grant("X", "lamp")
    (path,) = world.paths_to("lamp").paths
    assert path.domains == (in_order[1 - dead].domain,)


# --- work is counted ----------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "truncated"), [(1, True), (2, False), (3, False)])
def test_every_grant_that_is_looked_at_is_a_step(
    monkeypatch: pytest.MonkeyPatch, steps: int, *, truncated: bool
) -> None:
    monkeypatch.setattr(limits, "MAX_EVALUATION_STEPS", steps)
    world = World()
    world.grants("X -> gate -> lamp")
    assert world.paths_to("lamp").truncated is truncated


def crowded(*roots: str, delegates: dict[str, int]) -> World:
    """Make so many junk grants to ``lamp`` that only the way down leads to it."""
    world = World(root=make_root(*map(authority, roots)))
    for number in range(12):
        world.grant(f"stranger{number}", "lamp", scope("junk"))
    for name, count in delegates.items():
        for number in range(count):
            world.grant(name, f"{name}-gate{number}", depth=1)
            world.grant(f"{name}-gate{number}", "lamp")
    return world


@pytest.mark.parametrize(("delegates", "count"), [(3, 3), (4, 4), (5, 0)])
def test_on_the_way_down_every_delegate_is_a_step(
    monkeypatch: pytest.MonkeyPatch, delegates: int, count: int
) -> None:
    world = crowded("A", delegates={"A": delegates})
    monkeypatch.setattr(limits, "MAX_EVALUATION_STEPS", 4)
    assert len(world.paths_to("lamp").paths) == count


def test_on_the_way_down_authorities_share_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    world = crowded("A", "B", delegates={"A": 3, "B": 2})
    monkeypatch.setattr(limits, "MAX_EVALUATION_STEPS", 4)
    paths = world.paths_to("lamp").paths
    assert len(paths) == 2
    assert {path.keys[0] for path in paths} == {world.root.authorities[1].key}


def test_on_the_way_down_no_key_is_passed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    world = crowded("A", delegates={"A": 1})
    world.grant("A-gate0", "A", depth=6)
    world.grant("A", "A-gate0", depth=6, issued_at=NOW - 5)
    world.grant("A", "lamp")
    monkeypatch.setattr(limits, "MAX_EVALUATION_STEPS", 8)
    found = world.paths_to("lamp")
    assert found.truncated
    assert {len(path.keys) for path in found.paths} == {2, 3}
    assert all(len(set(path.keys)) == len(path.keys) for path in found.paths)


def test_on_the_way_down_what_does_not_count_is_left_out_and_the_rest_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = crowded("A", delegates={})
    world.grant("A", "gate", scope("a"), depth=1, issued_at=NOW - 30)
    world.grant("A", "gate", scope("b"), depth=1, issued_at=NOW - 20)
    world.grant("A", "gate", scope("c"), issued_at=NOW - 15)
    world.grant("A", "gate", scope("d"), depth=1, issued_at=NOW - 12, expires_at=NOW)
    world.grant("gate", "lamp")
    monkeypatch.setattr(limits, "MAX_EVALUATION_STEPS", 4)
    found = world.paths_to("lamp")
    assert found.truncated
    assert sorted(path.scope[0].topic_filter for path in found.paths) == ["a", "b"]


# --- order, and domains that are crossed ----------------------------------------------------------


@pytest.mark.parametrize("names", ["AB", "BA"])
def test_paths_come_in_the_order_of_the_root_entries(names: str) -> None:
    world = World(root=make_root(*map(authority, names)))
    for name in names:
        world.grant(name, "lamp")
    starts = [path.keys[0] for path in world.paths_to("lamp").paths]
    assert starts == [entry.key for entry in world.root.authorities]


def test_an_issuer_that_is_only_crossed_to_is_no_stranger() -> None:
    world = World()
    foreign = world.add_root(make_root(authority("F"), domain="foreign"))
    world.grant("X", "", to=DomainSubject(foreign.domain), depth=2)
    world.grant("F", "lamp")
    found = world.paths_to("lamp")
    assert len(found.paths) == 1
    assert found.failures == ()
