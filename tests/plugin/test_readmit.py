"""Reconnects that the plugin judges by itself: what lets in, what not, what the daemon hears."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from authd.core.identity import DomainId
from authd.core.proofs import Audience
from tests.plugin.conftest import Broker, StartBroker
from tests.plugin.enhanced import Client
from tests.plugin.fake_authd import (
    Allow,
    Deny,
    FakeAuthd,
    Json,
    Session,
    by_client,
    key_id,
    raw,
    text,
)
from tests.plugin.mqtt import REFUSED, V5, Device, RawClient, connect_packet, eventually
from tests.plugin.prover import AUDIENCE, Prover

# Whatever an earlier run of the broker let in is at most 5 s ahead: only newer proofs are judged.
AHEAD_S = 4
STARTED_S = 3.0


@pytest.fixture
def device(broker: Broker, fake: FakeAuthd) -> Prover:
    """A key with a live lease, and a broker old enough to judge its proofs."""
    prover = Prover()
    fake.decide = lambda _: Allow(verify=prover.verify)
    time.sleep(STARTED_S)
    return prover


def online(broker: Broker, device: Prover, **options: object) -> Device:
    """Let the client in once, by the daemon."""
    return broker.online("c1", key=device.id, password=device.pop("c1"), **options)


def again(broker: Broker, device: Prover, password: str | None = None, **options: object) -> Device:
    """Make a client that comes back with a proof the plugin may judge."""
    shown = device.pop("c1", ahead_s=AHEAD_S) if password is None else password
    return broker.device("c1", key=device.id, password=shown, **options)  # type: ignore[arg-type]  # passed through


def nothing_but_the_daemon(fake: FakeAuthd) -> None:
    """From now on the daemon refuses: who gets in was let in by the plugin."""
    fake.decide = lambda _: Deny()


@pytest.mark.parametrize("hint", [False, True], ids=["104", "126"])
def test_a_known_client_comes_back_without_a_question(
    broker: Broker,
    fake: FakeAuthd,
    device: Prover,
    *,
    hint: bool,
) -> None:
    online(broker, device).disconnect()
    fake.wait_report("offline", "c1")
    nothing_but_the_daemon(fake)
    back = again(broker, device, device.pop("c1", ahead_s=AHEAD_S, hint=hint), clean=False)
    assert back.connect() == 0
    assert len(fake.questions) == 1
    assert back.publish("site/a") == 0
    assert back.subscribe("site/#") == 1
    fake.wait_report("readmitted", "c1")
    report = next(r for r in fake.reports if r["what"] == "readmitted")
    assert report["session"] == fake.session_of("c1").session
    assert report["clean"] is False
    at = int.from_bytes(raw(report["proof"])[:5], "big")
    assert abs(at - AHEAD_S - time.time()) < 5
    assert len(raw(report["proof"])) == 13


def test_the_daemon_hears_which_proof_it_was(
    broker: Broker,
    fake: FakeAuthd,
    device: Prover,
) -> None:
    online(broker, device).disconnect()
    password = device.pop("c1", ahead_s=AHEAD_S)
    again(broker, device, password).connect()
    fake.wait_report("readmitted", "c1")
    assert text(raw(device.id) + raw(password)[6:14]) in fake.seen


def test_a_live_lease_outlives_the_daemon(broker: Broker, fake: FakeAuthd, device: Prover) -> None:
    """Keys it knows get in while the daemon is away; nobody else does, and no replay."""
    first = device.pop("c1", ahead_s=AHEAD_S)
    broker.online("c1", key=device.id, password=first).vanish()
    fake.wait_report("offline", "c1")
    fake.stop()
    second = device.pop("c1", ahead_s=AHEAD_S)
    assert again(broker, device, second).connect() == 0
    assert again(broker, device, second).connect() == REFUSED  # replay of what the plugin took
    assert again(broker, device, first).connect() is None  # of what the daemon took: ask it
    stranger = Prover()
    unknown = broker.device("c2", key=stranger.id, password=stranger.pop("c2", ahead_s=AHEAD_S))
    assert unknown.connect() is None
    assert again(broker, device).connect() == 0
    fake.start()
    fake.wait_report("readmitted", "c1")


def test_a4_a_proof_the_plugin_took_is_a_replay_for_ever(
    broker: Broker,
    fake: FakeAuthd,
    device: Prover,
) -> None:
    online(broker, device)
    password = device.pop("c1", ahead_s=AHEAD_S)
    assert again(broker, device, password).connect() == 0
    assert again(broker, device, password).connect() == REFUSED
    broker.wait_log("the proof was used before")
    fake.cut(key=device.id)
    fake.wait_report("kicked", "c1")
    assert again(broker, device, password).connect() == REFUSED
    assert len(fake.questions) == 1


def test_a4_a_proof_that_the_daemon_took_is_left_to_the_daemon(
    broker: Broker,
    fake: FakeAuthd,
    device: Prover,
) -> None:
    password = device.pop("c1", ahead_s=AHEAD_S)
    broker.online("c1", key=device.id, password=password)
    assert again(broker, device, password).connect() == REFUSED
    assert len(fake.questions) == 2


def test_a4_a_proof_that_got_no_answer_is_left_to_the_daemon(
    broker: Broker,
    fake: FakeAuthd,
    device: Prover,
) -> None:
    """The daemon may have used it up, so the plugin does not judge it, not even when new."""
    online(broker, device).disconnect()
    password = broker.device("c2", key=device.id, password=device.pop("c2", ahead_s=AHEAD_S))
    fake.hang = True
    assert password.connect() is None
    fake.hang = False
    fake.stop()
    fake.start()
    asked = len(fake.questions)
    fake.decide = lambda _: Deny()
    assert again(broker, device).connect() == 0
    assert len(fake.questions) == asked


def test_a4_what_a_snapshot_names_is_not_judged(
    broker: Broker,
    fake: FakeAuthd,
    device: Prover,
) -> None:
    online(broker, device)
    password = device.pop("c1", ahead_s=AHEAD_S)
    fake.seen.add(text(raw(device.id) + raw(password)[6:14]))
    fake.end_stream()
    broker.wait_log("event stream open", 2)
    assert again(broker, device, password).connect() == REFUSED
    assert len(fake.questions) == 2
    assert again(broker, device).connect() == 0
    assert len(fake.questions) == 2


@pytest.mark.parametrize(
    "of_another",
    ["key", "domain", "endpoint", "client-id", "form", "time"],
)
def test_a5_a_proof_for_anything_else_is_left_to_the_daemon(
    broker: Broker,
    fake: FakeAuthd,
    device: Prover,
    of_another: str,
) -> None:
    online(broker, device)
    nothing_but_the_daemon(fake)
    elsewhere = {
        "domain": Audience(DomainId(AUDIENCE.domain[::-1]), AUDIENCE.endpoint),
        "endpoint": Audience(AUDIENCE.domain, "other.example:1883"),
    }
    password = {
        "key": Prover().pop("c1", ahead_s=AHEAD_S),
        "client-id": device.pop("c2", ahead_s=AHEAD_S),
        "form": device.pop("c1", ahead_s=AHEAD_S) + ".gYA",
        "time": device.pop("c1", ahead_s=20),
        **{
            name: replace(device, audience=audience).pop("c1", ahead_s=AHEAD_S)
            for name, audience in elsewhere.items()
        },
    }[of_another]
    assert again(broker, device, password).connect() == REFUSED
    assert len(fake.questions) == 2
    assert again(broker, device).connect() == 0
    assert len(fake.questions) == 2


def test_other_forms_are_left_to_the_daemon(
    broker: Broker,
    fake: FakeAuthd,
    device: Prover,
) -> None:
    online(broker, device)
    for shown in (device.counter("c1", 7), "AAECAwQFBgcICQoLDA0ODw"):
        assert again(broker, device, shown).connect() == 0
    assert len(fake.questions) == 3


def test_a_single_step_is_left_to_the_daemon(
    broker: Broker,
    fake: FakeAuthd,
    device: Prover,
) -> None:
    online(broker, device)
    nothing_but_the_daemon(fake)
    client = Client(broker.port, "c1", device)
    assert client.begin(device.single("c1", ahead_s=AHEAD_S))[3] == REFUSED
    client.close()
    assert len(fake.questions) == 2
    assert again(broker, device).connect() == 0


def test_a38_another_client_id_of_the_key_is_left_to_the_daemon(
    broker: Broker,
    fake: FakeAuthd,
    device: Prover,
) -> None:
    online(broker, device)
    nothing_but_the_daemon(fake)
    other = broker.device("c2", key=device.id, password=device.pop("c2", ahead_s=AHEAD_S))
    assert other.connect() == REFUSED
    thief = Prover()
    stolen = broker.device("c1", key=thief.id, password=thief.pop("c1", ahead_s=AHEAD_S))
    assert stolen.connect() == REFUSED
    assert len(fake.questions) == 3


def test_what_is_dated_before_the_broker_started_is_left_to_the_daemon(
    broker: Broker,
    fake: FakeAuthd,
    device: Prover,
) -> None:
    """An earlier run may have let it in and died before it could say so."""
    online(broker, device)
    assert again(broker, device, device.pop("c1", ahead_s=-30)).connect() == 0
    assert len(fake.questions) == 2


def test_a36_nothing_is_judged_while_news_waits(
    broker: Broker,
    fake: FakeAuthd,
    device: Prover,
) -> None:
    """The cut waits in the socket behind more than the plugin reads for the sake of one CONNECT."""
    online(broker, device).disconnect()
    fake.wait_report("offline", "c1")
    nothing_but_the_daemon(fake)
    back, password = RawClient(broker.port), device.pop("c1", ahead_s=AHEAD_S)
    time.sleep(0.05)  # a new connection is a pass of the loop, in which news is read
    fake.send("lease", leases=[["AAAAAAAAAAA", 60_000]] * 6000)
    fake.cut(key=device.id)
    time.sleep(0.02)
    back.send(
        connect_packet(client_id=b"c1", username=device.id.encode(), password=password.encode())
    )
    assert back.packet() == b"\x20\x02\x00\x05"
    assert len(fake.questions) == 2
    back.close()


def test_before_the_first_snapshot_nothing_is_judged(
    start_broker: StartBroker,
    fake: FakeAuthd,
) -> None:
    """It would name the proofs that an earlier run of the broker passed on."""
    device = Prover()
    fake.decide, fake.refuse_streams = (lambda _: Allow(verify=device.verify)), True
    broker = start_broker()
    time.sleep(STARTED_S)
    online(broker, device)
    assert again(broker, device).connect() == 0
    assert len(fake.questions) == 2
    fake.refuse_streams = False
    broker.wait_log("event stream open")
    assert again(broker, device).connect() == 0
    assert len(fake.questions) == 2


def set_verify(fake: FakeAuthd, verify: Json | None) -> None:
    """Tell the plugin whether it may judge the client's session."""
    session = fake.session_of("c1")
    session.verify = verify
    fake.send("set", **session.as_json())


def comes_back_judged(broker: Broker, fake: FakeAuthd, device: Prover) -> bool:
    """Come back; who is quicker than the event was asked about, and has a new session."""
    if again(broker, device).connect() == 0 and not fake.reported("readmitted", "c1"):
        set_verify(fake, device.verify)
        time.sleep(0.2)
    return fake.reported("readmitted", "c1")


def test_without_the_daemons_word_nothing_is_judged(
    broker: Broker,
    fake: FakeAuthd,
    device: Prover,
) -> None:
    fake.decide = lambda _: Allow()
    online(broker, device)
    assert again(broker, device).connect() == 0
    assert len(fake.questions) == 2
    set_verify(fake, device.verify)
    eventually(lambda: comes_back_judged(broker, fake, device))
    set_verify(fake, None)
    nothing_but_the_daemon(fake)
    eventually(lambda: again(broker, device).connect() == REFUSED)


def test_a44_the_end_of_the_lease_is_the_end_of_judging(
    broker: Broker,
    fake: FakeAuthd,
    device: Prover,
) -> None:
    fake.decide = lambda _: Allow(verify=device.verify, lease_ms=1500)
    online(broker, device).disconnect()
    assert again(broker, device).connect() == 0
    time.sleep(1.6)
    fake.stop()
    assert again(broker, device).connect() is None
    fake.start()


def test_a36_a_cut_is_the_end_of_judging(
    broker: Broker,
    fake: FakeAuthd,
    device: Prover,
) -> None:
    online(broker, device)
    back = again(broker, device)
    assert back.connect() == 0
    fake.cut(key=device.id)
    back.wait_end()
    nothing_but_the_daemon(fake)
    for _ in range(3):
        assert again(broker, device).connect() == REFUSED


def test_a36_a_session_that_went_on_can_be_cut_by_its_id(
    broker: Broker,
    fake: FakeAuthd,
    device: Prover,
) -> None:
    online(broker, device)
    session = fake.session_of("c1").session
    back = again(broker, device)
    assert back.connect() == 0
    fake.wait_report("readmitted", "c1")
    fake.cut(key=device.id, session=session)
    back.wait_end()
    fake.wait_report("kicked", "c1")


def test_a_client_that_takes_itself_over_keeps_its_session(
    broker: Broker,
    fake: FakeAuthd,
    device: Prover,
) -> None:
    first = online(broker, device)
    second = again(broker, device)
    assert second.connect() == 0
    first.wait_end()
    assert second.publish("site/a") == 0
    fake.wait_report("readmitted", "c1")
    second.disconnect()
    fake.wait_report("offline", "c1")
    assert [r["what"] for r in fake.reports] == ["online", "readmitted", "offline"]


@pytest.mark.parametrize(
    "verify",
    [
        {"public": "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"},  # the neutral point
        {"public": text(Prover().key.public)},  # of another key id
        {"public": "x"},
        {"domain": "x"},
        {"endpoint": ""},
        {"endpoint": "a b"},
        {"endpoint": "x" * 129},
        {"public": 5},
    ],
    ids=["weak", "other", "short", "domain", "empty", "blank", "long", "number"],
)
def test_a1_an_odd_key_makes_the_whole_answer_useless(
    broker: Broker,
    fake: FakeAuthd,
    verify: dict[str, object],
) -> None:
    device = Prover()
    fake.decide = lambda _: Allow(verify={**device.verify, **verify})
    assert again(broker, device).connect() is None
    fake.decide = lambda _: Allow(verify={n: v for n, v in device.verify.items() if n != "domain"})
    assert again(broker, device).connect() is None


# --- sessions of an earlier run of the broker ---------------------------------------------------


@pytest.fixture
def restarted(start_broker: StartBroker, fake: FakeAuthd) -> tuple[Broker, Prover]:
    """A broker that learned from its first snapshot that `c1` has a durable session."""
    device = Prover()
    fake.sessions["AAAAAAAAAAA"] = Session(
        client_id="c1",
        session="AAAAAAAAAAA",
        key=device.id,
        rights=[{"filter": "site/#", "actions": 3}],
        verify=device.verify,
        offline=True,
    )
    broker = start_broker()
    broker.wait_log("event stream open")
    return broker, device


def test_a_session_of_an_earlier_run_goes_on(
    restarted: tuple[Broker, Prover],
    fake: FakeAuthd,
) -> None:
    broker, device = restarted
    fake.wait_for(lambda: [c["client_id"] for c in fake.synced] == ["c1"])
    assert fake.synced[0]["online"] is False
    time.sleep(STARTED_S)
    fake.stop()
    back = again(broker, device)
    assert back.connect() == 0
    assert back.publish("site/a") == 0
    fake.start()
    fake.wait_report("readmitted", "c1")


def test_a39_a_cut_of_a_session_of_an_earlier_run_denies_it(
    restarted: tuple[Broker, Prover],
    fake: FakeAuthd,
) -> None:
    broker, device = restarted
    fake.cut(key=device.id)
    fake.wait_report("cut_offline", "c1")
    time.sleep(STARTED_S)
    nothing_but_the_daemon(fake)
    assert again(broker, device).connect() == REFUSED


@pytest.fixture
def persistent(start_broker: StartBroker, tmp_path: Path, fake: FakeAuthd) -> Callable[[], Broker]:
    """Start a broker that keeps its sessions on disk; again after a stop."""
    store = tmp_path / "store"
    store.mkdir()

    def start() -> Broker:
        broker = start_broker(extra=f"persistence true\npersistence_location {store}/")
        broker.wait_log("event stream open")
        return broker

    return start


def restart(broker: Broker, start: Callable[[], Broker]) -> Broker:
    """Stop a broker, as an upgrade does, and start it anew."""
    assert broker.stop() == 0
    broker.log.unlink()
    return start()


def test_what_came_while_a_durable_session_was_away_survives_a_restart(
    persistent: Callable[[], Broker],
    fake: FakeAuthd,
) -> None:
    """And what comes after the restart is delivered too: its rights are known from the snapshot."""
    fake.decide = by_client(c1=Allow(), writer=Allow(rights=({"filter": "#", "actions": 3},)))
    broker, key = persistent(), key_id()
    reader = broker.online("c1", key=key, clean=False, protocol=V5)
    reader.subscribe("site/#")
    reader.subscribe("other/#")
    reader.disconnect()
    fake.wait_report("offline", "c1")
    broker.online("writer").publish("site/a", b"before")
    fake.session_of("c1").offline = True
    fake.sessions.pop(fake.session_of("writer").session)
    broker = restart(broker, persistent)
    writer = broker.online("writer")
    for topic in ("site/a", "other/a"):
        writer.publish(topic, topic.encode())
    assert broker.online("c1", key=key, clean=False, protocol=V5).drain() == [b"before", b"site/a"]


def test_a37_a39_nothing_is_queued_for_a_cut_session_of_an_earlier_run(
    persistent: Callable[[], Broker],
    fake: FakeAuthd,
) -> None:
    """It cannot be kicked, so the denial alone has to do."""
    broker, key = persistent(), key_id()
    reader = broker.online("c1", key=key, clean=False, protocol=V5)
    reader.subscribe("site/#")
    reader.disconnect()
    fake.wait_report("offline", "c1")
    fake.session_of("c1").offline = True
    broker = restart(broker, persistent)
    writer = broker.online("writer")
    writer.publish("site/a", b"before")
    fake.cut(key=key)
    fake.wait_report("cut_offline", "c1")
    writer.publish("site/a", b"after")
    assert broker.online("c1", key=key, clean=False, protocol=V5).drain() == [b"before"]


@pytest.mark.parametrize("listed", [True, False], ids=["known", "cut"])
def test_a42_a_retained_message_of_an_earlier_run_is_delivered_by_the_publishers_rights(
    persistent: Callable[[], Broker],
    fake: FakeAuthd,
    *,
    listed: bool,
) -> None:
    broker = persistent()
    writer = broker.online("writer", clean=False)
    writer.publish("site/a", b"kept", retain=True)
    writer.disconnect()
    fake.wait_report("offline", "writer")
    session = fake.session_of("writer")
    session.offline = True
    if not listed:
        fake.sessions.pop(session.session)
    broker = restart(broker, persistent)
    reader = broker.online("reader")
    reader.subscribe("site/#")
    assert reader.drain() == ([b"kept"] if listed else [])


def test_a50_a_stranger_on_a_known_client_id_gets_no_rights_of_an_earlier_session(
    persistent: Callable[[], Broker],
    fake: FakeAuthd,
) -> None:
    """A connection that this plugin let in under the client id has its own rights only."""
    fake.decide = by_client(c1=Allow(rights=()), writer=Allow())
    fake.sessions["AAAAAAAAAAA"] = Session(
        client_id="c1",
        session="AAAAAAAAAAA",
        key=key_id(),
        rights=[{"filter": "site/#", "actions": 3}],
        offline=True,
    )
    broker = persistent()
    taker = broker.online("c1", protocol=V5)
    assert taker.publish("site/a") == REFUSED
    assert taker.subscribe("site/a") == REFUSED
