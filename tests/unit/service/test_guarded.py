"""A guarded prefix that asks for two introducers, from CONNECT to the cut."""

from dataclasses import replace
from pathlib import Path

import pytest

from authd.core.decision import Decision, Operation
from authd.core.identity import SigningKey, key_id_text
from authd.core.policy import GuardedPrefix
from authd.core.roots import RootClaims, sign_root
from authd.errors import ReasonCode
from tests.unit.service.scenes import DEVICE, GATEWAY, OTHER, revoke
from tests.world import Domain, Site, make_key, scope

DOOR = scope(pub="site/door/1")
TWO = GuardedPrefix(topic_filter="site/door/#", grace_s=3_600, k=2)


SECOND = make_key("second-authority")


def domain_with_two_authorities() -> Domain:
    domain = Domain()
    first = domain.roots[0]
    second = replace(first.authorities[0], key=SECOND.public)
    claims = RootClaims(
        version=2,
        previous=first.statement_id,
        root_keys=first.root_keys,
        threshold=1,
        authorities=(*first.authorities, second),
        heartbeat_keys=first.heartbeat_keys,
        publisher=first.publisher,
        next_publisher=first.publisher,
        expires_at=first.expires_at,
    )
    domain.roots.append(sign_root(claims, previous=first, keys=(domain.root_key,)))
    return domain


def site_with(directory: Path, *, authorities: tuple[SigningKey, SigningKey]) -> Site:
    """Make a site where two gateways, each of an authority, let the device through the door."""
    domain = domain_with_two_authorities()
    site = Site(directory, domain, guarded=(TWO,))
    for authority, gateway in zip(authorities, (GATEWAY, OTHER), strict=True):
        site.learn(
            domain.grant(gateway.public, DOOR, by=authority, depth=1),
            domain.grant(DEVICE.public, DOOR, by=gateway),
        )
    return site


async def test_a24_one_authority_is_one_introducer_however_many_gateways(tmp_path: Path) -> None:
    one = Domain().authority
    site = site_with(tmp_path, authorities=(one, one))
    decision = await site.connect(DEVICE)
    assert decision.reason is ReasonCode.NOT_GRANTED
    assert "site/door" in decision.detail


@pytest.mark.parametrize("lost", [GATEWAY, OTHER, SECOND], ids=["one", "other", "authority"])
async def test_a23_two_open_the_door_and_revoking_either_cuts_the_session(
    tmp_path: Path,
    lost: SigningKey,
) -> None:
    site = site_with(tmp_path, authorities=(Domain().authority, SECOND))
    assert (await site.connect(DEVICE)).allowed
    client_id, topic = key_id_text(DEVICE.public), "site/door/1"

    def may_open() -> Decision:
        return site.service.decider.authorize(
            broker="m",
            client_id=client_id,
            operation=Operation.PUBLISH,
            topic=topic,
        )

    assert may_open().allowed
    revoke(site, lost.public, by=lost)
    assert site.service.sessions.all() == []
    assert may_open().reason is ReasonCode.NO_SESSION
    assert (await site.connect(DEVICE)).reason in (ReasonCode.NOT_GRANTED, ReasonCode.REVOKED)
