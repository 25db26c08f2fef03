"""Paths: graphs written as text, and which of them lead to a key."""

import itertools

import pytest

from authd.core import limits
from authd.core.grants import DomainSubject, Grant
from authd.core.identity import DomainId, key_id
from authd.core.policy import DomainPolicy
from authd.core.roots import sign_root
from authd.core.topics import POWER_ADMIN, POWER_REVOKE, Action, make_scope
from authd.errors import ReasonCode
from tests.unit.core.test_roots import after, signers
from tests.unit.core.world import (
    BOTH,
    DAY,
    NOW,
    World,
    authority,
    key,
    make_grant,
    make_root,
    publics,
    scope,
)


def reason(world: World, name: str, *, now: int = NOW) -> ReasonCode:
    evaluation = world.paths_to(name, now=now)
    assert evaluation.paths == ()
    return evaluation.first_failure().reason


@pytest.mark.parametrize("graph", ["X -> a", "X -> a -> b", "X -> a -> b -> c -> d"])
def test_a_chain_of_up_to_four_grants_is_a_path(graph: str) -> None:
    world = World()
    grants = world.grants(graph)
    names = graph.split(" -> ")
    (path,) = world.paths_to(names[-1]).paths
    assert path.grants == tuple(grants)
    assert path.keys == publics(names)
    assert path.leaf == grants[-1]
    assert path.domains == (world.root.domain,)
    assert path.depth == 0


def test_a_fifth_grant_is_one_too_many() -> None:
    world = World()
    world.grants("X -> a -> b -> c -> d -> e")
    assert reason(world, "e") is ReasonCode.DEPTH_EXCEEDED


def test_a_key_without_grants_is_unknown() -> None:
    assert reason(World(), "a") is ReasonCode.UNKNOWN_KEY


def test_an_issuer_that_nobody_vouches_for_is_untrusted() -> None:
    world = World()
    world.grant("stranger", "a")
    assert reason(world, "a") is ReasonCode.UNTRUSTED


def test_a_root_of_a_domain_that_is_not_listed_starts_nothing() -> None:
    world = World()
    world.add_root(make_root(authority("Y"), domain="other"))
    world.grant("Y", "a")
    assert reason(world, "a") is ReasonCode.UNTRUSTED


def test_depth_is_what_every_grant_above_still_allows() -> None:
    world = World()
    world.grant("X", "a", depth=3)
    world.grant("a", "b", depth=8)
    assert [path.depth for path in world.paths_to("b").paths] == [2]
    world.grant("b", "c", depth=0)
    world.grant("c", "d")
    assert reason(world, "d") is ReasonCode.DEPTH_EXCEEDED


def test_the_depth_of_the_root_entry_counts_too() -> None:
    world = World(root=make_root(authority("X", depth=1)))
    world.grants("X -> a -> b")
    assert len(world.paths_to("a").paths) == 1
    assert reason(world, "b") is ReasonCode.DEPTH_EXCEEDED


def test_rights_are_the_intersection_along_the_path() -> None:
    world = World()
    world.grant("X", "a", make_scope({"home/#": BOTH, "yard": Action.PUB}), depth=1)
    world.grant("a", "b", make_scope({"home/+": Action.PUB, "#": Action.SUB}))
    assert world.reach("b") == {("home/#", "SUB"), ("home/+", "PUB")}


def test_rights_are_the_union_over_paths() -> None:
    world = World(root=make_root(authority("X"), authority("Y")))
    world.grant("X", "a", scope("x", actions=Action.PUB))
    world.grant("Y", "a", scope("y", actions=Action.SUB))
    assert world.reach("a") == {("x", "PUB"), ("y", "SUB")}


def test_a_diamond_is_two_paths() -> None:
    world = World()
    for graph in ("X -> a -> c", "X -> b -> c"):
        world.grants(graph)
    assert len(world.paths_to("c").paths) == 2


def test_a_wider_grant_than_the_issuers_own_gives_no_more() -> None:
    world = World()
    world.grant("X", "gate", scope("site/a/#"), depth=1)
    world.grant("gate", "lamp", scope("#"))
    assert world.reach("lamp") == {("site/a/#", "PUB"), ("site/a/#", "SUB")}


def test_grants_without_a_right_in_common_give_nothing() -> None:
    world = World()
    world.grant("X", "gate", scope("a"), depth=1)
    world.grant("gate", "lamp", scope("b"))
    assert reason(world, "lamp") is ReasonCode.NOT_GRANTED


def test_the_scope_of_root_entry_and_of_local_policy_narrow_too() -> None:
    world = World(root=make_root(authority("X", scope=scope("a/#", "b/#"))))
    world.domains[world.root.domain] = DomainPolicy(scope=scope("b/#", "c/#", actions=Action.PUB))
    world.grant("X", "lamp")
    assert world.reach("lamp") == {("b/#", "PUB")}


def test_a_path_ends_with_the_first_of_its_links() -> None:
    world = World(root=make_root(authority("X", expires_at=NOW + 50), expires_at=NOW + 70))
    world.grants("X -> a -> b")
    assert [path.expires_at for path in world.paths_to("b").paths] == [NOW + 50]


# --- formation ----------------------------------------------------------------------------------


def test_a_grant_counts_up_to_the_second_it_expires() -> None:
    world = World(freshness={})
    world.freshness[world.root.domain] = NOW + 10 * DAY
    world.grant("X", "a", expires_at=NOW + 5)
    assert world.paths_to("a", now=NOW + 4).paths
    assert reason(world, "a", now=NOW + 5) is ReasonCode.EXPIRED


def test_a_grant_from_the_future_does_not_count() -> None:
    world = World()
    world.grant("X", "a", issued_at=NOW + 60)
    world.grant("X", "b", issued_at=NOW + 61)
    assert world.paths_to("a").paths
    assert reason(world, "b") is ReasonCode.NOT_YET_VALID


@pytest.mark.parametrize(
    "root",
    [
        make_root(authority("X", expires_at=NOW)),
        make_root(authority("X"), expires_at=NOW),
    ],
)
def test_an_expired_root_or_entry_starts_nothing(root: object) -> None:
    world = World(root=root)  # type: ignore[arg-type]  # the parametrisation loses the type
    world.grant("X", "a")
    assert reason(world, "a") is ReasonCode.EXPIRED
    assert world.paths_to("a", now=NOW - 1).paths


def test_a_root_that_lives_too_long_starts_nothing() -> None:
    world = World(root=make_root(authority("X"), expires_at=NOW + limits.MAX_ROOT_LIFE_S))
    world.grant("X", "a")
    assert world.paths_to("a").paths
    assert reason(world, "a", now=NOW - 1) is ReasonCode.LIMIT_EXCEEDED


def test_a_domain_is_usable_while_fresh_and_for_its_grace() -> None:
    world = World()
    world.domains[world.root.domain] = DomainPolicy(grace_s=100)
    world.freshness[world.root.domain] = NOW
    world.grant("X", "a")
    assert world.paths_to("a", now=NOW + 99).paths
    assert reason(world, "a", now=NOW + 100) is ReasonCode.STALE


def test_strict_means_fresh_now() -> None:
    world = World()
    world.domains[world.root.domain] = DomainPolicy(grace_s=0)
    world.freshness[world.root.domain] = NOW + 1
    world.grant("X", "a")
    assert world.paths_to("a").paths
    assert reason(world, "a", now=NOW + 1) is ReasonCode.STALE


@pytest.mark.parametrize("freshness", [{}, None])
def test_a_domain_that_was_never_fresh_is_not_usable(freshness: dict[DomainId, int] | None) -> None:
    world = World()
    world.freshness = freshness if freshness is not None else {world.root.domain: 0}
    world.grant("X", "a")
    assert reason(world, "a") is ReasonCode.STALE


def test_a_root_key_signs_only_roots() -> None:
    world = World()
    world.grant("X", "own root", depth=1)
    world.grant("own root", "a")
    assert reason(world, "a") is ReasonCode.UNTRUSTED
    assert "root key" in world.paths_to("a").first_failure().detail


def test_a_former_root_key_signs_nothing_either() -> None:
    world = World()
    claims = after(world.root, root_keys=(key("new root").public,))
    world.add_root(sign_root(claims, previous=world.root, keys=signers("own root", "new root")))
    world.grant("X", "own root", depth=1)
    world.grant("own root", "a")
    assert reason(world, "a") is ReasonCode.UNTRUSTED


def test_a_domain_cannot_void_the_grants_of_others_by_listing_their_keys() -> None:
    hostile = make_root(
        authority("Y"),
        domain="hostile",
        root_keys=publics(["hostile root", "X"]),
    )
    world = World()
    world.add_root(hostile, listed=DomainPolicy())
    world.grant("X", "a")
    assert world.paths_to("a").paths


# --- revocation ---------------------------------------------------------------------------------


def test_a_key_that_revoked_itself_is_out_whatever_is_granted() -> None:
    world = World()
    world.grants("X -> a")
    world.revoke("a", "a", reason="lost")
    assert reason(world, "a") is ReasonCode.REVOKED
    detail = world.paths_to("a").first_failure().detail
    assert detail.endswith("is revoked by its own statement (lost)")


@pytest.mark.parametrize("target", ["id", "key"])
def test_the_issuer_takes_its_grant_back(target: str) -> None:
    world = World()
    (grant,) = world.grants("X -> a")
    world.revoke("X", grant if target == "id" else "a")
    assert reason(world, "a") is ReasonCode.REVOKED


def test_revoking_one_grant_leaves_the_other() -> None:
    world = World()
    old = world.grant("X", "a", scope("old"), issued_at=NOW - 20)
    world.grant("X", "a", scope("new", actions=Action.PUB))
    world.revoke("X", old)
    assert world.reach("a") == {("new", "PUB")}


def test_revoking_a_key_reaches_past_and_future_grants_of_that_issuer() -> None:
    world = World(root=make_root(authority("X", scope=scope("#")), authority("Y")))
    world.grant("X", "a", scope("old"))
    world.revoke("X", "a")
    world.grant("X", "a", scope("new"), issued_at=NOW + 1)
    assert reason(world, "a", now=NOW + 1) is ReasonCode.REVOKED
    world.grant("Y", "a", scope("other", actions=Action.PUB))
    assert world.reach("a") == {("other", "PUB")}


def test_a_stranger_a_sibling_and_a_child_revoke_nothing() -> None:
    world = World(root=make_root(authority("X", scope=scope("#"))))
    (grant, *_) = world.grants("X -> a -> b")
    world.grant("X", "sibling", depth=1)
    for rogue in ("stranger", "sibling", "b"):
        world.revoke(rogue, "a")
        world.revoke(rogue, grant)
        world.revoke(rogue, "X")
    assert world.paths_to("a").paths
    assert world.paths_to("b").paths


def test_a_revoker_reaches_every_path_of_its_authority() -> None:
    world = World(root=make_root(authority("X"), authority("Y", scope=scope("#"))))
    operator = world.grant("X", "operator", scope(POWER_REVOKE))
    world.grants("X -> a -> b")
    world.grant("Y", "b", scope("y", actions=Action.PUB))
    world.revoke("operator", "b", revoker_grant=operator)
    assert world.reach("b") == {("y", "PUB")}
    assert world.paths_to("a").paths


def test_a_revoker_takes_a_subtree_with_its_head() -> None:
    world = World()
    operator = world.grant("X", "operator", scope(POWER_REVOKE))
    world.grants("X -> gate -> lamp")
    world.revoke("operator", "gate", revoker_grant=operator)
    assert reason(world, "lamp") is ReasonCode.REVOKED
    assert reason(world, "gate") is ReasonCode.REVOKED


def test_what_a_revoker_did_outlives_its_grant_and_its_key() -> None:
    world = World()
    operator = world.grant("X", "operator", scope(POWER_REVOKE), expires_at=NOW + 1)
    world.grants("X -> a")
    world.revoke("operator", "a", revoker_grant=operator)
    world.revoke("X", "operator")
    assert reason(world, "a", now=NOW + 50) is ReasonCode.REVOKED
    world.revoke("X", operator)
    assert world.paths_to("a", now=NOW + 50).paths


# --- domains ------------------------------------------------------------------------------------


def federated(*, depth: int = 2, hops: int = 1, given: str = "shared/#") -> World:
    """X lets the domain of F in; F's authority admits the device ``a``."""
    world = World()
    world.domains[world.root.domain] = DomainPolicy(hops=hops)
    foreign = world.add_root(make_root(authority("F"), domain="foreign"))
    world.grant("X", "", scope(given), to=DomainSubject(foreign.domain), depth=depth)
    world.grant("F", "a", scope("#"))
    return world


def foreign_of(world: World) -> DomainId:
    return next(domain for domain in world.state.roots if domain != world.root.domain)


def test_a_path_crosses_into_another_domain_within_the_scope_given_to_it() -> None:
    world = federated()
    (path,) = world.paths_to("a").paths
    assert path.domains == (world.root.domain, foreign_of(world))
    assert path.keys == publics(["X", "F", "a"])
    assert world.reach("a") == {("shared/#", "PUB"), ("shared/#", "SUB")}


def test_a_domain_that_may_not_delegate_admits_nobody() -> None:
    assert reason(federated(depth=0), "a") is ReasonCode.DEPTH_EXCEEDED


def test_the_crossing_counts_neither_as_a_grant_nor_for_depth() -> None:
    world = federated(depth=3)
    world.grants("F -> b -> c -> d")
    (path,) = world.paths_to("d").paths
    assert (len(path.grants), path.depth) == (4, 0)


@pytest.mark.parametrize("stale", [{}, {"until": NOW - 3_600}])
def test_a_path_needs_every_domain_it_crosses_to_be_usable(stale: dict[str, int]) -> None:
    world = federated()
    world.freshness[foreign_of(world)] = stale.get("until", 0)
    assert reason(world, "a") is ReasonCode.STALE


def test_local_policy_says_how_many_domains_a_path_may_cross() -> None:
    assert reason(federated(hops=0), "a") is ReasonCode.UNTRUSTED


def test_the_entry_of_the_crossed_domain_narrows() -> None:
    world = World()
    entry = authority("F", scope=scope("shared/f/#"), expires_at=NOW + 9)
    foreign = world.add_root(make_root(entry, domain="foreign"))
    world.grant("X", "", scope("shared/#"), to=DomainSubject(foreign.domain), depth=1)
    world.grant("F", "a")
    (path,) = world.paths_to("a").paths
    assert [one.topic_filter for one in path.scope] == ["shared/f/#"]
    assert path.expires_at == NOW + 9


def test_a_revoker_of_the_crossed_domain_counts_behind_its_domain_id() -> None:
    world = federated()
    world.revoke("F", "a")
    assert reason(world, "a") is ReasonCode.REVOKED


def test_a_revoker_of_the_crossed_domain_does_not_count_above_it() -> None:
    world = federated()
    world.grant("X", "b", scope("own", actions=Action.PUB))
    world.revoke("F", "X")
    world.revoke("F", "b")
    assert world.reach("b") == {("own", "PUB")}
    assert world.paths_to("a").paths


def test_a_domain_both_crossed_and_listed_starts_paths_of_its_own() -> None:
    world = federated()
    world.domains[foreign_of(world)] = DomainPolicy(scope=scope("direct", actions=Action.PUB))
    assert ("direct", "PUB") in world.reach("a")
    assert ("shared/#", "PUB") in world.reach("a")


def test_a_grant_to_a_domain_of_a_keys_id_is_no_grant_to_the_key() -> None:
    world = World()
    posing = DomainSubject(DomainId(key_id(key("a").public)))
    world.grant("X", "", to=posing)
    assert reason(world, "a") is ReasonCode.UNTRUSTED


def test_powers_do_not_reach_where_they_are_not_named() -> None:
    world = World()
    world.grant("X", "admin", scope(POWER_ADMIN))
    world.grant("X", "other", scope("$authd/#", "#"))
    assert (POWER_ADMIN, "PUB") in world.reach("admin")
    assert all(not name.startswith("$authd/") for name, _ in world.reach("other"))


# --- limits and order ---------------------------------------------------------------------------


def test_cycles_end() -> None:
    world = World()
    world.grant("X", "a", depth=8)
    for issuer, subject in itertools.permutations(["a", "b", "c"], 2):
        world.grant(issuer, subject, depth=8)
    for name in ("a", "b", "c"):
        paths = world.paths_to(name).paths
        assert paths
        assert all(len(set(path.keys)) == len(path.keys) for path in paths)


def test_a_cycle_without_a_root_leads_nowhere() -> None:
    world = World()
    world.grant("a", "b", depth=8)
    world.grant("b", "a", depth=8)
    assert world.paths_to("a").paths == ()


def test_paths_are_found_in_one_order_whatever_came_first() -> None:
    grants = [
        make_grant("X", "a", depth=2),
        make_grant("X", "b", depth=2),
        make_grant("a", "c", scope("1"), depth=1),
        make_grant("b", "c", scope("2"), depth=1),
        make_grant("c", "d"),
    ]
    found = []
    for order in itertools.permutations(grants):
        world = World()
        world.add(*order)
        found.append(world.paths_to("d"))
    assert len(found[0].paths) == 2
    assert all(one == found[0] for one in found)


def test_the_number_of_paths_is_bounded() -> None:
    world = World()
    for i in range(limits.MAX_PATHS + 1):
        world.grants(f"X -> m{i} -> a")
    evaluation = world.paths_to("a")
    assert len(evaluation.paths) == limits.MAX_PATHS
    assert evaluation.truncated


def bush(world: World, *, width: int) -> None:
    """Grant ``target`` from many keys that all grant each other."""
    names = [f"n{i}" for i in range(width)]
    for first, second in itertools.permutations(names, 2):
        world.grant(first, second, depth=8)
    for name in names:
        world.grant(name, "target")


def test_work_is_bounded_by_counted_steps_and_keeps_what_is_proven() -> None:
    world = World()
    (grant,) = world.grants("X -> target")
    bush(world, width=24)
    evaluation = world.paths_to("target")
    assert evaluation.truncated
    assert [path.grants for path in evaluation.paths] == [(grant,)]


def test_a_limit_is_told_where_nothing_was_found() -> None:
    world = World()
    bush(world, width=24)
    evaluation = world.paths_to("target")
    assert evaluation.paths == ()
    assert ReasonCode.LIMIT_EXCEEDED in {failure.reason for failure in evaluation.failures}


# --- drowning -----------------------------------------------------------------------------------


def junk(world: World, above: str, count: int) -> list[Grant]:
    """Grant ``target`` from keys that ``above`` vouched for, and let them vouch for each other."""
    vouched = [make_grant(above, f"junk{i}", depth=4) for i in range(count)]
    given = [make_grant(f"junk{i}", "target", scope(f"junk/{i}")) for i in range(count)]
    world.add(*vouched, *given)
    return vouched


def two_authorities() -> World:
    return World(root=make_root(authority("A"), authority("B")))


@pytest.mark.parametrize("graph", ["B -> target", "B -> g -> target", "B -> g -> h -> target"])
def test_a23_junk_below_one_authority_hides_nothing_below_another(
    monkeypatch: pytest.MonkeyPatch, graph: str
) -> None:
    monkeypatch.setattr(limits, "MAX_EVALUATION_STEPS", 60)
    world = two_authorities()
    world.grant("A", "mallory", depth=4)
    junk(world, "mallory", 100)
    honest = world.grants(graph, scope("home"))
    # The order of keys must not decide: the junk is as good before as behind the honest ones.
    assert {grant.issuer for grant in world.state.grants_to(key_id(key("target").public))}
    evaluation = world.paths_to("target")
    assert evaluation.truncated
    assert tuple(honest) in [path.grants for path in evaluation.paths]


def test_a23_a_bush_below_one_authority_hides_nothing_below_another() -> None:
    world = two_authorities()
    world.grant("A", "n0", depth=8)
    bush(world, width=24)
    honest = world.grants("B -> g -> h -> i -> target", scope("home"))
    evaluation = world.paths_to("target")
    assert evaluation.truncated
    assert tuple(honest) in [path.grants for path in evaluation.paths]


def test_paths_of_the_authorities_take_turns() -> None:
    world = two_authorities()
    for i in range(limits.MAX_PATHS + 10):
        world.grants(f"A -> m{i} -> target")
    honest = world.grants("B -> g -> h -> target", scope("home"))
    evaluation = world.paths_to("target")
    assert len(evaluation.paths) == limits.MAX_PATHS
    assert tuple(honest) in [path.grants for path in evaluation.paths[:2]]


def test_the_number_of_chains_looked_at_closely_is_bounded() -> None:
    world = two_authorities()
    for i in range(limits.MAX_CHAINS + 1):
        world.grant("A", f"m{i}", scope("a"), depth=1)
        world.grant(f"m{i}", "target", scope("b"))
    evaluation = world.paths_to("target")
    assert (evaluation.paths, evaluation.truncated) == ((), True)


def test_filters_that_multiply_along_a_path_are_bounded() -> None:
    world = World()
    world.grant("X", "a", scope(*(f"{i}/+/+" for i in range(16))), depth=2)
    world.grant("a", "b", scope(*(f"+/{i}/+" for i in range(16))), depth=1)
    world.grant("b", "c", scope(*(f"+/+/{i}" for i in range(16))))
    evaluation = world.paths_to("c")
    assert [len(path.scope) for path in evaluation.paths] == [limits.MAX_COMPILED_FILTERS]
    assert evaluation.truncated


def test_the_way_down_crosses_domains_and_leaves_out_what_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "MAX_EVALUATION_STEPS", 400)
    world = two_authorities()
    expired = authority("G", expires_at=NOW)
    foreign = world.add_root(make_root(authority("F"), expired, domain="foreign"))
    to = DomainSubject(foreign.domain)
    crossing = world.grant("B", "", scope("home"), to=to, depth=2)
    admitted = world.grant("F", "target", scope("home"))
    world.grant("G", "target")
    world.grant("B", "", to=DomainSubject(DomainId(bytes(16))), depth=1)
    world.grant("B", "late", depth=1, issued_at=NOW + 61)
    world.grant("B", "B2", depth=1)
    world.grant("B2", "B", depth=1)
    world.grant("B", "target", issued_at=NOW + 61)
    world.grant("B", "target", scope("flat"), depth=1, issued_at=NOW - 3)
    world.grant("B", "target", scope("flat"), issued_at=NOW - 2)
    world.grant("A", "mallory", depth=8)
    junk(world, "mallory", 450)
    evaluation = world.paths_to("target")
    assert evaluation.truncated
    assert (crossing, admitted) in [path.grants for path in evaluation.paths]
    assert key("G").public not in {one for path in evaluation.paths for one in path.keys}
    assert key("late").public not in {one for path in evaluation.paths for one in path.keys}


def test_the_way_down_begins_only_where_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_EVALUATION_STEPS", 10)
    world = World(root=make_root(authority("A", expires_at=NOW), authority("B")))
    world.domains[DomainId(bytes(16))] = DomainPolicy()
    world.grant("A", "target")
    junk(world, "A", 30)
    assert world.paths_to("target").paths == ()
