"""Who is near, by grants: a node of the own domain is, one that a partner lets in is not."""

from pathlib import Path

from authd.core.claims import Kind
from authd.core.grants import DomainSubject, sign_grant
from authd.service.issuing import node_scope
from authd.service.ports import Item
from tests.world import START, Domain, Site, make_key

OWN, GUEST = make_key("own node"), make_key("guest node")


def test_a_partners_node_is_admitted_and_is_not_near(tmp_path: Path) -> None:
    site, partner = Site(tmp_path, Domain()), Domain(name="partner")
    let_in = sign_grant(
        site.domain.authority,
        subject=DomainSubject(partner.id),
        scope=node_scope(operator=False),
        issued_at=START,
        expires_at=START + 3_600,
        depth=2,
    )
    site.learn(let_in)
    site.service.authority.receive(
        [Item(Kind.ROOT, partner.roots[0].encoded)],
        source="gossip",
    )
    site.learn(site.domain.grant(OWN.public, node_scope(operator=False)))
    site.learn(partner.grant(GUEST.public, node_scope(operator=False)))
    admission = site.admission(make_key("here"))
    assert admission.admits(OWN.public)
    assert admission.is_own(OWN.public)
    assert admission.admits(GUEST.public)
    assert not admission.is_own(GUEST.public)
    assert not admission.is_own(make_key("stranger").public)
