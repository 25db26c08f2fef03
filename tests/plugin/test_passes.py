"""What the plugin does in passes of the broker's loop, and that nobody waits for it."""

import secrets
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path

from tests.plugin.conftest import Broker, tell
from tests.plugin.fake_authd import FakeAuthd, Session, key_id
from tests.plugin.mqtt import Device, RawClient, connect_packet, pop

SESSIONS = 60_000
PINGED_S = 5.0
GAP_MAX_S = 0.25
CUTS = 40
CUT_WITHIN_S = 0.5
IN_A_FLOOD_S = 0.2


def attach(port: int, client_id: str, key: str) -> RawClient:
    """Open a connection that the broker has accepted."""
    client = RawClient(port)
    client.send(
        connect_packet(client_id=client_id.encode(), username=key.encode(), password=pop().encode())
    )
    assert client.packet() == b"\x20\x02\x00\x00"
    return client


def longest_ping(port: int, key: str) -> float:
    """Ping for a while, from a process of its own; the longest wait for an answer."""
    client, longest = attach(port, "pinger", key), 0.0
    until = time.monotonic() + PINGED_S
    while time.monotonic() < until:
        started = time.monotonic()
        client.send(b"\xc0\x00")
        assert client.packet() == b"\xd0\x00"
        longest = max(longest, time.monotonic() - started)
        time.sleep(0.001)
    client.close()
    return longest


def test_the_plugin_starts_no_thread(broker: Broker, fake: FakeAuthd) -> None:
    """One more thread costs the broker a tenth of its rate."""
    broker.online("c1")
    fake.wait_report("online", "c1")
    assert len(list(Path(f"/proc/{broker.process.pid}/task").iterdir())) == 1


def test_a53_a_large_snapshot_does_not_hold_the_broker_up(broker: Broker, fake: FakeAuthd) -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        longest = pool.submit(longest_ping, broker.port, key_id())
        fake.wait_for(lambda: fake.reported("online", "pinger"), 20.0)
        for number in range(SESSIONS):
            session = secrets.token_urlsafe(8)
            fake.sessions[session] = Session(
                client_id=f"away{number}",
                session=session,
                key=key_id(),
                rights=[{"filter": f"site/{number}/#", "actions": 3}],
                offline=True,
            )
        started = time.monotonic()
        fake.end_stream()
        fake.wait_for(lambda: len(fake.synced) > 0, 20.0)
        told = time.monotonic() - started
        gap = longest.result(30.0)
    tell(f"snapshot of {SESSIONS} sessions taken in within {told:.1f} s")
    tell(f"longest ping meanwhile {1000 * gap:.0f} ms")
    assert gap < GAP_MAX_S
    device = broker.online("away0", key=fake.session_of("away0").key)
    fake.cut(key=fake.session_of("away0").key)
    device.wait_end(CUT_WITHIN_S)


@contextmanager
def flood(port: int) -> Iterator[None]:
    """Publish as fast as the broker takes it."""
    client, stop = attach(port, "flood", key_id()), threading.Event()
    burst = b"\x30\x2c\x00\x0asite/flood" + b"x" * 32
    burst *= 100

    def run() -> None:
        with suppress(OSError):
            while not stop.is_set():
                client.send(burst)

    thread = threading.Thread(target=run, name="flood")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        client.close()
        thread.join()


def test_a36_cuts_come_in_time_in_a_flood(broker: Broker, fake: FakeAuthd) -> None:
    """Then passes are short and many, and the plugin looks for news in few of them."""
    devices: list[Device] = [broker.online(f"c{number}") for number in range(CUTS)]
    taken = []
    with flood(broker.port):
        for device in devices:
            started = time.monotonic()
            fake.cut(key=fake.session_of(device.client_id).key)
            device.wait_end(CUT_WITHIN_S)
            taken.append(time.monotonic() - started)
    median, worst = 1000 * statistics.median(taken), 1000 * max(taken)
    tell(f"cuts in a flood: median {median:.0f} ms, worst {worst:.0f} ms")
    assert sorted(taken)[-2] < IN_A_FLOOD_S


def test_a36_a_cut_behind_many_events_comes_in_time(broker: Broker, fake: FakeAuthd) -> None:
    """What does not fit one buffer of the stream is not put off to the next tick."""
    key = key_id()
    device = broker.online("last", key=key)
    for _ in range(400):
        fake.send("cut", key=key_id(), client_id="", session="", will="suppress", reason="revoked")
    started = time.monotonic()
    fake.cut(key=key)
    device.wait_end(CUT_WITHIN_S)
    assert time.monotonic() - started < 2 * IN_A_FLOOD_S
    assert fake.streams == 1
