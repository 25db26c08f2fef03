"""Guarded prefixes: graphs written as text, and how many disjoint paths are in them."""

import itertools
from dataclasses import replace
from typing import Any

import pytest

from authd.core import limits
from authd.core.compilation import compile_rights
from authd.core.decision import Decision, Evidence, Operation, Rights, conclude
from authd.core.disjoint import Question, disjoint_paths
from authd.core.formation import Formation, Path
from authd.core.grants import ClientIdMatch, ClientIdRule, DomainSubject, Form, Grant
from authd.core.paths import Evaluation
from authd.core.policy import DomainPolicy, GuardedPrefix
from authd.core.proofs import Audience
from authd.core.topics import POWER_REVOKE, Action
from authd.errors import ReasonCode
from tests.unit.core.world import BOTH, DAY, NOW, World, authority, id_of, key, make_root, scope

DOOR = GuardedPrefix(topic_filter="door/#", grace_s=3_600, k=2)


def world_of(*graphs: str, roots: str = "A B C", guard: GuardedPrefix = DOOR) -> World:
    """Make the grants of paths such as ``A -> m -> s``, each with depth to spare."""
    world = World(root=make_root(*map(authority, roots.split())), guarded=(guard,))
    made: set[tuple[str, str]] = set()
    for graph in graphs:
        names = graph.split(" -> ")
        for pair in itertools.pairwise(names):
            if pair not in made:
                made.add(pair)
                world.grant(*pair, scope("door/#"), depth=4)
    return world


def anything(*_: Any) -> bool:
    return True


def question(topic_filter: str = "door/1", actions: Action = BOTH) -> Question:
    return Question(topic_filter=topic_filter, actions=actions, admits=anything, holds=anything)


def found(world: World, name: str = "s", *, wanted: int = 9, **asked: Any) -> tuple[Path, ...]:
    ground = world.paths_to(name).ground
    assert ground is not None
    formation = Formation(
        state=ground.state, policy=world.policy, freshness=world.freshness, now=NOW
    )
    return disjoint_paths(
        formation, ground.chains, ground.subject, question(**asked), wanted=wanted
    )


def names_of(path: Path) -> str:
    known = {key(name).public: name for name in [*"ABCDmnops"]}
    return " -> ".join(known[one] for one in path.keys)


# --- how many -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("graphs", "count"),
    [
        (["A -> s"], 1),
        (["A -> s", "B -> s"], 2),
        (["A -> s", "B -> m -> s", "C -> n -> o -> s"], 3),
        # One introducer behind two authorities, one authority behind two introducers.
        (["A -> m -> s", "B -> m -> s"], 1),
        (["A -> m -> s", "A -> n -> s"], 1),
        (["A -> m -> n -> s", "B -> m -> o -> s"], 1),
        (["A -> m -> o -> s", "B -> n -> o -> s"], 1),
        # The first way has to be moved aside for the second.
        (["A -> m -> s", "A -> n -> s", "B -> m -> s"], 2),
        (["A -> m -> s", "A -> n -> s", "B -> m -> s", "B -> n -> s", "C -> s"], 3),
        (["A -> m -> s", "B -> m -> s", "B -> n -> s", "C -> n -> s", "C -> o -> s"], 3),
        # An authority that stands on another's way is a vertex like any other.
        (["A -> B -> s", "B -> s"], 1),
        (["A -> B -> s", "A -> m -> s"], 2),
        # Circles and loops add nothing.
        (["A -> m -> s", "m -> n -> m", "n -> s"], 1),
        (["A -> m -> s", "s -> m", "s -> n", "n -> s"], 1),
        (["m -> s", "n -> s", "m -> n", "n -> m"], 0),
        # Four grants are the most a path may have.
        (["A -> m -> n -> o -> s", "B -> s"], 2),
        (["A -> m -> n -> o -> p -> s", "B -> s"], 1),
    ],
)
def test_a24_a25_paths_that_share_a_key_count_once(graphs: list[str], count: int) -> None:
    world = world_of(*graphs)
    paths = found(world)
    assert len(paths) == count
    inner = [one for path in paths for one in path.keys[:-1]]
    assert len(inner) == len(set(inner))


@pytest.mark.parametrize(("taken", "free"), ["mn", "nm"])
def test_a_way_is_moved_aside_to_make_room(taken: str, free: str) -> None:
    world = world_of("A -> m -> s", "A -> n -> s", f"B -> {taken} -> s")
    assert sorted(map(names_of, found(world))) == [f"A -> {free} -> s", f"B -> {taken} -> s"]


@pytest.mark.parametrize(("first", "second"), ["mn", "nm"])
def test_a_way_is_moved_aside_over_several_levels(first: str, second: str) -> None:
    graphs = ["A -> o -> m -> s", "A -> p -> n -> s", f"B -> o -> {first} -> s"]
    world = world_of(*graphs, f"B -> o -> {second} -> s", "C -> m -> s")
    assert len(found(world)) == 2
    assert len(found(world_of(*graphs, "A -> p -> m -> s", f"B -> o -> {second} -> s"))) == 2


def test_the_search_stops_where_enough_was_found() -> None:
    world = world_of("A -> s", "B -> s", "C -> s")
    assert [len(found(world, wanted=wanted)) for wanted in (0, 1, 2, 3, 4)] == [0, 1, 2, 3, 3]


def test_a23_ten_thousand_endorsers_behind_one_introducer_count_once() -> None:
    world = world_of("A -> m", roots="A B")
    sybils = [f"sybil{i}" for i in range(300)]
    for name in sybils:
        world.grant("m", name, scope("door/#"), depth=1)
        world.grant(name, "s", scope("door/#"))
    assert len(found(world)) == 1
    assert world.connect("s").reason is ReasonCode.NOT_GRANTED
    world.grant("B", "s", scope("door/#"))
    assert len(found(world)) == 2
    assert world.connect("s").allowed


def test_a25_a_link_without_depth_is_no_way() -> None:
    world = world_of("A -> s")
    world.grant("B", "m", scope("door/#"), depth=1)
    world.grant("m", "n", scope("door/#"), depth=1)
    world.grant("n", "s", scope("door/#"))
    assert len(found(world)) == 1
    world.grant("B", "m", scope("door/#"), depth=2, issued_at=NOW - 5)
    assert len(found(world)) == 2


def test_a_root_entry_without_depth_is_no_way() -> None:
    world = World(root=make_root(authority("A", depth=1), authority("B")))
    world.grants("A -> m -> s")
    world.grants("B -> s")
    assert len(found(world)) == 1


def test_every_link_must_give_the_right() -> None:
    world = World(root=make_root(authority("A"), authority("B", scope=scope("door/2"))))
    world.grant("A", "s", scope("door/+"))
    world.grant("B", "s", scope("door/#"))
    assert len(found(world)) == 1
    assert len(found(world, topic_filter="door/2")) == 2
    world.domains[world.root.domain] = DomainPolicy(scope=scope("door/1"))
    assert len(found(world, topic_filter="door/1")) == 1
    assert found(world, topic_filter="door/2") == ()


def test_one_entry_must_give_every_action_asked_for() -> None:
    world = world_of("A -> s")
    world.grant("B", "s", scope("door/#", actions=Action.PUB))
    assert len(found(world)) == 1
    assert len(found(world, actions=Action.PUB)) == 2


def test_what_is_expired_or_revoked_is_no_way() -> None:
    world = world_of("A -> s", "B -> s", "C -> m -> s")
    assert len(found(world)) == 3
    world.revoke("C", "m")
    assert len(found(world)) == 2
    entries = [authority("A"), authority("B", expires_at=NOW)]
    late = World(root=make_root(*entries))
    late.grants("A -> s")
    late.grants("B -> s")
    assert len(found(late)) == 1


def test_a_revoker_bars_the_paths_of_its_authority_alone() -> None:
    world = world_of("A -> m -> n -> s", "B -> m -> s", "C -> n -> s")
    operator = world.grant("A", "operator", scope(POWER_REVOKE))
    assert len(found(world)) == 2
    world.revoke("operator", "n", revoker_grant=operator)
    assert sorted(map(names_of, found(world))) == ["A -> m -> s", "C -> n -> s"]
    world.revoke("operator", "s", revoker_grant=operator)
    assert sorted(map(names_of, found(world))) == ["B -> m -> s", "C -> n -> s"]


def test_an_authority_that_its_own_revoker_revoked_starts_nothing() -> None:
    world = world_of("A -> s", "B -> s")
    operator = world.grant("A", "operator", scope(POWER_REVOKE))
    world.revoke("operator", "A", revoker_grant=operator)
    assert list(map(names_of, found(world))) == ["B -> s"]


def test_a_root_key_is_no_vertex() -> None:
    world = world_of("A -> s", "B -> own root -> s")
    assert list(map(names_of, found(world))) == ["A -> s"]


# --- domains ------------------------------------------------------------------------------------


def federated(*, hops: int = 1) -> World:
    """A and B let the domain of F and G in, who both grant ``s``."""
    world = World(root=make_root(authority("A"), authority("B")), guarded=(DOOR,))
    world.domains[world.root.domain] = DomainPolicy(hops=hops)
    foreign = world.add_root(make_root(authority("F"), authority("G"), domain="foreign"))
    for issuer in ("A", "B"):
        world.grant(issuer, "", scope("door/#"), to=DomainSubject(foreign.domain), depth=2)
    for issuer in ("F", "G"):
        world.grant(issuer, "s", scope("door/#"))
    return world


def test_a24_a_crossed_domain_is_one_introducer() -> None:
    world = federated()
    assert len(found(world)) == 1
    assert world.connect("s").reason is ReasonCode.NOT_GRANTED
    world.grant("B", "s", scope("door/#"))
    assert len(found(world)) == 2
    assert world.connect("s").allowed


def test_two_crossed_domains_are_two() -> None:
    world = federated()
    other = world.add_root(make_root(authority("H"), domain="other"))
    world.grant("B", "", scope("door/#"), to=DomainSubject(other.domain), depth=1)
    world.grant("H", "s", scope("door/#"))
    assert len(found(world)) == 2


def test_a_path_crosses_no_more_domains_than_policy_allows() -> None:
    assert found(federated(hops=0)) == ()


def test_listed_domains_are_roots_of_their_own() -> None:
    world = federated()
    foreign = next(one for one in world.state.roots if one != world.root.domain)
    world.domains[foreign] = DomainPolicy()
    world.grant("B", "s", scope("door/#"))
    assert len(found(world)) == 3


def test_a_key_that_two_listed_domains_name_is_one_vertex() -> None:
    world = World(root=make_root(authority("A")), guarded=(DOOR,))
    world.add_root(make_root(authority("A"), domain="other"), listed=DomainPolicy())
    world.grant("A", "s", scope("door/#"))
    assert len(world.paths_to("s").paths) == 2
    assert len(found(world)) == 1


def test_a_domain_that_grants_itself_in_a_circle_adds_nothing() -> None:
    world = federated()
    foreign = next(one for one in world.state.roots if one != world.root.domain)
    world.grant("F", "", scope("door/#"), to=DomainSubject(foreign), depth=3)
    world.grant("G", "F", scope("door/#"), depth=3)
    assert len(found(world)) == 1


def test_the_nearest_crossing_counts() -> None:
    """``u`` is reached over one domain id and, as far down, over two."""
    world = World(root=make_root(authority("A")))
    world.domains[world.root.domain] = DomainPolicy(hops=2)
    one = world.add_root(make_root(authority("F"), domain="one"))
    two = world.add_root(make_root(authority("G"), domain="two"))
    world.grant("F", "s", scope("door/#"))
    world.grant("u", "", scope("door/#"), to=DomainSubject(one.domain), depth=3)
    world.grant("F", "s", scope("door/#"))
    world.grant("G", "", scope("door/#"), to=DomainSubject(one.domain), depth=3)
    world.grant("A", "", scope("door/#"), to=DomainSubject(two.domain), depth=4)
    world.grant("A", "u", scope("door/#"), depth=4)
    assert len(found(world)) == 1


# --- rights -------------------------------------------------------------------------------------


def may(decision: Decision, operation: Operation, topic: str) -> bool:
    return decision.rights.find(operation, topic) is not None


def test_below_a_guarded_prefix_one_path_is_not_enough() -> None:
    world = world_of("A -> s")
    decision = world.connect("s")
    assert decision.reason is ReasonCode.NOT_GRANTED
    assert decision.detail == (
        "`door/#` reaches into `door/#`, which asks for 2 paths that share no key; found: 1"
    )


def test_a_proven_right_rests_on_all_its_paths() -> None:
    world = World(root=make_root(authority("A"), authority("B")), guarded=(DOOR,))
    world.grant("A", "s", scope("door/#"), expires_at=NOW + 500)
    world.grant("B", "s", scope("door/1"), expires_at=NOW + 400)
    rights = world.connect("s").rights
    assert [(one.topic_filter, one.proof) for one in rights.entries] == [("door/1", (0, 1))]
    assert rights.entries[0].expires_at == NOW + 400
    assert rights.keys == {key(name).public for name in ("A", "B", "s")}
    assert len(rights.grants) == 2
    assert [str(one)[:9] for one in rights.withheld] == ["`door/#` "]


def test_a_right_ends_with_the_first_domain_it_rests_on() -> None:
    world = federated()
    foreign = next(one for one in world.state.roots if one != world.root.domain)
    world.grant("B", "s", scope("door/#"))
    world.freshness[foreign] = NOW - 3_590
    (entry, *_) = world.connect("s").rights.entries
    assert set(entry.domains) == {world.root.domain, foreign}
    assert world.connect("s").lease_until == NOW + 10
    world.guarded = (replace(DOOR, grace_s=60),)
    assert world.connect("s").reason is ReasonCode.STALE


def test_a_filter_that_merely_overlaps_is_left_out_but_for_its_proven_part() -> None:
    world = World(root=make_root(authority("A"), authority("B")), guarded=(DOOR,))
    world.grant("A", "s", scope("#", "lamp/1"))
    decision = world.connect("s")
    assert [one.topic_filter for one in decision.rights.entries] == ["lamp/1"]
    assert not may(decision, Operation.PUBLISH, "door/1")
    assert not may(decision, Operation.SUBSCRIBE, "#")
    world.grant("B", "s", scope("door/+/open", "door/2", actions=Action.PUB))
    decision = world.connect("s")
    assert {(one.topic_filter, one.actions) for one in decision.rights.entries} == {
        ("lamp/1", BOTH),
        ("door/+/open", Action.PUB),
        ("door/2", Action.PUB),
    }


def test_a_filter_proven_as_a_whole_stays_as_it_is() -> None:
    world = World(root=make_root(authority("A"), authority("B")), guarded=(DOOR,))
    world.grant("A", "s", scope("#"))
    world.grant("B", "s", scope("#", actions=Action.SUB))
    decision = world.connect("s")
    assert {(one.topic_filter, one.actions) for one in decision.rights.entries} == {
        ("#", Action.SUB)
    }
    assert may(decision, Operation.SUBSCRIBE, "door/#")
    assert not may(decision, Operation.PUBLISH, "door/1")


def test_the_strictest_of_the_prefixes_a_filter_reaches_into_decides() -> None:
    world = world_of("A -> s", "B -> s")
    world.guarded = (DOOR, GuardedPrefix(topic_filter="door/vault/#", grace_s=60, k=3))
    assert world.connect("s").reason is ReasonCode.NOT_GRANTED
    world.grant("B", "s", scope("door/1"), issued_at=NOW - 5)
    world.grant("A", "s", scope("door/+"), issued_at=NOW - 5)
    decision = world.connect("s")
    assert [one.topic_filter for one in decision.rights.entries] == ["door/1"]


def test_one_path_is_enough_where_the_prefix_asks_for_no_more() -> None:
    world = world_of("A -> s", guard=GuardedPrefix(topic_filter="door/#", grace_s=60))
    assert may(world.connect("s"), Operation.PUBLISH, "door/1")


def test_a_message_is_refused_with_the_prefix_in_the_way() -> None:
    world = World(root=make_root(authority("A")), guarded=(DOOR,))
    world.grant("A", "s", scope("lamp/1", "door/1"))
    decision = world.connect("s")

    def refusal(topic: str) -> str:
        return conclude(
            decision.rights,
            lease_until=decision.lease_until,
            now=NOW,
            key=key("s").public,
            evidence=Evidence(),
            asked=(Operation.PUBLISH, topic),
        ).detail

    assert "which asks for 2 paths that share no key; found: 1" in refusal("door/1")
    assert "paths" not in refusal("lamp/2")


# --- conditions ---------------------------------------------------------------------------------

OTHER = "AAECAwQFBgcICQoLDA0ODw/other.example:1883"


@pytest.mark.parametrize(
    "options",
    [
        {"forms": [Form.COUNTER]},
        {"audiences": [OTHER]},
        {"client_id": ClientIdRule(ClientIdMatch.EXACT, "someone")},
        {},
    ],
)
def test_a_path_whose_conditions_fail_for_this_connect_proves_nothing(
    options: dict[str, Any],
) -> None:
    rule = ClientIdRule(ClientIdMatch.EXACT, "me")
    world = World(root=make_root(authority("A"), authority("B")), guarded=(DOOR,))
    world.grant("A", "s", scope("door/#"), client_id=rule)
    world.grant("B", "s", scope("door/#"), **options)
    assert world.connect("s", client_id="me").reason is ReasonCode.NOT_GRANTED
    world.grant("B", "s", scope("door/#"), client_id=rule, issued_at=NOW - 5)
    assert world.connect("s", client_id="me").allowed


def test_a_form_is_asked_of_the_last_grant_alone() -> None:
    world = world_of("A -> s")
    world.grant("B", "m", scope("door/#"), depth=1, forms=[Form.TLS])
    world.grant("m", "s", scope("door/#"))
    assert world.connect("s").allowed
    assert not world.connect("s", form=Form.COUNTER).allowed


def test_an_audience_is_asked_of_every_grant() -> None:
    world = world_of("A -> s")
    world.grant("B", "m", scope("door/#"), depth=1, audiences=[str(world.audience)])
    world.grant("m", "s", scope("door/#"))
    assert world.connect("s").allowed
    elsewhere = Audience(world.root.domain, "other.example:1883")
    assert not world.connect("s", audience=elsewhere).allowed


def test_a_client_id_of_key_id_shape_needs_no_rule() -> None:
    world = world_of("A -> s")
    rule = ClientIdRule(ClientIdMatch.EXACT, "me")
    world.grant("B", "s", scope("door/#"), client_id=rule)
    assert world.connect("s", client_id=id_of("s")).allowed


# --- bounds -------------------------------------------------------------------------------------


def test_what_was_not_searched_is_not_proven() -> None:
    world = world_of("A -> s", "B -> s")
    evaluation = world.paths_to("s")
    for ground in (None, replace(evaluation.ground or pytest.fail("no ground"), chains=())):
        rights, failures = compile_rights(
            Evaluation(paths=evaluation.paths, failures=(), ground=ground),
            world.proof("s"),
            policy=world.policy,
            freshness=world.freshness,
            now=NOW,
        )
        assert rights.entries == ()
        assert {one.reason for one in failures} == {ReasonCode.NOT_GRANTED}


def test_the_grants_looked_at_for_a_right_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    world = world_of("A -> s", "B -> m -> s")
    monkeypatch.setattr(limits, "MAX_GUARD_STEPS", 2)
    assert len(found(world)) == 1


def test_the_number_of_rights_asked_about_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_GUARD_QUESTIONS", 2)
    world = World(root=make_root(authority("A"), authority("B")), guarded=(DOOR,))
    for issuer in ("A", "B"):
        world.grant(issuer, "s", scope("door/1", "door/2", "door/3"))
    entries = world.connect("s").rights.entries
    assert [one.topic_filter for one in entries] == ["door/1", "door/2"]


def test_with_too_many_entries_every_authority_gets_its_turn() -> None:
    world = World(root=make_root(authority("A"), authority("B")))
    for i in range(limits.MAX_PATHS):
        world.grant("A", f"m{i}", scope("#"), depth=1, expires_at=NOW + DAY)
        world.grant(f"m{i}", "s", scope(f"junk/{i}/1", f"junk/{i}/2"))
    world.grant("B", "s", scope(*(f"home/{i}" for i in range(16))))
    rights: Rights = world.connect("s").rights
    assert len(rights.entries) == limits.MAX_COMPILED_FILTERS
    kept = {one.topic_filter for one in rights.entries}
    assert {f"home/{i}" for i in range(16)} <= kept


def test_a_grant_that_names_a_key_as_a_domain_is_no_way() -> None:
    world = world_of("A -> s")
    ground = world.paths_to("s").ground
    assert ground is not None
    odd: Grant = world.grant("B", "s", scope("door/#"), expires_at=NOW + 1)
    formation = Formation(
        state=world.state, policy=world.policy, freshness=world.freshness, now=NOW + 1
    )
    chains = (*ground.chains, (odd,))
    assert len(disjoint_paths(formation, chains, ground.subject, question(), wanted=9)) == 1
