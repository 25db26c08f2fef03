"""Ending sessions: by a cut, by the end of a lease, and what must not happen afterwards."""

import time

import pytest

from authd.demo.stage import free_port
from tests.plugin.conftest import Broker, StartBroker, tell
from tests.plugin.fake_authd import Allow, Deny, FakeAuthd, Json, by_client, key_id
from tests.plugin.mqtt import (
    REFUSED,
    V5,
    V311,
    Device,
    RawClient,
    Will,
    connect_packet,
    pop,
    publish_packet,
)

CUT_WITHIN_S = 1.0
PROTOCOLS = pytest.mark.parametrize("protocol", [V311, V5], ids=["v3.1.1", "v5"])


@PROTOCOLS
def test_a36_a_cut_ends_a_live_session(broker: Broker, fake: FakeAuthd, protocol: int) -> None:
    key = key_id()
    device = broker.online("c1", key=key, protocol=protocol)
    begun = time.monotonic()
    fake.cut(key=key)
    reason = device.wait_end(CUT_WITHIN_S)
    tell(f"cut after {(time.monotonic() - begun) * 1000:.0f} ms")
    assert reason == (0x98 if protocol is V5 else 0x80)
    fake.wait_report("kicked", "c1")
    fake.wait_report("offline", "c1")


def test_a37_a_cut_client_that_comes_back_is_refused(broker: Broker, fake: FakeAuthd) -> None:
    key = key_id()
    device = broker.online("c1", key=key)
    fake.cut(key=key)
    fake.decide = lambda _: Deny()
    device.wait_end(CUT_WITHIN_S)
    for _ in range(5):
        assert broker.device("c1", key=key).connect() == REFUSED


def test_a36_nothing_gets_through_after_a_cut(broker: Broker, fake: FakeAuthd) -> None:
    """Nothing arrives that was sent after the report of the cut."""
    reader, key = broker.online("reader"), key_id()
    reader.subscribe("site/#")
    writer = broker.online("c1", key=key)
    for i in range(20):
        writer.publish("site/a", str(i).encode())
    fake.cut(key=key)
    fake.wait_report("kicked", "c1")
    writer.publish_blindly("site/a", b"late")
    received = {reader.receive()[1] for _ in range(20)}
    assert received == {str(i).encode() for i in range(20)}
    assert reader.receives_nothing()


def test_a_cut_of_a_key_hits_every_client_of_that_key_and_no_other(
    broker: Broker,
    fake: FakeAuthd,
) -> None:
    key = key_id()
    hit = [broker.online(f"c{i}", key=key) for i in range(3)]
    other = broker.online("other")
    fake.cut(key=key, client_id="other")
    for device in hit:
        device.wait_end(CUT_WITHIN_S)
    assert other.publish("site/a") == 0
    assert not other.ended


def test_a_cut_of_one_session_leaves_the_key_s_others(broker: Broker, fake: FakeAuthd) -> None:
    key = key_id()
    first, second = broker.online("c1", key=key), broker.online("c2", key=key)
    fake.cut(key=key, session=fake.session_of("c1").session)
    first.wait_end(CUT_WITHIN_S)
    assert second.publish("site/a") == 0


def test_a_cut_of_an_older_session_leaves_the_client_s_newer_one(
    broker: Broker,
    fake: FakeAuthd,
) -> None:
    key = key_id()
    broker.online("c1", key=key)
    old = fake.session_of("c1").session
    newer = broker.online("c1", key=key)
    fake.send("cut", key=key, client_id="c1", session=old, will="suppress", reason="x")
    fake.wait_report("not_found", "c1")
    assert newer.publish("site/a") == 0


def test_a_cut_of_an_unknown_client_is_reported_and_harms_nobody(
    broker: Broker,
    fake: FakeAuthd,
) -> None:
    other = broker.online("other")
    fake.cut(key=key_id(), client_id="stranger")
    fake.wait_report("not_found", "stranger")
    assert other.publish("site/a") == 0


@PROTOCOLS
def test_a43_the_will_of_a_cut_session_is_not_published(
    broker: Broker,
    fake: FakeAuthd,
    protocol: int,
) -> None:
    reader, key = broker.online("reader"), key_id()
    reader.subscribe("site/#")
    broker.online("c1", key=key, protocol=protocol, will=Will("site/will"))
    fake.cut(key=key)
    fake.wait_report("kicked", "c1")
    assert reader.receives_nothing()


def test_the_will_is_published_if_the_cut_says_so(broker: Broker, fake: FakeAuthd) -> None:
    reader, key = broker.online("reader"), key_id()
    reader.subscribe("site/#")
    broker.online("c1", key=key, will=Will("site/will"))
    broker.online("c2", key=key, will=Will("other/will"))
    fake.cut(key=key, will="publish")
    fake.wait_report("kicked", "c1")
    fake.wait_report("kicked", "c2")
    assert reader.receive() == ("site/will", b"gone")
    assert reader.receives_nothing()


def test_a42_a_retained_message_of_a_cut_publisher_reaches_nobody(
    broker: Broker,
    fake: FakeAuthd,
) -> None:
    key = key_id()
    broker.online("c1", key=key).publish("site/a", b"kept", retain=True)
    broker.online("c2").publish("site/b", b"kept", retain=True)
    fake.cut(key=key)
    fake.wait_report("kicked", "c1")
    reader = broker.online("reader")
    reader.subscribe("site/#")
    assert reader.receive() == ("site/b", b"kept")
    assert reader.receives_nothing()


def test_a42_the_next_key_of_a_client_id_does_not_answer_for_what_was_retained(
    broker: Broker,
    fake: FakeAuthd,
) -> None:
    first = broker.online("c1")
    first.publish("site/a", b"kept", retain=True)
    first.disconnect()
    fake.wait_report("offline", "c1")
    broker.online("c1", key=key_id()).publish("site/b", b"kept", retain=True)
    reader = broker.online("reader")
    reader.subscribe("site/#")
    assert reader.receive() == ("site/b", b"kept")
    assert reader.receives_nothing()


@PROTOCOLS
def test_a39_a_cut_reaches_a_durable_session_that_is_away(
    broker: Broker,
    fake: FakeAuthd,
    protocol: int,
) -> None:
    """Subscriptions are gone: even a new grant does not bring old or new messages silently."""
    key = key_id()
    device = broker.online("c1", key=key, protocol=protocol, clean=False)
    device.subscribe("site/a")
    device.disconnect()
    fake.wait_report("offline", "c1")
    writer = broker.online("writer")
    writer.publish("site/a", b"before")
    fake.cut(key=key)
    fake.wait_report("cut_offline", "c1")
    writer.publish("site/a", b"after")
    back = broker.online("c1", key=key, protocol=protocol, clean=False)
    writer.publish("site/a", b"again")
    assert back.drain() == [b"before"]


def test_a44_a_session_ends_with_its_lease_idle_or_busy(broker: Broker, fake: FakeAuthd) -> None:
    fake.decide = by_client(idle=Allow(lease_ms=900), busy=Allow(lease_ms=900), other=Allow())
    begun = time.monotonic()
    idle, busy = broker.online("idle"), broker.online("busy", protocol=V5)
    other = broker.online("other")
    while not busy.ended:
        busy.publish_blindly("site/a", b"x")
        time.sleep(0.01)
        assert time.monotonic() < begun + 2.0
    idle.wait_end(CUT_WITHIN_S)
    tell(f"both gone {time.monotonic() - begun:.2f} s after a lease of 0.9 s began")
    assert time.monotonic() - begun >= 0.9
    assert other.publish("site/a") == 0
    fake.wait_report("kicked", "idle")


def test_a44_nothing_is_queued_after_the_lease_of_a_session_that_is_away(
    broker: Broker,
    fake: FakeAuthd,
) -> None:
    key = key_id()
    fake.decide = by_client(c1=Allow(lease_ms=1200), writer=Allow())
    device, writer = broker.online("c1", key=key, clean=False), broker.online("writer")
    begun = time.monotonic()
    device.subscribe("site/#")
    device.disconnect()
    fake.wait_report("offline", "c1")
    writer.publish("site/a", b"before")
    time.sleep(max(0.0, begun + 1.3 - time.monotonic()))
    writer.publish("site/a", b"after")
    assert broker.online("c1", key=key, clean=False).drain() == [b"before"]


def test_a_longer_lease_keeps_a_session(broker: Broker, fake: FakeAuthd) -> None:
    fake.decide = lambda _: Allow(lease_ms=800)
    kept, ended = broker.online("kept"), broker.online("ended")
    fake.send("lease", leases=[[fake.session_of("kept").session, 60_000], ["AAAAAAAAAAA", 1]])
    ended.wait_end(2.0)
    assert kept.publish("site/a") == 0
    fake.send("lease", leases=[[fake.session_of("kept").session, 0]])
    kept.wait_end(CUT_WITHIN_S)


def test_a41_a_cut_leaves_no_half_finished_qos2_message_behind(
    broker: Broker,
    fake: FakeAuthd,
) -> None:
    """PUBLISH, cut before PUBREL, and the client does not get in again to release it."""
    reader, key = broker.online("reader"), key_id()
    reader.subscribe("site/#")
    raw = RawClient(broker.port)
    connect = connect_packet(client_id=b"c1", username=key.encode(), password=pop().encode())
    raw.send(connect)
    assert raw.receive() == b"\x20\x02\x00\x00"
    raw.send(publish_packet("site/a", b"half", qos=2, mid=1))
    assert raw.receive()[:1] == b"\x50"  # PUBREC
    fake.cut(key=key)
    fake.wait_report("kicked", "c1")
    assert raw.receive() == b""
    raw.close()
    fake.decide = lambda _: Deny()
    again = RawClient(broker.port)
    again.send(connect)
    again.send(b"\x62\x02\x00\x01")  # PUBREL
    again.receive()
    again.close()
    assert reader.receives_nothing()


def test_many_cuts_at_once_are_all_carried_out(broker: Broker, fake: FakeAuthd) -> None:
    key = key_id()
    devices = [broker.online(f"c{i}", key=key) for i in range(60)]
    fake.cut(key=key)
    for device in devices:
        device.wait_end(CUT_WITHIN_S)
    fake.wait_for(lambda: sum(r["what"] == "kicked" for r in fake.reports) == 60)


def test_an_event_from_before_an_answer_leaves_the_answer_alone(
    broker: Broker,
    fake: FakeAuthd,
) -> None:
    """The answer says which event was the last before it; what is older is not about it."""
    key, other_key = key_id(), key_id()
    other = broker.online("other", key=other_key)
    fake.ahead = 5
    device = broker.online("c1", key=key)
    fake.send("cut", key=key, client_id="", session="", will="suppress", reason="older")
    fake.cut(key=other_key)
    other.wait_end(CUT_WITHIN_S)
    assert device.publish("site/a") == 0
    for _ in range(3):
        fake.send("lease", leases=[])
    fake.cut(key=key)
    device.wait_end(CUT_WITHIN_S)


@pytest.mark.parametrize("news", ["cut-key", "cut-session", "lease"])
def test_a36_news_that_overtakes_the_answer_ends_the_session(
    broker: Broker,
    fake: FakeAuthd,
    news: str,
) -> None:
    """It is numbered higher than the answer, and there while the session is in no table yet."""
    key = key_id()

    def overtake(_question: Json) -> None:
        session = fake.session_of("c1").session
        if news == "lease":
            fake.send("lease", leases=[[session, 0]])
        else:
            named = session if news == "cut-session" else ""
            fake.cut(key=key, client_id="c1", session=named)

    fake.overtake = overtake
    device = broker.device("c1", key=key)
    assert device.connect() == 0
    device.wait_end(CUT_WITHIN_S)
    fake.wait_report("kicked", "c1")
    assert not fake.reported("not_found", "c1")


def test_a_cut_that_makes_room_for_the_answer_comes_first(broker: Broker, fake: FakeAuthd) -> None:
    """The client id goes to another key, and the cut of who held it is older than the answer."""
    broker.online("c1", key=key_id())
    old = fake.session_of("c1").key

    def decide(_question: Json) -> Allow:
        fake.cut(key=old)
        return Allow()

    fake.decide = decide
    fake.overtake = lambda _: None
    broker.online("c1", key=key_id())


def test_a_cut_ends_a_session_over_websockets(start_broker: StartBroker, fake: FakeAuthd) -> None:
    port, key = free_port(), key_id()
    broker = start_broker(
        options=f"plugin_opt_authd_rate 1000\nlistener {port} 127.0.0.1\nprotocol websockets",
    )
    broker.wait_log("event stream open")
    reader = broker.online("reader")
    reader.subscribe("site/#")
    device = Device(port, client_id="c1", key=key, transport="websockets", will=Will("site/will"))
    broker.devices.append(device)
    assert device.connect() == 0
    device.publish("site/a", b"x")
    assert reader.receive() == ("site/a", b"x")
    fake.cut(key=key)
    device.wait_end(2.0)
    fake.wait_report("kicked", "c1")
    fake.wait_report("offline", "c1")
    assert reader.receives_nothing()
