"""A storm of connects, cuts and reconnects while memory is watched (A51, A52).

Valgrind sees the broker's own use of freed memory, which a careless kick of an offline session
provokes in 2.0; the sanitizers see the plugin's.
"""

import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.plugin.conftest import SOURCES, Broker, StartBroker
from tests.plugin.enhanced import Client
from tests.plugin.fake_authd import Allow, FakeAuthd, Session, key_id
from tests.plugin.mqtt import (
    V5,
    V311,
    Device,
    RawClient,
    Will,
    auth_data,
    connect_packet,
    pop,
    publish_packet,
)
from tests.plugin.prover import Prover

ROUNDS = 4
VALGRIND = (
    "/usr/bin/valgrind",
    "--quiet",
    "--error-exitcode=99",
    "--keep-debuginfo=yes",
    "--leak-check=full",
    "--errors-for-leak-kinds=definite",
    f"--suppressions={Path(__file__).with_name('mosquitto.supp')}",
)


def build_sanitized() -> Path:
    """Build the plugin with the sanitizers."""
    make = ["/usr/bin/make", "-s", "-C", str(SOURCES), "asan"]
    subprocess.run(make, check=True, capture_output=True)
    return SOURCES / "authd_mosquitto_asan.so"


def preload() -> tuple[str, ...]:
    """Return what runs a program so that it can load a library with the sanitizers."""
    ask = ["/usr/bin/gcc", "-print-file-name=libasan.so"]
    library = subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip()
    known = Path(__file__).with_name("lsan.supp")
    options = (
        f"LSAN_OPTIONS=suppressions={known}:print_suppressions=0",
        "ASAN_OPTIONS=exitcode=99",
    )
    return ("/usr/bin/env", f"LD_PRELOAD={library}", *options)


def persistently(broker: Broker, client_id: str, key: str, *, v5: bool, expiry_s: int) -> Device:
    """Connect, again and again if need be: under Valgrind an answer may come too late."""
    for _ in range(20):
        device = broker.device(
            client_id,
            key=key,
            protocol=V5 if v5 else V311,
            clean=False,
            will=Will(f"site/{client_id}/will"),
        )
        device.session_expiry_s = expiry_s
        if device.connect() == 0:
            return device
        time.sleep(0.2)
    raise AssertionError("it never got in")


def one_round(broker: Broker, fake: FakeAuthd, number: int) -> None:
    """Sessions of every sort, cut in every state, and taken over."""
    keys = {name: key_id() for name in ("online", "away", "expired", "kept")}
    devices = {
        name: persistently(broker, name, key, v5=number % 2 == 0, expiry_s=1)
        for name, key in keys.items()
    }
    for name, device in devices.items():
        device.subscribe("site/#")
        device.publish_blindly(f"site/{name}", b"x")
    devices["away"].vanish()
    devices["expired"].disconnect()
    fake.wait_report("offline", "away")
    for name in ("online", "away"):
        fake.cut(key=keys[name])
    fake.wait_report("kicked", "online")
    fake.wait_report("cut_offline", "away")
    again = persistently(broker, "away", keys["away"], v5=number % 2 == 0, expiry_s=1)
    persistently(broker, "kept", keys["kept"], v5=True, expiry_s=1)
    fake.cut(key=keys["away"])
    again.wait_end()
    time.sleep(2.2)  # sessions expire, one of them cut while it was away
    fake.cut(key=keys["expired"])
    fake.sessions.clear()
    fake.end_stream()
    broker.wait_log("event stream open", number + 2)
    send_empty_auth(broker)
    fake.reports.clear()


def send_empty_auth(broker: Broker) -> None:
    """An AUTH packet without a body on an accepted connection."""
    raw = RawClient(broker.port)
    key = key_id().encode()
    raw.send(connect_packet(client_id=b"raw", username=key, password=pop().encode(), level=5))
    if raw.receive():  # else the answer came too late
        raw.send(b"\xf0\x00")
    while raw.receive():
        pass
    raw.close()


def by_auth(broker: Broker, client_id: str, device: Prover, *, challenged: bool) -> Client:
    """Get in by enhanced authentication, again and again if need be."""
    for _ in range(20):
        client = Client(broker.port, client_id, device)
        answer = client.begin(device.hello() if challenged else device.single(client_id))
        if answer[:1] == b"\xf0":
            answer = client.authenticate(device.response(client_id, auth_data(answer)))
        if answer[:1] + answer[3:4] == b"\x20\x00":
            return client
        client.close()
        time.sleep(0.2)
    raise AssertionError("it never got in")


def end(client: Client, packet: bytes) -> None:
    """Send this and read until the broker closes."""
    client.send(packet)
    client.wait_end()
    client.close()


def empty_packets(broker: Broker, number: int) -> None:
    """Empty AUTH packets in every state, each followed by CONNECTs of the same and other ids."""
    device, empty = Prover(), b"\xf0\x00"
    accepted = by_auth(broker, "same", device, challenged=number % 2 == 0)
    end(accepted, empty * 3)
    end(by_auth(broker, "same", device, challenged=False), empty + publish(b"late"))
    end(by_auth(broker, f"other{number}", Prover(), challenged=True), b"\xe0\x00")
    waiting = Client(broker.port, "waiting", device)
    if waiting.begin(device.hello()):
        end(waiting, empty)
    again = by_auth(broker, "again", device, challenged=False)
    again.authenticate(device.hello(), reason=0x19)
    end(again, empty)
    good = by_auth(broker, "again", device, challenged=False)
    good.authenticate(device.single("again"), reason=0x19)
    by_auth(broker, "again", device, challenged=True).close()
    end(good, b"")


def publish(payload: bytes) -> bytes:
    return publish_packet("site/a", payload, qos=1, mid=7, level=5)


def storm(broker: Broker, fake: FakeAuthd) -> None:
    """Several rounds, then a proper end."""
    broker.wait_log("event stream open")
    for number in range(ROUNDS):
        one_round(broker, fake, number)
        empty_packets(broker, number)


def come_back(broker: Broker, fake: FakeAuthd) -> None:
    """Judge reconnects in the plugin, of live, offline and restored sessions, and cut them."""
    device = Prover()
    fake.sessions["AAAAAAAAAAA"] = Session(
        client_id="restored",
        session="AAAAAAAAAAA",
        key=device.id,
        rights=[{"filter": "site/#", "actions": 3}],
        verify=device.verify,
        offline=True,
    )
    fake.decide = lambda _: Allow(verify=device.verify)
    broker.wait_log("event stream open")
    fake.end_stream()
    broker.wait_log("event stream open", 2)
    time.sleep(3)  # older proofs may have been taken by an earlier run of the broker
    persistent = [persistently(broker, name, device.id, v5=True, expiry_s=1) for name in "ab"]
    persistent[0].vanish()
    for _ in range(3):
        for name in ("a", "b", "restored"):
            shown = device.pop(name, ahead_s=4)
            broker.device(name, key=device.id, password=shown, clean=False).connect()
    fake.wait_report("readmitted", "restored")
    [*(one for one in broker.devices if one.client_id == "b")][-1].vanish()
    fake.wait_report("offline", "b")
    broker.process.send_signal(signal.SIGHUP)  # it asks about those who are away, too
    broker.wait_log("Reloading config")
    fake.cut(key=device.id)
    fake.wait_report("kicked", "a")
    time.sleep(1.5)


@pytest.mark.timeout(240)
def test_a51_a52_valgrind_finds_no_error(start_broker: StartBroker, fake: FakeAuthd) -> None:
    broker = start_broker(under=VALGRIND)
    storm(broker, fake)
    assert broker.stop() == 0


@pytest.mark.timeout(180)
def test_a51_valgrind_finds_no_error_where_the_plugin_judges(
    start_broker: StartBroker,
    fake: FakeAuthd,
) -> None:
    broker = start_broker(under=VALGRIND)
    come_back(broker, fake)
    assert broker.stop() == 0


@pytest.mark.timeout(180)
def test_a51_a52_the_sanitizers_find_no_error(start_broker: StartBroker, fake: FakeAuthd) -> None:
    plugin = build_sanitized()
    broker = start_broker(under=preload(), loaded=plugin)
    storm(broker, fake)
    assert broker.stop() == 0
