"""The trust state: immutable, and the same whatever came first."""

import itertools

import pytest

from authd.core.grants import DomainSubject
from authd.core.identity import key_id
from authd.core.roots import sign_root
from authd.core.topics import POWER_NODE, POWER_REVOKE
from authd.core.trust import TrustState, subject_id
from authd.errors import EquivocationError, StaleRecordError
from tests.unit.core.test_roots import after, signers
from tests.unit.core.world import (
    NOW,
    authority,
    key,
    make_grant,
    make_revoke,
    make_root,
    scope,
)

ROOT = make_root(authority("X"))


def test_apply_returns_a_new_state_and_leaves_the_old() -> None:
    empty = TrustState()
    grant = make_grant("X", "a")
    full = empty.apply_root(ROOT).apply_grant(grant).apply_revocations([make_revoke("X", "a")])
    assert empty == TrustState()
    assert full.holds_grant(grant)
    assert not empty.holds_grant(grant)


def test_grants_are_filed_under_key_or_domain() -> None:
    to_domain = make_grant("X", "", to=DomainSubject(ROOT.domain), depth=1)
    state = TrustState().apply_grants([make_grant("X", "a"), to_domain])
    assert [one.issuer for one in state.grants_to(key_id(key("a").public))] == [key("X").public]
    assert state.grants_to(ROOT.domain) == (to_domain,)
    assert subject_id(to_domain.subject) == ROOT.domain


def test_a_key_is_found_by_its_id_if_a_grant_names_it() -> None:
    state = TrustState().apply_grant(make_grant("X", "a"))
    assert state.key_of(key_id(key("a").public)) == key("a").public
    assert state.key_of(key_id(key("b").public)) is None


def test_a_grant_to_a_domain_names_no_key() -> None:
    odd = make_grant("X", "", to=DomainSubject(key_id(key("a").public)))  # type: ignore[arg-type]
    assert TrustState().apply_grant(odd).key_of(key_id(key("a").public)) is None


def test_of_one_issuer_and_subject_the_newest_four_count() -> None:
    grants = [make_grant("X", "a", issued_at=NOW - i) for i in range(6)]
    other = make_grant("Y", "a", issued_at=NOW - 100)
    states = {
        tuple(
            one.statement_id
            for one in TrustState().apply_grants([other, *order]).grants_to(key_id(key("a").public))
        )
        for order in itertools.permutations(grants)
    }
    assert len(states) == 1
    held = TrustState().apply_grants([*grants, other])
    assert [held.holds_grant(grant) for grant in grants] == [True] * 4 + [False] * 2
    assert held.holds_grant(other)


def test_a_revocation_is_taken_once_and_never_leaves() -> None:
    revoke = make_revoke("X", "a")
    once = TrustState().apply_revocations([revoke])
    assert once.apply_revocations([revoke, revoke]) == once
    more = once.apply_revocations([make_revoke("Y", "a")])
    assert len(more.by_target[key("a").public]) == 2


def test_revocations_are_held_in_one_order() -> None:
    several = [make_revoke(name, "a") for name in ("X", "Y", "Z")]
    states = [TrustState().apply_revocations(order) for order in itertools.permutations(several)]
    assert all(state.by_target == states[0].by_target for state in states)


def test_a_root_is_replaced_by_its_successor_alone() -> None:
    second = sign_root(after(ROOT), previous=ROOT, keys=signers("own root"))
    state = TrustState().apply_root(ROOT).apply_root(second)
    assert state.roots[ROOT.domain] == second
    for old in (ROOT, second):
        with pytest.raises(StaleRecordError):
            state.apply_root(old)


def test_two_roots_of_one_version_stop_it() -> None:
    twins = [
        sign_root(after(ROOT, expires_at=NOW + i), previous=ROOT, keys=signers("own root"))
        for i in (1, 2)
    ]
    state = TrustState().apply_root(ROOT).apply_root(twins[0])
    with pytest.raises(EquivocationError, match="two valid roots of version 2"):
        state.apply_root(twins[1])
    assert state.roots[ROOT.domain] == twins[0]


def test_former_root_keys_are_remembered_by_domain() -> None:
    claims = after(ROOT, root_keys=(key("new root").public,))
    second = sign_root(claims, previous=ROOT, keys=signers("own root", "new root"))
    other = make_root(authority("Y"), domain="other")
    state = TrustState().apply_root(ROOT).apply_root(second).apply_root(other)
    assert state.root_keys_of(ROOT.domain) == {key("own root").public, key("new root").public}
    assert state.root_keys_of(other.domain) == {key("other root").public}
    assert TrustState().root_keys_of(ROOT.domain) == frozenset()


def test_authorities_are_found_in_every_root_that_lists_them() -> None:
    other = make_root(authority("X"), authority("Y"), domain="other")
    state = TrustState().apply_root(ROOT).apply_root(other)
    found = [root.domain for root, _ in state.authorities_with(key("X").public)]
    assert found == sorted([ROOT.domain, other.domain])
    assert [root for root, _ in state.authorities_with(key("Y").public)] == [other]
    assert list(state.authorities_with(key("Z").public)) == []


def test_domains_of_a_key_are_those_that_ever_listed_it_in_one_order() -> None:
    roots = [make_root(authority("X"), domain=f"domain {number}") for number in range(9)]
    foreign = make_root(authority("Y"), domain="foreign")
    state = TrustState().apply_root(foreign)
    for root in roots:
        state = state.apply_root(root)
    ascending = sorted(root.domain for root in roots)
    x = key("X").public
    assert list(state.domains_with(x)) == ascending
    assert [root.domain for root, _ in state.authorities_with(x)] == ascending
    gone = after(roots[0], authorities=(authority("Y"),))
    without = state.apply_root(sign_root(gone, previous=roots[0], keys=(key("domain 0 root"),)))
    assert list(without.domains_with(x)) == ascending
    assert len(list(without.authorities_with(x))) == 8


def test_behind_four_grants_that_delegate_nothing_the_newest_that_does_is_held() -> None:
    plain = [make_grant("X", "a", issued_at=NOW - i) for i in range(4)]
    deep = [make_grant("X", "a", depth=1, issued_at=NOW - 10 - i) for i in range(2)]
    for order in itertools.permutations(deep):
        held = TrustState().apply_grants([*plain, *order])
        assert held.holds_grant(deep[0])
        assert not held.holds_grant(deep[1])


# --- which revocation counts for what -----------------------------------------------------------


def test_a_grant_is_revoked_by_its_issuer_by_id_or_by_key() -> None:
    grant = make_grant("X", "a")
    for revoke in (make_revoke("X", grant), make_revoke("X", "a")):
        assert TrustState().apply_revocations([revoke]).grant_revocation(grant) == revoke
    for nothing in (make_revoke("Y", grant), make_revoke("Y", "a"), make_revoke("X", "b")):
        assert TrustState().apply_revocations([nothing]).grant_revocation(grant) is None


def test_a_grant_to_a_domain_is_revoked_by_id() -> None:
    grant = make_grant("X", "", to=DomainSubject(ROOT.domain), depth=1)
    revoke = make_revoke("X", grant)
    assert TrustState().apply_revocations([revoke]).grant_revocation(grant) == revoke
    assert TrustState().grant_revocation(grant) is None


def test_a_key_revokes_itself() -> None:
    own = make_revoke("a", "a")
    state = TrustState().apply_revocations([own, make_revoke("X", "b")])
    assert state.self_revocation(key("a").public) == own
    assert state.self_revocation(key("b").public) is None


def test_an_authority_that_may_revoke_is_a_revoker() -> None:
    revoke = make_revoke("X", "a")
    state = TrustState().apply_revocations([revoke])
    assert state.revoker_revocation(key("a").public, authority("X")) == revoke
    assert state.revoker_revocation(key("a").public, authority("Y")) is None
    assert state.revoker_revocation(key("b").public, authority("X")) is None


def test_without_the_literal_power_an_authority_is_none() -> None:
    state = TrustState().apply_revocations([make_revoke("X", "a")])
    for weaker in (scope("#"), scope("$authd/#"), scope("$authd/+"), scope(POWER_NODE)):
        assert state.revoker_revocation(key("a").public, authority("X", scope=weaker)) is None


def test_a_literal_grant_of_the_power_makes_a_revoker() -> None:
    grant = make_grant("X", "operator", scope(POWER_REVOKE))
    revoke = make_revoke("operator", "a", revoker_grant=grant)
    state = TrustState().apply_revocations([revoke])
    assert state.revoker_revocation(key("a").public, authority("X")) == revoke
    assert state.revoker_revocation(key("a").public, authority("Y")) is None
    plain = TrustState().apply_revocations([make_revoke("operator", "a")])
    assert plain.revoker_revocation(key("a").public, authority("X")) is None


def test_a_grant_of_anything_else_does_not() -> None:
    for given in (scope("#"), scope("$authd/#"), scope(POWER_NODE)):
        grant = make_grant("X", "operator", given)
        state = TrustState().apply_revocations([make_revoke("operator", "a", revoker_grant=grant)])
        assert state.revoker_revocation(key("a").public, authority("X")) is None


def test_only_the_authority_takes_the_power_back_by_that_very_grant() -> None:
    grant = make_grant("X", "operator", scope(POWER_REVOKE))
    state = TrustState().apply_revocations([make_revoke("operator", "a", revoker_grant=grant)])
    for nothing in (
        make_revoke("X", "operator"),
        make_revoke("operator", "operator"),
        make_revoke("Y", grant),
    ):
        kept = state.apply_revocations([nothing])
        assert kept.revoker_revocation(key("a").public, authority("X")) is not None
    gone = state.apply_revocations([make_revoke("X", grant)])
    assert gone.revoker_revocation(key("a").public, authority("X")) is None


# --- indexes ------------------------------------------------------------------------------------


def test_the_grants_of_one_pair_are_found_without_a_walk() -> None:
    grants = [make_grant(f"i{i}", "a", issued_at=NOW - 5 - n) for i in range(5) for n in range(3)]
    state = TrustState().apply_grants(grants)
    subject = subject_id(grants[0].subject)
    for i in range(5):
        assert state.grants_between(key(f"i{i}").public, subject) == tuple(
            grants[3 * i : 3 * i + 3]
        )
    assert state.grants_between(key("other").public, subject) == ()


def test_who_may_delegate_is_known_by_issuer_in_any_order() -> None:
    deep = make_grant("X", "a", depth=1, issued_at=NOW - 100)
    flat = [make_grant("X", "a", issued_at=NOW - i) for i in range(1, 5)]
    other = make_grant("X", "b", depth=1)
    subject, second = subject_id(deep.subject), subject_id(other.subject)
    state = TrustState().apply_grants([deep, other])
    assert state.delegates_of(key("X").public) == tuple(sorted([subject, second]))
    # Four newer grants push the one of depth out, whichever comes first; who stood there stays.
    assert state.apply_grants(flat) == TrustState().apply_grants([*flat, other, deep])
    assert state.apply_grants(flat).delegates_of(key("X").public) == tuple(
        sorted([subject, second])
    )
    assert state.apply_grants(flat).is_pushed_out(deep)
    assert not state.is_pushed_out(deep)
    assert state.delegates_of(key("a").public) == ()
