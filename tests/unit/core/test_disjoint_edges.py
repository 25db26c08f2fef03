"""Disjoint paths to the letter: depth at its edge, entries of several domains, ways around."""

import itertools

import pytest

from authd.core.identity import PublicKey
from authd.core.policy import DomainPolicy
from authd.core.topics import POWER_REVOKE, Action
from tests.unit.core.test_disjoint import found, names_of, world_of
from tests.unit.core.world import NOW, World, authority, key, make_root, scope


def name_of_key(wanted: PublicKey) -> str:
    return next(name for name in "ABpqrstu" if key(name).public == wanted)


@pytest.mark.parametrize(("depth", "graph", "count"), [(2, "A -> m -> s", 1), (1, "A -> s", 1)])
def test_a_root_entry_of_just_the_depth_is_a_way(depth: int, graph: str, count: int) -> None:
    world = World(root=make_root(authority("A", depth=depth)))
    world.grants(graph)
    assert len(found(world)) == count


@pytest.mark.parametrize("dead", [0, 1])
def test_an_entry_that_ended_bars_no_entry_of_another_domain(dead: int) -> None:
    domains = sorted(("one", "two"), key=lambda name: make_root(authority("A"), domain=name).domain)
    roots = [
        make_root(authority("A", expires_at=NOW if place == dead else NOW + 500), domain=name)
        for place, name in enumerate(domains)
    ]
    world = World(root=roots[0])
    world.add_root(roots[1], listed=DomainPolicy())
    world.grant("A", "s")
    (path,) = found(world)
    assert path.domains == (roots[1 - dead].domain,)


@pytest.mark.parametrize("barred", ["m", "n"])
def test_there_is_a_way_around_a_key_that_a_revoker_of_the_authority_named(barred: str) -> None:
    world = world_of("A -> m -> s", "A -> n -> s")
    power = world.grant("A", "revoker", scope(POWER_REVOKE, actions=Action.PUB))
    world.revoke("revoker", barred, revoker_grant=power)
    free = {"m": "n", "n": "m"}[barred]
    assert list(map(names_of, found(world))) == [f"A -> {free} -> s"]


@pytest.mark.parametrize("first", ["A", "B"])
@pytest.mark.parametrize("target", ["q", "t"])
def test_a_whole_way_is_moved_aside_from_its_first_key_on(first: str, target: str) -> None:
    second = {"A": "B", "B": "A"}[first]
    world = world_of(
        f"{first} -> p -> q -> s", f"{first} -> r -> t -> s", f"{second} -> u -> {target} -> s"
    )
    free = {"q": "rt", "t": "pq"}[target]
    paths = {"".join(name_of_key(one) for one in path.keys) for path in found(world)}
    assert paths == {f"{first}{free}s", f"{second}u{target}s"}


@pytest.mark.parametrize("names", list(itertools.permutations("mno")))
def test_the_last_way_moves_each_of_the_others(names: tuple[str, ...]) -> None:
    one, two, three = names
    world = world_of(
        *(f"A -> {via} -> s" for via in (one, two)),
        *(f"B -> {via} -> s" for via in (two, three)),
        f"C -> {one} -> s",
    )
    assert sorted(map(names_of, found(world))) == [
        f"A -> {two} -> s",
        f"B -> {three} -> s",
        f"C -> {one} -> s",
    ]


def test_the_ways_found_do_not_depend_on_how_often_one_asks() -> None:
    world = world_of("A -> m -> s", "B -> m -> s", "B -> n -> s", "C -> o -> s")
    assert [len(found(world, wanted=wanted)) for wanted in range(5)] == [0, 1, 2, 3, 3]
