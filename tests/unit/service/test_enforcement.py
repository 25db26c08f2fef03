"""Live sessions: cut, narrowed, renewed, told of, and counted."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import fields, replace
from pathlib import Path

import pytest

from authd.core.grants import Grant
from authd.core.identity import key_id_text
from authd.core.policy import DomainPolicy, GuardedPrefix, Policy
from authd.core.roots import Root, RootClaims, sign_root
from authd.core.statements import sign_revoke
from authd.errors import ReasonCode
from authd.service.ports import HeldClient, SessionEvent, SessionReport
from tests.unit.service.scenes import (
    DEVICE,
    DEVICE_ID,
    GATEWAY,
    OTHER,
    SENSOR,
    TEMP,
    can_publish,
    gossip,
    pass_time,
    revoke,
    site_with_device,
)
from tests.world import START, Domain, Site, make_key, scope

BOOT = "0" * 16
WAIT_S = 0.5


class Listener:
    """An enforcement point on a broker's stream."""

    def __init__(self, site: Site, broker: str = "m", boot: str = BOOT) -> None:
        self.stream: AsyncIterator[SessionEvent] = site.service.decider.watch(broker, boot=boot)

    async def next(self) -> SessionEvent:
        async with asyncio.timeout(WAIT_S):
            return await anext(self.stream)

    async def ended(self) -> bool:
        async with asyncio.timeout(WAIT_S):
            async for _ in self.stream:
                continue
        return True


def live(site: Site, broker: str = "m") -> set[str]:
    return {one.client_id for one in site.service.sessions.on(broker)}


# --- what is cut ------------------------------------------------------------------------------


async def test_a36_a_revocation_cuts_exactly_the_sessions_that_rest_on_it(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    gateway_two = make_key("gateway-2")
    grants = {
        "gateway": site.domain.grant(GATEWAY.public, scope(pub="site/#"), depth=1),
        "other gateway": site.domain.grant(gateway_two.public, scope(pub="site/#"), depth=1),
        "sensor": site.domain.grant(SENSOR.public, TEMP, by=GATEWAY),
        "other": site.domain.grant(OTHER.public, TEMP, by=gateway_two),
        "device": site.domain.grant(DEVICE.public, TEMP),
    }
    site.learn(*grants.values())
    for key in (GATEWAY, SENSOR, OTHER, DEVICE):
        for broker in ("m", "e", "g"):
            assert (await site.connect(key, broker=broker)).allowed
    everyone = {key_id_text(key.public) for key in (GATEWAY, SENSOR, OTHER, DEVICE)}
    assert live(site) == everyone
    revoke(site, GATEWAY.public)
    left = everyone - {key_id_text(GATEWAY.public), key_id_text(SENSOR.public)}
    assert [live(site, broker) for broker in ("m", "e", "g")] == [left] * 3
    assert not can_publish(site, SENSOR, "site/temp").allowed
    revoke(site, grants["other"].statement_id, by=gateway_two)
    assert live(site) == {DEVICE_ID}
    revoke(site, DEVICE.public, by=DEVICE)
    assert live(site) == set()
    assert {cut.reason for cut in site.service.sessions.cuts} == {ReasonCode.REVOKED}


async def test_a33_revocations_that_do_not_count_cut_nothing(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    site.learn(site.domain.grant(GATEWAY.public, scope(pub="site/#"), depth=1))
    assert (await site.connect(DEVICE)).allowed
    listener = Listener(site)
    await listener.next()
    revoke(site, DEVICE.public, by=GATEWAY)
    revoke(site, site.domain.authority.public, by=GATEWAY)
    assert live(site) == {DEVICE_ID}
    assert can_publish(site, DEVICE, "site/temp").allowed
    # No client proves an authority's key: telling brokers to cut it is idle.
    event = await listener.next()
    assert event.body["key"] == key_id_text(site.domain.authority.public)


async def test_a_key_that_stands_on_another_authoritys_path_keeps_its_session(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, Domain())
    site.learn(
        site.domain.grant(GATEWAY.public, scope(pub="site/#"), depth=1),
        site.domain.grant(DEVICE.public, TEMP, by=GATEWAY),
        site.domain.grant(DEVICE.public, TEMP),
    )
    assert (await site.connect(DEVICE)).allowed
    revoke(site, DEVICE.public, by=GATEWAY)
    assert live(site) == {DEVICE_ID}
    assert can_publish(site, DEVICE, "site/temp").allowed
    revoke(site, DEVICE.public)
    assert live(site) == set()


@pytest.mark.parametrize(("broker", "shrinks"), [("m", False), ("e", True), ("g", False)])
async def test_losing_one_of_two_rights_shrinks_or_cuts_as_the_broker_can(
    tmp_path: Path,
    broker: str,
    *,
    shrinks: bool,
) -> None:
    site = site_with_device(tmp_path)
    lamp = site.domain.grant(DEVICE.public, scope(pub="site/lamp"), issued_at=START - 5)
    site.learn(lamp)
    assert (await site.connect(DEVICE, broker=broker)).allowed
    listener = Listener(site, broker)
    await listener.next()
    revoke(site, lamp.statement_id)
    event = await listener.next()
    assert event.kind == ("set" if shrinks else "cut")
    assert not can_publish(site, DEVICE, "site/lamp", broker=broker).allowed
    assert can_publish(site, DEVICE, "site/temp", broker=broker).allowed is shrinks
    if shrinks:
        assert event.body["rights"] == [{"filter": "site/temp", "actions": 1}]


async def test_a_new_grant_widens_a_live_session(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    assert (await site.connect(DEVICE)).allowed
    listener = Listener(site)
    await listener.next()
    site.learn(site.domain.grant(DEVICE.public, scope(pub="site/lamp"), issued_at=START - 5))
    event = await listener.next()
    assert event.kind == "set"
    assert can_publish(site, DEVICE, "site/lamp").allowed


async def test_a_revoked_key_is_announced_to_every_broker_listed_there_or_not(
    tmp_path: Path,
) -> None:
    site = site_with_device(tmp_path)
    listeners = [Listener(site, broker) for broker in ("m", "e", "g")]
    for one in listeners:
        await one.next()
    revoke(site, DEVICE.public)
    for one in listeners:
        event = await one.next()
        assert (event.kind, event.body["session"], event.body["key"]) == ("cut", "", DEVICE_ID)


async def test_a37_a_session_is_denied_before_and_whether_or_not_it_is_kicked(
    tmp_path: Path,
) -> None:
    site = site_with_device(tmp_path)
    assert (await site.connect(DEVICE, broker="g")).allowed
    revoke(site, DEVICE.public)
    assert can_publish(site, DEVICE, "site/temp", broker="g").reason is ReasonCode.NO_SESSION
    for _ in range(3):
        assert (await site.connect(DEVICE, broker="g")).reason is ReasonCode.REVOKED
    enforcement = site.service.enforcement
    enforcement.report("g", SessionReport(client_id=DEVICE_ID, session_id="x", what="kick_failed"))
    assert site.service.sessions.cuts[-1].outcome == "kick_failed"
    enforcement.report("g", SessionReport(client_id=DEVICE_ID, session_id="x", what="kicked"))
    assert site.service.sessions.cuts[-1].outcome == "kicked"


# --- expiry, leases ---------------------------------------------------------------------------


async def test_a44_a_session_ends_with_its_credential_idle_or_busy(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    site.learn(site.domain.grant(DEVICE.public, TEMP, expires_at=START + 5))
    assert (await site.connect(DEVICE)).allowed
    listener = Listener(site)
    snapshot = await listener.next()
    sessions = snapshot.body["sessions"]
    assert isinstance(sessions, list)
    assert sessions[0]["lease_ms"] == 5_000
    site.clock.advance(5)
    assert not can_publish(site, DEVICE, "site/temp").allowed, "busy: before any tick"
    site.service.enforcement.tick()
    event = await listener.next()
    assert (event.kind, event.body["reason"]) == ("cut", "expired")
    assert live(site) == set()


async def test_a44_of_two_rights_the_one_that_ends_goes_and_the_other_stays(
    tmp_path: Path,
) -> None:
    site = site_with_device(tmp_path)
    site.learn(
        site.domain.grant(
            DEVICE.public,
            scope(pub="site/lamp"),
            issued_at=START - 5,
            expires_at=START + 5,
        ),
    )
    assert (await site.connect(DEVICE)).allowed
    listener = Listener(site)
    sessions = (await listener.next()).body["sessions"]
    assert isinstance(sessions, list)
    assert {one["filter"]: one.get("ms") for one in sessions[0]["rights"]} == {
        "site/temp": None,
        "site/lamp": 5_000,
    }
    pass_time(site, 5)
    event = await listener.next()
    assert event.kind == "set"
    assert event.body["rights"] == [{"filter": "site/temp", "actions": 1}]
    assert live(site) == {DEVICE_ID}


async def test_each_head_renews_the_leases_in_one_event(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    assert (await site.connect(DEVICE)).allowed
    session = site.service.sessions.get("m", DEVICE_ID)
    assert session is not None
    listener = Listener(site)
    await listener.next()
    pass_time(site, 20)
    event = await listener.next()
    assert event.kind == "lease"
    assert event.body == {"leases": [[session.session_id, (60 + 3_600) * 1_000]]}


async def test_a28_without_news_a_live_session_ends_at_the_end_of_its_lease(
    tmp_path: Path,
) -> None:
    site = site_with_device(tmp_path, grace_s=30)
    assert (await site.connect(DEVICE)).allowed
    site.clock.advance(89)
    site.service.enforcement.tick()
    assert live(site) == {DEVICE_ID}
    site.clock.advance(1)
    site.service.enforcement.tick()
    assert live(site) == set()
    assert site.service.sessions.cuts[-1].reason == ReasonCode.STALE


async def test_a_lease_that_got_shorter_is_told_though_the_rights_look_the_same(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, Domain())
    long = site.domain.grant(DEVICE.public, TEMP)
    short = site.domain.grant(DEVICE.public, TEMP, issued_at=START - 5, expires_at=START + 50)
    site.learn(long, short)
    assert (await site.connect(DEVICE)).allowed
    listener = Listener(site)
    await listener.next()
    revoke(site, long.statement_id)
    event = await listener.next()
    # The revocation takes away what outlives the other grant: the session may stay or go, but the
    # broker never goes on by the longer lease.
    assert event.kind in ("set", "cut")
    if event.kind == "set":
        assert event.body["lease_ms"] == 50_000


async def test_a_stricter_policy_is_told_to_the_broker_at_once(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    assert (await site.connect(DEVICE)).allowed
    listener = Listener(site)
    await listener.next()
    strict = Policy(
        own=site.domain.id,
        domains={site.domain.id: DomainPolicy(grace_s=3_600)},
        guarded=(GuardedPrefix(topic_filter="site/#", grace_s=0),),
    )
    site.service.authority.set_policy(strict)
    event = await listener.next()
    assert event.kind == "set"
    assert event.body["lease_ms"] == 60_000


async def test_a_removed_authority_loses_the_sessions_below_it(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    assert (await site.connect(DEVICE)).allowed
    narrower = Policy(
        own=site.domain.id,
        domains={site.domain.id: DomainPolicy(scope=scope(pub="elsewhere/#"))},
    )
    site.service.authority.set_policy(narrower)
    assert live(site) == set()


async def test_a_broker_entry_that_is_gone_loses_its_sessions(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    for broker in ("m", "e"):
        assert (await site.connect(DEVICE, broker=broker)).allowed
    brokers = site.service.brokers
    brokers.replace([one for one in brokers.all() if one.name != "m"])
    site.service.authority.set_policy(site.policy)
    assert live(site, "m") == set()
    assert live(site, "e") == {DEVICE_ID}
    assert site.service.sessions.cuts[-1].reason == ReasonCode.UNKNOWN_BROKER


async def test_run_ticks_until_cancelled(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    site.learn(site.domain.grant(DEVICE.public, TEMP, expires_at=START + 5))
    assert (await site.connect(DEVICE)).allowed
    site.clock.advance(5)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.8):
            await site.service.enforcement.run()
    assert live(site) == set()


# --- the stream -------------------------------------------------------------------------------


async def test_events_are_numbered_without_gaps_after_the_snapshots_number(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, Domain())
    keys = [make_key(f"device-{number}") for number in range(5)]
    site.learn(*(site.domain.grant(key.public, TEMP) for key in keys))
    for key in keys:
        assert (await site.connect(key)).allowed
    listener = Listener(site)
    snapshot = await listener.next()
    assert snapshot.kind == "snapshot"
    assert snapshot.body["run"] == site.service.sessions.run
    sessions = snapshot.body["sessions"]
    assert isinstance(sessions, list)
    assert len(sessions) == 5
    for key in keys:
        revoke(site, key.public)
    numbers = [(await listener.next()).number for _ in range(10)]
    assert numbers == list(range(snapshot.number + 1, snapshot.number + 11))


async def test_a_beat_repeats_the_last_number_after_a_silence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("authd.service.events.BEAT_S", 0.01)
    site = site_with_device(tmp_path)
    listener = Listener(site)
    snapshot = await listener.next()
    beat = await listener.next()
    assert (beat.kind, beat.number) == ("beat", snapshot.number)
    assert beat.body == {"run": site.service.sessions.run}


async def test_a_newer_stream_of_the_same_boot_ends_the_older(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    first, second = Listener(site), Listener(site)
    await first.next()
    await second.next()
    assert await first.ended()
    revoke(site, DEVICE.public)
    assert (await second.next()).kind == "cut"


async def test_a_listener_that_is_too_slow_is_ended_and_holds_a_bounded_queue(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("authd.service.events.MAX_QUEUED_EVENTS", 50)
    site = site_with_device(tmp_path)
    listener = Listener(site)
    await listener.next()
    log = site.service.sessions.events["m"]
    for _ in range(60):
        log.emit("beat", {})
    assert log.listening == 0
    assert await listener.ended()


async def test_a_listener_that_leaves_is_forgotten(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    stream = site.service.decider.watch("m", boot=BOOT)
    assert isinstance(stream, AsyncGenerator)
    await anext(stream)
    assert site.service.sessions.events["m"].listening == 1
    await stream.aclose()
    assert site.service.sessions.events["m"].listening == 0


async def test_a_connect_answer_carries_the_number_its_session_is_newer_than(
    tmp_path: Path,
) -> None:
    site = site_with_device(tmp_path)
    site.service.sessions.events["m"].emit("beat", {})
    assert (await site.connect(DEVICE)).allowed
    described = site.service.enforcement.describe("m", DEVICE_ID)
    assert described is not None
    assert described["n"] == 1
    assert site.service.enforcement.describe("m", "nobody") is None


def a_grant(site: Site) -> Grant:
    """Return what, stapled, makes a proof that no plugin judges by itself."""
    return site.domain.grant(DEVICE.public, TEMP)


# --- sync, report, boots ----------------------------------------------------------------------


async def test_sync_names_the_clients_that_are_to_be_dropped(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    decision = await site.connect(DEVICE)
    clients = [
        HeldClient(client_id=client_id, session_id=session_id, key=key)
        for client_id, session_id, key in (
            (DEVICE_ID, decision.session, DEVICE_ID),
            (DEVICE_ID, "an older id", DEVICE_ID),
            (DEVICE_ID, "an older id", key_id_text(OTHER.public)),
            ("ghost", decision.session, DEVICE_ID),
        )
    ]
    assert site.service.enforcement.sync("m", clients) == [DEVICE_ID, "ghost"]
    assert site.service.enforcement.sync("e", clients[:1]) == [DEVICE_ID]


async def test_reports_count_only_for_the_session_they_name(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    decision = await site.connect(DEVICE)
    report = site.service.enforcement.report
    right = SessionReport(client_id=DEVICE_ID, session_id=decision.session, what="offline")
    report("m", replace(right, session_id="another"))
    report("e", right)
    report("m", replace(right, client_id="ghost"))
    report("m", replace(right, what="nonsense"))
    session = site.service.sessions.get("m", DEVICE_ID)
    assert session is not None
    assert session.live
    report("m", right)
    assert not session.live


async def test_a_durable_session_goes_offline_and_online_and_stays(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    decision = await site.connect(DEVICE, clean=False)
    for what in ("offline", "online"):
        site.service.enforcement.report(
            "m", SessionReport(client_id=DEVICE_ID, session_id=decision.session, what=what)
        )
        session = site.service.sessions.get("m", DEVICE_ID)
        assert session is not None
        assert session.live is (what == "online")
    assert site.store.load_sessions()[0].live


@pytest.mark.parametrize("durable", [True, False])
async def test_a_new_run_keeps_of_sessions_that_cannot_come_back_the_durable_alone(
    tmp_path: Path,
    *,
    durable: bool,
) -> None:
    site = site_with_device(tmp_path)
    assert (await site.connect(DEVICE, path=[a_grant(site)], clean=not durable)).allowed
    snapshot = await Listener(site, boot="1" * 16).next()
    sessions = snapshot.body["sessions"]
    assert isinstance(sessions, list)
    assert bool(sessions) is durable
    assert bool(live(site)) is durable


async def test_a_run_that_is_alive_after_all_is_told_that_its_sessions_are_gone(
    tmp_path: Path,
) -> None:
    # Otherwise nothing could end them: they are no longer in the table.
    site = site_with_device(tmp_path)
    decision = await site.connect(DEVICE, path=[a_grant(site)])
    first = Listener(site)
    await first.next()
    await Listener(site, boot="1" * 16).next()
    event = await first.next()
    assert (event.kind, event.body["session"]) == ("cut", decision.session)


# --- restart ----------------------------------------------------------------------------------


async def test_sessions_survive_a_restart_with_rights_compiled_anew(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    decision = await site.connect(DEVICE)
    site.close()
    site.open()
    session = site.service.sessions.get("m", DEVICE_ID)
    assert session is not None
    assert session.session_id == decision.session
    assert can_publish(site, DEVICE, "site/temp").allowed
    assert not can_publish(site, DEVICE, "site/door").allowed


async def test_a_session_revoked_while_the_daemon_was_down_is_gone_and_cut(
    tmp_path: Path,
) -> None:
    site = site_with_device(tmp_path)
    assert (await site.connect(DEVICE, broker="g")).allowed
    # On disk before anything acts on it: a crash right then leaves the session in the table.
    signed = sign_revoke(site.domain.authority, target=DEVICE.public, issued_at=START)
    site.service.authority._save([(signed, signed.encoded)], "gossip")
    assert live(site, "g") == {DEVICE_ID}
    site.close()
    site.open()
    assert live(site, "g") == set()
    assert site.service.sessions.cuts[-1].reason == ReasonCode.REVOKED


async def test_a_session_whose_grant_expired_while_the_daemon_was_down_is_cut(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, Domain())
    site.learn(site.domain.grant(DEVICE.public, TEMP, expires_at=START + 5))
    assert (await site.connect(DEVICE, broker="g")).allowed
    site.close()
    site.clock.advance(10)
    site.open()
    assert live(site, "g") == set()
    assert site.service.sessions.cuts[-1].reason == ReasonCode.EXPIRED
    assert site.store.load_sessions() == []


async def test_a_new_root_without_an_authority_cuts_what_stood_on_it(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    assert (await site.connect(DEVICE)).allowed
    gossip(site, _root_without_authority(site))
    assert live(site) == set()


def _root_without_authority(site: Site) -> Root:
    first = site.domain.roots[0]
    kept = replace(first.authorities[0], key=OTHER.public)
    names = [one.name for one in fields(RootClaims)]
    claims = {name: getattr(first, name) for name in names}
    claims |= {"version": 2, "previous": first.statement_id, "authorities": (kept,)}
    return sign_root(RootClaims(**claims), previous=first, keys=(site.domain.root_key,))


async def test_a_session_that_the_broker_never_took_is_forgotten(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    late, taken = make_key("late"), make_key("taken")
    for key in (late, taken):
        site.learn(site.domain.grant(key.public, scope(pub="site/temp")))
    assert (await site.connect(late, began=False)).allowed
    assert (await site.connect(taken)).allowed
    # go-auth never says anything: silence means nothing there.
    assert (await site.connect(late, broker="g", began=False)).allowed
    site.clock.advance(14)
    site.service.enforcement.tick()
    assert len(site.service.sessions.all()) == 3
    site.clock.advance(1)
    site.service.enforcement.tick()
    left = {(one.broker, one.client_id) for one in site.service.sessions.all()}
    assert left == {("m", key_id_text(taken.public)), ("g", key_id_text(late.public))}
