"""Who may be a peer, and what the gossip edge is told."""

from pathlib import Path

import pytest

from authd.core.claims import Kind
from authd.core.statements import sign_revoke
from authd.core.topics import POWER_NODE, Action, make_scope
from authd.errors import StoreError
from authd.service.desk import GossipDesk
from authd.service.issuing import node_scope
from tests.unit.service.scenes import (
    DEVICE,
    GATEWAY,
    OTHER,
    TEMP,
    gossip,
    head,
    item,
    revoke,
)
from tests.world import START, Domain, Site, make_key, scope

NODE = make_key("node")


def test_a_node_is_admitted_by_its_own_domain_alone_and_while_its_grant_stands(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, Domain(), heartbeat=None)
    admission = site.admission(NODE)
    assert not admission.admits(NODE.public)
    grant = site.domain.grant(NODE.public, node_scope(operator=False), expires_at=START + 50)
    admission.learn_grants([grant.encoded])
    assert admission.admits(NODE.public), "also where nothing is fresh: it must be able to return"
    assert admission.admission_grants() == [grant.encoded]
    site.clock.advance(50)
    assert not admission.admits(NODE.public)
    assert admission.admission_grants() == []


def test_a_revoked_node_is_not_admitted_again(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    site.learn(site.domain.grant(NODE.public, node_scope(operator=True)))
    assert site.admission(NODE).admits(NODE.public)
    revoke(site, NODE.public)
    assert not site.admission(NODE).admits(NODE.public)


@pytest.mark.parametrize("rights", [scope(pub="#"), scope(pub="$authd/#"), TEMP], ids=repr)
def test_no_wildcard_and_no_topic_makes_a_node(tmp_path: Path, rights: object) -> None:
    site = Site(tmp_path, Domain())
    site.learn(site.domain.grant(NODE.public, rights))  # type: ignore[arg-type]  # scopes alone
    assert not site.admission(NODE).admits(NODE.public)


def test_a_gateway_cannot_admit_a_node_unless_it_was_given_that_power(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    power = make_scope({POWER_NODE: Action.PUB})
    site.learn(site.domain.grant(GATEWAY.public, scope(pub="#"), depth=1))
    site.admission(NODE).learn_grants([site.domain.grant(NODE.public, power, by=GATEWAY).encoded])
    assert not site.admission(NODE).admits(NODE.public)


def test_what_a_stranger_shows_is_neither_stored_nor_kept_waiting(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    before = site.store.load_statements()
    own = site.domain.grant(NODE.public, node_scope(operator=True), by=OTHER)
    site.admission(NODE).learn_grants([own.encoded, b"junk", b""])
    assert not site.admission(NODE).admits(NODE.public)
    assert site.store.load_statements() == before
    assert len(site.service.authority._waiting) == 0


async def test_the_desk_hands_statements_in_and_says_what_is_held(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    desk = GossipDesk(site.service.authority)
    grant = site.domain.grant(DEVICE.public, TEMP)
    assert await desk.receive([item(grant)], peer="p") == [grant.statement_id]
    assert await desk.receive([item(grant)], peer="p") == []
    assert desk.held()[grant.statement_id] is Kind.GRANT
    assert desk.statement(grant.statement_id) == item(grant)
    assert [one.kind for one in desk.heartbeats()] == [Kind.HEARTBEAT]
    assert Kind.HEARTBEAT not in desk.held().values(), "heads travel by themselves"
    assert desk.gaps() == []
    key = site.domain.heartbeat("hb-1").public
    epoch = site.service.authority.heartbeats.domains[site.domain.id].view(key).chain.epoch
    assert desk.chain_ids(site.domain.id, key, epoch, 0, 0) == []
    desk.fill(site.domain.id, key, epoch, 0, [grant.statement_id])
    assert desk.chain_ids(site.domain.id, key, epoch, 0, 1) is None


def test_a_store_that_fails_while_waiting_statements_are_looked_at_loses_none(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = Site(tmp_path, Domain())
    below = site.domain.grant(DEVICE.public, TEMP, by=GATEWAY)
    above = site.domain.grant(GATEWAY.public, scope(pub="site/#"), depth=1)
    gossip(site, below)
    save, calls = site.store.save_statements, 0

    def fail_second(*arguments: object, **options: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise StoreError("the disk is full")
        save(*arguments, **options)  # type: ignore[arg-type]  # handed on

    monkeypatch.setattr(site.store, "save_statements", fail_second)
    with pytest.raises(StoreError):
        gossip(site, above)
    assert gossip(site, above) == [below.statement_id]
    assert site.service.authority.evaluate(DEVICE.public, now=START).paths


def test_a_head_that_was_replaced_but_not_yet_deleted_does_not_stop_the_start(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, Domain(), heartbeat=None)
    older, newer = (head(site.domain, "hb-1", at=START + offset) for offset in (-5, 0))
    gossip(site, newer)
    site.service.authority._save([(older, older.encoded)], "gossip")
    site.close()
    site.open()
    freshness = site.service.authority.heartbeats.freshness()
    assert freshness[site.domain.id] == START + 60


def test_an_operators_word_wakes_what_waited_for_it(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    signed = sign_revoke(GATEWAY, target=DEVICE.public, issued_at=START)
    gossip(site, signed)
    assert not site.service.authority.state.revocations
    site.learn(site.domain.grant(GATEWAY.public, scope(pub="site/#"), depth=1))
    assert signed.statement_id in site.service.authority.state.revocations
