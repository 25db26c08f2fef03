"""Quotas: who is charged, which branch is fallen, and what then goes on a heartbeat list."""

import itertools
import random

import pytest

from authd.core import limits
from authd.core.grants import DomainSubject, Grant
from authd.core.identity import PublicKey, StatementId, key_id
from authd.core.policy import DomainPolicy
from authd.core.quotas import Branches, find_fallen, is_surplus, to_list
from authd.core.statements import Revoke, sign_revoke
from authd.core.topics import POWER_REVOKE
from authd.core.trust import TrustState, charged_key
from authd.errors import ReasonCode
from tests.unit.core.world import (
    NOW,
    World,
    authority,
    key,
    make_grant,
    make_revoke,
    make_root,
    scope,
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REVOCATIONS_PER_BRANCH", (40, 8, 4, 2))
    monkeypatch.setattr(limits, "ISSUERS_PER_BRANCH", (20, 6, 4, 2))


def revokes(name: str, count: int, start: int = 0) -> list[Revoke]:
    return [
        sign_revoke(key(name), target=bytes([n]) * 16, issued_at=NOW)
        for n in range(start, start + count)
    ]


def names(keys: frozenset[PublicKey], *known: str) -> set[str]:
    found = {name for name in known if key(name).public in keys}
    assert len(found) == len(keys)
    return found


def branches(world: World) -> Branches:
    return Branches(world.state, world.domains)


def fallen(world: World) -> set[str]:
    found = find_fallen(world.state, branches(world))
    return names(found, "X", "a", "b", "c", "d", "e", "P", "Q")


# --- who stands where -------------------------------------------------------------------------


def test_a_statement_is_charged_to_its_issuer_and_to_each_above_it_up_to_the_roots_entry() -> None:
    world = World()
    world.grants("X -> a -> b -> c -> d")
    found = branches(world)
    for level, name in enumerate("Xabc"):
        assert found.level(key(name).public) == level
        above = {key(one).public for one in "Xabc"[: level + 1]}
        assert found.charged(key(name).public) == above
    assert found.charged(key("stranger").public) == {key("stranger").public}
    assert found.level(key("stranger").public) == 3
    assert found.level(key("d").public) == 3, "a grant without depth puts nobody anywhere"


def test_the_nearest_entry_says_the_level_and_all_givers_are_charged() -> None:
    world = World()
    world.grants("X -> a -> b -> c -> lamp")
    world.grant("X", "c", depth=1)
    found = branches(world)
    assert found.level(key("c").public) == 1
    assert found.charged(key("c").public) == {key(one).public for one in "Xabc"}


def test_circles_end() -> None:
    world = World()
    for issuer, subject in ("ab", "bc", "ca"):
        world.grant(issuer, subject, depth=8)
    assert len(branches(world).charged(key("a").public)) == 3


def test_a_domain_that_is_not_listed_is_charged_to_who_gave_it_something() -> None:
    world = World()
    partner = world.add_root(make_root(authority("P"), domain="partner"))
    world.grant("X", "a", depth=3)
    world.grant("a", "", to=DomainSubject(partner.domain), depth=2)
    world.grant("b", "", to=DomainSubject(partner.domain))
    assert branches(world).charged(key("P").public) == {key(one).public for one in "PaX"}
    assert branches(world).level(key("P").public) == 2
    world.domains[partner.domain] = DomainPolicy()
    assert branches(world).charged(key("P").public) == {key("P").public}, "it answers for itself"
    assert branches(world).level(key("P").public) == 0


def test_branches_hold_until_a_grant_of_depth_a_root_or_the_policy_is_new() -> None:
    world = World()
    world.grant("X", "a", depth=3)
    found = branches(world)
    world.grant("a", "lamp")
    world.add(*revokes("a", 3))
    assert found.fits(world.state, world.domains)
    assert not found.fits(world.state, {})
    before = world.state
    world.grant("a", "b", depth=1)
    assert not found.fits(world.state, world.domains)
    other = before.apply_root(make_root(authority("P"), domain="partner"))
    assert not found.fits(other, world.domains)


# --- who is charged for a revocation ----------------------------------------------------------


def test_a_revoker_acts_at_the_charge_of_its_authority_and_nobody_else_can() -> None:
    power = make_grant("X", "a", scope(POWER_REVOKE))
    assert charged_key(make_revoke("a", "lamp", revoker_grant=power)) == key("X").public
    plain = make_grant("X", "a", scope("#"))
    assert charged_key(make_revoke("a", "lamp", revoker_grant=plain)) == key("a").public
    assert charged_key(make_revoke("a", "lamp")) == key("a").public
    assert charged_key(make_revoke("lamp", "lamp")) is None


# --- fallen -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("small")
def test_a_branch_with_more_revocations_than_its_quota_is_revoked_whole_and_no_other() -> None:
    world = World()
    world.grants("X -> a -> b -> lamp")
    world.grants("X -> a -> c -> other")
    world.add(*revokes("b", 4))
    assert fallen(world) == set()
    world.add(*revokes("b", 1, start=4))
    assert fallen(world) == {"b"}
    assert world.reach("lamp"), "not before the state says so"
    world.state = world.state.with_fallen(find_fallen(world.state, branches(world)))
    assert world.reach("lamp") == set()
    assert world.paths_to("lamp").first_failure().reason is ReasonCode.REVOKED
    assert "overflowed its quota" in world.paths_to("lamp").first_failure().detail
    assert world.reach("other")
    assert world.state.with_fallen(world.state.fallen) is world.state


@pytest.mark.usefixtures("small")
def test_many_small_issuers_overflow_the_branch_they_hang_on() -> None:
    world = World()
    for name in "bcd":
        world.grants(f"X -> a -> {name} -> lamp")
        world.add(*revokes(name, 3))
    assert fallen(world) == {"a"}


@pytest.mark.usefixtures("small")
def test_an_entry_of_the_root_can_fall_too() -> None:
    world = World()
    world.grants("X -> a -> lamp")
    world.add(*revokes("X", 41))
    world.state = world.state.with_fallen(find_fallen(world.state, branches(world)))
    assert fallen(world) == {"X"}
    assert world.reach("lamp") == set()


@pytest.mark.usefixtures("small")
def test_a_branch_that_names_too_many_issuers_falls() -> None:
    world = World()
    for number in range(4):
        world.grants(f"X -> a -> b -> g{number} -> lamp")
    assert fallen(world) == set()
    world.grants("b -> g4 -> lamp")
    found = branches(world)
    for _ in range(2):
        assert find_fallen(world.state, found) == {key("b").public}


@pytest.mark.usefixtures("small")
def test_whether_a_branch_is_fallen_does_not_depend_on_the_order_of_arrival() -> None:
    world = World()
    statements: list[Grant | Revoke] = [
        *world.grants("X -> a -> b -> c -> lamp"),
        *world.grants("X -> e -> other"),
        *revokes("c", 2),
        *revokes("b", 2, start=2),
        *revokes("a", 2, start=5),
        *revokes("e", 9),
    ]
    rng = random.Random(7)
    for _ in range(20):
        rng.shuffle(statements)
        other = World()
        for one in statements:
            other.add(one)
        assert fallen(other) == {"e"}
    world.add(*statements, *revokes("c", 1, start=9))
    assert fallen(world) == {"b", "c", "e"}


@pytest.mark.usefixtures("small")
def test_more_statements_never_lift_a_fallen_branch() -> None:
    world = World()
    world.grants("X -> a -> b -> lamp")
    world.add(*revokes("b", 9))
    before = fallen(world)
    world.revoke("b", "lamp")
    world.revoke("a", "b")
    world.grants("X -> b -> lamp")
    assert before == {"a", "b"}
    assert fallen(world) == {"a", "b"}


# --- surplus ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("small")
def test_revocations_of_a_fallen_branch_are_surplus_and_no_others() -> None:
    world = World()
    world.grants("X -> a -> b -> lamp")
    world.add(*revokes("b", 5))
    world.state = world.state.with_fallen(find_fallen(world.state, branches(world)))
    assert is_surplus(make_revoke("b", "lamp"), world.state, branches(world))
    assert not is_surplus(make_revoke("a", "b"), world.state, branches(world))
    assert not is_surplus(make_revoke("lamp", "lamp"), world.state, branches(world))


def test_saying_the_same_more_than_four_times_is_surplus() -> None:
    world = World()
    world.grants("X -> lamp")
    same = [sign_revoke(key("lamp"), target=key("lamp").public, issued_at=n) for n in range(5)]
    for one in same:
        assert not is_surplus(one, world.state, branches(world)) or one is same[4]
        world.add(one)
    assert is_surplus(same[4], world.state, branches(world))
    assert not is_surplus(make_revoke("X", "lamp"), world.state, branches(world))


# --- lists ------------------------------------------------------------------------------------


def ids(some: list[Revoke]) -> tuple[StatementId, ...]:
    return tuple(one.statement_id for one in some)


def test_everything_is_listed_while_nobody_is_fallen() -> None:
    world = World()
    some = revokes("a", 3)
    world.add(*some)
    found = to_list(ids(some), listed=(), state=world.state, branches=branches(world))
    assert found == ids(some)


@pytest.mark.usefixtures("small")
def test_a_list_leaves_out_only_what_it_shows_to_be_of_a_fallen_branch() -> None:
    world = World()
    world.grants("X -> a -> b -> lamp")
    flood, honest, own = revokes("b", 12), revokes("X", 2, 20), [make_revoke("lamp", "lamp")]
    world.add(*flood, *honest, *own)
    world.state = world.state.with_fallen(find_fallen(world.state, branches(world)))
    unknown = StatementId(bytes(16))
    for listed in (0, 3, 5, 9):
        on_list = ids(flood[:listed])
        missing = (*ids(flood[listed:]), *ids(honest), *ids(own))
        chosen = to_list(
            missing, listed=(*on_list, unknown), state=world.state, branches=branches(world)
        )
        assert set(ids(honest)) | set(ids(own)) <= set(chosen)
        held = World(root=world.root)
        held.grants("X -> a -> b -> lamp")
        held.add(*(one for one in flood if one.statement_id in {*on_list, *chosen}))
        assert "b" in fallen(held), "whoever holds the list knows"
        assert len(set(chosen) & set(ids(flood))) == max(0, 5 - listed)


# --- what is held -----------------------------------------------------------------------------


def test_grants_are_counted_by_issuer_and_what_is_pushed_out_is_told() -> None:
    grants = [make_grant("X", "lamp", issued_at=NOW - 10 + n) for n in range(6)]
    state, gone = TrustState().take_grants(grants[:4])
    assert (state.issued[key("X").public], gone) == (4, ())
    state, gone = state.take_grants([grants[0], *grants[4:]])
    assert (state.issued[key("X").public], gone) == (4, tuple(grants[:2]))
    assert [state.has_newer(one) for one in grants] == [True, True, False, False, False, False]
    assert not TrustState().apply_grants(grants[3:]).has_newer(grants[0])
    state, gone = state.take_grants(grants[:1])
    assert (state.issued[key("X").public], gone) == (4, (grants[0],)), "too old to count"


def test_what_ended_is_forgotten_with_all_that_was_counted_of_it() -> None:
    short = make_grant("X", "lamp", expires_at=NOW + 5)
    deep = make_grant("Y", "lamp", expires_at=NOW + 5, depth=2)
    long = make_grant("X", "lamp", expires_at=NOW + 50)
    state = TrustState().apply_grants([short, deep, long])
    lamp = key_id(key("lamp").public)
    same, gone = state.without_ended([lamp, b"nobody"], before=NOW + 5)
    assert (same, gone) == (state, ())
    later, gone = state.without_ended([lamp], before=NOW + 6)
    assert set(gone) == {short, deep}
    assert later == TrustState().apply_grant(long)
    assert later.without_ended([lamp], before=NOW + 51)[0].grants_to(lamp) == ()


def test_a_grant_of_depth_that_is_pushed_out_at_once_leaves_no_trace() -> None:
    deep = make_grant("X", "lamp", issued_at=NOW - 100, depth=1)
    others = [make_grant("X", "lamp", issued_at=NOW - n) for n in range(4)]
    state = TrustState().apply_grants([deep, *others])
    assert state == TrustState().apply_grants(others)
    assert not state.delegates_of(key("X").public)


def test_the_order_of_grants_and_of_forgetting_makes_no_difference() -> None:
    grants = [make_grant(name, "lamp", expires_at=NOW + n) for n, name in enumerate("XYZ", 1)]
    found = {
        TrustState()
        .apply_grants(order)
        .without_ended([key_id(key("lamp").public)], before=NOW + 2)[0]
        .issued
        for order in itertools.permutations(grants)
    }
    assert len(found) == 1
