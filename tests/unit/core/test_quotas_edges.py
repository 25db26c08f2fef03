"""Quotas to the letter: who stands above whom, what is looked for anew, bounds at their edge."""

from collections import Counter
from collections.abc import Callable

import pytest

from authd.core import limits
from authd.core.grants import DomainSubject, Grant
from authd.core.identity import DomainId, KeyId, PublicKey, StatementId, key_id
from authd.core.policy import DomainPolicy
from authd.core.quotas import Branches, find_fallen, find_flooded, to_list
from authd.core.roots import Root, sign_root
from authd.core.statements import Revoke, sign_revoke
from authd.core.trust import TrustState
from tests.unit.core.world import NOW, World, authority, key, make_root, root_claims

QUOTAS = (40, 8, 4, 2)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REVOCATIONS_PER_BRANCH", QUOTAS)
    monkeypatch.setattr(limits, "ISSUERS_PER_BRANCH", (20, 6, 4, 2))


def branches(world: World) -> Branches:
    return Branches(world.state, world.domains)


def of(name: str) -> PublicKey:
    return key(name).public


def these(names: str) -> set[PublicKey]:
    return {of(name) for name in names}


def revokes(name: str, count: int) -> list[Revoke]:
    return [sign_revoke(key(name), target=bytes([n]) * 16, issued_at=NOW) for n in range(count)]


# --- who stands above whom --------------------------------------------------------------------


def test_a_grant_without_depth_puts_nobody_above_its_subject() -> None:
    world = World()
    world.grant("X", "lamp", depth=0)
    assert branches(world).givers(of("lamp")) == frozenset()
    world.grant("X", "lamp", depth=1)
    assert branches(world).givers(of("lamp")) == these("X")


def test_who_grants_to_a_domain_of_a_keys_id_does_not_stand_above_that_key() -> None:
    world = World()
    victim = DomainId(key_id(of("a")))
    world.grant("X", "", to=DomainSubject(victim), depth=1)
    found = branches(world)
    assert found.givers(of("a")) == frozenset()
    assert found.givers(victim) == these("X")


def test_who_grants_to_a_key_does_not_stand_above_a_domain_of_its_id() -> None:
    world = World()
    world.grant("X", "a", depth=1)
    assert branches(world).givers(key_id(of("a"))) == frozenset()


def test_a_domain_stands_above_its_keys_only_where_it_is_not_listed_and_was_granted_something() -> (
    None
):
    world = World()
    partner = world.add_root(make_root(authority("P"), domain="partner"))
    assert branches(world).charged(of("P")) == these("P"), "nobody gave the domain anything"
    world.grant("X", "", to=DomainSubject(partner.domain), depth=1)
    assert branches(world).givers(of("P")) == {partner.domain}
    # It names another key: the one it named is no entry any more, though it was one.
    world.domains[partner.domain] = DomainPolicy()
    world.add_root(next_root(partner, "Q"))
    assert branches(world).givers(of("P")) == frozenset(), "a listed domain answers to nobody"
    assert branches(world).charged(of("P")) == these("P")


def next_root(root: Root, name: str, *, domain: str = "partner") -> Root:
    claims = root_claims(authority(name), domain=domain, version=2, previous=root.statement_id)
    return sign_root(claims, previous=root, keys=(key(f"{domain} root"),))


# --- what is charged beside a branch with too many ----------------------------------------------


def test_past_a_branch_with_too_many_a_key_is_charged_to_those_on_its_shortest_ways_alone() -> None:
    world = World()
    world.grants("X -> a -> b -> lamp")
    world.grants("X -> a -> c -> d -> b")
    # Neither the brother of `b` nor whoever stands lower answers for it, though both gave it power.
    world.grant("c", "b", depth=1)
    world.grant("d", "b", depth=1)
    assert branches(world).givers(of("b")) == these("acd")
    loads = branches(world).loads({of("b"): 3}, QUOTAS, {of("a")})
    assert loads == {of("b"): 3, of("a"): 3, of("X"): QUOTAS[1] + 1}


def test_without_any_way_up_whoever_gave_answers_too() -> None:
    world = World()
    for issuer, subject in ("op", "pq"):
        world.grant(issuer, subject, depth=1)
    loads = branches(world).loads({of("q"): 3}, QUOTAS, {of("p")})
    assert loads == {of("q"): 3, of("p"): 3, of("o"): QUOTAS[-1] + 1}


@pytest.mark.usefixtures("small")
def test_who_stands_on_a_branch_that_fell_weighs_on_its_other_branch_as_before() -> None:
    world = World()
    world.grants("X -> e -> g -> d -> lamp")
    world.grants("X -> f -> h -> d -> lamp")
    world.add(*revokes("d", 2), *revokes("g", 3), *revokes("f", 6))
    assert find_fallen(world.state, branches(world)) == these("g")
    world.add(*revokes("f", 7))
    assert find_fallen(world.state, branches(world)) == these("gf"), "9 of 8, 2 of them from `d`"


# --- what is looked for anew ------------------------------------------------------------------


NAMES = "XabcdP"


def assert_follows(before: Branches, world: World) -> Branches:
    after, anew = before.following(world.state, world.domains), branches(world)
    asked = [*map(of, NAMES), *world.state.roots]
    for one in asked:
        assert after.givers(one) == anew.givers(one)
        assert after.charged(one) == anew.charged(one)
        assert after.level(one) == anew.level(one)
    return after


def looked_at(world: World) -> Branches:
    found = branches(world)
    for one in (*map(of, NAMES), *world.state.roots):
        found.level(one)
    return found


def partnered(graph: str = "X -> a -> b -> c -> lamp") -> tuple[World, Root]:
    world = World()
    partner = world.add_root(make_root(authority("P"), domain="partner"))
    world.grants(graph)
    return world, partner


def new_grant(world: World, _: Root) -> None:
    world.grant("X", "b", depth=1)


def grant_to_a_domain(world: World, partner: Root) -> None:
    world.grant("a", "", to=DomainSubject(partner.domain), depth=1)


def another_grant_to_a_domain(world: World, partner: Root) -> None:
    grant_to_a_domain(world, partner)
    world.grant("b", "", to=DomainSubject(partner.domain), depth=1)


def a_domain_is_listed(world: World, partner: Root) -> None:
    world.domains[partner.domain] = DomainPolicy()


def another_is_listed_instead(world: World, partner: Root) -> None:
    world.domains = {partner.domain: DomainPolicy()}


def an_entry_is_new(world: World, _: Root) -> None:
    world.add_root(next_root(world.root, "d", domain="own"))


@pytest.mark.parametrize(
    "change",
    [
        new_grant,
        grant_to_a_domain,
        another_grant_to_a_domain,
        a_domain_is_listed,
        another_is_listed_instead,
        an_entry_is_new,
    ],
)
def test_whatever_changes_is_seen_by_those_that_follow(
    change: Callable[[World, Root], None],
) -> None:
    world, partner = partnered()
    before = looked_at(world)
    change(world, partner)
    assert_follows(before, world)


def test_a_second_gift_to_a_domain_is_seen_by_those_that_follow() -> None:
    world, partner = partnered()
    grant_to_a_domain(world, partner)
    before = looked_at(world)
    assert before.level(of("P")) == 3
    world.grant("X", "", to=DomainSubject(partner.domain), depth=1)
    after = assert_follows(before, world)
    assert after.level(of("P")) == 2


def test_after_one_new_grant_only_its_subject_and_entries_are_looked_for_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, _ = partnered()
    before = looked_at(world)
    world.grant("X", "d", depth=1)
    asked: list[bytes] = []
    grants_to = TrustState.grants_to

    def counted(self: TrustState, subject: bytes) -> tuple[Grant, ...]:
        asked.append(subject)
        return grants_to(self, subject)

    monkeypatch.setattr(TrustState, "grants_to", counted)
    after = before.following(world.state, world.domains)
    for name in "Xabc":
        assert after.charged(of(name)) == before.charged(of(name))
    assert after.level(of("d")) == 1
    assert not {key_id(of(name)) for name in "abc"} & set(asked)
    assert KeyId(key_id(of("d"))) in asked


# --- who answers for what was revoked -----------------------------------------------------------


def test_a_grant_upholds_its_branch_from_the_first_revocation_that_is_charged_there() -> None:
    world = World()
    (grant, _) = world.grants("X -> e -> lamp")
    found = branches(world)
    assert not found.upholds(grant, world.state)
    world.add(*revokes("e", 1))
    assert found.fits(world.state, world.domains)
    assert found.upholds(grant, world.state)


def test_all_who_answer_are_looked_for_once_while_no_revocation_is_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    grants = world.grants("X -> a -> b -> lamp")
    world.add(*revokes("b", 3), *revokes("a", 3))
    found = branches(world)
    climbed: list[bytes] = []
    above = Branches.above

    def counted(self: Branches, branch: bytes) -> frozenset[bytes]:
        climbed.append(branch)
        return above(self, branch)

    monkeypatch.setattr(Branches, "above", counted)
    assert all(found.upholds(one, world.state) for one in grants if one.depth)
    assert Counter(climbed) == {of("X"): 1, of("a"): 2, of("b"): 1}


# --- bounds -----------------------------------------------------------------------------------


def test_a_list_names_a_sixteenth_of_the_smallest_quota_too_many_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "REVOCATIONS_PER_BRANCH", (4_000, 800, 400, 48))
    world = World()
    world.grants("X -> a -> b -> c -> lamp")
    flood = revokes("c", 60)
    world.add(*flood)
    flooded = find_flooded(world.state, branches(world))
    assert flooded == these("c")
    world.state = world.state.with_fallen(flooded)
    ids: list[StatementId] = [one.statement_id for one in flood]
    chosen = to_list(ids, listed=(), state=world.state, branches=branches(world))
    # By threes: after 48 the branch has not too many, after 51 it has.
    assert chosen == tuple(ids[:51])
