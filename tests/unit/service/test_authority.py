"""Statements come in by any way and in any order: what is taken, kept, told of and refused."""

import itertools
import sqlite3
from pathlib import Path

import pytest

from authd.core import limits
from authd.core.claims import Kind
from authd.core.grants import DomainSubject, Form, Grant, sign_grant
from authd.core.identity import key_id
from authd.core.proofs import Audience, password_key
from authd.core.roots import Root
from authd.core.statements import Revoke, sign_broker, sign_revoke
from authd.core.topics import POWER_REVOKE, Action, make_scope
from authd.errors import AuthdError, ReasonCode, StoreError, UntrustedIssuerError
from authd.service.batch import Change
from authd.service.issuing import next_root
from authd.service.ports import Item
from authd.service.waiting import MAX_WAITING
from tests.unit.service.scenes import (
    DEVICE,
    GATEWAY,
    OTHER,
    SENSOR,
    TEMP,
    gossip,
    head,
    item,
    revoke,
)
from tests.world import START, Domain, Site, make_key, scope

BUILDING = scope(pub="site/#")


def family(site: Site) -> tuple[Grant, Grant, Grant]:
    """A chain of three grants: authority, gateway, inner gateway, sensor."""
    inner = make_key("inner")
    return (
        site.domain.grant(GATEWAY.public, BUILDING, depth=2),
        site.domain.grant(inner.public, BUILDING, by=GATEWAY, depth=1),
        site.domain.grant(SENSOR.public, TEMP, by=inner),
    )


# --- order of arrival ------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=str)
def test_a34_a_chain_and_its_revocation_converge_in_every_order(
    tmp_path: Path,
    order: tuple[int, ...],
) -> None:
    site = Site(tmp_path, Domain())
    grants = family(site)
    everything: list[Grant | Revoke] = [
        *grants,
        sign_revoke(make_key("inner"), target=grants[2].statement_id, issued_at=START),
    ]
    for place in order:
        gossip(site, everything[place])
    evaluation = site.service.authority.evaluate(SENSOR.public, now=START)
    assert [one.reason for one in evaluation.failures] == [ReasonCode.REVOKED]
    assert not evaluation.paths
    assert len(site.store.load_statements()) == 1 + 1 + 4


@pytest.mark.parametrize("replicate", [True, False], ids=["replicate auto", "replicate none"])
@pytest.mark.parametrize("order", list(itertools.permutations(range(2))), ids=str)
@pytest.mark.parametrize("together", [True, False], ids=["one batch", "one by one"])
def test_a34_a_self_revocation_and_the_grant_it_is_about_converge_in_every_order(
    tmp_path: Path,
    order: tuple[int, ...],
    *,
    replicate: bool,
    together: bool,
) -> None:
    site = Site(tmp_path, Domain(), replicate=replicate)
    statements = (
        site.domain.grant(DEVICE.public, TEMP),
        sign_revoke(DEVICE, target=DEVICE.public, issued_at=START),
    )
    arriving = [statements[place] for place in order]
    if together:
        gossip(site, *arriving)
    else:
        for one in arriving:
            gossip(site, one)
    assert list(site.service.authority.state.revocations) == [statements[1].statement_id]
    assert site.service.authority.evaluate(DEVICE.public, now=START).first_failure().reason is (
        ReasonCode.REVOKED
    )


def versions(domain: Domain, count: int) -> list[Root]:
    roots = list(domain.roots)
    for _ in range(count):
        roots.append(
            next_root(roots[-1], [domain.root_key], heartbeat_keys=roots[0].heartbeat_keys)
        )
    return roots[1:]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_roots_that_arrive_out_of_order_are_applied_one_after_the_other(
    tmp_path: Path,
    order: tuple[int, ...],
) -> None:
    site = Site(tmp_path, Domain())
    roots = versions(site.domain, 3)
    for place in order:
        gossip(site, roots[place])
    assert site.service.authority.state.roots[site.domain.id].version == 4


def test_a_long_chain_of_strangers_converges_over_a_few_calls_and_never_recurses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ISSUERS_PER_BRANCH", (4_096, 512, 512, 512))
    site = Site(tmp_path, Domain())
    keys = [GATEWAY, *(make_key(f"link-{number}") for number in range(200))]
    first = site.domain.grant(GATEWAY.public, BUILDING, depth=8)
    chain = [
        site.domain.grant(below.public, BUILDING, by=above, depth=8)
        for above, below in itertools.pairwise(keys)
    ]
    gossip(site, *reversed(chain))
    gossip(site, first)
    assert len(site.service.authority.state.grants) < len(chain), "work of one call is bounded"
    for _ in range(len(chain) // 8 + 1):
        gossip(site, first)
    assert len(site.service.authority.state.grants) == len(chain) + 1


# --- who is welcome ---------------------------------------------------------------------------


def test_statements_nobody_vouches_for_are_not_stored(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    before = site.store.load_statements()
    stranger = Domain(name="stranger")
    unwelcome: list[Grant | Revoke | Root] = [
        site.domain.grant(DEVICE.public, TEMP, by=OTHER),
        sign_revoke(OTHER, target=site.domain.authority.public, issued_at=START),
        sign_revoke(OTHER, target=OTHER.public, issued_at=START),
        stranger.roots[0],
    ]
    assert gossip(site, *unwelcome) == []
    assert site.store.load_statements() == before
    assert all(one.statement_id not in site.service.authority.held() for one in unwelcome)


def test_a_broker_announcement_by_a_stranger_is_not_stored(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    said = sign_broker(
        OTHER,
        domain=site.domain.id,
        broker_id="b",
        endpoints=["h:1"],
        prefixes=["site"],
        issued_at=START,
        expires_at=START + 60,
    )
    taken = site.service.authority.receive([Item(Kind.BROKER, said.encoded)], source="gossip")
    assert taken == []


def test_a34_the_waiting_buffer_is_bounded_and_the_newest_stay(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    wanted = site.domain.grant(SENSOR.public, TEMP, by=GATEWAY)
    flood = [
        site.domain.grant(OTHER.public, TEMP, by=make_key(f"nobody-{number}"))
        for number in range(MAX_WAITING + 50)
    ]
    gossip(site, *flood)
    gossip(site, wanted)
    waiting = site.service.authority._waiting
    assert len(waiting) == MAX_WAITING
    gossip(site, site.domain.grant(GATEWAY.public, BUILDING, depth=1))
    assert site.service.authority.evaluate(SENSOR.public, now=START).paths
    assert len(waiting) == MAX_WAITING - 1


def test_malformed_statements_are_counted_and_do_not_spoil_the_batch(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    good = site.domain.grant(DEVICE.public, TEMP)
    broken = bytearray(good.encoded)
    broken[-1] ^= 1
    items = [
        Item(Kind.GRANT, bytes(broken)),
        Item(Kind.REVOKE, b"\x80"),
        Item(Kind.ROOT, b"junk"),
        Item(Kind.HEARTBEAT, good.encoded),
        item(good),
    ]
    assert site.service.authority.receive(items, source="gossip") == [good.statement_id]
    assert site.service.authority.refused == 4


def test_submit_says_why_and_takes_nothing_of_a_bundle_with_a_bad_statement(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, Domain())
    before = site.store.load_statements()
    good = site.domain.grant(DEVICE.public, TEMP)
    with pytest.raises(AuthdError):
        site.service.authority.submit([item(good), Item(Kind.REVOKE, b"junk")])
    assert site.store.load_statements() == before
    assert site.service.authority.state.grants_to(key_id(DEVICE.public)) == ()


def test_the_operator_hears_that_a_root_cannot_be_taken(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    third = versions(site.domain, 2)[1]
    with pytest.raises(UntrustedIssuerError, match="version before"):
        site.service.authority.submit([item(third)])
    with pytest.raises(UntrustedIssuerError, match="not listed"):
        site.service.authority.submit([item(Domain(name="stranger").roots[0])])


# --- store failures ---------------------------------------------------------------------------


def break_statements(site: Site) -> None:
    site.store._fast.execute("ALTER TABLE statements RENAME TO broken")


def mend_statements(site: Site) -> None:
    site.store._fast.execute("ALTER TABLE broken RENAME TO statements")


def test_a49_nothing_is_applied_or_told_of_when_the_store_fails(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    told: list[Change] = []
    site.service.authority.subscribe(told.append)
    grant = site.domain.grant(DEVICE.public, TEMP)
    signed = sign_revoke(site.domain.authority, target=DEVICE.public, issued_at=START)
    state = site.service.authority.state
    break_statements(site)
    with pytest.raises(StoreError):
        gossip(site, grant, signed)
    assert site.service.authority.state is state
    assert told == []
    mend_statements(site)
    assert gossip(site, grant, signed) == [grant.statement_id, signed.statement_id]


def test_a49_a_root_that_cannot_be_stored_is_neither_applied_nor_reported(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    second = versions(site.domain, 1)[0]
    break_statements(site)
    with pytest.raises(StoreError):
        gossip(site, second)
    assert site.service.authority.state.roots[site.domain.id].version == 1
    mend_statements(site)
    assert gossip(site, second) == [second.statement_id]


def test_what_waits_still_waits_after_the_store_failed(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    below = site.domain.grant(SENSOR.public, TEMP, by=GATEWAY)
    above = site.domain.grant(GATEWAY.public, BUILDING, depth=1)
    gossip(site, below)
    break_statements(site)
    with pytest.raises(StoreError):
        gossip(site, above)
    mend_statements(site)
    gossip(site, above)
    assert site.service.authority.evaluate(SENSOR.public, now=START).paths


def test_a_root_before_a_bad_statement_is_told_of_all_the_same(tmp_path: Path) -> None:
    # Sessions may rest on an authority that this root took away.
    site = Site(tmp_path, Domain())
    told: list[Change] = []
    site.service.authority.subscribe(told.append)
    with pytest.raises(AuthdError):
        site.service.authority.submit([item(versions(site.domain, 1)[0]), Item(Kind.GRANT, b"")])
    assert site.service.authority.state.roots[site.domain.id].version == 2
    assert any(change.roots for change in told)


# --- two roots --------------------------------------------------------------------------------


def rivals(domain: Domain) -> tuple[Root, Root]:
    first = domain.roots[-1]
    return (
        next_root(first, [domain.root_key], heartbeat_keys=first.heartbeat_keys),
        next_root(first, [domain.root_key], heartbeat_keys=(make_key("theirs").public,)),
    )


def test_a29_two_valid_roots_of_one_version_alarm_and_the_last_good_stays(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    good, rival = rivals(site.domain)
    assert gossip(site, good) == [good.statement_id]
    for _ in range(2):
        assert gossip(site, rival) == []
    assert site.service.authority.state.roots[site.domain.id] == good
    assert [alarm for alarm in site.service.authority.alarms if "version 2" in alarm]
    assert len(site.service.authority.alarms) == 1


def test_a29_the_alarm_and_the_last_good_root_survive_a_restart(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    good, rival = rivals(site.domain)
    gossip(site, good)
    gossip(site, rival)
    third = next_root(good, [site.domain.root_key], heartbeat_keys=good.heartbeat_keys)
    gossip(site, third)
    site.close()
    site.open()
    assert site.service.authority.state.roots[site.domain.id] == third
    assert len(site.service.authority.alarms) == 1


def test_a29_an_older_root_never_comes_back(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    second = versions(site.domain, 1)[0]
    gossip(site, second)
    assert gossip(site, site.domain.roots[0]) == []
    assert site.service.authority.state.roots[site.domain.id] == second


# --- which revocations count ------------------------------------------------------------------


def has_path(site: Site, key: bytes) -> bool:
    found = next(
        one for one in (DEVICE, SENSOR, GATEWAY, site.domain.authority) if one.public == key
    )
    return bool(site.service.authority.evaluate(found.public, now=site.clock.now()).paths)


def operator(site: Site) -> Grant:
    power = make_scope({POWER_REVOKE: Action.PUB})
    return site.domain.grant(make_key("operator").public, power)


def test_a_key_its_issuer_and_an_operator_can_each_revoke_it(tmp_path: Path) -> None:
    for number, who in enumerate(("itself", "issuer", "operator")):
        directory = tmp_path / str(number)
        directory.mkdir()
        site = Site(directory, Domain())
        grant = operator(site)
        site.learn(site.domain.grant(DEVICE.public, TEMP), grant)
        assert has_path(site, DEVICE.public)
        signer = {"itself": DEVICE, "issuer": site.domain.authority}.get(who)
        if signer is None:
            revoke(site, DEVICE.public, by=make_key("operator"), with_grant=grant)
        else:
            revoke(site, DEVICE.public, by=signer)
        assert not has_path(site, DEVICE.public), who


def test_an_operator_reaches_below_a_gateway_and_expiry_of_its_grant_undoes_nothing(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, Domain())
    key = make_key("operator")
    power = make_scope({POWER_REVOKE: Action.PUB})
    grant = site.domain.grant(key.public, power, expires_at=START + 5)
    site.learn(
        grant,
        site.domain.grant(GATEWAY.public, BUILDING, depth=1),
        site.domain.grant(SENSOR.public, TEMP, by=GATEWAY),
    )
    revoke(site, SENSOR.public, by=key, with_grant=grant)
    assert not has_path(site, SENSOR.public)
    site.clock.advance(10)
    site.service.authority.beat()
    assert not has_path(site, SENSOR.public)
    assert has_path(site, GATEWAY.public)


def test_a33_outsiders_siblings_children_and_self_made_operators_cannot_revoke(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, Domain())
    sibling = make_key("sibling")
    power = make_scope({POWER_REVOKE: Action.PUB})
    self_made = site.domain.grant(sibling.public, power, by=GATEWAY)
    site.learn(
        site.domain.grant(GATEWAY.public, BUILDING, depth=1),
        site.domain.grant(sibling.public, BUILDING, depth=1),
        site.domain.grant(SENSOR.public, TEMP, by=GATEWAY),
    )
    revoke(site, SENSOR.public, by=OTHER)
    revoke(site, SENSOR.public, by=sibling)
    revoke(site, SENSOR.public, by=sibling, with_grant=self_made)
    revoke(site, GATEWAY.public, by=SENSOR)
    revoke(site, site.domain.authority.public, by=GATEWAY)
    assert has_path(site, SENSOR.public)
    assert has_path(site, GATEWAY.public)


def test_a27_revoking_a_gateway_takes_its_whole_subtree(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    sensors = [make_key(f"sensor-{number}") for number in range(50)]
    site.learn(
        site.domain.grant(GATEWAY.public, BUILDING, depth=1),
        *(site.domain.grant(one.public, TEMP, by=GATEWAY) for one in sensors),
    )
    revoke(site, GATEWAY.public)
    now = site.clock.now()
    assert not any(site.service.authority.evaluate(one.public, now=now).paths for one in sensors)


def test_a35_a_grant_made_after_its_key_was_revoked_by_the_issuer_does_not_count(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, Domain())
    revoke(site, DEVICE.public)
    site.learn(
        *(
            site.domain.grant(DEVICE.public, TEMP, issued_at=START + offset)
            for offset in (-1, 0, 1)
        ),
    )
    assert not has_path(site, DEVICE.public)


# --- what travels -----------------------------------------------------------------------------


def test_evidence_travels_with_a_revocation_even_where_device_grants_do_not(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, Domain(), replicate=False)
    grant = site.domain.grant(DEVICE.public, TEMP)
    site.learn(grant)
    assert grant.statement_id not in site.service.authority.held()
    signed = revoke(site, DEVICE.public, by=DEVICE)
    held = site.service.authority.held()
    assert held[grant.statement_id] is Kind.GRANT
    assert held[signed.statement_id] is Kind.REVOKE
    pushed = site.service.authority.with_evidence(signed)
    assert pushed == [item(grant), item(signed)]


def test_replicate_none_takes_no_device_grant_by_gossip_and_auto_does(tmp_path: Path) -> None:
    for replicate in (True, False):
        directory = tmp_path / str(replicate)
        directory.mkdir()
        site = Site(directory, Domain(), replicate=replicate)
        grant = site.domain.grant(DEVICE.public, TEMP)
        assert bool(gossip(site, grant)) is replicate
        assert gossip(site, grant, source="dht") == ([] if replicate else [grant.statement_id])


def test_gateways_passwords_and_powers_always_travel(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain(), replicate=False)
    audience = str(Audience(site.domain.id, "broker:1883"))
    grants = [
        site.domain.grant(GATEWAY.public, BUILDING, depth=1),
        site.domain.grant(
            password_key("A" * 22).public,
            TEMP,
            forms=[Form.PASSWORD],
            audiences=[audience],
        ),
        operator(site),
    ]
    assert gossip(site, *grants) == [one.statement_id for one in grants]
    assert {one.statement_id for one in grants} <= set(site.service.authority.held())


# --- restart ----------------------------------------------------------------------------------


def test_a_restart_loads_everything_in_whatever_order_it_was_stored(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain(heartbeat_names=("hb-1", "hb-2", "hb-3")))
    chain = family(site)
    site.learn(chain[2], chain[0], chain[1])
    revoke(site, OTHER.public)
    gossip(site, head(site.domain, "hb-2", at=START - 1))
    site.service.authority.beat()
    before = site.service.authority
    views = before.heartbeats.domains[site.domain.id].views
    site.close()
    site.open()
    after = site.service.authority
    assert dict(after.state.grants) == dict(before.state.grants)
    assert dict(after.state.revocations) == dict(before.state.revocations)
    assert after.state.roots == before.state.roots
    assert after.held() == before.held()
    known = [*before.state.revocations, *before.held()]
    assert known
    assert [after.source(one) for one in known] == [before.source(one) for one in known]
    loaded = after.heartbeats.domains[site.domain.id].views
    for key, view in views.items():
        assert loaded[key].chain.ids == view.chain.ids
    assert after.evaluate(SENSOR.public, now=START).paths


def test_a_self_revocation_survives_a_restart_where_device_grants_do_not_travel(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, Domain(), replicate=False)
    grant = site.domain.grant(DEVICE.public, TEMP)
    signed = sign_revoke(DEVICE, target=DEVICE.public, issued_at=START)
    gossip(site, grant, signed)
    site.close()
    site.open()
    assert list(site.service.authority.state.revocations) == [signed.statement_id]
    assert grant.statement_id in site.service.authority.held()


def test_a49_a_damaged_revocation_stops_the_start_instead_of_being_left_out(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, Domain())
    site.learn(site.domain.grant(DEVICE.public, TEMP))
    revoke(site, DEVICE.public)
    site.close()
    with sqlite3.connect(tmp_path / "A.db") as database:
        database.execute("UPDATE statements SET data = x'00' WHERE kind = 2")
    database.close()
    with pytest.raises(StoreError, match="damaged statement"):
        site.open()


def test_a49_a_statement_of_an_unknown_kind_stops_the_start(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    site.close()
    with sqlite3.connect(tmp_path / "A.db") as database:
        database.execute("INSERT INTO statements VALUES (x'01', 9, x'00', 'gossip', 0)")
    database.close()
    with pytest.raises(StoreError, match="cannot read"):
        site.open()


# --- federation -------------------------------------------------------------------------------


def test_a_domain_that_was_granted_something_is_known_again_after_a_restart(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, Domain())
    guest = Domain(name="guest")
    from_home = sign_grant(
        site.domain.authority,
        subject=DomainSubject(guest.id),
        scope=BUILDING,
        issued_at=START,
        expires_at=START + 3_600,
        depth=2,
    )
    gossip(site, guest.roots[0])
    assert guest.id not in site.service.authority.state.roots
    site.learn(from_home)
    assert guest.id in site.service.authority.state.roots, "what waited is looked at again"
    site.close()
    site.open()
    assert guest.id in site.service.authority.state.roots
