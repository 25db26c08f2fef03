"""Roots of other domains: how many are taken how soon, and whom that delays."""

from dataclasses import replace
from pathlib import Path

import pytest

from authd.core import limits
from authd.core.claims import Kind
from authd.core.policy import DomainPolicy
from authd.core.roots import Root
from authd.service.issuing import next_root
from authd.service.ports import Item
from tests.unit.service.scenes import gossip, item
from tests.world import Domain, Site

BURST = 4
REFILL_S = 100


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ROOT_BURST", float(BURST))
    monkeypatch.setattr(limits, "ROOTS_PER_S", 1 / REFILL_S)


@pytest.fixture
def partner() -> Domain:
    """Return a domain whose root key signed ten versions."""
    domain = Domain(name="partner")
    for _ in range(9):
        domain.roots.append(following(domain))
    return domain


@pytest.fixture
def site(tmp_path: Path, partner: Domain) -> Site:
    return Site(tmp_path, Domain(), domains={partner.id: DomainPolicy()})


def following(domain: Domain, heartbeat: str = "hb-1") -> Root:
    keys = (domain.heartbeat(heartbeat).public,)
    return next_root(domain.roots[-1], [domain.root_key], heartbeat_keys=keys)


def version(site: Site, domain: Domain) -> int:
    return site.service.authority.state.roots[domain.id].version


def kept(site: Site) -> int:
    return sum(one.kind is Kind.ROOT for one in site.store.load_statements())


def test_a26_roots_of_another_domain_that_come_too_fast_come_again_later(
    site: Site, partner: Domain
) -> None:
    told: list[bool] = []
    site.service.authority.subscribe(lambda change: told.append(change.roots))
    gossip(site, *partner.roots)
    assert version(site, partner) == BURST
    assert (told.count(True), kept(site)) == (BURST, 1 + BURST)
    assert site.service.authority.quotas.limited == 1
    assert site.service.authority.refused == 0, "whoever passes them on is not to blame"
    for later in (1, 2):
        site.clock.advance(REFILL_S)
        gossip(site, *partner.roots)
        assert version(site, partner) == BURST + later
    site.clock.advance(90 * REFILL_S)
    gossip(site, *partner.roots)
    assert version(site, partner) == 10, "no more than a burst is saved up, and nothing is lost"


def test_a26_one_rival_of_each_version_is_kept_as_evidence(site: Site, partner: Domain) -> None:
    rivals = [following(replace_last(partner), f"hb-{n}") for n in range(20)]
    gossip(site, partner.roots[0], partner.roots[1], *rivals)
    assert kept(site) == 2 + 2, "both first roots, the second, and one rival"
    assert len(site.service.authority.alarms) == 1


def test_a26_whoever_has_a_former_quorum_keeps_no_later_root_waiting(
    site: Site, partner: Domain
) -> None:
    rivals = [following(replace_last(partner), f"hb-{n}") for n in range(50)]
    gossip(site, partner.roots[0], partner.roots[1])
    for number, third in enumerate(partner.roots[2:BURST]):
        gossip(site, *rivals[number * 10 : number * 10 + 10], third)
        site.clock.advance(1)
    assert version(site, partner) == BURST


def replace_last(domain: Domain) -> Domain:
    """Return the domain as it was with its first root alone."""
    return replace(domain, roots=domain.roots[:1])


def test_the_own_domain_and_the_operator_never_wait(site: Site, partner: Domain) -> None:
    own = site.domain
    for _ in range(9):
        own.roots.append(following(own))
    gossip(site, *partner.roots, *own.roots)
    assert (version(site, own), version(site, partner)) == (10, BURST)
    site.service.authority.submit([item(one) for one in partner.roots])
    assert version(site, partner) == 10


def test_one_domain_delays_no_other_and_what_does_not_verify_delays_nobody(
    tmp_path: Path, partner: Domain
) -> None:
    other = Domain(name="other")
    site = Site(tmp_path, Domain(), domains={one.id: DomainPolicy() for one in (partner, other)})
    gossip(site, *partner.roots, other.roots[0])
    second = following(other)
    forged = [second.encoded[:-1] + bytes([n]) for n in range(256)]
    forged.remove(second.encoded)
    site.service.authority.receive([Item(Kind.ROOT, one) for one in forged], source="gossip")
    assert site.service.authority.refused == 255
    gossip(site, second)
    assert version(site, other) == 2
