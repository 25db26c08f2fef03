"""Who may announce a broker, at the edges; and what policy says unless told otherwise."""

import pytest

from authd.core.policy import DomainPolicy, GuardedPrefix
from tests.unit.core.test_serving import judge, serve
from tests.unit.core.world import ALL, NOW, World, authority, make_root


@pytest.mark.parametrize(
    ("begins", "ends", "counts"), [(0, 1, True), (1, 2, False), (-1, 0, False), (-5, 1, True)]
)
def test_an_announcement_counts_from_the_second_it_is_dated(
    begins: int, ends: int, *, counts: bool
) -> None:
    world = World()
    world.grants("X -> server", serve("site/#"))
    refused = judge(world, "site/a", issued_at=NOW + begins, expires_at=NOW + ends)
    assert (refused is None) is counts


def test_the_strictest_guard_over_a_prefix_asks() -> None:
    world = World(root=make_root(authority("A"), authority("B")))
    for issuer in "AB":
        world.grant(issuer, "server", serve("site/#"))
    lax = GuardedPrefix(topic_filter="site/#", grace_s=60, k=2)
    strict = GuardedPrefix(topic_filter="site/vault/#", grace_s=60, k=3)
    world.guarded = (lax, strict)
    assert judge(world, "site/a") is None
    assert judge(world, "site/vault/a") is not None


def test_policy_asks_for_the_usual_unless_told_otherwise() -> None:
    usual = DomainPolicy()
    assert (usual.grace_s, usual.hops) == (3_600, 1)
    assert GuardedPrefix(topic_filter="a/#", grace_s=0).k == 1
    assert {entry.topic_filter for entry in ALL} <= {one.topic_filter for one in usual.scope}
