"""The event stream: snapshots, gaps, a daemon that dies and comes back."""

import json
import time

import pytest

from tests.plugin.conftest import Broker
from tests.plugin.fake_authd import Allow, FakeAuthd, key_id
from tests.plugin.mqtt import eventually

CUT_WITHIN_S = 1.0


def test_a_snapshot_that_lists_a_session_leaves_it_alone(broker: Broker, fake: FakeAuthd) -> None:
    device = broker.online("c1")
    fake.end_stream()
    fake.wait_streams(2)
    fake.wait_for(lambda: [c["client_id"] for c in fake.synced] == ["c1"])
    assert device.publish("site/a") == 0


def test_a_snapshot_ends_the_sessions_it_does_not_list(broker: Broker, fake: FakeAuthd) -> None:
    gone, kept = broker.online("gone"), broker.online("kept")
    fake.sessions.pop(fake.session_of("gone").session)
    fake.end_stream()
    gone.wait_end(3.0)
    assert kept.publish("site/a") == 0
    fake.wait_report("kicked", "gone")


def test_a_snapshot_older_than_an_answer_leaves_its_session_alone(
    broker: Broker,
    fake: FakeAuthd,
) -> None:
    fake.n = 5
    device = broker.online("c1")
    fake.sessions.clear()
    fake.n = 4
    fake.end_stream()
    fake.wait_streams(2)
    fake.wait_for(lambda: [c["client_id"] for c in fake.synced] == ["c1"])
    assert device.publish("site/a") == 0


def test_a_snapshot_replaces_rights_and_leases(broker: Broker, fake: FakeAuthd) -> None:
    fake.decide = lambda _: Allow(lease_ms=3000)
    device = broker.online("c1", protocol=5)
    session = fake.session_of("c1")
    session.rights, session.lease_ms = [{"filter": "new/#", "actions": 1}], 60_000
    fake.end_stream()
    fake.wait_streams(2)
    eventually(lambda: device.publish("new/a") == 0x10)
    assert device.publish("site/a") == 0x87
    time.sleep(3.0)
    assert device.publish("new/a") == 0x10


@pytest.mark.parametrize(
    "line",
    [
        "",
        "x",
        "{}",
        '{"type":"beat","n":1}',
        '{"type":"beat","n":8,"run":"RUN"}',
        '{"type":"beat","n":1,"run":"0000000000000000"}',
        '{"type":"snapshot","n":2,"run":"RUN","sessions":[]}',
        '{"type":"lease","n":3,"leases":[]}',
        '{"type":"lease","n":1,"leases":[]}',
        '{"type":"lease","n":2,"leases":[["AAAAAAAAAAA"]]}',
        '{"type":"unheard","n":2}',
        '{"type":"cut","n":2,"key":"x"}',
    ],
)
def test_what_is_missing_or_malformed_brings_a_new_stream(
    broker: Broker,
    fake: FakeAuthd,
    line: str,
) -> None:
    device = broker.online("c1")
    fake.send_line(line.replace("RUN", fake.run) if line else " ")
    fake.wait_streams(2)
    assert device.publish("site/a") == 0


def test_good_lines_bring_no_new_stream(broker: Broker, fake: FakeAuthd) -> None:
    device = broker.online("c1")
    fake.send_line(json.dumps({"type": "beat", "n": 1, "run": fake.run, "more": 1}))
    for _ in range(50):
        fake.send("lease", leases=[[fake.session_of("c1").session, 60_000]])
    fake.send_line(json.dumps({"type": "beat", "n": 51, "run": fake.run}))
    fake.cut(key=fake.session_of("c1").key)
    device.wait_end(CUT_WITHIN_S)
    assert fake.streams == 1


def test_a_gap_hides_no_cut(broker: Broker, fake: FakeAuthd) -> None:
    """The lost event was a cut: the snapshot after the gap carries it out."""
    key = key_id()
    device = broker.online("c1", key=key)
    fake.n += 1  # the cut that got lost
    fake.sessions.clear()
    fake.send("lease", leases=[])
    device.wait_end(4.0)


def test_silence_brings_a_new_stream(broker: Broker, fake: FakeAuthd) -> None:
    device = broker.online("c1")
    fake.beat_s = 60.0
    fake.send("lease", leases=[])
    begun = time.monotonic()
    fake.wait_for(lambda: fake.streams >= 2, 20.0)
    assert time.monotonic() - begun > 11.5
    assert device.publish("site/a") == 0


def test_beats_keep_a_stream(broker: Broker, fake: FakeAuthd) -> None:
    fake.beat_s = 0.2
    fake.send("lease", leases=[])
    time.sleep(1.5)
    assert fake.streams == 1


def test_empty_lines_keep_a_stream(broker: Broker, fake: FakeAuthd) -> None:
    fake.beat_s = 60.0
    fake.send("lease", leases=[])
    for _ in range(3):
        time.sleep(4.5)
        fake.send_line("\n")
    device = broker.online("c1")
    fake.cut(key=fake.session_of("c1").key)
    device.wait_end(CUT_WITHIN_S)
    assert fake.streams == 1


def test_a_new_run_of_the_daemon_ends_what_it_does_not_list(
    broker: Broker,
    fake: FakeAuthd,
) -> None:
    gone, kept = broker.online("gone"), broker.online("kept")
    fake.sessions.pop(fake.session_of("gone").session)
    fake.n = 1000
    fake.restart_as_new_run()
    gone.wait_end(6.0)
    assert kept.publish("site/a") == 0
    fake.cut(key=fake.session_of("kept").key)
    kept.wait_end(CUT_WITHIN_S)


def test_sessions_go_on_while_the_daemon_is_away(broker: Broker, fake: FakeAuthd) -> None:
    fake.decide = lambda _: Allow(lease_ms=2500)
    device = broker.online("c1")
    begun = time.monotonic()
    fake.stop()
    while time.monotonic() < begun + 2.0:
        assert device.publish("site/a") == 0
        time.sleep(0.1)
    device.wait_end(2.0)
    fake.start()


def test_sync_lists_what_the_plugin_holds_and_drops_what_it_is_told(
    broker: Broker,
    fake: FakeAuthd,
) -> None:
    key = key_id()
    kept = broker.online("kept", key=key)
    dropped = broker.online("dropped")
    away = broker.online("away")
    away.disconnect()
    fake.wait_report("offline", "away")
    fake.synced.clear()
    fake.drop = {"dropped", "never-listed"}
    fake.end_stream()
    dropped.wait_end(3.0)
    assert kept.publish("site/a") == 0
    assert {c["client_id"]: c["online"] for c in fake.synced} == {
        "kept": True,
        "dropped": True,
        "away": False,
    }
    mine = next(c for c in fake.synced if c["client_id"] == "kept")
    assert (mine["key"], mine["session"]) == (key, fake.session_of("kept").session)


def test_one_boot_id_lasts_as_long_as_the_broker(broker: Broker, fake: FakeAuthd) -> None:
    fake.end_stream()
    fake.wait_streams(2)
    assert len(fake.boots) == 1
    assert len(fake.boots.pop()) == 16


def test_reports_wait_for_the_daemon(broker: Broker, fake: FakeAuthd) -> None:
    device = broker.online("c1")
    fake.wait_report("online", "c1")
    fake.stop()
    device.disconnect()
    time.sleep(0.5)
    fake.start()
    fake.wait_report("offline", "c1")
    report = next(r for r in fake.reports if r["what"] == "offline")
    assert 400 < report["ms_ago"] < 8000
