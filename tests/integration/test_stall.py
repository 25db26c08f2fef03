"""The daemon stopped, hung or slow under a storm of connects: the broker must not stall."""

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from authd.demo.clients import Client
from authd.demo.stage import Site, Stage
from authd.device import DeviceKey
from tests.integration.test_mosquitto import client_of, new_device

STORM_S = 5.0
RATE = 20
MAX_GAP_S = 0.5


@dataclass
class Stream:
    """A steady stream of messages through the broker, and the longest gap in it."""

    site: Site
    sender: Client
    observer: Client
    stop: threading.Event = field(default_factory=threading.Event)
    longest_s: float = 0.0
    count: int = 0

    def run(self) -> None:
        last = time.perf_counter()
        while not self.stop.is_set():
            seen = len(self.observer.messages)
            self.sender._client.publish("site/beat", str(self.count), qos=0)
            self.count += 1
            while len(self.observer.messages) == seen and not self.stop.is_set():
                time.sleep(0.002)
            now = time.perf_counter()
            self.longest_s, last = max(self.longest_s, now - last), now
            time.sleep(0.01)


def storm(site: Site, key: DeviceKey) -> tuple[int, int]:
    """Connect 20 times a second; return how many were admitted and how many tried."""
    admitted: list[int] = []
    threads = []

    def attempt() -> None:
        client = Client(site.mqtt_port, client_id=key.client_id, device=key)
        client._client.reconnect_delay_set(60, 60)
        try:
            client._client.connect("127.0.0.1", site.mqtt_port)
        except OSError:
            return
        patience = time.perf_counter() + 2
        while time.perf_counter() < patience and not (client.accepted or client.refused):
            if client._client.loop(0.1):
                break
        admitted.append(client.accepted)
        client._client.disconnect()

    ends = time.perf_counter() + STORM_S
    number = 0
    while time.perf_counter() < ends:
        thread = threading.Thread(target=attempt, daemon=True)
        thread.start()
        threads.append(thread)
        number += 1
        time.sleep(1 / RATE)
    for thread in threads:
        thread.join(10)
    return sum(admitted), number


class Trouble:
    """What is wrong with the daemon while the storm lasts."""

    def __init__(self, kind: str, site: Site) -> None:
        self._kind = kind
        assert site.daemon is not None
        assert site.daemon.child is not None
        self._site = site
        self._pid = site.daemon.child.pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._stutter, daemon=True)

    def begin(self) -> None:
        assert self._site.daemon is not None
        if self._kind == "stopped":
            self._site.daemon.stop()
        elif self._kind == "hung":
            os.kill(self._pid, signal.SIGSTOP)
        else:
            self._thread.start()

    def _stutter(self) -> None:
        """Let the daemon run for 10 ms in every 80: each answer comes late."""
        while not self._over.is_set():
            os.kill(self._pid, signal.SIGSTOP)
            time.sleep(0.07)
            os.kill(self._pid, signal.SIGCONT)
            time.sleep(0.01)

    def end(self) -> None:
        self._over.set()
        if self._kind == "hung":
            os.kill(self._pid, signal.SIGCONT)
        elif self._kind == "slow":
            self._thread.join()


@pytest.mark.parametrize("kind", ["stopped", "hung", "slow"])
def test_a53_an_unrelated_client_is_not_held_up(
    stage: Stage,
    site: Site,
    kind: str,
    figures: Callable[[str], None],
) -> None:
    beat = new_device(stage, site, "beat", "--pub=site/beat")
    watch = new_device(stage, site, "watch", "--sub=site/#")
    late = new_device(stage, site, "late", "--pub=site/late")
    with client_of(site, watch) as observer, client_of(site, beat) as sender:
        assert observer.subscribe("site/#")
        stream = Stream(site, sender, observer)
        thread = threading.Thread(target=stream.run)
        trouble = Trouble(kind, site)
        trouble.begin()
        thread.start()
        admitted, tried = storm(site, late)
        stream.stop.set()
        thread.join()
        trouble.end()
        figures(
            f"daemon {kind}: {tried} connects in {STORM_S:g} s, {admitted} admitted,"
            f" {stream.count} messages, longest gap {stream.longest_s * 1_000:.0f} ms",
        )
        assert tried >= STORM_S * RATE * 0.7
        if kind != "slow":
            assert admitted == 0
        assert stream.longest_s < MAX_GAP_S
        assert sender.accepted == observer.accepted == 1, "live sessions go on"
