"""Who may announce a broker."""

from typing import Any

import pytest

from authd.core.formation import Failure
from authd.core.paths import Evaluation
from authd.core.policy import GuardedPrefix
from authd.core.serving import refused_service
from authd.core.statements import sign_broker
from authd.core.topics import Action, Scope, make_scope
from authd.errors import ReasonCode
from tests.unit.core.world import DAY, NOW, World, authority, key, make_root, scope


def serve(*filters: str) -> Scope:
    return make_scope(dict.fromkeys(filters, Action.SERVE))


def judge(world: World, *prefixes: str, now: int = NOW, **changes: Any) -> Failure | None:
    options = {"issued_at": NOW - 10, "expires_at": NOW + DAY, **changes}
    broker = sign_broker(
        key("server"),
        domain=world.root.domain,
        broker_id="hall",
        endpoints=["broker.example:1883"],
        prefixes=prefixes,
        **options,
    )
    return refused_service(
        broker,
        world.paths_to("server", now=now),
        policy=world.policy,
        freshness=world.freshness,
        now=now,
    )


def test_a_key_that_may_serve_every_prefix_is_believed() -> None:
    world = World()
    world.grants("X -> site -> server", serve("site/#", "yard/a"))
    assert judge(world, "site/a/#", "site/b", "yard/a") is None


@pytest.mark.parametrize(
    "prefix", ["other/#", "#", "yard/#", "$SYS/#", "$authd/node", "$share/g/site/a", "site/#/a"]
)
def test_one_prefix_too_many_refuses_the_whole(prefix: str) -> None:
    world = World()
    world.grants("X -> server", serve("site/#", "yard/a"))
    failure = judge(world, "site/a", prefix)
    assert failure is not None
    assert failure.reason is ReasonCode.NOT_GRANTED
    assert f"`{prefix}`" in failure.detail
    assert judge(world, "site/a") is None


def test_publishing_and_subscribing_do_not_imply_serving() -> None:
    world = World()
    world.grants("X -> server", scope("site/#"))
    failure = judge(world, "site/a")
    assert failure is not None
    assert failure.reason is ReasonCode.NOT_GRANTED


def test_a_stranger_serves_nothing() -> None:
    assert judge(World(), "site/a") is not None


@pytest.mark.parametrize("now", [NOW - 11, NOW + DAY])
def test_an_announcement_counts_from_its_issue_to_its_end(now: int) -> None:
    world = World()
    world.grants("X -> server", serve("site/#"))
    failure = judge(world, "site/a", now=now)
    assert failure is not None
    assert failure.reason is ReasonCode.EXPIRED


def test_a_guarded_prefix_asks_for_as_many_paths_as_it_does_of_a_client() -> None:
    world = World(
        root=make_root(authority("X"), authority("Y")),
        guarded=(GuardedPrefix(topic_filter="door/#", grace_s=60, k=2),),
    )
    world.grants("X -> server", serve("#"))
    assert judge(world, "site/a") is None
    assert judge(world, "door/front") is not None
    world.grants("Y -> server", serve("door/#"))
    assert judge(world, "door/front") is None
    assert judge(World(guarded=world.guarded), "door/front") is not None


def test_what_was_never_searched_proves_nothing_under_a_guard() -> None:
    broker = sign_broker(
        key("server"),
        domain=World().root.domain,
        broker_id="hall",
        endpoints=["broker.example:1883"],
        prefixes=["door/#"],
        issued_at=NOW,
        expires_at=NOW + 1,
    )
    policy = World(guarded=(GuardedPrefix(topic_filter="#", grace_s=60, k=2),)).policy
    empty = Evaluation(paths=(), failures=())
    assert refused_service(broker, empty, policy=policy, freshness={}, now=NOW) is not None
