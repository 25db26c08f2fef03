"""Decisions: replay, client ids, stapled paths, passwords, takeover, messages, explain."""

import asyncio
from pathlib import Path

import pytest

from authd.core.decision import ConnectRequest, Operation
from authd.core.encoding import encode_base64url
from authd.core.grants import ClientIdMatch, ClientIdRule, Form
from authd.core.identity import SigningKey, key_id_text
from authd.core.proofs import Audience, password_key
from authd.errors import ReasonCode
from authd.service.ports import SessionReport
from tests.unit.service.scenes import (
    DEVICE,
    DEVICE_ID,
    GATEWAY,
    OTHER,
    SENSOR,
    TEMP,
    can_publish,
    revoke,
    site_with_device,
)
from tests.world import START, Domain, Site, scope

ANY = ClientIdRule(ClientIdMatch.ANY)
PUMP = ClientIdRule(ClientIdMatch.EXACT, "pump")
SECRET = encode_base64url(b"sixteen bytes ok")


# --- replay -----------------------------------------------------------------------------------


async def test_a3_a_stolen_proof_is_worth_nothing_to_another_client(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    site.learn(site.domain.grant(OTHER.public, TEMP))
    proof = site.pop(DEVICE)
    stolen = await site.connect(OTHER, password=proof)
    assert stolen.reason is ReasonCode.BAD_SIGNATURE
    assert (await site.connect(DEVICE, password=proof)).allowed


@pytest.mark.parametrize("age", [-60, -59, 0, 59, 60])
async def test_a4_a_proof_is_good_once_wherever_in_the_window(tmp_path: Path, age: int) -> None:
    site = site_with_device(tmp_path)
    proof = site.pop(DEVICE, time=START + age)
    assert (await site.connect(DEVICE, password=proof)).allowed
    for later in (0, 60 + age):
        site.clock.time = START + later
        site.service.authority.beat()
        assert (await site.connect(DEVICE, password=proof)).reason is ReasonCode.REPLAYED
    site.clock.time = START + age + 61
    site.service.authority.beat()
    assert (await site.connect(DEVICE, password=proof)).reason is ReasonCode.CLOCK_SKEW


@pytest.mark.parametrize("age", [-61, 61])
async def test_a6_a_proof_from_outside_the_window_is_refused(tmp_path: Path, age: int) -> None:
    site = site_with_device(tmp_path)
    decision = await site.connect(DEVICE, password=site.pop(DEVICE, time=START + age))
    assert decision.reason is ReasonCode.CLOCK_SKEW
    assert "61 s" in decision.detail


async def test_a4_a_used_proof_stays_used_after_a_restart(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    proof = site.pop(DEVICE)
    assert (await site.connect(DEVICE, password=proof)).allowed
    site.close()
    site.open()
    assert (await site.connect(DEVICE, password=proof)).reason is ReasonCode.REPLAYED


async def test_a4_after_an_unclean_stop_older_proofs_are_refused_for_the_moment(
    tmp_path: Path,
) -> None:
    site = site_with_device(tmp_path, not_before=START)
    for age in (-60, 0):
        decision = await site.connect(DEVICE, password=site.pop(DEVICE, time=START + age))
        assert decision.reason is ReasonCode.PREDATES_RESTART
        assert decision.temporary
    assert (await site.connect(DEVICE, password=site.pop(DEVICE, time=START + 1))).allowed


async def test_a4_of_two_identical_connects_at_once_one_is_allowed(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    proof = site.pop(DEVICE)
    decisions = await asyncio.gather(*(site.connect(DEVICE, password=proof) for _ in range(5)))
    assert sorted(one.reason.value for one in decisions) == ["ok", *["replayed"] * 4]


async def test_a4_a_replay_is_called_one_whatever_else_is_wrong_by_then(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain(), grace_s=0)
    grant = site.domain.grant(DEVICE.public, TEMP)
    site.learn(grant)
    proof, unused = (site.pop(DEVICE, time=START + 59) for _ in range(2))
    assert (await site.connect(DEVICE, password=proof)).allowed
    site.clock.time = START + 110
    stale = await site.connect(DEVICE, password=unused)
    assert (stale.reason, stale.temporary) == (ReasonCode.STALE, True)
    assert (await site.connect(DEVICE, password=proof)).reason is ReasonCode.REPLAYED
    site.service.authority.beat()
    revoke(site, grant.statement_id)
    assert (await site.connect(DEVICE, password=proof)).reason is ReasonCode.REPLAYED
    assert (await site.connect(DEVICE, password=unused)).reason is ReasonCode.REVOKED
    assert (await site.connect(DEVICE, password=unused)).reason is ReasonCode.REPLAYED


async def test_a4_a_replay_does_not_end_the_session_of_another_key(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    site.learn(
        site.domain.grant(DEVICE.public, TEMP, client_id=PUMP),
        site.domain.grant(OTHER.public, TEMP, client_id=PUMP),
    )
    used, unused = (site.pop(OTHER, client_id="pump") for _ in range(2))
    first = await site.connect(OTHER, client_id="pump", password=used)
    say = site.service.enforcement.report
    say("m", SessionReport(client_id="pump", session_id=first.session, what="offline"))
    second = await site.connect(DEVICE, client_id="pump")
    say("m", SessionReport(client_id="pump", session_id=second.session, what="offline"))
    replayed = await site.connect(OTHER, client_id="pump", password=used)
    assert replayed.reason is ReasonCode.REPLAYED
    assert [one.session_id for one in site.service.sessions.all()] == [second.session]
    third = await site.connect(OTHER, client_id="pump", password=unused)
    assert [one.session_id for one in site.service.sessions.all()] == [third.session]
    assert len(site.store.load_sessions()) == 1


async def test_a_session_that_cannot_be_saved_leaves_the_proof_unused(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    proof = site.pop(DEVICE)
    site.store._fast.execute("ALTER TABLE sessions RENAME TO gone")
    refused = await site.connect(DEVICE, password=proof)
    assert (refused.reason, refused.temporary) == (ReasonCode.STORE_FAILED, True)
    assert site.service.sessions.all() == []
    site.store._fast.execute("ALTER TABLE gone RENAME TO sessions")
    assert (await site.connect(DEVICE, password=proof)).allowed
    assert (await site.connect(DEVICE, password=proof)).reason is ReasonCode.REPLAYED


async def test_a4_the_same_proof_at_another_entry_of_the_daemon_is_refused(
    tmp_path: Path,
) -> None:
    site = site_with_device(tmp_path)
    proof = site.pop(DEVICE)
    assert (await site.connect(DEVICE, password=proof)).allowed
    relayed = await site.connect(DEVICE, broker="e", password=proof)
    assert relayed.reason is ReasonCode.WRONG_AUDIENCE


async def test_a_verdict_consumes_the_nonce_and_a_temporary_no_does_not(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain(), heartbeat=None)
    site.learn(site.domain.grant(DEVICE.public, TEMP))
    proof = site.pop(DEVICE)
    for _ in range(2):
        assert (await site.connect(DEVICE, password=proof)).reason is ReasonCode.STALE
    directory = tmp_path / "second"
    directory.mkdir()
    refused = Site(directory, Domain())
    refused.learn(refused.domain.grant(DEVICE.public, TEMP))
    revoke(refused, DEVICE.public)
    assert (await refused.connect(DEVICE, password=proof)).reason is ReasonCode.REVOKED
    assert (await refused.connect(DEVICE, password=proof)).reason is ReasonCode.REPLAYED


async def test_a_proof_that_does_not_verify_consumes_nothing(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    proof = site.pop(DEVICE)
    broken = proof[:-2] + ("AA" if proof[-2:] != "AA" else "BA")
    assert (await site.connect(DEVICE, password=broken)).reason is not ReasonCode.OK
    assert (await site.connect(DEVICE, password=proof)).allowed


# --- what a proof is bound to -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "client_id", "reason", "sentence"),
    [
        ("broker:1884", None, ReasonCode.WRONG_AUDIENCE, "broker:1884"),
        ("elsewhere:1883", None, ReasonCode.BAD_SIGNATURE, "or for another broker than"),
        ("broker:1883", "pump", ReasonCode.WRONG_CLIENT_ID, "the CONNECT says `pump`"),
    ],
)
async def test_a5_a_proof_for_another_broker_or_client_id_is_refused_and_explained(
    tmp_path: Path,
    endpoint: str,
    client_id: str | None,
    reason: ReasonCode,
    sentence: str,
) -> None:
    site = Site(tmp_path, Domain())
    site.learn(site.domain.grant(DEVICE.public, TEMP, client_id=ANY))
    proof = site.pop(DEVICE, endpoint=endpoint)
    decision = await site.connect(DEVICE, client_id=client_id, password=proof)
    assert decision.reason is reason
    assert sentence in decision.detail


async def test_a7_a_grant_for_proofs_cannot_be_used_by_the_weaker_form(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    key = password_key(SECRET)
    site.learn(site.domain.grant(key.public, TEMP))
    decision = await site.connect(key, username="lamp", password=SECRET)
    assert decision.reason is ReasonCode.FORM_NOT_ALLOWED
    assert (await site.connect(key)).allowed, "the same key by proof"


@pytest.mark.parametrize(
    "credentials",
    [("", ""), ("u", ""), ("", "A" * 104), (DEVICE_ID, "A" * 103), (DEVICE_ID, "\ud800" * 104)],
)
async def test_a7_nothing_but_a_proof_or_a_device_password_gets_in(
    tmp_path: Path,
    credentials: tuple[str, str],
) -> None:
    site = site_with_device(tmp_path)
    username, password = credentials
    decision = await site.connect(DEVICE, username=username, password=password)
    assert decision.reason is ReasonCode.MALFORMED


# --- client ids -------------------------------------------------------------------------------


async def pump_site(directory: Path) -> Site:
    site = Site(directory, Domain())
    site.learn(
        site.domain.grant(DEVICE.public, TEMP, client_id=PUMP),
        site.domain.grant(OTHER.public, TEMP, client_id=PUMP),
    )
    assert (await site.connect(DEVICE, client_id="pump", clean=False)).allowed
    return site


async def test_a22_a_client_id_belongs_to_its_key_while_a_session_exists(tmp_path: Path) -> None:
    site = await pump_site(tmp_path)
    decision = await site.connect(OTHER, client_id="pump")
    assert decision.reason is ReasonCode.CLIENT_ID_TAKEN
    assert DEVICE_ID in decision.detail
    assert (await site.connect(OTHER, broker="e", client_id="pump")).allowed, "another broker"
    assert (await site.connect(DEVICE, client_id="pump")).allowed, "its own key again"


async def test_a22_a_durable_session_keeps_its_client_id_offline_and_over_a_restart(
    tmp_path: Path,
) -> None:
    site = await pump_site(tmp_path)
    session = site.service.sessions.get("m", "pump")
    assert session is not None
    site.service.enforcement.report(
        "m", SessionReport(client_id="pump", session_id=session.session_id, what="offline")
    )
    site.close()
    site.open()
    assert (await site.connect(OTHER, client_id="pump")).reason is ReasonCode.CLIENT_ID_TAKEN


async def test_a22_a_client_id_is_free_when_its_key_is_revoked(tmp_path: Path) -> None:
    site = await pump_site(tmp_path)
    revoke(site, DEVICE.public)
    assert (await site.connect(OTHER, client_id="pump")).allowed


@pytest.mark.parametrize("same_issuer", [True, False])
async def test_a_replacing_key_takes_the_client_id_over_only_by_the_word_of_one_issuer(
    tmp_path: Path,
    *,
    same_issuer: bool,
) -> None:
    site = Site(tmp_path, Domain())
    site.learn(site.domain.grant(GATEWAY.public, TEMP, depth=1, client_id=PUMP))
    site.learn(site.domain.grant(DEVICE.public, TEMP, client_id=PUMP))
    issuer = site.domain.authority if same_issuer else GATEWAY
    site.learn(
        site.domain.grant(OTHER.public, TEMP, by=issuer, client_id=PUMP, replaces=DEVICE.public),
    )
    assert (await site.connect(DEVICE, client_id="pump")).allowed
    decision = await site.connect(OTHER, client_id="pump")
    assert decision.allowed is same_issuer
    if same_issuer:
        back = await site.connect(DEVICE, client_id="pump")
        assert back.reason is ReasonCode.CLIENT_ID_TAKEN, "the old key cannot come back"


@pytest.mark.parametrize(
    "client_id",
    ["a/b", "+", "#", "a b\n", "x" * 129, "pümp", "\x00", "\ud800"],
)
async def test_a16_a_client_id_that_could_be_a_wildcard_or_path_is_refused(
    tmp_path: Path,
    client_id: str,
) -> None:
    site = Site(tmp_path, Domain())
    site.learn(site.domain.grant(DEVICE.public, TEMP, client_id=ANY))
    request = ConnectRequest(
        broker="m",
        client_id=client_id,
        username=DEVICE_ID,
        password=site.pop(DEVICE),
    )
    decision = await site.service.decider.connect(request)
    assert decision.reason is ReasonCode.CLIENT_ID_REFUSED


async def test_an_empty_client_id_is_refused(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    request = ConnectRequest(broker="m", client_id="", username=DEVICE_ID, password="x")
    decision = await site.service.decider.connect(request)
    assert decision.reason is ReasonCode.CLIENT_ID_REFUSED


async def test_a_key_id_as_client_id_belongs_to_that_key_whatever_the_rule(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, Domain())
    site.learn(site.domain.grant(OTHER.public, TEMP, client_id=ANY))
    decision = await site.connect(OTHER, client_id=DEVICE_ID)
    assert decision.reason is ReasonCode.CLIENT_ID_REFUSED


# --- stapled paths ----------------------------------------------------------------------------


async def test_a_stapled_path_needs_no_lookup_and_is_kept(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain(), replicate=False)
    path = (
        site.domain.grant(GATEWAY.public, scope(pub="site/#"), depth=1),
        site.domain.grant(SENSOR.public, TEMP, by=GATEWAY),
    )
    decision = await site.connect(SENSOR, path=path)
    assert decision.allowed
    assert site.service.finder.lookups == 0
    sources = {site.service.authority.source(one.statement_id) for one in path}
    assert sources == {"stapled"}


async def test_stapled_grants_nobody_vouches_for_are_refused_and_never_stored(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, Domain())
    before = site.store.load_statements()
    own = site.domain.grant(SENSOR.public, scope(pub="#"), by=OTHER, depth=0)
    decision = await site.connect(SENSOR, path=[own])
    assert decision.reason is ReasonCode.UNKNOWN_KEY
    assert site.store.load_statements() == before
    assert len(site.service.authority._waiting) == 0


async def test_a10_a_path_with_a_grant_missing_or_from_elsewhere_gives_nothing_more(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, Domain())
    wide = site.domain.grant(GATEWAY.public, scope(pub="site/a/#"), depth=1)
    wider = site.domain.grant(SENSOR.public, scope(pub="#"), by=GATEWAY)
    assert (await site.connect(SENSOR, path=[wider])).reason is ReasonCode.UNKNOWN_KEY
    decision = await site.connect(SENSOR, path=[wider, wide])
    assert [one.topic_filter for one in decision.rights.entries] in ([], ["site/a/#"])
    decision = await site.connect(SENSOR, path=[wide, wider])
    assert [one.topic_filter for one in decision.rights.entries] == ["site/a/#"]


async def test_a_revoked_grant_does_not_come_back_by_stapling_it(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    grant = site.domain.grant(DEVICE.public, TEMP)
    revoke(site, grant.statement_id)
    assert (await site.connect(DEVICE, path=[grant])).reason is ReasonCode.REVOKED


# --- device passwords -------------------------------------------------------------------------


def password_site(directory: Path, **grant: object) -> tuple[Site, SigningKey]:
    site = Site(directory, Domain(), replicate=False)
    key = password_key(SECRET)
    options = {
        "forms": [Form.PASSWORD],
        "audiences": [str(Audience(site.domain.id, "broker:1883"))],
        "client_id": PUMP,
        **grant,
    }
    site.learn(site.domain.grant(key.public, TEMP, **options))  # type: ignore[arg-type]  # per test
    return site, key


async def test_a_device_password_works_again_and_again_and_is_marked(tmp_path: Path) -> None:
    site, key = password_site(tmp_path)
    for _ in range(3):
        decision = await site.connect(key, client_id="pump", username="lamp", password=SECRET)
        assert decision.allowed
        assert decision.evidence.form == "password"


@pytest.mark.parametrize(
    "username", ["", "a" * 65, "ü", "a b", "authd-evict", DEVICE_ID, "a/b", "a+"]
)
async def test_a_user_name_with_a_device_password_is_plain_or_its_own_key_id(
    tmp_path: Path,
    username: str,
) -> None:
    site, key = password_site(tmp_path)
    decision = await site.connect(key, client_id="pump", username=username, password=SECRET)
    assert not decision.allowed
    assert decision.reason in (ReasonCode.MALFORMED, ReasonCode.LIMIT_EXCEEDED)
    own = await site.connect(key, client_id="pump", password=SECRET)
    assert own.allowed, "its own key id"


async def test_a_device_password_counts_only_at_the_brokers_its_grant_names(
    tmp_path: Path,
) -> None:
    site, key = password_site(tmp_path)
    decision = await site.connect(
        key, broker="e", client_id="pump", username="lamp", password=SECRET
    )
    assert decision.reason is ReasonCode.WRONG_AUDIENCE


async def test_an_unknown_device_password_is_refused_without_a_lookup(tmp_path: Path) -> None:
    site, key = password_site(tmp_path)
    unknown = encode_base64url(b"some other bytes")
    decision = await site.connect(key, client_id="pump", username="lamp", password=unknown)
    assert decision.reason is ReasonCode.UNKNOWN_KEY
    assert site.service.finder.lookups == 0


async def test_a_revoked_device_password_is_refused(tmp_path: Path) -> None:
    site, key = password_site(tmp_path)
    revoke(site, key.public, by=key)
    decision = await site.connect(key, client_id="pump", username="lamp", password=SECRET)
    assert decision.reason is ReasonCode.REVOKED


# --- takeover ---------------------------------------------------------------------------------


async def take_over(site: Site, secret: str, *, client_id: str = "pump", broker: str = "g") -> bool:
    request = ConnectRequest(
        broker=broker,
        client_id=client_id,
        username="authd-evict",
        password=secret,
    )
    return (await site.service.decider.connect(request)).allowed


async def test_a_takeover_secret_is_good_once_for_one_client_id_on_one_broker(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, Domain())
    evictions = site.service.evictions
    secret = evictions.issue("g", "pump", DEVICE.public)
    assert not await take_over(site, secret, client_id="other")
    assert not await take_over(site, secret, broker="m")
    assert not await take_over(site, secret + "A")
    assert not await take_over(site, "\ud800")
    assert await take_over(site, secret), "wrong guesses use nothing up"
    assert not await take_over(site, secret)


async def test_a_takeover_secret_lives_5_s(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    secret = site.service.evictions.issue("g", "pump", DEVICE.public)
    site.clock.advance(5.5)
    assert not await take_over(site, secret)
    site.service.evictions.issue("g", "other", DEVICE.public)
    assert len(site.service.evictions._secrets) == 1, "old ones are swept"


async def test_a_takeover_gets_no_right_and_no_session(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    secret = site.service.evictions.issue("g", "pump", DEVICE.public)
    request = ConnectRequest(
        broker="g",
        client_id="pump",
        username="authd-evict",
        password=secret,
    )
    decision = await site.service.decider.connect(request)
    assert decision.allowed
    assert decision.rights.entries == ()
    assert site.service.sessions.all() == []
    assert not can_publish(site, DEVICE, "site/temp", broker="g", client_id="pump").allowed


async def test_the_user_name_of_a_takeover_is_reserved_whatever_the_password(
    tmp_path: Path,
) -> None:
    site, key = password_site(tmp_path)
    proof = site.pop(key, client_id="pump")
    for password in (SECRET, proof, ""):
        decision = await site.connect(
            key, client_id="pump", username="authd-evict", password=password
        )
        assert decision.reason is ReasonCode.MALFORMED


# --- messages ---------------------------------------------------------------------------------


async def test_messages_are_answered_only_for_a_session_of_that_broker_client_and_user(
    tmp_path: Path,
) -> None:
    site = site_with_device(tmp_path)
    assert (await site.connect(DEVICE)).allowed
    ask = site.service.decider.authorize
    asked = {"operation": Operation.PUBLISH, "topic": "site/temp"}
    assert ask(broker="m", client_id=DEVICE_ID, username=DEVICE_ID, **asked).allowed  # type: ignore[arg-type]  # one dict for all
    for broker, client_id, username in (
        ("e", DEVICE_ID, DEVICE_ID),
        ("m", "other", DEVICE_ID),
        ("m", DEVICE_ID, "other"),
        ("m", DEVICE_ID, ""),
    ):
        answer = ask(broker=broker, client_id=client_id, username=username, **asked)  # type: ignore[arg-type]  # one dict for all
        assert answer.reason is ReasonCode.NO_SESSION


@pytest.mark.parametrize("topic", ["", "a/#", "+", "a\x00", "\ud800", "x" * 257])
async def test_a_publish_to_what_is_no_topic_name_is_malformed(tmp_path: Path, topic: str) -> None:
    site = Site(tmp_path, Domain())
    site.learn(site.domain.grant(DEVICE.public, scope(pub="#")))
    assert (await site.connect(DEVICE)).allowed
    assert can_publish(site, DEVICE, topic).reason is ReasonCode.MALFORMED


async def test_a_live_session_ends_its_rights_with_its_grant_without_a_tick(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, Domain())
    site.learn(
        site.domain.grant(DEVICE.public, TEMP, expires_at=START + 5),
        site.domain.grant(DEVICE.public, scope(pub="site/lamp"), issued_at=START - 5),
    )
    assert (await site.connect(DEVICE)).allowed
    site.clock.advance(5)
    assert can_publish(site, DEVICE, "site/temp").reason is ReasonCode.NOT_GRANTED
    assert can_publish(site, DEVICE, "site/lamp").allowed


# --- explain ----------------------------------------------------------------------------------


async def test_explaining_consumes_no_nonce_and_makes_no_session(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    request = ConnectRequest(
        broker="m",
        client_id=DEVICE_ID,
        username=DEVICE_ID,
        password=site.pop(DEVICE),
    )
    asked = (Operation.PUBLISH, "site/temp")
    for _ in range(2):
        explained = await site.service.decider.explain(request, asked)
        assert explained.allowed
        assert explained.evidence.matched == "site/temp"
    assert site.service.sessions.all() == []
    assert (await site.service.decider.connect(request)).allowed
    again = await site.service.decider.explain(request, None)
    assert again.reason is ReasonCode.REPLAYED


async def test_explain_denies_as_a_live_decision_does(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    decider = site.service.decider
    request = ConnectRequest(broker="m", client_id=DEVICE_ID, username=DEVICE_ID, password="x")
    assert (await decider.explain(request, None)).reason is ReasonCode.MALFORMED

    def reason(
        key: SigningKey,
        *,
        broker: str = "m",
        client_id: str = DEVICE_ID,
        asked: tuple[Operation, str] | None = None,
    ) -> ReasonCode:
        return decider.explain_key(
            key.public,
            broker=broker,
            client_id=client_id,
            form=Form.POP,
            asked=asked,
        ).reason

    assert reason(DEVICE) is ReasonCode.OK
    assert reason(DEVICE, broker="nowhere") is ReasonCode.UNKNOWN_BROKER
    assert reason(DEVICE, client_id="a/b") is ReasonCode.CLIENT_ID_REFUSED
    assert reason(OTHER, client_id=key_id_text(OTHER.public)) is ReasonCode.UNKNOWN_KEY
    assert reason(DEVICE, asked=(Operation.PUBLISH, "site/door")) is ReasonCode.NOT_GRANTED
    assert reason(DEVICE, asked=(Operation.SUBSCRIBE, "site/temp")) is ReasonCode.NOT_GRANTED


async def test_every_connect_decision_is_observed_and_holds_no_password(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    proof = site.pop(DEVICE)
    await site.connect(DEVICE, password=proof)
    await site.connect(DEVICE, password="hunter2hunter2hunter2!")
    assert [one.reason for _, one in site.observed] == [ReasonCode.OK, ReasonCode.MALFORMED]
    assert proof not in repr(site.observed)
    assert "hunter2" not in repr(site.observed)


async def test_a49_a_store_that_cannot_keep_the_session_denies_for_the_moment(
    tmp_path: Path,
) -> None:
    site = site_with_device(tmp_path)
    site.store._fast.execute("ALTER TABLE sessions RENAME TO broken")
    decision = await site.connect(DEVICE)
    assert decision.reason is ReasonCode.STORE_FAILED
    assert decision.temporary
    assert site.service.sessions.all() == []
    assert not can_publish(site, DEVICE, "site/temp").allowed
