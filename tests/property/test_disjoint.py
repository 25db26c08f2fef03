"""Disjoint paths on random graphs against a brute-force optimum."""

from collections.abc import Sequence
from functools import cache
from itertools import combinations, pairwise
from typing import TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from authd.core import limits
from authd.core.compilation import compile_rights
from authd.core.decision import Operation
from authd.core.disjoint import Question, disjoint_paths
from authd.core.formation import Formation, Path
from authd.core.grants import Grant
from authd.core.policy import GuardedPrefix
from authd.core.topics import Action, matches
from tests.unit.core.world import BOTH, NOW, World, authority, key, make_grant, make_root, scope

AUTHORITIES = ("A", "B", "C")
SUBJECT = "s"
NAMES = (*AUTHORITIES, "m", "n", "o", "p", "q", SUBJECT)
WITHIN = 4
Arrow: TypeAlias = tuple[str, str, int]
"""Issuer, subject, depth."""
Way: TypeAlias = tuple[str, ...]

ARROWS = st.tuples(
    st.sampled_from(NAMES), st.sampled_from(NAMES), st.sampled_from([0, 1, 2, 4, 4, 4])
).filter(lambda arrow: arrow[0] != arrow[1])
GRAPHS = st.lists(ARROWS, max_size=24, unique_by=lambda arrow: arrow[:2])
SPARSE = st.lists(ARROWS, max_size=14, unique_by=lambda arrow: arrow[:2])


@cache
def signed(arrow: Arrow, *filters: str) -> Grant:
    return make_grant(arrow[0], arrow[1], scope(*filters or ("door/#",)), depth=arrow[2])


def world_of(graph: Sequence[Arrow], *guarded: GuardedPrefix) -> World:
    world = World(root=ROOT, guarded=guarded)
    world.add(*map(signed, graph))
    return world


ROOT = make_root(*map(authority, AUTHORITIES))


def counted(world: World) -> tuple[Path, ...]:
    ground = world.paths_to(SUBJECT).ground
    if ground is None:
        return ()
    formation = Formation(
        state=ground.state, policy=world.policy, freshness=world.freshness, now=NOW
    )
    question = Question(
        topic_filter="door/1",
        actions=BOTH,
        admits=lambda _grant, _last: True,
        holds=lambda _path: True,
    )
    return disjoint_paths(formation, ground.chains, ground.subject, question, wanted=len(NAMES))


# --- the oracle ---------------------------------------------------------------------------------


def ways_of(graph: Sequence[Arrow]) -> list[Way]:
    """Return every path that depth allows, by names without the subject."""
    depth = {(issuer, subject): given for issuer, subject, given in graph}
    ways: list[Way] = []
    waiting: list[Way] = [(name,) for name in AUTHORITIES]
    while waiting:
        way = waiting.pop()
        for issuer, subject in depth:
            if issuer != way[-1] or subject in way or len(way) > WITHIN:
                continue
            if subject == SUBJECT:
                whole = (*way, subject)
                links = pairwise(whole)
                if all(depth[link] >= len(way) - 1 - at for at, link in enumerate(links)):
                    ways.append(way)
            else:
                waiting.append((*way, subject))
    return [way for way in ways if len(way) <= WITHIN]


def optimum(ways: Sequence[Way]) -> int:
    """Return the largest number of ways that share no name, by trying all."""
    best = 0
    for count in range(1, len(AUTHORITIES) + 1):
        if any(_disjoint(some) for some in combinations(ways, count)):
            best = count
    return best


def _disjoint(ways: Sequence[Way]) -> bool:
    names = [name for way in ways for name in way]
    return len(names) == len(set(names))


def levels_of(ways: Sequence[Way]) -> dict[str, int]:
    """Return by name the least number of grants from it to the subject."""
    levels: dict[str, int] = {}
    for way in ways:
        for at, name in enumerate(way):
            levels[name] = min(levels.get(name, WITHIN), len(way) - at)
    return levels


def in_levels(ways: Sequence[Way]) -> list[Way]:
    levels = levels_of(ways)
    return [
        way for way in ways if all(levels[name] == len(way) - at for at, name in enumerate(way))
    ]


# --- claims -------------------------------------------------------------------------------------


@settings(max_examples=400)
@given(GRAPHS)
def test_a25_never_more_than_there_are_and_all_where_an_optimum_keeps_to_the_levels(
    graph: list[Arrow],
) -> None:
    world = world_of(graph)
    ways = ways_of(graph)
    found = counted(world)
    best = optimum(ways)
    assert len(found) <= best
    if not world.paths_to(SUBJECT).truncated and optimum(in_levels(ways)) == best:
        assert len(found) == best


@given(GRAPHS)
def test_a24_what_is_found_are_paths_that_share_no_key(graph: list[Arrow]) -> None:
    paths = counted(world_of(graph))
    names = {key(name).public: name for name in NAMES}
    ways = [tuple(names[one] for one in path.keys[:-1]) for path in paths]
    assert _disjoint(ways)
    assert set(ways) <= set(ways_of(graph))


@given(SPARSE, SPARSE, st.integers(2, 3))
def test_no_topic_below_a_guarded_prefix_is_allowed_with_fewer_paths(
    doors: list[Arrow], others: list[Arrow], k: int
) -> None:
    guard = GuardedPrefix(topic_filter="door/#", grace_s=60, k=k)
    world = World(root=ROOT, guarded=(guard,))
    world.add(*(signed(one, "door/1", "lamp") for one in doors))
    world.add(*(signed(one, "+/1") for one in others if one[:2] not in {d[:2] for d in doors}))
    graph = [*doors, *(one for one in others if one[:2] not in {d[:2] for d in doors})]
    rights = world.connect(SUBJECT).rights
    if rights.find(Operation.SUBSCRIBE, "door/1") is not None:
        assert optimum(ways_of(graph)) >= k
    assert rights.find(Operation.SUBSCRIBE, "door/2") is None
    for one in rights.entries:
        assert len(one.proof) >= k if matches(one.topic_filter, "door/1") else one.proof == ()


@given(SPARSE)
def test_without_guards_rights_agree_with_asking_path_by_path(graph: list[Arrow]) -> None:
    world = world_of(graph)
    evaluation = world.paths_to(SUBJECT)
    rights, _ = compile_rights(
        evaluation,
        world.proof(SUBJECT),
        policy=world.policy,
        freshness=world.freshness,
        now=NOW,
    )
    for topic in ("door", "door/1", "door/1/2", "lamp"):
        single = any(
            matches(entry.topic_filter, topic) and Action.PUB in entry.actions
            for path in evaluation.paths
            for entry in path.scope
        )
        assert (rights.find(Operation.PUBLISH, topic) is not None) is single


@given(GRAPHS)
def test_a_guard_of_one_path_changes_no_right(graph: list[Arrow]) -> None:
    plain, guarded = (
        world_of(graph),
        world_of(graph, GuardedPrefix(topic_filter="#", grace_s=9_999)),
    )
    assert guarded.connect(SUBJECT).rights == plain.connect(SUBJECT).rights


def test_the_oracle_counts_what_a_person_would() -> None:
    diamond = [("A", "m", 4), ("B", "m", 4), ("m", SUBJECT, 4)]
    assert optimum(ways_of(diamond)) == 1
    assert optimum(ways_of([*diamond, ("B", SUBJECT, 0)])) == 2
    assert ways_of([("A", "m", 0), ("m", SUBJECT, 4)]) == []
    assert limits.MAX_PATH_GRANTS == WITHIN
