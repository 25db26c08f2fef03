"""What is known, and what is said of it: batches, order, and sentences to the letter."""

from authd.core.formation import why
from authd.core.grants import DomainSubject
from authd.core.identity import key_id
from authd.core.topics import POWER_REVOKE, Action
from authd.core.trust import TrustState
from tests.unit.core.world import (
    NOW,
    World,
    authority,
    id_of,
    key,
    make_grant,
    make_revoke,
    make_root,
    scope,
)


def test_what_is_known_already_holds_up_nothing_of_a_batch() -> None:
    known, new = make_revoke("X", "lamp"), make_revoke("X", "door")
    state = TrustState().apply_revocations([known]).apply_revocations([known, new])
    assert set(state.revocations) == {known.statement_id, new.statement_id}
    assert state == TrustState().apply_revocations([new, known])


def test_delegates_are_listed_in_one_order() -> None:
    names = [f"gate{number}" for number in range(8)]
    state = TrustState().apply_grants(make_grant("X", name, depth=1) for name in names)
    assert list(state.delegates_of(key("X").public)) == sorted(
        key_id(key(name).public) for name in names
    )


def told(world: World) -> str:
    (failure,) = world.paths_to("lamp").failures
    return failure.detail


def test_a_revoked_grant_is_told_by_its_issuer_and_the_reason() -> None:
    for reason, ending in (("lost", " (lost)"), ("", "")):
        world = World()
        grant = world.grant("X", "lamp")
        world.revoke("X", grant, reason=reason)
        assert told(world) == f"a grant by `{id_of('X')}` is revoked{ending}"
        assert why(reason) == ending


def test_a_domain_that_was_never_fresh_is_told_so() -> None:
    world = World()
    world.grant("X", "lamp")
    world.freshness.clear()
    assert told(world).endswith("has not been fresh here yet")
    world.freshness[world.root.domain] = NOW - 3_600
    assert told(world).endswith("for 3600 s, its grace of 3600 s is over")


def test_a_revoker_of_the_crossed_domain_bars_what_it_named_behind_it() -> None:
    world = World()
    foreign = world.add_root(make_root(authority("F"), domain="foreign"))
    world.grant("X", "", to=DomainSubject(foreign.domain), depth=3)
    power = world.grant("F", "operator", scope(POWER_REVOKE, actions=Action.PUB))
    world.grants("F -> gate -> lamp")
    assert world.reach("lamp")
    world.revoke("operator", "lamp", revoker_grant=power)
    (failure,) = world.paths_to("lamp").failures
    assert failure.detail == f"key `{id_of('lamp')}` is revoked by `{id_of('operator')}`"
