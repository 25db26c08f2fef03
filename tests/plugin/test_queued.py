"""What was on its way when a reader was revoked: queued, in flight, retained, streaming (A40)."""

import struct
import time

import pytest

from tests.plugin.conftest import Broker, StartBroker, tell
from tests.plugin.fake_authd import SUB, Allow, Deny, FakeAuthd, by_client, key_id, rights
from tests.plugin.mqtt import REFUSED, V5, V311, RawClient, connect_packet, pop

BOUND_S = 1.0  # the news to the plugin, one TICK, the kick
PROTOCOLS = pytest.mark.parametrize("protocol", [V311, V5], ids=["v3.1.1", "v5"])


def slow_reader(port: int, key: str) -> RawClient:
    """Subscribe with QoS 1 and never acknowledge: the broker stops at 20 in flight."""
    reader = RawClient(port)
    packet = connect_packet(client_id=b"reader", username=key.encode(), password=pop().encode())
    reader.send(packet)
    assert reader.packet() == b"\x20\x02\x00\x00"
    reader.send(b"\x82\x0b\x00\x01\x00\x06site/#\x01")
    assert reader.packet()[:1] == b"\x90"
    return reader


def arrivals(reader: RawClient) -> list[tuple[float, bytes]]:
    """Read until the broker closes; when each message came, and its number."""
    came = []
    while packet := reader.packet():
        came.append((time.monotonic(), packet))
    return came


def test_a40_messages_in_flight_and_queued_end_with_the_session(
    broker: Broker,
    fake: FakeAuthd,
) -> None:
    key = key_id()
    reader, writer = slow_reader(broker.port, key), broker.online("writer")
    for number in range(50):
        writer.publish("site/a", struct.pack("!H", number))
    cut_at = time.monotonic()
    fake.cut(key=key)
    came = arrivals(reader)
    tell(f"{len(came)} in flight, last {(came[-1][0] - cut_at) * 1000:.0f} ms after the cut")
    assert len(came) == 20
    assert time.monotonic() - cut_at < BOUND_S
    reader.close()


def test_a40_a_stream_stops_within_the_bound(broker: Broker, fake: FakeAuthd) -> None:
    key = key_id()
    reader, writer = broker.online("reader", key=key), broker.online("writer")
    reader.subscribe("site/#")
    stop = time.monotonic() + 1.5
    cut_at = 0.0
    while time.monotonic() < stop:
        writer.publish_blindly("site/a", b"x")
        time.sleep(0.002)
        if not cut_at and time.monotonic() > stop - 1.0:
            fake.cut(key=key)
            cut_at = time.monotonic()
    last = 0.0
    while not reader.messages.empty():
        last = reader.messages.get()[2]
    tell(f"last message {(last - cut_at) * 1000:+.0f} ms after the cut was sent")
    assert 0 < last < cut_at + BOUND_S
    reader.wait_end()


@PROTOCOLS
def test_a40_what_is_queued_for_a_reader_that_is_away_is_checked_when_it_comes_back(
    broker: Broker,
    fake: FakeAuthd,
    protocol: int,
) -> None:
    """Revoked: not let in. Let in again with fewer rights: only what these cover."""
    key = key_id()
    reader = broker.online("reader", key=key, clean=False, protocol=protocol)
    for topic in ("site/a", "site/b"):
        reader.subscribe(topic)
    reader.disconnect()
    fake.wait_report("offline", "reader")
    writer = broker.online("writer")
    for topic in ("site/a", "site/b"):
        writer.publish(topic, topic.encode())
    fake.cut(key=key)
    fake.wait_report("cut_offline", "reader")
    fake.decide = lambda _: Deny()
    refused = broker.device("reader", key=key, clean=False, protocol=protocol)
    assert refused.connect() == REFUSED
    fake.decide = lambda _: rights(("site/b", SUB))
    back = broker.online("reader", key=key, clean=False, protocol=protocol)
    assert back.drain() == [b"site/b"]


def test_a40_a_retained_message_is_not_for_who_lost_the_right(
    broker: Broker,
    fake: FakeAuthd,
) -> None:
    fake.decide = by_client(writer=Allow(), reader=rights(("site/#", SUB)))
    broker.online("writer").publish("site/a", b"kept", retain=True)
    reader = broker.online("reader", protocol=V5)
    assert reader.subscribe("site/#") == 1
    assert reader.receive() == ("site/a", b"kept")
    session = fake.session_of("reader")
    session.rights = [{"filter": "site/b", "actions": SUB}]
    fake.send("set", **session.as_json())
    time.sleep(0.3)
    assert reader.subscribe("site/#") == REFUSED
    assert reader.receives_nothing()


def test_a40_messages_held_back_while_a_lease_was_over_are_not_sent_later(
    start_broker: StartBroker,
    fake: FakeAuthd,
) -> None:
    """Between the end of a lease and the kick nothing new is queued, and nothing comes after."""
    broker = start_broker()
    broker.wait_log("event stream open")
    fake.decide = by_client(writer=Allow(), reader=Allow(lease_ms=600))
    writer, reader = broker.online("writer"), broker.online("reader")
    reader.subscribe("site/#")
    begun = time.monotonic()
    while not reader.ended:
        writer.publish_blindly("site/a", b"x")
        time.sleep(0.005)
        assert time.monotonic() < begun + 3.0
    last = 0.0
    while not reader.messages.empty():
        last = reader.messages.get()[2]
    tell(f"last message {(last - begun) * 1000:.0f} ms after a lease of 600 ms was asked for")
    assert last - begun < 0.6 + 0.1
