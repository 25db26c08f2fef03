"""Formation: the sentence that is told of each link that does not count, to the letter."""

from authd.core import limits
from authd.core.encoding import encode_base64url
from authd.core.formation import Failure
from authd.core.grants import DomainSubject
from authd.core.identity import key_id
from authd.core.policy import DomainPolicy
from authd.errors import ReasonCode
from tests.unit.core.world import (
    NOW,
    World,
    authority,
    id_of,
    key,
    make_grant,
    make_root,
    scope,
)


def only_failure(world: World) -> Failure:
    (failure,) = world.paths_to("lamp").failures
    return failure


def test_a_grant_that_newer_ones_pushed_out_is_told() -> None:
    world = World()
    # Of depth, so that it is held still. The newer ones ended: it alone could have counted.
    world.grant("X", "gate", depth=1, issued_at=NOW - 100)
    for number in range(limits.MAX_GRANTS_PER_PAIR):
        world.grant("X", "gate", issued_at=NOW - 50 + number, expires_at=NOW - 5)
    world.grant("gate", "lamp")
    found = world.paths_to("lamp")
    assert found.paths == ()
    assert set(found.failures) == {
        Failure(ReasonCode.UNTRUSTED, f"a grant by `{id_of('X')}` is pushed out by newer ones"),
        Failure(ReasonCode.EXPIRED, f"a grant by `{id_of('X')}` expired 5 s ago"),
    }


def test_a_revoked_grant_is_told_with_its_issuer_and_reason() -> None:
    world = World()
    world.grants("X -> lamp")
    world.revoke("X", "lamp", reason="lost")
    assert only_failure(world) == Failure(
        ReasonCode.REVOKED, f"a grant by `{id_of('X')}` is revoked (lost)"
    )


def test_a_grant_of_a_fallen_issuer_is_told() -> None:
    world = World()
    world.grants("X -> lamp")
    world.state = world.state.with_fallen(frozenset({key("X").public}))
    assert only_failure(world) == Failure(
        ReasonCode.REVOKED,
        f"all below `{id_of('X')}` is taken for revoked: it overflowed its quota",
    )


def test_what_hangs_on_a_fallen_domain_is_told() -> None:
    world = World()
    partner = world.add_root(make_root(authority("P"), domain="partner"))
    world.grant("X", "", to=DomainSubject(partner.domain), depth=1)
    world.grant("P", "lamp")
    assert world.reach("lamp")
    world.state = world.state.with_fallen(frozenset({partner.domain}))
    assert only_failure(world) == Failure(
        ReasonCode.REVOKED,
        f"all below domain `{encode_base64url(partner.domain)}` is taken for revoked: it"
        " overflowed its quota",
    )


def test_a_grant_to_a_domain_of_a_keys_id_is_none_to_the_key() -> None:
    world = World()
    domain = DomainSubject(key_id(key("lamp").public))  # type: ignore[arg-type]  # that is the trick
    world.add(make_grant("X", "", to=domain))
    assert only_failure(world) == Failure(
        ReasonCode.UNTRUSTED, f"a grant by `{id_of('X')}` names another kind of subject"
    )


def test_a_grant_from_the_future_counts_once_it_is_near_enough() -> None:
    world = World()
    ahead = NOW + limits.MAX_ISSUED_AHEAD_S
    world.grant("X", "lamp", issued_at=ahead + 1)
    assert only_failure(world) == Failure(
        ReasonCode.NOT_YET_VALID,
        f"a grant by `{id_of('X')}` is dated {limits.MAX_ISSUED_AHEAD_S + 1} s ahead",
    )
    assert world.reach("lamp", now=NOW + 1)


def test_an_authority_that_ended_is_told_with_its_domain() -> None:
    world = World(root=make_root(authority("X", expires_at=NOW - 7)))
    world.grants("X -> lamp")
    assert only_failure(world) == Failure(
        ReasonCode.EXPIRED,
        f"authority `{id_of('X')}` of domain `{encode_base64url(world.root.domain)}` expired"
        " 7 s ago",
    )


def test_an_issuer_that_nobody_named_is_told() -> None:
    world = World()
    world.grant("stranger", "lamp")
    assert only_failure(world) == Failure(
        ReasonCode.UNTRUSTED,
        f"issuer `{id_of('stranger')}` is not an authority of a trusted domain and holds no grant",
    )


def test_a_path_without_a_common_right_is_told_from_end_to_end() -> None:
    world = World()
    world.grant("X", "gate", scope("a/#"), depth=1)
    world.grant("gate", "lamp", scope("b/#"))
    assert only_failure(world) == Failure(
        ReasonCode.NOT_GRANTED,
        f"the grants from `{id_of('X')}` down to `{id_of('lamp')}` have no right in common",
    )


def test_what_crosses_a_domain_is_met_with_the_scope_of_the_domain_it_begins_in() -> None:
    world = World()
    partner = world.add_root(make_root(authority("P"), domain="partner"))
    world.domains[world.root.domain] = DomainPolicy(scope=scope("a/#"))
    world.grant("X", "", to=DomainSubject(partner.domain), depth=1)
    world.grant("P", "lamp")
    assert {one for one, _ in world.reach("lamp")} == {"a/#"}
