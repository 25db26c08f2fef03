"""Renewal: what stands goes on, what was given an end ends, and two daemons agree."""

from dataclasses import replace
from pathlib import Path

import pytest

from authd.core.grants import DomainSubject, Form, Grant, TlsSubject, sign_grant
from authd.core.identity import PublicKey, SigningKey, key_id
from authd.core.records import RecordKind, record_salt, record_target
from authd.core.roots import Root, RootClaims, sign_root
from authd.core.statements import sign_revoke
from authd.core.topics import POWER_REVOKE
from authd.errors import ReasonCode
from authd.service.finder import open_grants_record
from authd.service.issuing import DEVICE_LIFE_S, NODE_LIFE_S, power_scope
from authd.service.renewal import (
    WARN_S,
    Renewal,
    renew,
    renewal_due_at,
    same_rights,
    stands,
    successors,
)
from authd.service.replacements import Replacements
from tests.unit.service.scenes import (
    DEVICE,
    GATEWAY,
    OTHER,
    SENSOR,
    TEMP,
    can_publish,
    gossip,
    revoke,
)
from tests.world import DAY, START, Domain, Ether, FakeClock, Site, make_key, scope

ALL = scope(pub="site/#")


def standing(site: Site, to: PublicKey, **options: object) -> Grant:
    values = {"issued_at": START, "expires_at": START + DEVICE_LIFE_S, **options}
    return site.domain.grant(to, TEMP, **values)  # type: ignore[arg-type]  # one dict for all


def with_key(site: Site, key: SigningKey | None = None) -> Renewal:
    """Let the site hold the issuing key, or another."""
    service = site.service
    return Renewal(
        authority=service.authority,
        publisher=service.publisher,
        clock=site.clock,
        key=key or site.domain.authority,
    )


async def look(site: Site, *renewals: Renewal) -> None:
    """Go through everything once, with a head that is fresh."""
    site.service.authority.beat()
    for renewal in renewals:
        site.clock.advance(3_600)
        site.service.authority.beat()
        for _ in range(8):
            await renewal.step()


async def days(site: Site, count: int, *renewals: Renewal) -> None:
    for _ in range(count):
        site.clock.advance(DAY - 3_600 * len(renewals))
        await look(site, *renewals)
        site.service.enforcement.tick()


def grants_of(site: Site, key: PublicKey) -> list[Grant]:
    return list(site.service.authority.state.grants_to(key_id(key)))


async def test_the_session_of_a_device_goes_on_for_200_days_and_the_device_does_nothing(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, Domain())
    site.learn(standing(site, DEVICE.public))
    renewal = with_key(site)
    assert (await site.connect(DEVICE)).allowed
    session = site.service.sessions.all()[0].session_id
    for _ in range(200):
        await days(site, 1, renewal)
        assert can_publish(site, DEVICE, "site/temp").allowed
    assert site.service.sessions.all()[0].session_id == session
    assert renewal.renewed == 4, "at 45, 90, 135 and 180 days, each a little later"
    assert (await site.connect(DEVICE)).allowed
    assert renewal.expiring.ends == {}
    assert len(grants_of(site, DEVICE.public)) <= 4


async def test_it_goes_on_after_a_restart_and_from_another_daemon_with_the_key(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, Domain())
    site.learn(standing(site, DEVICE.public))
    for _ in range(4):
        await days(site, 50, with_key(site))
        site.close()
        site.open()
        site.service.authority.beat()
    assert site.service.authority.evaluate(DEVICE.public, now=site.clock.now()).paths


async def test_a_grant_with_an_end_ends_and_nobody_is_warned_of_what_was_wished(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, Domain())
    until = standing(site, DEVICE.public, expires_at=START + DEVICE_LIFE_S - 1)
    site.learn(until)
    renewal = with_key(site)
    await days(site, 89, renewal)
    assert (await site.connect(DEVICE)).allowed
    assert (renewal.renewed, renewal.expiring.ends) == (0, {})
    await days(site, 2, renewal)
    assert (await site.connect(DEVICE)).reason is ReasonCode.EXPIRED
    assert site.service.sessions.all() == []


async def test_a_revoked_grant_is_not_renewed_however_it_was_revoked(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    keys = [make_key(f"lamp {n}") for n in range(4)]
    grants = [standing(site, key.public) for key in keys]
    below = standing(site, SENSOR.public, by=GATEWAY)
    site.learn(*grants, below, site.domain.grant(GATEWAY.public, ALL, depth=1))
    gossip(
        site,
        sign_revoke(keys[0], target=keys[0].public, issued_at=START),
        sign_revoke(site.domain.authority, target=keys[1].public, issued_at=START),
        sign_revoke(site.domain.authority, target=grants[2].statement_id, issued_at=START),
    )
    renewal, gateways = with_key(site), with_key(site, GATEWAY)
    revoke(site, GATEWAY.public)
    await days(site, 100, renewal, gateways)
    assert (renewal.renewed, gateways.renewed) == (2, 0), "the fourth, twice"
    allowed = [(await site.connect(key)).allowed for key in keys]
    assert allowed == [False, False, False, True]


async def test_a_self_revocation_kept_since_the_first_day_ends_every_renewal(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, Domain())
    site.learn(standing(site, DEVICE.public))
    kept = sign_revoke(DEVICE, target=DEVICE.public, issued_at=START)
    renewal = with_key(site)
    await days(site, 120, renewal)
    assert (await site.connect(DEVICE)).allowed
    gossip(site, kept)
    assert (await site.connect(DEVICE)).reason is ReasonCode.REVOKED
    await days(site, 60, renewal)
    assert renewal.renewed == 2


async def test_two_daemons_with_one_key_sign_the_same_statement_and_rest(tmp_path: Path) -> None:
    domain, clock, ether = Domain(), FakeClock(), Ether()
    sites = [
        Site(tmp_path, domain, name=name, heartbeat=beat, clock=clock, ether=ether)
        for name, beat in (("A", "hb-1"), ("B", None))
    ]
    for site in sites:
        site.learn(standing(site, DEVICE.public))
    renewals = [with_key(site) for site in sites]
    ether.down = True
    clock.advance(50 * DAY)
    for renewal in renewals:
        clock.advance(3_600)
        sites[0].service.authority.beat()
        gossip_heads(sites)
        for _ in range(4):
            await renewal.step()
    found = {tuple(one.statement_id for one in grants_of(site, DEVICE.public)) for site in sites}
    assert len(found) == 1, "parted, both signed the same bytes"
    ether.down = False
    for _ in range(20):
        clock.advance(DAY // 2)
        await sites[0].beat()
        for renewal in renewals:
            clock.advance(3_600)
            await sites[0].beat()
            for _ in range(4):
                await renewal.step()
    assert sum(one.renewed for one in renewals) == 2


@pytest.mark.parametrize("ended", [False, True])
async def test_a_key_that_was_replaced_is_not_renewed_and_its_grant_ends_by_itself(
    tmp_path: Path, *, ended: bool
) -> None:
    site = Site(tmp_path, Domain())
    site.learn(standing(site, DEVICE.public), standing(site, SENSOR.public))
    renewal = with_key(site)
    await days(site, 60, renewal)
    assert renewal.renewed == 2
    now = site.clock.now()
    end = now + (50 * DAY if ended else DEVICE_LIFE_S)
    rotated = standing(site, OTHER.public, issued_at=now, expires_at=end, replaces=DEVICE.public)
    site.learn(rotated)
    site.close()
    site.open()
    renewal = with_key(site)
    await days(site, 74, renewal)
    assert (await site.connect(DEVICE)).allowed, "nobody revoked it"
    await days(site, 2, renewal)
    assert (await site.connect(DEVICE)).reason is ReasonCode.EXPIRED
    assert renewal.expiring.ends == {}, "it is as it was meant to be"
    assert renewal.renewed == (1 if ended else 2), "the sensor's, and the new key's if it stands"
    assert (await site.connect(OTHER)).allowed is not ended
    assert (await site.connect(SENSOR)).allowed


@pytest.mark.parametrize("why", ["revoked", "its key", "issuer", "older", "dated ahead", "itself"])
async def test_what_does_not_count_replaces_no_key(tmp_path: Path, why: str) -> None:
    site = Site(tmp_path, Domain())
    site.learn(standing(site, DEVICE.public), site.domain.grant(GATEWAY.public, ALL, depth=1))
    rotated = standing(
        site,
        DEVICE.public if why == "itself" else OTHER.public,
        by=GATEWAY if why == "issuer" else site.domain.authority,
        issued_at={"older": START - 1, "dated ahead": START + 60 * DAY}.get(why, START),
        expires_at=START + 300 * DAY,
        replaces=DEVICE.public,
    )
    site.learn(rotated)
    if why == "older":
        site.learn(site.domain.grant(OTHER.public, TEMP, issued_at=START + 1))
    if why in ("revoked", "its key"):
        revoke(site, rotated.statement_id if why == "revoked" else OTHER.public)
    renewal = with_key(site)
    await days(site, 52, renewal)
    assert renewal.renewed == 1


async def test_a_device_goes_back_to_its_former_key_by_a_newer_grant(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    site.learn(standing(site, DEVICE.public))
    for number, (new, old) in enumerate([(OTHER, DEVICE), (DEVICE, OTHER)]):
        site.clock.advance(DAY)
        start = START + (number + 1) * DAY
        grant = standing(
            site,
            new.public,
            issued_at=start,
            expires_at=start + DEVICE_LIFE_S,
            replaces=old.public,
        )
        site.learn(grant)
    renewal = with_key(site)
    await days(site, 92, renewal)
    assert (await site.connect(DEVICE)).allowed
    assert (await site.connect(OTHER)).reason is ReasonCode.EXPIRED


def test_of_many_grants_that_replace_a_key_each_is_forgotten_by_itself() -> None:
    domain, known = Domain(), Replacements()
    first = standing_of(domain, replaces=DEVICE.public)
    known.add(first)
    known.add(renew(domain.authority, first))
    known.add(standing_of(domain))
    issuer, subject = domain.authority.public, key_id(OTHER.public)
    assert list(known.of(issuer, DEVICE.public)) == [subject]
    known.remove(first)
    known.remove(first)
    known.remove(standing_of(domain))
    assert list(known.of(issuer, DEVICE.public)) == [subject]
    assert list(known.of(OTHER.public, DEVICE.public)) == []
    known.remove(renew(domain.authority, first))
    assert list(known.of(issuer, DEVICE.public)) == []
    known.remove(first)


def standing_of(domain: Domain, *, replaces: PublicKey | None = None) -> Grant:
    end = START + DEVICE_LIFE_S
    return domain.grant(OTHER.public, TEMP, issued_at=START, expires_at=end, replaces=replaces)


def gossip_heads(sites: list[Site]) -> None:
    heads = sites[0].service.authority.heartbeats.newest_items()
    sites[1].service.authority.receive(heads, source="gossip")


async def test_a_stale_daemon_renews_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain(), heartbeat=None)
    site.learn(standing(site, DEVICE.public))
    renewal = with_key(site)
    site.clock.advance(60 * DAY)
    for _ in range(4):
        await renewal.step()
    assert renewal.renewed == 0


async def test_the_record_is_published_with_what_still_counts(tmp_path: Path) -> None:
    ether = Ether()
    site = Site(tmp_path, Domain(), ether=ether)
    first = standing(site, DEVICE.public)
    other = site.domain.grant(DEVICE.public, ALL, expires_at=START + 200 * DAY)
    site.learn(first, other)
    await days(site, 52, with_key(site))
    assert site.service.publisher.unpublished == 1
    record = next(iter(site.service.publisher._unpublished.values()))
    device = key_id(DEVICE.public)
    salt = record_salt(RecordKind.GRANTS, site.domain.authority.public, device)
    assert record.target == record_target(site.domain.authority.public, salt)
    renewed = renew(site.domain.authority, first)
    assert set(open_grants_record(record, device)) == {renewed.encoded, other.encoded}


@pytest.mark.parametrize("subject", ["tls", "domain"])
async def test_certificates_and_domains_are_renewed_too(tmp_path: Path, subject: str) -> None:
    site = Site(tmp_path, Domain())
    partner = Domain(name="partner")
    to = TlsSubject(PublicKey(b"d" * 32)) if subject == "tls" else DomainSubject(partner.id)
    grant = sign_grant(
        site.domain.authority,
        subject=to,
        scope=TEMP,
        issued_at=START,
        expires_at=START + NODE_LIFE_S,
        depth=0 if subject == "tls" else 2,
        forms=[Form.TLS] if subject == "tls" else (),
    )
    site.learn(grant)
    renewal = with_key(site)
    await days(site, 210, renewal)
    assert renewal.renewed == 1
    if subject == "domain":
        revoked = sign_revoke(
            site.domain.authority,
            target=renew(site.domain.authority, grant).statement_id,
            issued_at=START,
        )
        gossip(site, revoked)
        await days(site, 210, renewal)
        assert renewal.renewed == 1


async def test_a_renewal_pushes_out_no_grant_that_still_counts(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    ends = [
        site.domain.grant(
            DEVICE.public,
            scope(pub=f"site/{n}"),
            issued_at=START - 9 + n,
            expires_at=START + 300 * DAY,
        )
        for n in range(3)
    ]
    site.learn(*ends, standing(site, DEVICE.public))
    renewal = with_key(site)
    await days(site, 80, renewal)
    assert renewal.renewed == 0
    assert "would push out another" in renewal.problem
    assert len(renewal.expiring.ends) == 1
    assert renewal.expiring.first_end == START + DEVICE_LIFE_S
    status = site.service.operator.status()["renewal"]
    assert status == {
        "renewed": 0,
        "problem": "",
        "expiring": 0,
        "first_end": 0,
    }, "this site's own holds no key and has yet to look"
    assert all(site.service.authority.state.holds_grant(one) for one in ends)


async def test_what_nobody_here_can_renew_is_counted_two_weeks_before(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    site.learn(
        site.domain.grant(GATEWAY.public, ALL, depth=1, expires_at=START + 200 * DAY),
        standing(site, SENSOR.public, by=GATEWAY),
        standing(site, OTHER.public),
    )
    without = Renewal(
        authority=site.service.authority,
        publisher=site.service.publisher,
        clock=site.clock,
        key=None,
    )
    renewal = with_key(site)
    await days(site, 70, renewal, without)
    assert (renewal.expiring.ends, without.expiring.ends) == ({}, {})
    await days(site, 10, renewal, without)
    assert len(renewal.expiring.ends) == 1, "the gateway's own"
    assert renewal.expiring.first_end - site.clock.now() < WARN_S
    assert len(without.expiring.ends) == 1, "the other has a successor"
    await days(site, 12, renewal, without)
    assert renewal.expiring.ends == {}


def test_the_successor_differs_in_nothing_but_its_time_and_follows_from_the_grant() -> None:
    domain = Domain()
    grant = domain.grant(
        DEVICE.public,
        TEMP,
        issued_at=START,
        expires_at=START + DEVICE_LIFE_S,
        forms=[Form.COUNTER],
        audiences=["x/broker:1"],
        replaces=OTHER.public,
    )
    successor = renew(domain.authority, grant)
    assert same_rights(grant, successor)
    assert stands(successor)
    assert successor == renew(domain.authority, grant)
    assert successor.issued_at == START + DEVICE_LIFE_S // 2
    assert successor.expires_at - successor.issued_at == DEVICE_LIFE_S
    assert not same_rights(grant, replace(grant, depth=1))
    due = [
        renewal_due_at(
            domain.grant(
                make_key(str(n)).public, TEMP, issued_at=START, expires_at=START + DEVICE_LIFE_S
            )
        )
        for n in range(50)
    ]
    assert min(due) >= START + DEVICE_LIFE_S // 2
    assert max(due) < START + DEVICE_LIFE_S * 9 // 16
    assert max(due) - min(due) > 3 * DAY, "what was issued together is not renewed together"


def test_a_longer_grant_with_an_end_is_no_successor_of_one_that_stands(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    first = standing(site, DEVICE.public)
    longer = standing(site, DEVICE.public, expires_at=START + DEVICE_LIFE_S + 5)
    assert not stands(longer)
    assert same_rights(first, longer)


@pytest.mark.parametrize("how", ["revoked", "dropped", "revoker", "below"])
async def test_what_a_domain_was_granted_is_renewed_only_while_its_issuer_may_grant(
    tmp_path: Path, how: str
) -> None:
    site = Site(tmp_path, Domain())
    other = Domain("other").id
    key = GATEWAY if how == "below" else site.domain.authority
    site.learn(site.domain.grant(GATEWAY.public, ALL, depth=2, expires_at=START + 300 * DAY))
    site.learn(
        sign_grant(
            key,
            subject=DomainSubject(other),
            scope=TEMP,
            issued_at=START,
            expires_at=START + DEVICE_LIFE_S,
            depth=1,
        )
    )
    renewal = with_key(site, key)
    await days(site, 60, renewal)
    assert renewal.renewed == 1
    if how == "dropped":
        gossip(site, without_authorities(site.domain))
    elif how == "revoker":
        power = site.domain.grant(OTHER.public, power_scope(POWER_REVOKE))
        site.learn(power)
        revoke(site, key.public, by=OTHER, with_grant=power)
    else:
        revoke(site, key.public, by=key if how == "revoked" else site.domain.authority)
    await days(site, 60, renewal)
    assert renewal.renewed == 1
    assert renewal.expiring.ends == {}


def without_authorities(domain: Domain) -> Root:
    """Make the next root, in which another key stands for the one authority there was."""
    before = domain.roots[-1]
    claims = RootClaims(
        version=before.version + 1,
        previous=before.statement_id,
        root_keys=before.root_keys,
        threshold=before.threshold,
        authorities=(replace(before.authorities[0], key=make_key("successor").public),),
        heartbeat_keys=before.heartbeat_keys,
        publisher=before.next_publisher,
        next_publisher=before.next_publisher,
        expires_at=before.expires_at,
    )
    return sign_root(claims, previous=before, keys=(domain.root_key,))


def test_what_others_may_have_renewed_a_grant_by_is_known_without_hearing_of_it() -> None:
    domain = Domain()
    grant = domain.grant(DEVICE.public, TEMP, issued_at=START, expires_at=START + DEVICE_LIFE_S)
    half = DEVICE_LIFE_S // 2
    first = renew(domain.authority, grant)
    second = renew(domain.authority, first)
    third = renew(domain.authority, second)

    def found(now: int) -> list[Grant]:
        return list(successors(domain.authority, grant, now=now))

    assert found(START + half - 61) == []
    assert found(START + half - 60) == [first]
    assert found(START + 2 * half) == [first, second]
    assert found(START + 3 * half) == [second, third], "the first has ended"
    ended = domain.grant(DEVICE.public, TEMP, issued_at=START, expires_at=START + DAY)
    assert list(successors(domain.authority, ended, now=START + DEVICE_LIFE_S)) == []
