"""Reconnects that the plugin judges: for whom, what it is told, and what it tells."""

from pathlib import Path

import pytest

from authd.core.encoding import encode_base64url
from authd.core.grants import ClientIdMatch, ClientIdRule, Form
from authd.core.identity import SigningKey, key_id, key_id_text
from authd.core.proofs import Audience, password_key
from authd.errors import FormatError, ReasonCode
from authd.service.brokers import BrokerEntry
from authd.service.ports import HeldClient, SessionEvent, SessionReport
from authd.service.sessions import MAX_AWAY_OF_A_KEY, Session
from tests.unit.service.scenes import (
    DEVICE,
    DEVICE_ID,
    OTHER,
    TEMP,
    can_publish,
    pass_time,
    revoke,
    site_with_device,
)
from tests.world import START, Domain, Site

FIRST, SECOND = "0" * 16, "1" * 16
LEASE_S = 3_660


def described(site: Site, broker: str = "m", client_id: str = DEVICE_ID) -> dict[str, object]:
    description = site.service.enforcement.describe(broker, client_id)
    assert description is not None
    return description


async def snapshot(site: Site, boot: str, broker: str = "m") -> SessionEvent:
    stream = site.service.decider.watch(broker, boot=boot)
    event = await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]  # it is a generator
    return event


def listed(event: SessionEvent) -> list[dict[str, object]]:
    sessions = event.body["sessions"]
    assert isinstance(sessions, list)
    return sessions


def proof_id(time: int = START, nonce: bytes = b"by c 001") -> str:
    return encode_base64url(time.to_bytes(5, "big") + nonce)


def readmit(
    site: Site, session: str, *, proof: str = "", boot: str = FIRST, clean: bool = True
) -> None:
    site.service.enforcement.readmitted(
        "m",
        client_id=DEVICE_ID,
        session_id=session,
        boot=boot,
        proof=proof or proof_id(),
        clean=clean,
    )


def session_of(site: Site) -> Session:
    session = site.service.sessions.get("m", DEVICE_ID)
    assert session is not None
    return session


def say(site: Site, what: str) -> None:
    session = session_of(site)
    site.service.enforcement.report(
        "m", SessionReport(client_id=DEVICE_ID, session_id=session.session_id, what=what)
    )


# --- for whom ---------------------------------------------------------------------------------


async def test_a_plain_pop_at_the_only_broker_of_its_audience_may_be_verified_there(
    tmp_path: Path,
) -> None:
    site = site_with_device(tmp_path)
    assert (await site.connect(DEVICE)).allowed
    expected = {
        "public": encode_base64url(DEVICE.public),
        "domain": encode_base64url(site.domain.id),
        "endpoint": "broker:1883",
    }
    assert described(site)["verify"] == expected
    assert listed(await snapshot(site, FIRST))[0]["verify"] == expected


@pytest.mark.parametrize("broker", ["e", "g"])
async def test_a_broker_without_the_plugin_verifies_nothing(tmp_path: Path, broker: str) -> None:
    site = site_with_device(tmp_path)
    assert (await site.connect(DEVICE, broker=broker)).allowed
    assert "verify" not in described(site, broker)


async def test_another_form_than_a_plain_pop_is_the_daemons_business(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    assert (await site.connect(DEVICE, path=[site.domain.grant(DEVICE.public, TEMP)])).allowed
    assert "verify" not in described(site)
    secret = encode_base64url(b"sixteen bytes ok")
    key = password_key(secret)
    site.learn(
        site.domain.grant(
            key.public,
            TEMP,
            forms=[Form.PASSWORD],
            audiences=[str(Audience(site.domain.id, "broker:1883"))],
        ),
    )
    assert (await site.connect(key, password=secret)).allowed
    assert "verify" not in described(site, client_id=key_id_text(key.public))


@pytest.mark.parametrize("others", [("broker:1883",), ("broker:1", "broker:1883")])
async def test_a4_an_audience_of_two_entries_is_verified_by_the_daemon_alone(
    tmp_path: Path,
    others: tuple[str, ...],
) -> None:
    site = site_with_device(tmp_path)
    assert (await site.connect(DEVICE)).allowed
    entries = site.service.brokers.all()
    twin = BrokerEntry(
        name="twin",
        kind="go-auth",
        audiences=tuple(Audience(site.domain.id, one) for one in others),
        secret="s" * 22,
    )
    site.service.brokers.replace([*entries, twin])
    assert "verify" not in described(site)
    site.service.brokers.replace(entries)
    assert "verify" in described(site)


async def test_an_audience_that_the_entry_gave_up_is_not_verified(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    assert (await site.connect(DEVICE)).allowed
    entry = site.service.brokers.get("e")
    assert entry is not None
    site.service.brokers.replace(
        [BrokerEntry(name="m", kind="mosquitto", audiences=entry.audiences, secret="s" * 22)]
    )
    assert "verify" not in described(site)


# --- what was seen ----------------------------------------------------------------------------


async def test_a4_a_snapshot_names_every_nonce_of_the_broker_whose_window_is_open(
    tmp_path: Path,
) -> None:
    site = site_with_device(tmp_path)
    assert (await site.connect(DEVICE)).allowed
    here = encode_base64url(key_id(DEVICE.public) + site._counter.to_bytes(8, "big"))
    assert (await site.connect(DEVICE, broker="e")).allowed
    assert (await snapshot(site, FIRST)).body["seen"] == [here]
    site.clock.advance(121)
    assert (await snapshot(site, FIRST)).body["seen"] == [here]
    site.clock.advance(1)
    assert (await snapshot(site, FIRST)).body["seen"] == []


# --- readmitted -------------------------------------------------------------------------------


async def test_a_readmitted_session_goes_on_and_its_nonce_is_used_up(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    decision = await site.connect(DEVICE)
    say(site, "offline")
    assert not session_of(site).live
    nonce = b"by c 001"
    readmit(site, decision.session, proof=proof_id(nonce=nonce), clean=False)
    session = session_of(site)
    assert (session.live, session.durable, session.session_id) == (True, True, decision.session)
    site._counter = int.from_bytes(nonce, "big") - 1
    assert (await site.connect(DEVICE)).reason is ReasonCode.REPLAYED
    readmit(site, decision.session, proof=proof_id(nonce=nonce))
    assert session_of(site).live, "the same report may come twice"


async def test_a4_a_nonce_that_somebody_used_cuts_the_session_that_went_on_with_it(
    tmp_path: Path,
) -> None:
    site = site_with_device(tmp_path)
    decision = await site.connect(DEVICE)
    used = site._counter.to_bytes(8, "big")
    stream = site.service.decider.watch("m", boot=FIRST)
    await anext(stream)
    readmit(site, decision.session, proof=proof_id(nonce=used))
    cut = await anext(stream)
    assert (cut.kind, cut.body["session"], cut.body["reason"]) == (
        "cut",
        decision.session,
        "replayed",
    )
    assert site.service.sessions.all() == []


async def test_a_session_that_no_plugin_may_judge_is_cut_when_one_did(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    grant = site.domain.grant(DEVICE.public, TEMP)
    decision = await site.connect(DEVICE, path=[grant])
    readmit(site, decision.session)
    assert site.service.sessions.all() == []


async def test_a_readmission_to_a_session_that_was_cut_changes_nothing(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    decision = await site.connect(DEVICE)
    revoke(site, DEVICE.public)
    readmit(site, decision.session)
    assert site.service.sessions.all() == []
    assert (await site.connect(DEVICE)).reason is ReasonCode.REVOKED


async def test_a4_a_proof_of_a_session_that_another_took_over_is_used_up_all_the_same(
    tmp_path: Path,
) -> None:
    site = site_with_device(tmp_path)
    first = await site.connect(DEVICE)
    second = await site.connect(DEVICE)
    assert first.session != second.session
    nonce = b"by c 001"
    readmit(site, first.session, proof=proof_id(nonce=nonce))
    assert session_of(site).session_id == second.session
    site._counter = int.from_bytes(nonce, "big") - 1
    assert (await site.connect(DEVICE)).reason is ReasonCode.REPLAYED


@pytest.mark.parametrize("proof", ["A" * 17, "A" * 19, "!" * 18, "A" * 24])
async def test_a_report_without_time_and_nonce_is_refused(tmp_path: Path, proof: str) -> None:
    site = site_with_device(tmp_path)
    decision = await site.connect(DEVICE)
    with pytest.raises(FormatError):
        readmit(site, decision.session, proof=proof)


# --- without a connection ---------------------------------------------------------------------


async def test_a_client_that_left_can_come_back_until_its_lease_ends(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    assert (await site.connect(DEVICE)).allowed
    say(site, "offline")
    stream = site.service.decider.watch("m", boot=FIRST)
    await anext(stream)
    pass_time(site, 120)
    assert session_of(site).lease_until > session_of(site).kept_until  # type: ignore[operator]  # it is set
    site.clock.time = START + LEASE_S
    site.service.authority.beat()
    site.service.enforcement.tick()
    assert site.service.sessions.all() == []
    kinds: list[str] = []
    while not kinds or kinds[-1] != "cut":
        kinds.append((await anext(stream)).kind)


async def test_a_session_that_nobody_can_go_on_with_ends_with_its_connection(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, Domain())
    assert (await site.connect(DEVICE, path=[site.domain.grant(DEVICE.public, TEMP)])).allowed
    say(site, "offline")
    assert site.service.sessions.all() == []


async def test_a_key_that_goes_through_many_client_ids_fills_no_memory(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, Domain())
    await shared(site, DEVICE)
    for number in range(2 * MAX_AWAY_OF_A_KEY):
        decision = await site.connect(DEVICE, client_id=f"c{number}")
        site.service.enforcement.report(
            "m", SessionReport(client_id=f"c{number}", session_id=decision.session, what="offline")
        )
    assert len(site.service.sessions.all()) == MAX_AWAY_OF_A_KEY
    site.service.sessions.close(site.service.sessions.all()[0])
    decision = await site.connect(DEVICE, client_id="one more")
    site.service.enforcement.report(
        "m", SessionReport(client_id="one more", session_id=decision.session, what="offline")
    )
    assert len(site.service.sessions.all()) == MAX_AWAY_OF_A_KEY


ANY = ClientIdRule(ClientIdMatch.ANY)


async def shared(site: Site, *keys: SigningKey) -> None:
    site.learn(*(site.domain.grant(key.public, TEMP, client_id=ANY) for key in keys))


@pytest.mark.parametrize("clean", [True, False])
async def test_a22_a_client_without_connection_holds_its_client_id_only_with_durable_state(
    tmp_path: Path,
    *,
    clean: bool,
) -> None:
    site = Site(tmp_path, Domain())
    await shared(site, DEVICE, OTHER)
    first = await site.connect(DEVICE, client_id="pump", clean=clean)
    site.service.enforcement.report(
        "m", SessionReport(client_id="pump", session_id=first.session, what="offline")
    )
    stream = site.service.decider.watch("m", boot=FIRST)
    await anext(stream)
    second = await site.connect(OTHER, client_id="pump")
    assert second.allowed is clean
    if clean:
        cut = await anext(stream)
        assert (cut.kind, cut.body["session"]) == ("cut", first.session)


# --- a new run of the broker ------------------------------------------------------------------


@pytest.mark.parametrize("clean", [True, False])
async def test_a_new_run_is_told_of_the_sessions_of_the_last_and_takes_them_over(
    tmp_path: Path,
    *,
    clean: bool,
) -> None:
    site = site_with_device(tmp_path)
    decision = await site.connect(DEVICE, clean=clean, boot=FIRST)
    assert "offline" not in listed(await snapshot(site, FIRST))[0]
    (one,) = listed(await snapshot(site, SECOND))
    assert (one["session"], one["offline"]) == (decision.session, True)
    assert not session_of(site).live
    readmit(site, decision.session, boot=SECOND)
    (one,) = listed(await snapshot(site, SECOND))
    assert "offline" not in one
    assert session_of(site).live
    assert can_publish(site, DEVICE, "site/temp").allowed


async def test_a_session_that_never_began_is_not_taken_over(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    assert (await site.connect(DEVICE, began=False)).allowed
    assert listed(await snapshot(site, SECOND)) == []


async def test_a_sync_says_who_is_back(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    decision = await site.connect(DEVICE, boot=FIRST)
    await snapshot(site, SECOND)
    held = HeldClient(client_id=DEVICE_ID, session_id=decision.session, key=DEVICE_ID)
    assert site.service.enforcement.sync("m", [held], boot=SECOND) == []
    assert session_of(site).live
    assert "offline" not in listed(await snapshot(site, SECOND))[0]


async def test_a_client_that_left_is_still_away_after_a_restart_of_the_daemon(
    tmp_path: Path,
) -> None:
    site = site_with_device(tmp_path)
    assert (await site.connect(DEVICE)).allowed
    say(site, "offline")
    site.close()
    site.open()
    session = session_of(site)
    assert (session.live, session.kept_until) == (False, session.lease_until)
