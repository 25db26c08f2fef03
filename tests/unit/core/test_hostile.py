"""What an authority, or whoever holds its key, may try: each test shows that it fails."""

import itertools

import pytest

from authd.core import limits
from authd.core.claims import Kind
from authd.core.decision import Decision
from authd.core.grants import DomainSubject, verify_grant
from authd.core.policy import DomainPolicy, GuardedPrefix
from authd.core.revocations import KeyView, mark_equivocation, observe, prove
from authd.core.roots import Root, encode_root_payload, sign_root, verify_root
from authd.core.statements import Heartbeat, verify, verify_revoke
from authd.core.topics import POWER_ADMIN, POWER_NODE, POWER_REVOKE, has_power
from authd.errors import (
    AuthdError,
    EquivocationError,
    LimitError,
    ReasonCode,
    SignatureError,
    StaleRecordError,
)
from tests.unit.core.test_revocations import IDS, NAMES, beat, domain, everything, proven
from tests.unit.core.test_roots import after, of_three, signers, wire
from tests.unit.core.world import (
    NOW,
    World,
    authority,
    flipped,
    key,
    make_grant,
    make_revoke,
    make_root,
    publics,
    scope,
)

PLAIN = scope("#")


def filters(decision: Decision) -> set[str]:
    return {one.topic_filter for one in decision.rights.entries}


def two_authorities() -> World:
    """A may revoke; B is hostile and may not."""
    return World(root=make_root(authority("A"), authority("B", scope=PLAIN)))


# --- against a key ------------------------------------------------------------------------------


def test_revoking_a_key_it_merely_granted_to_ends_its_own_grants_alone() -> None:
    world = two_authorities()
    world.grant("A", "victim", scope("home"))
    world.grant("B", "victim", scope("scrap"))
    world.revoke("B", "victim")
    assert filters(world.connect("victim")) == {"home"}


def test_granting_and_revoking_a_scrap_leaves_the_victims_rights_as_they_were() -> None:
    world = two_authorities()
    world.grant("A", "victim", scope("home"))
    before = world.connect("victim")
    scrap = world.grant("B", "victim", scope("home"))
    world.revoke("B", scrap)
    world.revoke("B", "victim")
    after_it = world.connect("victim")
    assert after_it.rights == before.rights
    assert after_it.lease_until == before.lease_until


def test_a_scrap_that_ends_early_does_not_end_the_other_right() -> None:
    world = two_authorities()
    world.grant("A", "victim", scope("home"))
    world.grant("B", "victim", scope("home"), expires_at=NOW + 1)
    rights = world.connect("victim", now=NOW + 1).rights
    assert filters(world.connect("victim")) == {"home"}
    assert [one.topic_filter for one in rights.entries] == ["home"]


def test_drowning_a_victim_in_grants_takes_no_right_of_another_authority() -> None:
    world = two_authorities()
    honest = {f"home/{i}" for i in range(16)}
    world.grant("A", "gate", depth=2)
    world.grant("gate", "victim", scope(*honest))
    for i in range(200):
        world.grant("B", f"junk{i}", PLAIN, depth=8)
        world.grant(f"junk{i}", "victim", scope(*(f"junk/{i}/{j}" for j in range(16))))
    for first, second in itertools.permutations([f"junk{i}" for i in range(12)], 2):
        world.grant(first, second, PLAIN, depth=8)
    assert world.paths_to("victim").truncated
    assert honest <= filters(world.connect("victim"))


def test_drowning_a_victim_in_grants_unproves_nothing() -> None:
    guard = GuardedPrefix(topic_filter="door/#", grace_s=60, k=2)
    world = World(root=make_root(*map(authority, "ABC")), guarded=(guard,))
    for issuer in "AB":
        world.grants(f"{issuer} -> gate{issuer} -> victim", scope("door/1"))
    world.grant("C", "mallory", depth=8)
    for i in range(600):
        world.grant("mallory", f"junk{i}", depth=8)
        world.grant(f"junk{i}", "victim", scope("door/1"))
    assert filters(world.connect("victim")) == {"door/1"}
    assert {one.proof for one in world.connect("victim").rights.entries} != {()}


# --- from another domain ------------------------------------------------------------------------


def federated() -> tuple[World, Root]:
    world = World()
    foreign = world.add_root(make_root(authority("F"), authority("G"), domain="foreign"))
    world.grant("X", "", PLAIN, to=DomainSubject(foreign.domain), depth=4)
    return world, foreign


@pytest.mark.parametrize("power", [POWER_ADMIN, POWER_NODE, POWER_REVOKE])
def test_a_federated_domain_gives_no_power(power: str) -> None:
    world, foreign = federated()
    world.grant("F", "spy", scope("#", power))
    assert filters(world.connect("spy")) == {"#"}
    assert not any(has_power(path.scope, power) for path in world.paths_to("spy").paths)
    # Listed for topics, it still starts no path that bears a power.
    world.domains[foreign.domain] = DomainPolicy(scope=scope("shared/#"))
    assert not any(has_power(path.scope, power) for path in world.paths_to("spy").paths)


def test_an_authority_that_a_federated_domain_rotated_out_admits_nobody() -> None:
    world, foreign = federated()
    world.grant("F", "old")
    world.grant("G", "new")
    assert world.connect("old").allowed
    claims = after(foreign, authorities=(authority("G"),))
    world.add_root(sign_root(claims, previous=foreign, keys=signers("foreign root")))
    assert world.connect("old").reason is ReasonCode.UNTRUSTED
    assert world.connect("new").allowed
    # Nor does it by a grant that it signs now, or dates back.
    world.grant("F", "later", issued_at=NOW - 1_000)
    assert not world.connect("later").allowed


def test_a_stolen_root_key_of_two_makes_no_root() -> None:
    first = sign_root(of_three(), previous=None, keys=signers("r1", "r2"))
    taken = after(first, authorities=(authority("thief"),))
    payload = encode_root_payload(taken)
    by_thief = (1, 1, key("thief"))
    for data in (wire(payload, (1, 0, key("r1"))), wire(payload, (1, 0, key("r1")), by_thief)):
        with pytest.raises(SignatureError):
            verify_root(data, previous=first)
    # Nor does it anything else: root keys sign only roots.
    world = World(root=first)
    world.grant("X", "r1", depth=4)
    world.grant("r1", "spy")
    world.revoke("r1", "X")
    assert world.connect("spy").reason is ReasonCode.UNTRUSTED


# --- against a revocation -----------------------------------------------------------------------


def test_a_junk_signed_copy_of_a_revocation_sent_first_keeps_nothing_out() -> None:
    world = World()
    world.grants("X -> thief")
    real = make_revoke("X", "thief")
    junk = flipped(real.encoded, 8 * len(real.encoded) - 5)
    with pytest.raises(SignatureError):
        verify_revoke(junk)
    assert world.connect("thief").allowed
    world.add(verify_revoke(real.encoded))
    assert world.connect("thief").reason is ReasonCode.REVOKED


def test_a_junk_signed_copy_has_the_same_id_so_ids_prove_nothing() -> None:
    grant = make_grant("X", "a")
    junk = flipped(grant.encoded, 8 * len(grant.encoded) - 5)
    with pytest.raises(SignatureError):
        verify(Kind.GRANT, junk)
    assert verify_grant(grant.encoded).statement_id == grant.statement_id


# --- heartbeats ---------------------------------------------------------------------------------


def fresh_until(*beats: Heartbeat, now: int = NOW) -> int:
    """Say until when three heartbeat keys with these heads are fresh, seen for the first time."""
    view = domain()
    for one in beats:
        seen = prove(observe(KeyView(), one, now=now), holds=everything, received_at=now)
        view = view.with_view(one.issuer, seen)
    return view.fresh_until()


def test_a_back_dated_heartbeat_lives_no_longer_than_it_says() -> None:
    assert fresh_until(beat("h1", issued_at=NOW - 50), beat("h2", issued_at=NOW - 50)) == NOW + 10


def test_a_future_dated_heartbeat_is_not_counted() -> None:
    ahead = limits.HEARTBEAT_AHEAD_S
    with pytest.raises(LimitError, match="ahead"):
        observe(KeyView(), beat(issued_at=NOW + ahead + 1), now=NOW)
    # Nor does one within the allowance live longer than from its first receipt.
    inside = [beat(name, issued_at=NOW + ahead) for name in ("h1", "h2")]
    assert fresh_until(*inside) == NOW + limits.HEARTBEAT_LIFE_S


def test_an_expired_heartbeat_makes_nothing_fresh() -> None:
    old = [beat(name, issued_at=NOW - 60) for name in NAMES]
    assert fresh_until(*old) <= NOW


def test_no_heartbeat_lives_longer_than_a_minute() -> None:
    with pytest.raises(AuthdError, match="61 s"):
        beat(life_s=61)


def test_a_majority_that_is_not_complete_makes_nothing_fresh() -> None:
    lacking = observe(KeyView(), beat("h2", IDS[:1]), now=NOW)
    lacking = prove(lacking, holds=lambda _: False, received_at=NOW)
    view = domain(h1=proven(beat("h1")), h2=lacking)
    assert view.fresh_until() == 0
    held = prove(lacking, holds=everything, received_at=NOW)
    assert view.with_view(key("h2").public, held).fresh_until() == NOW + 60


def test_half_is_no_majority_and_the_denominator_never_shrinks() -> None:
    assert fresh_until(beat("h1")) == 0
    dishonest = mark_equivocation(proven(beat("h2")))
    view = domain(h1=proven(beat("h1")), h2=dishonest)
    assert view.fresh_until() == 0
    assert view.with_view(key("h3").public, proven(beat("h3"))).fresh_until() == NOW + 60


def test_two_lists_of_one_length_that_differ_end_their_key() -> None:
    view = proven(beat("h1", IDS[:1]))
    with pytest.raises(EquivocationError):
        observe(view, beat("h1", IDS[1:2], issued_at=NOW + 1), now=NOW)
    marked = mark_equivocation(view)
    later = observe(marked, beat("h1", IDS[:2], issued_at=NOW + 2), now=NOW)
    assert prove(later, holds=everything, received_at=NOW).proven is None


def test_a_list_that_forgets_an_entry_is_never_proven() -> None:
    view = proven(beat("h1", IDS[:3]))
    shorter = beat("h1", [*IDS[:2], *IDS[3:24]], issued_at=NOW + 1)
    seen = prove(observe(view, shorter, now=NOW), holds=everything, received_at=NOW)
    assert seen.proven == view.proven
    with pytest.raises(EquivocationError):
        observe(view, beat("h1", [*IDS[:2], *IDS[3:5]], issued_at=NOW + 1), now=NOW)


def test_a_host_clock_set_back_makes_heads_future_dated() -> None:
    with pytest.raises(LimitError):
        observe(KeyView(), beat(issued_at=NOW), now=NOW - 3_600)
    # What was live by the clock before stays bounded by the time of its receipt.
    assert proven(beat()).live_until == NOW + 60


def test_a_heartbeat_key_of_a_former_root_makes_nothing_fresh() -> None:
    second = sign_root(
        after(domain().root, heartbeat_keys=publics(["n1"])),
        previous=domain().root,
        keys=signers("own root"),
    )
    view = domain(**{name: proven(beat(name)) for name in NAMES}).with_root(second)
    for name in NAMES:
        renewed = proven(beat(name, root_version=2, issued_at=NOW + 1), view.view(key(name).public))
        view = view.with_view(key(name).public, renewed)
    assert view.handed_over
    assert view.fresh_until() == 0


def test_a_replayed_heartbeat_is_not_newer() -> None:
    view = proven(beat())
    with pytest.raises(StaleRecordError):
        observe(view, beat(), now=NOW)
