"""Quotas: who is charged, which branch is fallen, and what then goes on a heartbeat list."""

import itertools
import random

import pytest

from authd.core import limits
from authd.core.grants import DomainSubject, Grant
from authd.core.identity import StatementId, key_id
from authd.core.policy import DomainPolicy
from authd.core.quotas import (
    Branches,
    branch_name,
    find_fallen,
    find_filling,
    find_flooded,
    is_surplus,
    to_list,
)
from authd.core.roots import sign_root
from authd.core.statements import Revoke, sign_revoke
from authd.core.topics import POWER_REVOKE
from authd.core.trust import TrustState
from authd.errors import ReasonCode
from tests.unit.core.world import (
    DAY,
    NOW,
    World,
    authority,
    key,
    make_grant,
    make_revoke,
    make_root,
    root_claims,
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


def names(keys: frozenset[bytes], *known: str) -> set[str]:
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


def test_the_nearest_entry_says_the_level_and_those_on_the_way_to_it_are_charged() -> None:
    world = World()
    world.grants("X -> a -> b -> c -> lamp")
    world.grant("X", "c", depth=1)
    found = branches(world)
    assert found.level(key("c").public) == 1
    assert found.charged(key("c").public) == {key(one).public for one in "Xc"}
    assert found.givers(key("c").public) == {key(one).public for one in "Xb"}


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
    above = {partner.domain, *(key(one).public for one in "PaX")}
    assert branches(world).charged(key("P").public) == above
    assert [branches(world).level(one) for one in (partner.domain, key("P").public)] == [2, 3]
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


def test_a_key_stands_by_its_other_way_however_far_down_it_hangs() -> None:
    world = World()
    chain = ["X", "left", *(f"k{number}" for number in range(61))]
    for issuer, subject in itertools.pairwise((*chain, "right", "k0")):
        world.grant("X" if subject == "right" else issuer, subject, depth=1)
    found, left, right = branches(world), key("left").public, key("right").public
    for name in ("k0", "k60"):
        assert found.stands(key(name).public, {left})
        assert not found.stands(key(name).public, {left, right})


# --- who is charged for a revocation ----------------------------------------------------------


def test_a_revoker_acts_at_the_charge_of_its_authority_and_nobody_else_can() -> None:
    power, state = make_grant("X", "a", scope(POWER_REVOKE)), TrustState()
    assert state.charged_key(make_revoke("a", "lamp", revoker_grant=power)) == key("X").public
    plain = make_grant("X", "a", scope("#"))
    assert state.charged_key(make_revoke("a", "lamp", revoker_grant=plain)) == key("a").public
    assert state.charged_key(make_revoke("a", "lamp")) == key("a").public
    assert state.charged_key(make_revoke("lamp", "lamp")) is None


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
def test_who_holds_three_quarters_of_a_quota_is_named_until_it_falls() -> None:
    world = World()
    world.grants("X -> a -> b -> lamp")

    def filling() -> list[tuple[str, str, int, int]]:
        found = find_filling(world.state, branches(world))
        by_key = dict[bytes, str]((key(name).public, name) for name in "Xab")
        return [(by_key[one.branch], one.what, one.held, one.most) for one in found]

    world.add(*revokes("b", 2))
    assert filling() == []
    world.add(*revokes("b", 2, start=2))
    assert filling() == [("b", "revocations", 4, 4)]
    world.add(*revokes("a", 1, start=4))
    assert filling() == [("b", "revocations", 4, 4)], "five of eight are less"
    world.add(*revokes("a", 1, start=5))
    assert sorted(filling()) == [("a", "revocations", 6, 8), ("b", "revocations", 4, 4)]
    found = [one.branch for one in find_filling(world.state, branches(world))]
    assert found == sorted(found)
    world.add(*revokes("b", 1, start=9))
    assert filling() == [("a", "revocations", 7, 8)], "the other has fallen"
    world.state = world.state.with_fallen(find_fallen(world.state, branches(world)))
    for number in range(4):
        world.grant("a", f"gateway {number}", depth=1)
    assert sorted(filling()) == [("a", "issuers", 5, 6), ("a", "revocations", 7, 8)]
    world.state = world.state.with_fallen(frozenset({key("a").public}))
    assert filling() == [], "one that fell by issuers is no more named for revocations"


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
    rng = random.Random(11)
    for _ in range(10):
        world = World()
        for graph in ("b -> e -> lamp", "c -> lamp", "d -> lamp"):
            world.grants(f"X -> a -> {graph}")
        before = set[str]()
        for number in range(40):
            signer = rng.choice("abcde")
            if number % 4:
                world.add(*revokes(signer, 1, start=number))
            else:
                world.grant(signer, f"gate {number}", depth=1)
            assert fallen(world) >= before, "what falls below weighs no less than it did"
            before = fallen(world)
        assert before >= {"a", "b"}
        # Nor does taking back what was given mend a branch that gave too much.
        world.revoke("a", "b")
        world.revoke("b", "e")
        assert fallen(world) >= before


@pytest.mark.usefixtures("small")
def test_following_a_state_finds_what_looking_anew_finds() -> None:
    rng = random.Random(5)
    for _ in range(15):
        world = World()
        partner = world.add_root(make_root(authority("a"), authority("P"), domain="partner"))
        found = branches(world)
        for number in range(25):
            issuer, subject = rng.sample("Xabcdef", 2)
            if number % 6 == 5:
                world.grant(issuer, "", to=DomainSubject(partner.domain), depth=rng.randint(0, 1))
            else:
                world.grant(issuer, subject, depth=rng.randint(0, 1), issued_at=NOW - number)
            found = found.following(world.state, world.domains)
            anew = branches(world)
            for one in (*(key(name).public for name in "XabcdefP"), partner.domain):
                assert found.level(one) == anew.level(one)
                assert found.charged(one) == anew.charged(one)
                assert found.givers(one) == anew.givers(one)
            assert found.crowded() == anew.crowded()


# --- nobody falls, or is silenced, by what others do ------------------------------------------


def settle(world: World) -> set[str]:
    found = branches(world)
    flooded = find_flooded(world.state, found)
    world.state = world.state.with_fallen(flooded | found.crowded(), flooded)
    return {name for name in "XYabcdefPQ" if key(name).public in world.state.fallen}


@pytest.mark.usefixtures("small")
def test_who_is_granted_something_by_a_fallen_branch_unasked_is_heard_as_before() -> None:
    world = World()
    world.grants("X -> a -> b -> lamp")
    world.grants("X -> e -> b -> lamp")
    world.grants("X -> h -> other")
    for victim in "eab":
        world.grant("h", victim, depth=1)
    world.add(*revokes("h", 9))
    settle(world)
    assert key("h").public in world.state.flooded
    for victim in "eab":
        word = make_revoke(victim, "lamp")
        assert not is_surplus(word, world.state, branches(world))
        world.add(word)
        settle(world)
        on_list = to_list(
            [word.statement_id],
            listed=[one.statement_id for one in revokes("h", 9)],
            state=world.state,
            branches=branches(world),
        )
        assert on_list == (word.statement_id,), "whoever is fresh must know it"
    world.add(*revokes("a", 9), *revokes("e", 9))
    assert settle(world) == {"a", "e"}
    assert is_surplus(
        sign_revoke(key("b"), target=bytes(16), issued_at=1), world.state, branches(world)
    ), "no way up is left"


@pytest.mark.usefixtures("small")
def test_who_gave_something_to_a_key_that_stands_higher_does_not_fall_by_it() -> None:
    world = World()
    world.grants("X -> a -> c -> b -> lamp")
    world.grants("X -> e -> b -> lamp")
    assert branches(world).level(key("b").public) == 2
    world.add(*revokes("b", 9))
    assert settle(world) == {"b"}
    world.grants("X -> b -> lamp")
    world.add(*revokes("b", 30))
    assert settle(world) == {"b"}


@pytest.mark.usefixtures("small")
def test_a_list_that_holds_any_number_of_a_branch_does_not_fell_what_it_hangs_on() -> None:
    world = World()
    world.grants("X -> a -> b -> lamp")
    world.grants("X -> e -> other")
    world.add(*revokes("b", 200), *revokes("a", 3, 210))
    assert settle(world) == {"b"}
    world.add(*revokes("a", 40, 213))
    assert settle(world) == {"a", "b"}
    assert world.reach("other")
    loads = branches(world).loads(
        world.state.charges, limits.REVOCATIONS_PER_BRANCH, world.state.flooded
    )
    assert loads[key("X").public] == 8 + 1


@pytest.mark.usefixtures("small")
def test_a_domain_that_somebody_granted_something_weighs_no_more_than_a_key() -> None:
    world = World()
    many = [authority(f"P{n}", scope=scope("#")) for n in range(8)]
    partner = world.add_root(make_root(*many, domain="partner"))
    world.grant("X", "", to=DomainSubject(partner.domain), depth=2)
    world.grant("P0", "lamp")
    world.grants("X -> e -> other")
    assert world.reach("lamp")
    for one in range(8):
        world.add(*revokes(f"P{one}", 4, one))
    settle(world)
    assert world.state.fallen == {partner.domain}
    assert world.reach("lamp") == set()
    assert "domain" in world.paths_to("lamp").first_failure().detail
    assert world.reach("other")
    assert branch_name(partner.domain) in world.paths_to("lamp").first_failure().detail
    # What it once named stays its own: new roots give it no more room.
    claims = root_claims(
        authority("P99"), domain="partner", version=2, previous=partner.statement_id
    )
    world.add_root(sign_root(claims, previous=partner, keys=(key("partner root"),)))
    settle(world)
    assert world.state.fallen == {partner.domain}


@pytest.mark.usefixtures("small")
def test_a_branch_does_not_stand_again_because_grants_of_depth_were_pushed_out_or_ended() -> None:
    world = World()
    deep = [*world.grants("X -> a -> b -> lamp"), *world.grants("X -> a -> c -> lamp")]
    world.grants("X -> a -> d -> lamp")
    for name in "bcd":
        world.add(*revokes(name, 3))
    assert settle(world) == {"a"}
    for number in range(4):
        world.grant("a", "b", issued_at=NOW + number)
    assert settle(world) == {"a"}
    found = branches(world)
    assert all(found.upholds(one, world.state) for one in deep if one.depth)
    assert not any(found.upholds(one, world.state) for one in deep if not one.depth)
    quiet = world.grant("X", "e", depth=1)
    assert not branches(world).upholds(quiet, world.state)
    kept, gone = world.state.without_ended(
        [key_id(key(name).public) for name in "abce"],
        before=NOW + 9 * DAY,
        keep=lambda one: branches(world).upholds(one, world.state),
    )
    assert quiet in gone
    world.state = kept
    assert settle(world) == {"a"}


@pytest.mark.usefixtures("small")
def test_a_branch_that_names_too_many_issuers_is_still_heard_when_it_revokes() -> None:
    world = World()
    for number in range(5):
        world.grants(f"X -> a -> b -> g{number} -> lamp")
    assert settle(world) == {"b"}
    word = make_revoke("b", "lamp")
    assert not is_surplus(word, world.state, branches(world))
    world.add(word, *revokes("b", 9))
    settle(world)
    assert is_surplus(revokes("b", 1, 50)[0], world.state, branches(world))


@pytest.mark.usefixtures("small")
def test_an_authority_answers_for_a_revoker_until_it_takes_that_back() -> None:
    power = make_grant("X", "r", scope(POWER_REVOKE))
    flood = [
        sign_revoke(key("r"), target=bytes([n]) * 16, issued_at=NOW, revoker_grant=power)
        for n in range(41)
    ]
    back = make_revoke("X", power)
    charges = set()
    for statements in ([*flood, back], [back, *flood], [*flood[:9], back, *flood[9:]]):
        world = World()
        world.grants("X -> lamp")
        world.add(power, *statements)
        charges.add(world.state.charges)
        assert settle(world) == set()
        assert world.reach("lamp")
    assert len(charges) == 1
    other = World()
    other.add(power, *flood, make_revoke("Y", power))
    assert settle(other) == {"X"}, "nobody else takes it back"


@pytest.mark.usefixtures("small")
def test_more_of_what_is_charged_never_lifts_a_branch_in_any_graph() -> None:
    rng = random.Random(11)
    for _ in range(40):
        world = World()
        world.grant("X", "a", depth=8)
        for _ in range(12):
            issuer, subject = rng.sample("Xabcdef", 2)
            world.grant(issuer, subject, depth=1)
        found = branches(world)
        before: frozenset[bytes] = frozenset()
        for number in range(40):
            name = rng.choice("Xabcdef")
            world.add(*revokes(name, rng.randint(1, 4), 5 * number))
            after = found.over(world.state.charges, limits.REVOCATIONS_PER_BRANCH)
            assert before <= after
            before = after


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
        assert is_surplus(one, world.state, branches(world)) == (one is same[4])
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


def test_the_newest_grant_of_depth_that_is_pushed_out_counts_no_more_and_stays_charged() -> None:
    deep = [make_grant("X", "a", issued_at=NOW - 100 + n, depth=1) for n in range(2)]
    others = [make_grant("X", "a", issued_at=NOW - n) for n in range(5)]
    found = {
        TrustState().apply_grants(order).grants_to(key_id(key("a").public))
        for order in itertools.permutations([*deep, *others])
    }
    assert found == {(*others[:4], deep[1])}
    world = World()
    world.add(make_grant("a", "lamp"), *deep, *others)
    assert not world.state.has_newer(deep[1])
    assert world.state.has_newer(deep[0])
    assert world.reach("lamp") == set(), "as before, what was pushed out gives nothing"
    assert world.paths_to("lamp").first_failure().reason is ReasonCode.DEPTH_EXCEEDED
    assert world.reach("a")
    assert key("X").public in branches(world).charged(key("a").public)


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
