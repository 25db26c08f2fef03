"""Random graphs: attenuation never widens, order never matters, revocation only takes away."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from authd.core.grants import Grant
from authd.core.paths import Path
from authd.core.statements import Revoke
from authd.core.topics import POWER_REVOKE, Action, Scope, covers, make_scope, matches
from tests.unit.core.world import BOTH, NOW, World, make_grant, make_revoke

NAMES = ("X", "a", "b", "c", "d")
FILTERS = ("#", "a/#", "a/+", "a/b", "+/b", "c")
TOPICS = ("a", "a/b", "a/c", "c/b", "c", "$x")
Rights: TypeAlias = frozenset[tuple[str, Action]]


@dataclass(frozen=True)
class Edge:
    """A grant before it is signed."""

    issuer: str
    subject: str
    filters: tuple[str, ...]
    depth: int
    issued_at: int
    expires_at: int


EDGES = st.builds(
    Edge,
    issuer=st.sampled_from(NAMES),
    subject=st.sampled_from(NAMES[1:]),
    filters=st.sets(st.sampled_from(FILTERS), min_size=1, max_size=3).map(
        lambda names: tuple(sorted(names))
    ),
    depth=st.integers(0, 3),
    issued_at=st.sampled_from([NOW - 5, NOW - 3, NOW + 90]),
    expires_at=st.sampled_from([NOW, NOW + 100, NOW + 200]),
).filter(lambda edge: edge.issuer != edge.subject and edge.issued_at < edge.expires_at)
GRAPHS = st.lists(EDGES, max_size=9)
REVOCATIONS = st.lists(
    st.tuples(st.sampled_from((*NAMES, "stranger")), st.sampled_from(NAMES[1:])), max_size=3
)


@cache
def signed(edge: Edge) -> Grant:
    return make_grant(
        edge.issuer,
        edge.subject,
        make_scope(dict.fromkeys(edge.filters, BOTH)),
        depth=edge.depth,
        issued_at=edge.issued_at,
        expires_at=edge.expires_at,
    )


@cache
def revoked(issuer: str, target: str) -> Revoke:
    return make_revoke(issuer, target)


def world_of(graph: Sequence[Edge], revocations: Sequence[tuple[str, str]] = ()) -> World:
    world = World()
    world.add(*map(signed, graph), *(revoked(*pair) for pair in revocations))
    return world


def topics_of(world: World, name: str) -> set[tuple[str, str]]:
    """Return what a key may do, topic by topic: spelling of filters does not matter."""
    return {
        (topic, action)
        for topic_filter, action in world.reach(name)
        for topic in TOPICS
        if matches(topic_filter, topic)
    }


def within(inner: Scope, outer: Scope) -> bool:
    return all(
        any(covers(o.topic_filter, i.topic_filter) and i.actions in o.actions for o in outer)
        for i in inner
    )


@given(GRAPHS)
def test_a8_no_path_is_wider_than_any_link_of_it(graph: list[Edge]) -> None:
    world = world_of(graph)
    for name in NAMES[1:]:
        for path in world.paths_to(name).paths:
            _check_path(path)


def _check_path(path: Path) -> None:
    grants = path.grants
    for place, grant in enumerate(grants):
        assert within(path.scope, grant.scope)
        assert path.expires_at <= grant.expires_at
        assert grant.depth >= len(grants) - 1 - place
        assert path.depth <= grant.depth - (len(grants) - 1 - place)
        assert grant.issued_at <= NOW + 60
        assert grant.expires_at > NOW
    assert len(grants) <= 4
    assert len(set(path.keys)) == len(path.keys)


@given(GRAPHS, REVOCATIONS, st.randoms(use_true_random=False))
def test_arrival_order_never_matters(
    graph: list[Edge], revocations: list[tuple[str, str]], random: Random
) -> None:
    world = world_of(graph, revocations)
    statements: list[Grant | Revoke] = [
        *map(signed, graph),
        *(revoked(*pair) for pair in revocations),
    ]
    random.shuffle(statements)
    other = World()
    for statement in statements:
        other.add(statement)
        other.add(statement)
    for name in NAMES[1:]:
        assert other.paths_to(name) == world.paths_to(name)


@given(GRAPHS, EDGES)
def test_a9_a_grant_for_another_key_never_widens(graph: list[Edge], extra: Edge) -> None:
    before, after = world_of(graph), world_of([*graph, extra])
    below = _below(extra.subject, graph)
    for name in NAMES[1:]:
        if name not in below:
            assert topics_of(after, name) == topics_of(before, name)


def _below(name: str, graph: Sequence[Edge]) -> set[str]:
    found = {name}
    for _ in NAMES:
        found |= {edge.subject for edge in graph if edge.issuer in found}
    return found


@given(GRAPHS)
def test_a9_rights_are_the_union_of_what_single_chains_give(graph: list[Edge]) -> None:
    world = world_of(graph)
    for name in NAMES[1:]:
        alone: set[tuple[str, str]] = set()
        for path in world.paths_to(name).paths:
            single = World()
            single.add(*path.grants)
            alone |= topics_of(single, name)
        assert alone == topics_of(world, name)


@given(GRAPHS, st.data())
def test_a10_leaving_grants_out_never_widens(graph: list[Edge], choice: st.DataObject) -> None:
    some = [edge for edge in graph if choice.draw(st.booleans())]
    for name in NAMES[1:]:
        # The newest four of a pair count: leaving a newer one out may let an older one in.
        if max(_pairs(graph), default=0) <= 4:
            assert topics_of(world_of(some), name) <= topics_of(world_of(graph), name)


def _pairs(graph: Sequence[Edge]) -> list[int]:
    pairs = [(edge.issuer, edge.subject) for edge in set(graph)]
    return [pairs.count(pair) for pair in pairs]


@given(GRAPHS, REVOCATIONS)
def test_a_revocation_only_takes_away(
    graph: list[Edge], revocations: list[tuple[str, str]]
) -> None:
    before, after = world_of(graph), world_of(graph, revocations)
    for name in NAMES[1:]:
        assert topics_of(after, name) <= topics_of(before, name)


@given(GRAPHS, st.sampled_from(NAMES[1:]))
def test_a_key_revoked_by_the_authority_is_on_no_path(graph: list[Edge], target: str) -> None:
    world = world_of(graph, [("X", target)])
    for name in NAMES[1:]:
        keys = {key for path in world.paths_to(name).paths for key in path.keys}
        assert signed(Edge("X", target, ("#",), 0, NOW - 5, NOW + 100)).subject.key not in keys  # type: ignore[union-attr]  # made for a key
    assert not world.connect(target).allowed


@given(GRAPHS)
def test_strangers_revoke_nothing(graph: list[Edge]) -> None:
    posing = make_grant("stranger", "mallory", make_scope({POWER_REVOKE: Action.PUB}))
    world = world_of(graph)
    before = {name: world.paths_to(name).paths for name in NAMES[1:]}
    for name in NAMES:
        world.add(make_revoke("stranger", name))
        world.add(make_revoke("mallory", name, revoker_grant=posing))
    assert {name: world.paths_to(name).paths for name in NAMES[1:]} == before


@settings(max_examples=60)
@given(GRAPHS, st.integers(0, 400))
def test_time_alone_never_widens_what_is_already_valid(graph: list[Edge], later_s: int) -> None:
    valid = [edge for edge in graph if edge.issued_at <= NOW]
    world = world_of(valid)
    for name in NAMES[1:]:
        now = {(path.grants, path.expires_at) for path in world.paths_to(name).paths}
        later = world.paths_to(name, now=NOW + later_s).paths
        assert {(path.grants, path.expires_at) for path in later} <= now
        assert all(path.expires_at > NOW + later_s for path in later)
