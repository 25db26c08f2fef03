"""Local policy: the smallest grace of everything concerned."""

from authd.core.identity import DomainId
from authd.core.policy import DEFAULT_GRACE_S, FULL_SCOPE, DomainPolicy, GuardedPrefix, Policy

OWN, OTHER, CROSSED = (DomainId(bytes([i]) * 16) for i in range(3))
POLICY = Policy(
    own=OWN,
    domains={OWN: DomainPolicy(grace_s=900), OTHER: DomainPolicy(grace_s=0)},
    guarded=(GuardedPrefix(topic_filter="door/#", grace_s=5),),
)


def test_a_domain_that_is_only_crossed_has_the_default_grace() -> None:
    assert POLICY.domain(CROSSED).grace_s == DEFAULT_GRACE_S


def test_the_smallest_grace_of_the_domains_counts() -> None:
    assert POLICY.grace_s((OWN,), "lamp") == 900
    assert POLICY.grace_s((OWN, CROSSED), "lamp") == 900
    assert POLICY.grace_s((OWN, OTHER), "lamp") == 0


def test_a_guarded_prefix_counts_for_every_filter_that_overlaps_it() -> None:
    for topic_filter in ("door", "door/1", "door/#", "+/1", "#"):
        assert POLICY.grace_s((OWN,), topic_filter) == 5
    assert POLICY.grace_s((OWN,), "doors/#") == 900


def test_the_full_scope_names_every_power_literally() -> None:
    names = [entry.topic_filter for entry in FULL_SCOPE]
    assert names == ["#", "$SYS/#", "$authd/admin", "$authd/node", "$authd/revoke"]
