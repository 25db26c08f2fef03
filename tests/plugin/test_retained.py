"""What a session left behind: the topics of its retained messages, in the reports about it."""

import time

import pytest

from tests.plugin.conftest import Broker, StartBroker
from tests.plugin.fake_authd import PUB, Allow, FakeAuthd, key_id, rights
from tests.plugin.mqtt import (
    V5,
    V311,
    Device,
    RawClient,
    Will,
    connect_packet,
    pop,
    publish_packet,
)
from tests.plugin.prover import Prover

MAX_TOPICS = 32
MAX_IN_ALL = 16384
NOTHING: tuple[list[str], int] = ([], 0)
PROTOCOLS = pytest.mark.parametrize("protocol", [V311, V5], ids=["v3.1.1", "v5"])


def keep(device: Device, *topics: str, payload: bytes = b"kept") -> None:
    for topic in topics:
        device.publish(topic, payload, retain=True)


def cut(fake: FakeAuthd, key: str, client_id: str = "c1") -> tuple[list[str], int]:
    """Cut a client that is connected; what the report of it says."""
    fake.cut(key=key)
    fake.wait_report("kicked", client_id)
    return fake.left_behind("kicked", client_id)


@PROTOCOLS
def test_a42_the_report_of_a_cut_names_what_was_retained(
    broker: Broker,
    fake: FakeAuthd,
    protocol: int,
) -> None:
    key = key_id()
    device, other = broker.online("c1", key=key, protocol=protocol), broker.online("other")
    keep(device, "site/a", "site/b", "site/a")
    device.publish("site/plain", b"x")
    keep(other, "site/other")
    assert cut(fake, key) == (["site/b", "site/a"], 0)
    assert fake.left_behind("offline", "c1") == (["site/b", "site/a"], 0)
    other.disconnect()
    fake.wait_report("offline", "other")
    assert fake.left_behind("offline", "other") == (["site/other"], 0)


def test_who_left_nothing_is_not_said_to(broker: Broker, fake: FakeAuthd) -> None:
    key = key_id()
    device = broker.online("c1", key=key)
    device.publish("site/a", b"x")
    assert cut(fake, key) == NOTHING
    assert all("retained" not in report for report in fake.reports)


def test_what_was_cleared_is_not_named(broker: Broker, fake: FakeAuthd) -> None:
    key = key_id()
    device = broker.online("c1", key=key)
    keep(device, "site/a", "site/b", "site/c")
    keep(device, "site/a", "site/c", "site/never", payload=b"")
    device.publish("site/b", b"")
    assert cut(fake, key) == (["site/b"], 0)


def test_of_forty_topics_the_newest_are_named_and_the_others_counted(
    broker: Broker,
    fake: FakeAuthd,
) -> None:
    key = key_id()
    device = broker.online("c1", key=key)
    names = [f"site/{i}" for i in range(40)]
    keep(device, *names)
    assert cut(fake, key) == (names[-MAX_TOPICS:], 8)


def test_full_lists_of_the_longest_names_fit_the_requests(broker: Broker, fake: FakeAuthd) -> None:
    """Quotation marks take twice their bytes; a name that is longer still is not allowed at all."""
    key = key_id()
    names = [f"site/é{i:02}" + '"' * 247 for i in range(MAX_TOPICS)]
    assert {len(name.encode()) for name in names} == {256}
    devices = [broker.online(f"c{i}", key=key) for i in range(8)]
    for device in devices:
        keep(device, *names, names[0] + "x")
    fake.cut(key=key)
    for device in devices:
        fake.wait_report("kicked", device.client_id)
        assert fake.left_behind("kicked", device.client_id) == (names, 0)
    assert fake.streams == 1  # a request that is too large would be refused, and end in another


def test_what_was_denied_is_not_named(broker: Broker, fake: FakeAuthd) -> None:
    key = key_id()
    fake.decide = lambda _: rights(("site/a", PUB))
    device = broker.online("c1", key=key, protocol=V5)
    keep(device, "site/b", "site/a")
    assert cut(fake, key) == (["site/a"], 0)


@PROTOCOLS
def test_a_retained_will_that_was_published_is_named(
    broker: Broker,
    fake: FakeAuthd,
    protocol: int,
) -> None:
    will = Will("site/will", retain=True)
    device = broker.online("c1", protocol=protocol, will=will)
    polite = broker.online("polite", protocol=protocol, will=will)
    keep(device, "site/a")
    polite.disconnect()
    device.vanish()
    fake.wait_report("retained", "c1")
    fake.wait_report("offline", "polite")
    assert fake.left_behind("retained", "c1") == (["site/a", "site/will"], 0)
    assert fake.left_behind("offline", "polite") == NOTHING


def test_a43_a_retained_will_that_a_cut_suppressed_is_not_named(
    broker: Broker,
    fake: FakeAuthd,
) -> None:
    key = key_id()
    broker.online("c1", key=key, will=Will("site/will", retain=True))
    assert cut(fake, key) == NOTHING


def test_a_retained_will_that_a_cut_let_go_is_named(broker: Broker, fake: FakeAuthd) -> None:
    key = key_id()
    broker.online("c1", key=key, will=Will("site/will", retain=True))
    fake.cut(key=key, will="publish")
    fake.wait_report("kicked", "c1")
    assert fake.left_behind("kicked", "c1") == (["site/will"], 0)


def test_the_list_outlives_the_connection_but_not_the_key(
    broker: Broker,
    fake: FakeAuthd,
) -> None:
    """By a new session of the same client id and key, also while the old one is connected."""
    key = key_id()
    keep(broker.online("c1", key=key), "site/a")
    keep(broker.online("c1", key=key), "site/b")
    broker.devices[-1].disconnect()
    second = fake.session_of("c1").session
    fake.wait_for(
        lambda: any(r["session"] == second for r in fake.reports if r["what"] == "offline")
    )
    keep(broker.online("c1", key=key), "site/c")
    assert cut(fake, key) == (["site/a", "site/b", "site/c"], 0)
    stranger = key_id()
    keep(broker.online("c1", key=stranger), "site/d")
    fake.reports.clear()
    assert cut(fake, stranger) == (["site/d"], 0)


def test_the_list_outlives_a_connection_that_the_plugin_lets_in(
    broker: Broker,
    fake: FakeAuthd,
) -> None:
    device = Prover()
    fake.decide = lambda _: Allow(verify=device.verify)
    first = broker.online("c1", key=device.id, password=device.pop("c1", ahead_s=4))
    keep(first, "site/a")
    first.disconnect()
    fake.wait_report("offline", "c1")
    keep(broker.online("c1", key=device.id, password=device.pop("c1", ahead_s=4)), "site/b")
    assert cut(fake, device.id) == (["site/a", "site/b"], 0)


def test_a_cut_of_a_session_that_is_away_names_its_list(broker: Broker, fake: FakeAuthd) -> None:
    key = key_id()
    device = broker.online("c1", key=key, clean=False)
    keep(device, "site/a")
    device.disconnect()
    fake.wait_report("offline", "c1")
    fake.cut(key=key)
    fake.wait_report("cut_offline", "c1")
    assert fake.left_behind("cut_offline", "c1") == (["site/a"], 0)


def test_whoever_reads_what_is_retained_leaves_nothing(broker: Broker, fake: FakeAuthd) -> None:
    """The broker's question about the publisher of a retained message makes it no newer."""
    key, reading = key_id(), key_id()
    device = broker.online("c1", key=key)
    keep(device, "site/a", "site/b")
    reader = broker.online("reader", key=reading)
    keep(reader, "site/b", payload=b"")
    reader.subscribe("site/#")
    assert reader.receive() == ("site/a", b"kept")
    assert cut(fake, reading, "reader") == NOTHING
    assert cut(fake, key) == (["site/a", "site/b"], 0)


def let_in(broker: Broker, client_id: str, key: str) -> RawClient:
    """Connect, again and again if need be: the daemon is asked for 100 ms in any second."""
    name, user = client_id.encode(), key.encode()
    for _ in range(100):
        raw = RawClient(broker.port)
        raw.send(connect_packet(client_id=name, username=user, password=pop().encode()))
        if raw.packet() == b"\x20\x02\x00\x00":
            return raw
        raw.close()
        time.sleep(0.05)
    raise AssertionError("it never got in")


def leave_many(broker: Broker, client_id: str, key: str, count: int) -> None:
    """Connect, retain on so many topics, wait until the broker has them all, and go."""
    raw = let_in(broker, client_id, key)
    packets = (publish_packet(f"site/{i}", b"x", qos=1, mid=i + 1) for i in range(count))
    raw.send(b"".join(bytes([packet[0] | 1]) + packet[1:] for packet in packets))
    for _ in range(count):
        assert raw.packet()[:1] == b"\x40"
    raw.send(b"\xe0\x00")
    raw.close()


@pytest.mark.timeout(120)
def test_a_bound_on_all_lists_leaves_the_newest_of_each(
    start_broker: StartBroker,
    fake: FakeAuthd,
) -> None:
    """Who comes when all is full is counted; who has a list keeps the newest of it."""
    broker = start_broker(extra="set_tcp_nodelay true")
    broker.wait_log("event stream open")
    keys = {name: key_id() for name in ("early", "late")}
    early, late = (broker.online(name, key=key) for name, key in keys.items())
    keep(early, "site/a", "site/b")
    filler = key_id()
    clients = MAX_IN_ALL // MAX_TOPICS
    for i in range(clients):
        leave_many(broker, f"f{i}", filler, MAX_TOPICS)
    keep(late, "site/x", "site/y")
    keep(early, "site/c")
    assert cut(fake, keys["late"], "late") == ([], 2)
    assert cut(fake, keys["early"], "early") == (["site/b", "site/c"], 1)
    fake.wait_report("offline", f"f{clients - 1}")
    assert fake.left_behind("offline", f"f{clients - 1}") == (
        [f"site/{i}" for i in range(2, 32)],
        2,
    )
