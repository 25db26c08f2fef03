"""What an accepted session may do, and what is left of it when it is away."""

import time

import pytest

from tests.plugin.conftest import Broker
from tests.plugin.fake_authd import PUB, SUB, Allow, FakeAuthd, Json, by_client, key_id, rights
from tests.plugin.mqtt import REFUSED, V5, V311, Will, eventually

GRANTED = 1
DONE = (0, 0x10)  # 0x10: nobody has subscribed


def test_each_right_allows_its_own_action_only(broker: Broker, fake: FakeAuthd) -> None:
    fake.decide = lambda _: rights(("up/+", PUB), ("down/#", SUB))
    device = broker.online("c1", protocol=V5)
    assert device.publish("up/a") in DONE
    assert device.publish("down/a") == REFUSED
    assert device.publish("up/a/b") == REFUSED
    assert device.subscribe("down/x") == GRANTED
    assert device.subscribe("up/a") == REFUSED
    assert device.subscribe("#") == REFUSED


def test_no_rights_allow_nothing(broker: Broker, fake: FakeAuthd) -> None:
    fake.decide = lambda _: rights()
    device = broker.online("c1", protocol=V5)
    assert device.publish("a") == REFUSED
    assert device.subscribe("a") == REFUSED


def test_an_action_nobody_knows_is_not_granted(broker: Broker, fake: FakeAuthd) -> None:
    fake.decide = lambda _: rights(("a", 4), ("b", 8 | PUB))
    device = broker.online("c1", protocol=V5)
    assert device.publish("a") == REFUSED
    assert device.subscribe("a") == REFUSED
    assert device.publish("b") in DONE


@pytest.mark.parametrize(
    ("granted", "within", "beyond"),
    [
        ("a/+", ["a/b", "a/+"], ["a/#", "a/+/c", "a", "#", "+/b", "a/b/#"]),
        ("a/b", ["a/b"], ["a/b/c", "a/b/#", "a/+", "a", "A/b", "a/b/"]),
        ("a.b", ["a.b"], ["a/b", "aXb", "a.*"]),
        ("a/*", ["a/*"], ["a/b", "a/+", "a/#"]),
        ("a/${clientid}", ["a/${clientid}"], ["a/c1", "a/+"]),
        ("a/%c", ["a/%c"], ["a/c1", "a/%u"]),
        ("eq a/+", ["eq a/b"], ["a/+", "a/b"]),
        ("a,b", ["a,b"], ["a", "b"]),
        ("+/+", ["/", "x/y"], ["$SYS/y", "x", "x/y/z", "#"]),
    ],
)
def test_a18_the_broker_applies_no_wider_matching_than_ours(
    broker: Broker,
    fake: FakeAuthd,
    granted: str,
    within: list[str],
    beyond: list[str],
) -> None:
    fake.decide = lambda _: rights((granted, PUB | SUB))
    device = broker.online("c1", protocol=V5)
    for asked in (*within, *beyond):
        assert device.subscribe(asked) == (GRANTED if asked in within else REFUSED), asked
        if not {"+", "#"} & set(asked):
            code = device.publish(asked)
            assert (code == REFUSED) == (asked in beyond), asked


def test_a38_a_remembered_topic_is_forgotten_with_the_rights(
    broker: Broker,
    fake: FakeAuthd,
) -> None:
    """Allowed a hundred times, denied at once; for another action, client or name never allowed."""
    fake.decide = by_client(
        c1=rights(("ab/c", PUB), ("a/bc", SUB)), c2=rights(("a/bc", PUB)), c12=rights()
    )
    devices = {name: broker.online(name, protocol=V5) for name in ("c1", "c2", "c12")}
    for _ in range(100):
        assert devices["c1"].publish("ab/c") in DONE
        assert devices["c1"].publish("a/bc") == REFUSED
        assert devices["c2"].publish("a/bc") in DONE
        assert devices["c2"].publish("ab/c") == REFUSED
        assert devices["c12"].publish("ab/c") == REFUSED
    for name in ("c1", "c2"):
        session = fake.session_of(name)
        session.rights = [{"filter": "other", "actions": PUB}]
        fake.send("set", **session.as_json())
    eventually(lambda: devices["c2"].publish("a/bc") == REFUSED)
    assert devices["c1"].publish("ab/c") == REFUSED


def test_a38_a_remembered_topic_ends_with_its_entry(broker: Broker, fake: FakeAuthd) -> None:
    short: Json = {"filter": "a/+", "actions": PUB, "ms": 700}
    fake.decide = lambda _: Allow(rights=(short, {"filter": "b", "actions": PUB}))
    device = broker.online("c1", protocol=V5)
    begun = time.monotonic()
    while device.publish("a/b") in DONE:
        assert time.monotonic() < begun + 10.0, "it outlived its 700 ms"
    assert device.publish("b") in DONE


def test_delivery_is_checked_by_topic_name(broker: Broker, fake: FakeAuthd) -> None:
    """Rights that shrink in place leave the subscription and stop the messages."""
    reader, writer = broker.online("reader", protocol=V5), broker.online("writer")
    reader.subscribe("site/#")
    writer.publish("site/a", b"1")
    assert reader.receive() == ("site/a", b"1")
    session = fake.session_of("reader")
    session.rights = [{"filter": "site/b", "actions": SUB}]
    fake.send("set", **session.as_json())
    eventually(lambda: reader.subscribe("site/a") == REFUSED)
    writer.publish("site/a", b"2")
    writer.publish("site/b", b"3")
    assert reader.receive() == ("site/b", b"3")


def test_a_right_ends_at_its_own_time(broker: Broker, fake: FakeAuthd) -> None:
    short: Json = {"filter": "a", "actions": PUB, "ms": 600}
    fake.decide = lambda _: Allow(rights=(short, {"filter": "b", "actions": PUB}))
    device = broker.online("c1", protocol=V5)
    assert device.publish("a") in DONE
    eventually(lambda: device.publish("a") == REFUSED)
    assert device.publish("b") in DONE
    assert not device.ended


@pytest.mark.parametrize(
    "topic_filter",
    ["$share/g/secret/#", "$share/g/#", "$share/g/site/+/#/", "$share//site/a", "$share/g"],
)
def test_a19_a_share_gives_no_more_than_the_filter_inside(
    broker: Broker,
    fake: FakeAuthd,
    topic_filter: str,
) -> None:
    device = broker.online("c1", protocol=V5)
    raw_refused = (REFUSED, 0x8F)  # the broker itself calls some of them malformed
    try:
        assert device.subscribe(topic_filter) in raw_refused
    except ValueError:  # paho refuses to send what is plainly no filter
        assert topic_filter == "$share/g/site/+/#/"


def test_a19_a_shared_subscription_of_an_allowed_filter_works(
    broker: Broker,
    fake: FakeAuthd,
) -> None:
    reader, writer = broker.online("reader", protocol=V5), broker.online("writer")
    assert reader.subscribe("$share/g/site/#") == GRANTED
    writer.publish("site/a", b"1")
    assert reader.receive() == ("site/a", b"1")


def test_a20_wildcards_never_reach_dollar_topics(broker: Broker, fake: FakeAuthd) -> None:
    fake.decide = lambda _: rights(("#", PUB | SUB), ("+/#", PUB | SUB))
    device = broker.online("c1", protocol=V5)
    assert device.subscribe("$SYS/#") == REFUSED
    assert device.subscribe("$CONTROL/#") == REFUSED
    assert device.publish("$CONTROL/dynamic-security/v1") == REFUSED
    assert device.publish("$SYS/broker/connection/c1/state") == REFUSED
    assert device.subscribe("#") == GRANTED
    assert device.receives_nothing()


def test_a21_a_topic_alias_is_no_way_around(broker: Broker, fake: FakeAuthd) -> None:
    """The broker resolves aliases first, so each publish is judged by its own topic."""
    device, reader = broker.online("c1", protocol=V5), broker.online("reader")
    reader.subscribe("site/#")
    device.publish_by_alias("site/a", b"1", set_alias=True)
    device.publish_by_alias("site/a", b"2", set_alias=False)
    assert [reader.receive()[1] for _ in range(2)] == [b"1", b"2"]
    session = fake.session_of("c1")
    session.rights = []
    fake.send("set", **session.as_json())
    eventually(lambda: device.publish("site/b", b"until set") == REFUSED)
    assert device.publish_by_alias("site/a", b"3", set_alias=False) == REFUSED
    assert b"3" not in reader.drain()


def test_a_client_may_always_unsubscribe(broker: Broker, fake: FakeAuthd) -> None:
    device = broker.online("c1", protocol=V5)
    device.subscribe("site/a")
    session = fake.session_of("c1")
    session.rights = []
    fake.send("set", **session.as_json())
    eventually(lambda: device.publish("site/b") == REFUSED)
    assert device.unsubscribe("site/a") == 0


def test_a_durable_session_is_served_while_it_is_away(broker: Broker, fake: FakeAuthd) -> None:
    key = key_id()
    device = broker.online("c1", key=key, clean=False)
    device.subscribe("site/a")
    device.disconnect()
    fake.wait_report("offline", "c1")
    broker.online("writer").publish("site/a", b"1")
    back = broker.online("c1", key=key, clean=False)
    assert back.receive() == ("site/a", b"1")


@pytest.mark.parametrize("protocol", [V311, V5], ids=["v3.1.1", "v5"])
def test_a_will_is_published_within_the_rights(
    broker: Broker,
    fake: FakeAuthd,
    protocol: int,
) -> None:
    reader = broker.online("reader")
    reader.subscribe("site/#")
    broker.online("c1", protocol=protocol, will=Will("site/will")).vanish()
    assert reader.receive() == ("site/will", b"gone")
    broker.online("c2", protocol=protocol, will=Will("other/will")).vanish()
    fake.wait_report("offline", "c2")
    assert reader.receives_nothing()


def test_a_will_survives_a_takeover_by_the_same_client(broker: Broker, fake: FakeAuthd) -> None:
    reader, key = broker.online("reader"), key_id()
    reader.subscribe("site/#")
    broker.online("c1", key=key, will=Will("site/will"))
    broker.online("c1", key=key)
    assert reader.receive() == ("site/will", b"gone")


def test_a_retained_message_outlives_its_publishers_connection(
    broker: Broker,
    fake: FakeAuthd,
) -> None:
    fake.decide = by_client(
        writer=Allow(lease_ms=700),
        reader=Allow(),
    )
    writer = broker.online("writer")
    writer.publish("site/a", b"kept", retain=True)
    writer.wait_end()  # of the lease
    reader = broker.online("reader")
    reader.subscribe("site/#")
    assert reader.receive() == ("site/a", b"kept")


def test_a_retained_message_needs_a_right_that_still_covers_it(
    broker: Broker,
    fake: FakeAuthd,
) -> None:
    writer = broker.online("writer", protocol=V5)
    writer.publish("site/a", b"kept", retain=True)
    session = fake.session_of("writer")
    session.rights = [{"filter": "site/b", "actions": PUB}]
    fake.send("set", **session.as_json())
    eventually(lambda: writer.publish("site/a", b"new", retain=True) == REFUSED)
    reader = broker.online("reader")
    reader.subscribe("site/#")
    assert reader.receives_nothing()
