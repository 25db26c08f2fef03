"""A daemon that hangs, crawls or is stopped must not hold up the broker's other clients."""

import contextlib
import itertools
import queue
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.plugin.conftest import Broker, StartBroker, tell
from tests.plugin.fake_authd import Allow, FakeAuthd, key_id
from tests.plugin.mqtt import Device, RawClient, connect_packet, eventually, pop

STORM_S = 4.0
CONNECTS_PER_S = 20
BUDGET_S_PER_S = 0.1
LEAST_CALL_S = 0.01  # the plugin starts no call for which it has less time than this
GAP_MAX_S = 0.5


@contextlib.contextmanager
def storm(port: int) -> Iterator[None]:
    """Connect 20 times a second with new client ids, without waiting for answers."""
    stop = threading.Event()

    def run() -> None:
        clients = []
        while not stop.wait(1 / CONNECTS_PER_S):
            client = RawClient(port)
            key = key_id()
            client.send(
                connect_packet(
                    client_id=key.encode(), username=key.encode(), password=pop().encode()
                ),
            )
            clients.append(client)
        for client in clients:
            client.close()

    thread = threading.Thread(target=run, name="storm")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def longest_gap(reader: Device, writer: Device) -> float:
    """Send every 10 ms for a while; the longest time between two arrivals, in seconds."""
    until = time.monotonic() + STORM_S
    while time.monotonic() < until:
        writer.publish_blindly("site/a", b"x")
        time.sleep(0.01)
    arrivals = []
    with contextlib.suppress(queue.Empty):
        while True:
            arrivals.append(reader.messages.get(timeout=0.5)[2])
    assert len(arrivals) > 100
    return max(b - a for a, b in itertools.pairwise(arrivals))


def busiest_second(times: list[float]) -> int:
    """Return the largest number of events within one second."""
    return max((sum(t <= u < t + 1.0 for u in times) for t in times), default=0)


@pytest.mark.parametrize("answer_after_s", [None, 0.04], ids=["hung", "slow"])
def test_a53_a_slow_daemon_costs_no_more_than_its_budget(
    broker: Broker,
    fake: FakeAuthd,
    answer_after_s: float | None,
) -> None:
    reader, writer = broker.online("reader"), broker.online("writer")
    reader.subscribe("site/#")
    asked_before = len(fake.questions)
    fake.hang, fake.delay_s = answer_after_s is None, answer_after_s or 0.0
    with storm(broker.port):
        gap = longest_gap(reader, writer)
    times = [question["at"] for question in fake.questions[asked_before:]]
    fake.hang = False
    tell(
        f"longest gap {gap * 1000:.0f} ms; {len(times)} questions of {STORM_S * CONNECTS_PER_S:.0f}"
        f" connects, at most {busiest_second(times)} in a second",
    )
    assert gap < GAP_MAX_S
    assert 1 <= busiest_second(times) <= BUDGET_S_PER_S / LEAST_CALL_S + 1
    broker.wait_log("the time for questions to authd is used up")


def test_a53_a_stopped_daemon_costs_no_more_than_its_budget(
    start_broker: StartBroker,
    fake: FakeAuthd,
) -> None:
    """As after SIGSTOP: the kernel accepts for a process that never reads."""
    broker = start_broker()
    broker.wait_log("event stream open")
    reader, writer = broker.online("reader"), broker.online("writer")
    reader.subscribe("site/#")
    fake.stop()
    fake.path.unlink()
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(fake.path))
        deaf.listen(128)
        with storm(broker.port):
            gap = longest_gap(reader, writer)
    fake.path.unlink()
    tell(f"longest gap {gap * 1000:.0f} ms")
    assert gap < GAP_MAX_S
    fake.start()
    fake.wait_streams(2)
    eventually(lambda: broker.device("back").connect() == 0)  # once the second has passed


def test_a_fast_daemon_answers_every_connect_of_a_storm(broker: Broker, fake: FakeAuthd) -> None:
    fake.decide = lambda _: Allow()
    with storm(broker.port):
        time.sleep(1.5)
    assert len(fake.questions) >= 20
    assert "for now" not in broker.log.read_text()
