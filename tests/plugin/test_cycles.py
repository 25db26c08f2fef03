"""Connect, cut, grant again, connect: many times over, while memory is watched (A51, A52).

`AUTHD_CYCLES=10000 pytest -rP tests/plugin/test_cycles.py` is the long run, by hand; a small one
runs with the tests. A cycle is one session that was let in and then cut, in one of five states.
"""

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from tests.plugin.conftest import VERSION, Broker, StartBroker, tell
from tests.plugin.fake_authd import Allow, FakeAuthd, Json
from tests.plugin.mqtt import (
    RawClient,
    auth_data,
    auth_packet,
    auth_properties,
    connect_packet,
    publish_packet,
    subscribe_packet,
)
from tests.plugin.prover import Prover
from tests.plugin.test_memory import VALGRIND, build_sanitized, preload

CYCLES = int(os.environ.get("AUTHD_CYCLES", "150"))
PLACES = 25
PATIENCE_S = 30.0
EXPIRY_S = 1
NEW_STREAM_EVERY = 10  # rounds
CUT_OUTCOMES = {"kicked", "cut_offline", "not_found"}


@dataclass
class Place:
    """A client id and a key of its own, which is let in, cut, and let in again.

    Attributes:
        number: Its state when it is cut is chosen by it.
        name: The client id.
    """

    number: int
    name: str
    device: Prover = field(default_factory=Prover)
    level: int = 4
    link: RawClient | None = None
    waits: list[RawClient] = field(default_factory=list)

    def connect(self, port: int, *, enhanced: bool = False) -> bool:
        """Try to get in with a new proof; say whether it did."""
        link = RawClient(port)
        self.waits.append(link)
        data = self.device.single(self.name) if enhanced else None
        expiry = b"\x11" + EXPIRY_S.to_bytes(4, "big")
        say(
            link,
            connect_packet(
                client_id=self.name.encode(),
                username=self.device.id.encode(),
                password=None if enhanced else self.device.pop(self.name, ahead_s=4).encode(),
                level=self.level,
                properties=expiry + (auth_properties(data) if enhanced else b""),
                clean=False,
                will=b"site/will",
            ),
        )
        answer = link.packet()
        if answer[:1] + answer[3:4] != b"\x20\x00":
            return False
        self.link = link
        return True

    def get_in(self, port: int, *, enhanced: bool = False) -> RawClient:
        """Try until it is in: the plugin asks for a tenth of any second only."""
        until = time.monotonic() + PATIENCE_S
        while not self.connect(port, enhanced=enhanced):
            self.waits.pop().close()
            assert time.monotonic() < until, f"`{self.name}` never got in"
            time.sleep(0.01)
        assert self.link is not None
        return self.link

    def close(self) -> None:
        """Read every connection to its end, or end it."""
        for link in self.waits:
            link.close()
        self.waits.clear()
        self.link = None


# --- states in which a session is cut -----------------------------------------------------------


def say(link: RawClient, packet: bytes) -> None:
    """Send; the broker may have ended the connection already."""
    with contextlib.suppress(ConnectionError):
        link.send(packet)


def online(place: Place, port: int) -> None:
    """A client that listens and speaks."""
    link = place.get_in(port)
    say(link, subscribe_packet(b"site/#", level=place.level))
    say(link, publish_packet("site/a", b"x", qos=1, mid=7, level=place.level))


def away(place: Place, port: int) -> None:
    """A durable session without a connection, with something to receive."""
    link = place.get_in(port)
    say(link, subscribe_packet(b"site/#", level=place.level))
    link.packet()
    link.close()


def taken_over(place: Place, port: int) -> None:
    """A session that a second connection of its client goes on with."""
    online(place, port)
    place.get_in(port)


def out_of_place(place: Place, port: int) -> None:
    """An empty AUTH packet on an accepted connection, and what follows it."""
    link = place.get_in(port, enhanced=True)
    say(link, b"\xf0\x00" * (1 + place.number % 3))
    say(link, publish_packet("site/a", b"late", qos=1, mid=7, level=5))


def again(place: Place, port: int) -> None:
    """A session that is in the middle of authenticating again."""
    link = place.get_in(port, enhanced=True)
    say(link, auth_packet(place.device.hello(), reason=0x19))
    challenge = link.packet()
    if place.number % 2 and challenge[:1] == b"\xf0":
        say(link, auth_packet(place.device.response(place.name, auth_data(challenge))))


STATES: tuple[Callable[[Place, int], None], ...] = (online, away, taken_over, out_of_place, again)


# --- rounds -------------------------------------------------------------------------------------


@dataclass
class Storm:
    """All places, and what was counted."""

    broker: Broker
    fake: FakeAuthd
    cycles: int = 0
    rounds: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.places = [Place(number, f"place{number}") for number in range(PLACES)]
        devices = {place.name: place.device for place in self.places}
        self.fake.decide = lambda question: self._allow(devices[question["client_id"]])

    def _allow(self, device: Prover) -> Allow:
        return Allow(verify=device.verify)

    def run(self, cycles: int) -> None:
        """Go on until so many sessions were cut."""
        while self.cycles < cycles:
            self._round()
            self.rounds += 1
            if self.rounds % NEW_STREAM_EVERY == 0:
                self._forget()

    def _round(self) -> None:
        for place in self.places:
            state = STATES[(place.number + self.rounds) % len(STATES)]
            place.level = 5 if state in (out_of_place, again) else 4 + (self.rounds % 2)
            state(place, self.broker.port)
        for place in self.places:
            self.fake.cut(
                key=place.device.id, will="publish" if place.number % 4 == 0 else "suppress"
            )
        for place in self.places:
            self._wait_cut(place)
            place.close()
        for report in self.fake.reports:
            what = str(report["what"])
            self.outcomes[what] = self.outcomes.get(what, 0) + 1
        self.fake.reports.clear()
        self.cycles += PLACES

    def _wait_cut(self, place: Place) -> None:
        def is_cut(report: Json) -> bool:
            return report["client_id"] == place.name and report["what"] in CUT_OUTCOMES

        self.fake.wait_for(lambda: any(map(is_cut, self.fake.reports)), PATIENCE_S)

    def _forget(self) -> None:
        """Let durable sessions expire, some of them cut while they were away; a new stream."""
        time.sleep(2 * EXPIRY_S + 0.2)
        self.fake.sessions.clear()
        self.fake.seen.clear()
        streams = self.fake.streams
        self.fake.end_stream()
        self.fake.wait_streams(streams + 1)


@pytest.mark.timeout(180 + CYCLES)
@pytest.mark.parametrize("watch", ["valgrind", "sanitizers"])
def test_a51_a52_many_cycles_leave_memory_in_order(
    start_broker: StartBroker, fake: FakeAuthd, watch: str
) -> None:
    if watch == "valgrind":
        broker = start_broker(under=VALGRIND)
    else:
        broker = start_broker(loaded=build_sanitized(), under=preload())
    broker.wait_log("event stream open")
    storm, started = Storm(broker, fake), time.monotonic()
    storm.run(CYCLES)
    taken = time.monotonic() - started
    assert broker.stop() == 0
    version = ".".join(map(str, VERSION))
    tell(f"{watch}, {version}: {storm.cycles} cycles in {taken:.0f} s, {storm.outcomes}")
