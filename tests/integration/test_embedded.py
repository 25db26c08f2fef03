import asyncio
import shlex
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import paho.mqtt.client as paho
import pytest

from authd.cli.revoke import clearing
from authd.demo.stage import Stage
from authd.embedded.broker import EmbeddedBroker
from authd.embedded.engine import MAX_SUBSCRIPTIONS
from authd.errors import ConfigError
from authd.proto_stubs import decider_pb2 as pb
from tests.integration.embedded_decider import (
    LEASE_MS,
    Client,
    Running,
    ScriptedDecider,
    right,
    running,
    session,
    until,
)
from tests.integration.test_mosquitto import client_of, mosquitto_client, new_device
from tests.stages import lone_site

REFUSED = 135  # paho's name for CONNACK 5 of MQTT 3.1.1
BAD_VERSION = 132
ACCEPTED = 0
DENIED = 128

NewClient = Callable[..., Awaitable[Client]]


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Running]:
    decider = ScriptedDecider()
    decider.allow(
        session(
            "sensor",
            right("site/a/temp", pub=True),
            right("site/a/cmd/#", sub=True),
            right("site/a/will", pub=True),
        ),
        session("watcher", right("#", sub=True), right("site/#", pub=True)),
    )
    async with running(tmp_path, decider) as made:
        yield made


@pytest.fixture
async def client(served: Running) -> AsyncIterator[NewClient]:
    made: list[Client] = []

    async def connect(client_id: str, *, clean: bool = True, **more: object) -> Client:
        keepalive = more.pop("keepalive", 60)
        assert isinstance(keepalive, int)
        one = Client(client_id, clean=clean, **more)
        made.append(one)
        return await one.connect(served.broker.port, keepalive=keepalive)

    yield connect
    for one in made:
        await one.close()


async def test_an_allowed_client_does_what_it_may_and_nothing_else(client: NewClient) -> None:
    watcher = await client("watcher")
    await watcher.subscribe("#")
    sensor = await client("sensor")
    assert sensor.codes == [ACCEPTED]
    asked = [
        "site/a/cmd/#",
        "site/a/cmd/off",
        "#",
        "site/a/+/#",
        "site/a/temp",
        "$share/g/site/a/cmd/#",
        "$SYS/#",
        "+/a/cmd/on",
    ]
    granted = await sensor.subscribe(*asked)
    assert granted == [0, 0, *[DENIED] * 6]
    for topic in ("site/b/temp", "site/a/cmd/on", "elsewhere", "site/a/temp"):
        await sensor.publish(topic, topic.encode())
    await watcher.publish("site/a/cmd/on", b"go")
    await until(lambda: len(watcher.messages) == 2 and len(sensor.messages) == 1)
    assert watcher.messages == [("site/a/temp", b"site/a/temp"), ("site/a/cmd/on", b"go")]
    assert sensor.messages == [("site/a/cmd/on", b"go")]


async def test_the_daemon_is_asked_with_everything_the_client_sent(
    served: Running,
    client: NewClient,
) -> None:
    await client("sensor", clean=False)
    asked = served.decider.asked[0]
    assert len(asked.boot) == 16
    assert asked == pb.ConnectRequest(
        client_id="sensor",
        username="sensor",
        password="password",
        address="127.0.0.1",
        clean=False,
        boot=asked.boot,
        enforces=["rights", "lease", "kick", "will"],
    )


async def test_a_refused_client_gets_code_5_and_leaves_no_trace(
    served: Running,
    client: NewClient,
) -> None:
    stranger = await client("stranger")
    assert stranger.codes == [REFUSED]
    await until(stranger.disconnected.is_set)
    assert list(served.broker._engine.sessions) == []


@pytest.mark.parametrize("cause", ["temporary", "down", "no allow"])
async def test_a_refusal_that_may_pass_closes_without_connack(
    served: Running,
    client: NewClient,
    cause: str,
) -> None:
    temporary = pb.Decision(effect=pb.EFFECT_DENY, reason="stale", detail="", temporary=True)
    served.decider.refusals["later"] = temporary
    if cause == "no allow":
        served.decider.refusals["later"] = pb.Decision(temporary=True)
    served.decider.is_down = cause == "down"
    later = await client("later")
    assert later.codes == []
    assert later.disconnected.is_set()


async def test_a_cut_ends_the_session_at_once_without_a_will_and_keeps_it_out(
    served: Running,
    client: NewClient,
) -> None:
    watcher = await client("watcher")
    await watcher.subscribe("#")
    sensor = await client("sensor", topic="site/a/will", payload=b"gone")
    served.decider.cut("sensor")
    await until(sensor.disconnected.is_set)
    again = await client("sensor")
    assert again.codes == [REFUSED]
    await watcher.publish("site/last", b"")
    await until(lambda: bool(watcher.messages))
    assert watcher.messages == [("site/last", b"")]


async def test_a_cut_may_let_the_will_out(served: Running, client: NewClient) -> None:
    watcher = await client("watcher")
    await watcher.subscribe("#")
    await client("sensor", topic="site/a/will", payload=b"gone")
    served.decider.cut("sensor", will=pb.WILL_PUBLISH)
    await until(lambda: bool(watcher.messages))
    assert watcher.messages == [("site/a/will", b"gone")]


async def test_a_cut_of_a_key_ends_every_session_of_it(served: Running, client: NewClient) -> None:
    served.decider.allow(session("one", key_id="k"), session("two", key_id="k"))
    one, two, sensor = await client("one"), await client("two"), await client("sensor")
    served.decider.say(cut=pb.Cut(key_id="k", reason="revoked"))
    await until(lambda: one.disconnected.is_set() and two.disconnected.is_set())
    assert not sensor.disconnected.is_set()


async def test_a_will_goes_out_when_a_client_breaks_off_but_not_when_it_says_goodbye(
    client: NewClient,
) -> None:
    watcher = await client("watcher")
    await watcher.subscribe("#")
    sensor = await client("sensor", topic="site/a/will", payload=b"gone")
    sensor.paho.disconnect()
    await until(sensor.disconnected.is_set)
    broken = await client("sensor", topic="site/a/will", payload=b"broke off")
    broken.break_off()
    await until(lambda: bool(watcher.messages))
    assert watcher.messages == [("site/a/will", b"broke off")]


async def test_a_will_outside_the_rights_is_never_published(client: NewClient) -> None:
    watcher = await client("watcher")
    await watcher.subscribe("#")
    sensor = await client("sensor", topic="site/b/alarm", payload=b"forged", retain=True)
    assert sensor.codes == [ACCEPTED]
    sensor.break_off()
    await until(sensor.disconnected.is_set)
    await watcher.publish("site/last", b"")
    await until(lambda: bool(watcher.messages))
    assert watcher.messages == [("site/last", b"")]


async def test_rights_that_shrink_hold_at_once_for_old_subscriptions_and_the_will(
    served: Running,
    client: NewClient,
) -> None:
    watcher = await client("watcher")
    await watcher.subscribe("#")
    sensor = await client("sensor", topic="site/a/will", payload=b"gone")
    await sensor.subscribe("site/a/cmd/#")
    served.decider.say(set=session("sensor", right("site/a/cmd/one", sub=True)))
    await until(lambda: not served.broker._policy.wills)
    assert await sensor.subscribe("site/a/cmd/one") == [0]
    await watcher.publish("site/a/cmd/two", b"no")
    await watcher.publish("site/a/cmd/one", b"yes")
    await sensor.publish("site/a/temp", b"no")
    await until(lambda: bool(sensor.messages))
    sensor.break_off()
    await watcher.publish("site/last", b"")
    await until(lambda: len(watcher.messages) == 3)
    assert sensor.messages == [("site/a/cmd/one", b"yes")]
    assert [topic for topic, _ in watcher.messages] == [
        "site/a/cmd/two",
        "site/a/cmd/one",
        "site/last",
    ]


async def test_the_end_of_a_lease_ends_the_session_and_a_longer_lease_keeps_it(
    served: Running,
    client: NewClient,
) -> None:
    served.decider.allow(
        session("short", right("a", pub=True), lease_ms=600),
        session("renewed", right("a", pub=True), lease_ms=600),
    )
    short, renewed = await client("short"), await client("renewed")
    leases = [pb.Lease(session_id="session of renewed", lease_ms=LEASE_MS)]
    served.decider.say(leases=pb.Leases(leases=leases))
    assert not short.disconnected.is_set()
    await until(short.disconnected.is_set)
    await asyncio.sleep(0.3)
    assert not renewed.disconnected.is_set()


async def test_a_right_that_ends_before_the_lease_ends_alone(
    served: Running,
    client: NewClient,
) -> None:
    brief = right("site/brief", pub=True)
    brief.ms = 300
    served.decider.allow(session("mixed", brief, right("site/long", pub=True)))
    watcher = await client("watcher")
    await watcher.subscribe("#")
    mixed = await client("mixed")
    await mixed.publish("site/brief", b"1")
    await asyncio.sleep(0.4)
    await mixed.publish("site/brief", b"2")
    await mixed.publish("site/long", b"3")
    await until(lambda: len(watcher.messages) == 2)
    assert watcher.messages == [("site/brief", b"1"), ("site/long", b"3")]


async def test_sessions_survive_a_lost_stream_and_missing_ones_are_cut_by_the_snapshot(
    served: Running,
    client: NewClient,
) -> None:
    watcher, sensor = await client("watcher"), await client("sensor")
    del served.decider.sessions["sensor"]
    served.decider.say_as_is(None)
    await until(sensor.disconnected.is_set)
    assert served.decider.streams == 2
    assert not watcher.disconnected.is_set()


@pytest.mark.parametrize(
    "event",
    [pb.WatchEvent(number=99, beat=pb.Beat()), pb.WatchEvent(number=11)],
    ids=["gap", "unknown kind"],
)
async def test_a_stream_that_cannot_be_relied_on_is_opened_anew(
    served: Running,
    client: NewClient,
    event: pb.WatchEvent,
) -> None:
    sensor = await client("sensor")
    served.decider.say_as_is(event)
    await until(lambda: served.decider.streams == 2)
    assert not sensor.disconnected.is_set()


async def test_nobody_is_admitted_while_the_stream_is_down(
    served: Running,
    client: NewClient,
) -> None:
    served.decider.is_down = True
    served.decider.say_as_is(None)
    await until(lambda: not served.broker._sessions.watching.is_set())
    sensor = await client("sensor")
    assert sensor.codes == []
    assert served.decider.asked == []


async def test_a_cut_during_the_question_wins_over_the_allow(
    served: Running,
    client: NewClient,
) -> None:
    async def revoke() -> None:
        served.decider.cut("sensor")
        await asyncio.sleep(0.2)

    served.decider.before_answer = revoke
    sensor = await client("sensor")
    assert sensor.codes == [REFUSED]


async def test_rights_that_changed_during_the_question_are_the_ones_that_count(
    served: Running,
    client: NewClient,
) -> None:
    async def shrink() -> None:
        served.decider.say(set=session("sensor", right("site/a/cmd/one", sub=True)))
        await asyncio.sleep(0.2)

    await client("watcher")
    served.decider.before_answer = shrink
    sensor = await client("sensor")
    assert await sensor.subscribe("site/a/cmd/#", "site/a/cmd/one") == [DENIED, 0]


async def test_a_stream_opened_anew_during_the_question_voids_the_allow(
    served: Running,
    client: NewClient,
) -> None:
    async def reopen() -> None:
        served.decider.say_as_is(None)
        await until(lambda: served.decider.streams == 2)
        await asyncio.sleep(0.1)

    served.decider.before_answer = reopen
    sensor = await client("sensor")
    assert sensor.codes == []


async def test_a_client_id_in_use_is_refused_to_another_key(
    served: Running,
    client: NewClient,
) -> None:
    sensor = await client("sensor")
    mine = session("sensor", key_id="another key", session_id="another session")
    served.decider.allow(mine)
    other = await client("sensor")
    assert other.codes == [REFUSED]
    assert not sensor.disconnected.is_set()


async def test_the_same_key_takes_its_own_place(served: Running, client: NewClient) -> None:
    watcher = await client("watcher")
    await watcher.subscribe("#")
    first = await client("sensor")
    second = await client("sensor")
    await until(first.disconnected.is_set)
    assert second.codes == [ACCEPTED]
    await second.subscribe("site/a/cmd/#")
    await watcher.publish("site/a/cmd/on", b"go")
    await until(lambda: bool(second.messages))


async def test_a_refused_client_does_not_disturb_the_session_of_its_client_id(
    served: Running,
    client: NewClient,
) -> None:
    watcher = await client("watcher")
    await watcher.subscribe("#")
    sensor = await client("sensor", topic="site/a/will", payload=b"mine")
    await sensor.subscribe("site/a/cmd/#")
    live = served.decider.sessions.pop("sensor")
    for clean in (True, False):
        thief = await client("sensor", clean=clean, topic="site/a/will", payload=b"forged")
        assert thief.codes == [REFUSED]
    served.decider.allow(live)
    await watcher.publish("site/a/cmd/on", b"go")
    await until(lambda: bool(sensor.messages))
    sensor.break_off()
    await until(lambda: len(watcher.messages) == 2)
    assert watcher.messages[1] == ("site/a/will", b"mine")


async def test_a_durable_session_keeps_messages_until_it_is_cut(
    served: Running,
    client: NewClient,
) -> None:
    watcher = await client("watcher")
    first = await client("sensor", clean=False)
    await first.subscribe("site/a/cmd/#", qos=1)
    await first.close()
    await until(first.disconnected.is_set)
    await asyncio.sleep(0.1)
    await watcher.publish("site/a/cmd/on", b"kept")
    await asyncio.sleep(0.1)
    second = await client("sensor", clean=False)
    assert second.session_present
    await until(lambda: second.messages == [("site/a/cmd/on", b"kept")])
    await second.close()
    await asyncio.sleep(0.1)
    live = served.decider.sessions["sensor"]
    served.decider.cut("sensor")
    await until(lambda: "sensor" not in served.broker._engine.sessions)
    served.decider.allow(live)
    third = await client("sensor", clean=False)
    assert (third.codes, third.session_present) == ([ACCEPTED], False)


async def test_what_was_kept_is_checked_again_when_the_client_comes_back(
    served: Running,
    client: NewClient,
) -> None:
    watcher = await client("watcher")
    first = await client("sensor", clean=False)
    await first.subscribe("site/a/cmd/#", qos=1)
    await first.close()
    await asyncio.sleep(0.1)
    await watcher.publish("site/a/cmd/one", b"1")
    await watcher.publish("site/a/cmd/two", b"2")
    await asyncio.sleep(0.1)
    served.decider.allow(session("sensor", right("site/a/cmd/two", sub=True)))
    second = await client("sensor", clean=False)
    await until(lambda: bool(second.messages))
    await watcher.publish("site/a/cmd/one", b"3")
    await watcher.publish("site/a/cmd/two", b"4")
    await asyncio.sleep(0.2)
    assert second.messages == [("site/a/cmd/two", b"2")]


async def test_durable_state_does_not_pass_to_another_key(
    served: Running,
    client: NewClient,
) -> None:
    watcher = await client("watcher")
    first = await client("sensor", clean=False)
    await first.subscribe("site/a/cmd/#", qos=1)
    await first.close()
    await asyncio.sleep(0.1)
    await watcher.publish("site/a/cmd/on", b"secret")
    await asyncio.sleep(0.1)
    served.decider.allow(session("sensor", right("site/a/cmd/#", sub=True), key_id="another"))
    second = await client("sensor", clean=False)
    await asyncio.sleep(0.2)
    assert (second.codes, second.session_present, second.messages) == ([ACCEPTED], False, [])


async def test_retained_messages_go_only_to_who_subscribed_and_may_receive(
    served: Running,
    client: NewClient,
) -> None:
    served.decider.allow(session("nosy", right("site/a/cmd/#", sub=True)))
    watcher = await client("watcher")
    await watcher.publish("site/a/cmd/on", b"kept", retain=True)
    await watcher.publish("site/secret", b"kept", retain=True)
    await watcher.subscribe("#")
    await until(lambda: len(watcher.messages) == 2)
    nosy = await client("nosy")
    await asyncio.sleep(0.2)
    assert nosy.messages == []
    await nosy.subscribe("site/a/cmd/#")
    await until(lambda: bool(nosy.messages))
    assert nosy.messages == [("site/a/cmd/on", b"kept")]


async def test_the_broker_knows_what_each_client_retained_and_has_not_cleared(
    served: Running,
    client: NewClient,
) -> None:
    def left(client_id: str) -> tuple[tuple[str, ...], int]:
        return served.broker._policy.retained.of((client_id, f"key of {client_id}"))

    served.decider.allow(session("sensor", right("site/#", pub=True)))
    watcher = await client("watcher")
    sensor = await client("sensor", topic="site/a/will", payload=b"gone", retain=True)
    for topic in ("site/a/one", "site/a/two", "site/a/three"):
        await sensor.publish(topic, b"kept", retain=True)
    await sensor.publish("site/a/passing", b"not kept")
    await sensor.publish("elsewhere", b"refused", retain=True)
    await sensor.publish("site/a/two", b"", retain=True)
    await watcher.publish("site/a/three", b"mine now", retain=True)
    await until(lambda: left("watcher") == (("site/a/three",), 0))
    assert left("sensor") == (("site/a/one",), 0)
    sensor.break_off()
    await until(lambda: left("sensor") == (("site/a/one", "site/a/will"), 0))


async def test_what_another_key_left_under_a_client_id_stays_that_keys(
    served: Running,
    client: NewClient,
) -> None:
    first = await client("sensor")
    await first.publish("site/a/temp", b"kept", retain=True)
    await first.close()
    served.decider.allow(session("sensor", right("site/#", pub=True), key_id="another"))
    second = await client("sensor")
    await second.publish("site/b/temp", b"kept", retain=True)
    retained = served.broker._policy.retained
    await until(lambda: retained.of(("sensor", "another")) == (("site/b/temp",), 0))
    assert retained.of(("sensor", "key of sensor")) == (("site/a/temp",), 0)


async def test_a_cut_says_what_the_session_left_behind(
    served: Running,
    client: NewClient,
) -> None:
    sensor = await client("sensor", topic="site/a/will", payload=b"gone", retain=True)
    await sensor.publish("site/a/temp", b"kept", retain=True)
    # The broker acknowledges what it has yet to look at.
    retained = served.broker._policy.retained
    await until(lambda: retained.of(("sensor", "key of sensor")) == (("site/a/temp",), 0))
    served.decider.cut("sensor", will=pb.WILL_PUBLISH)
    await until(lambda: "WHAT_KICKED" in served.decider.told("sensor"))
    (kicked,) = (one for one in served.decider.reports if one.what == pb.WHAT_KICKED)
    assert list(kicked.retained) == ["site/a/temp", "site/a/will"]


def test_a_revoked_device_is_shown_with_what_it_retained_until_that_is_cleared_by_hand(
    tmp_path: Path,
) -> None:
    with Stage(tmp_path, mosquitto=None, plugin=None) as stage:
        site = lone_site(stage)
        lamp = new_device(stage, site, "lamp", "--pub=home/lamp")
        watch = new_device(stage, site, "watch", "--pub=home/#", "--sub=home/#")
        with client_of(site, lamp) as device:
            device._client.publish("home/lamp", "on", qos=1, retain=True).wait_for_publish(5)
            answer = stage.authd("revoke", "lamp", site=site)
        left = {"broker": "embedded", "client_id": lamp.client_id, "topic": "home/lamp"}
        assert [cut["outcome"] for cut in answer["cut"]] == ["kicked"]
        assert (answer["retained"], answer["retained_more"]) == ([left], 0)
        with client_of(site, watch) as observer:
            assert observer.subscribe("home/#")
            assert observer.received("home/lamp", "on")
        (listed,) = stage.authd("revocations", site=site)["revocations"]
        assert listed["retained"] == [left]
        command = shlex.split(clearing(left["topic"]))
        cleared = mosquitto_client(site, command[0], watch, *command[1:])
        assert cleared.returncode == 0, cleared.stderr
        with client_of(site, watch) as observer:
            assert observer.subscribe("home/#")
            assert observer.never_received("on")


async def test_a_silent_client_is_ended_after_one_and_a_half_keep_alives(
    client: NewClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sensor = await client("sensor", keepalive=1)
    monkeypatch.setattr(sensor.paho, "_send_pingreq", lambda: paho.MQTT_ERR_SUCCESS)
    began = time.monotonic()
    await until(sensor.disconnected.is_set, seconds=10)
    assert time.monotonic() - began > 1.0


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"\x10\x10\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x03abc", b"\x20\x03\x00\x84\x00"),
        (b"\x10\x11\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x03abc", b"\x20\x02\x00\x01"),
        (b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00", b"\x20\x02\x00\x02"),
        (b"\x10\x0c\x00\x04MQTT\x04\x03\x00\x3c\x00\x00", b""),
        (b"\x30\x03\x00\x01a", b""),
        (b"\x10\xff\xff\xff\x7f", b""),
        (b"\x10\x80\x80\x80\x80", b""),
        (b"GET / HTTP/1.1\r\n\r\n", b""),
        (b"", b""),
    ],
    ids=["v5", "v3.1", "empty id", "reserved flag", "publish", "huge", "endless", "http", "eof"],
)
async def test_what_is_no_connect_of_3_1_1_is_answered_or_closed_and_never_asked_about(
    served: Running,
    sent: bytes,
    answer: bytes,
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.broker.port)
    writer.write(sent)
    writer.write_eof()
    async with asyncio.timeout(5):
        assert await reader.read() == answer
    writer.close()
    await writer.wait_closed()
    assert served.decider.asked == []


async def test_a_publish_against_the_rules_ends_the_connection_and_the_session(
    served: Running,
    client: NewClient,
) -> None:
    sensor = await client("sensor")
    sensor.paho.publish("$SYS/forged", b"x", qos=0)
    await until(sensor.disconnected.is_set)
    await until(lambda: "sensor" not in served.broker._engine.sessions)


async def test_a_packet_larger_than_the_bound_ends_the_connection(
    served: Running,
    client: NewClient,
) -> None:
    sensor = await client("sensor")
    sensor.paho.publish("site/a/temp", bytes(300 * 1_024), qos=0)
    await until(sensor.disconnected.is_set)
    await until(lambda: "sensor" not in served.broker._engine.sessions)


async def test_the_daemon_hears_what_became_of_each_session(
    served: Running,
    client: NewClient,
) -> None:
    decider = served.decider
    await until(lambda: len(decider.reports) == 2)
    decider.reports.clear()
    sensor = await client("sensor")
    await sensor.close()
    await until(lambda: decider.told("sensor") == ["WHAT_ONLINE", "WHAT_OFFLINE"])
    decider.reports.clear()
    sensor = await client("sensor")
    decider.cut("sensor")
    await until(
        lambda: decider.told("sensor") == ["WHAT_ONLINE", "WHAT_OFFLINE", "WHAT_KICKED"],
    )
    durable = await client("watcher", clean=False)
    await durable.close()
    await until(lambda: len(decider.told("watcher")) == 2)
    decider.cut("watcher")
    await until(lambda: decider.told("watcher")[2:] == ["WHAT_CUT_OFFLINE"])
    decider.say(cut=pb.Cut(session_id="no such session", client_id="ghost"))
    await until(lambda: decider.told("ghost") == ["WHAT_NOT_FOUND"])


async def test_reports_wait_for_a_daemon_that_is_away(
    served: Running,
    client: NewClient,
) -> None:
    await until(lambda: len(served.decider.reports) == 2)
    served.decider.reports.clear()
    sensor = await client("sensor")
    await until(lambda: served.decider.told("sensor") == ["WHAT_ONLINE"])
    served.decider.is_down = True
    await sensor.close()
    await asyncio.sleep(0.3)
    served.decider.is_down = False
    await until(lambda: served.decider.told("sensor") == ["WHAT_ONLINE", "WHAT_OFFLINE"])


async def test_sessions_that_ended_unheard_are_told_after_the_snapshot(
    served: Running,
) -> None:
    await until(lambda: len(served.decider.told("sensor")) == 1)
    assert served.decider.told("sensor") == ["WHAT_OFFLINE"]


async def test_a_port_that_is_taken_and_files_that_are_missing_are_errors_of_the_configuration(
    served: Running,
    tmp_path: Path,
) -> None:
    parts = served.broker._parts
    taken = replace(parts, port=served.broker.port)
    missing = replace(parts, decider=replace(parts.decider, key=tmp_path / "missing"))
    for wrong in (taken, missing):
        with pytest.raises(ConfigError):
            async with EmbeddedBroker(wrong):
                pass


async def test_a_client_gets_no_more_subscriptions_than_the_bound(client: NewClient) -> None:
    sensor = await client("sensor")
    filters = [f"site/a/cmd/{number}" for number in range(MAX_SUBSCRIPTIONS + 1)]
    assert await sensor.subscribe(*filters) == [0] * MAX_SUBSCRIPTIONS + [DENIED]


async def test_connections_above_the_bound_are_closed_at_once(
    served: Running,
    client: NewClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("authd.embedded.broker.MAX_CONNECTIONS", 1)
    sensor = await client("sensor")
    second = await client("watcher")
    assert second.codes == []
    await sensor.close()
    await until(lambda: served.broker._open == 0)
    assert (await client("watcher")).codes == [ACCEPTED]
