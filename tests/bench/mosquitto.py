"""The plugin's cost inside a real Mosquitto: ``python -m tests.bench.mosquitto``.

Each figure is a ratio to the same Mosquitto without access control (publish) or with its own
password file (connect, `mosquitto_connects.py`), in one run, in turns. Published are bursts of
QoS 0 messages from one connection, until the broker has taken the last one; with and without a
subscriber to all of them. Beside the plugin's broker a real daemon runs (`mosquitto_sites.py`).
"""

import argparse
import contextlib
import signal
import socket
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from tests.bench.measure import Row, cpu_seconds_of, resident_bytes, table
from tests.bench.mosquitto_brokers import (
    TOPIC,
    Broker,
    allow_files,
    come_and_go,
    crowd,
    wait_until_idle,
)
from tests.bench.mosquitto_connects import connect_groups
from tests.bench.mosquitto_sites import NAMES, READER, WRITER, broker
from tests.plugin.mqtt import publish_packet

# --- publish ------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Publisher:
    """One connection that publishes, and perhaps one that reads all of it."""

    broker: Broker
    count: int
    topics: int
    reads: bool
    burst: bytes = field(init=False)

    def __post_init__(self) -> None:
        names = [TOPIC.format(f"x{number}") for number in range(self.topics)]
        packets = [_qos0(names[number % self.topics], b"x" * 32) for number in range(1000)]
        self.burst = b"".join(packets)
        self.writer = self.broker.connect(WRITER)
        self.reader = self.broker.connect(READER) if self.reads else None
        if self.reader is not None:
            _subscribe(self.reader, "site/line/+/#")

    def measure(self) -> float:
        """Return the broker's CPU seconds for a message."""
        before = cpu_seconds_of(self.broker.process.pid)
        for _ in range(self.count // 1000):
            self.writer.sendall(self.burst)
            if self.reader is not None:
                self._read(len(self.burst))
        self.writer.sendall(publish_packet(TOPIC.format("end"), b"", qos=1, mid=1))
        if self.writer.recv(4) != b"\x40\x02\x00\x01":
            raise SystemExit("the broker did not acknowledge")
        if self.reader is not None:
            self._read(len(_qos0(TOPIC.format("end"), b"")))
        return (cpu_seconds_of(self.broker.process.pid) - before) / self.count

    def _read(self, wanted: int) -> None:
        assert self.reader is not None
        while wanted > 0:
            got = len(self.reader.recv(min(wanted, 1 << 20)))
            if got == 0:
                raise SystemExit("the broker closed a connection")
            wanted -= got


def _qos0(topic: str, payload: bytes) -> bytes:
    body = len(topic).to_bytes(2, "big") + topic.encode() + payload
    assert len(body) < 128
    return bytes([0x30, len(body)]) + body


def _subscribe(reader: socket.socket, name: str) -> None:
    body = b"\x00\x01" + len(name).to_bytes(2, "big") + name.encode() + b"\x00"
    reader.sendall(bytes([0x82, len(body)]) + body)
    if reader.recv(5)[-1] != 0:
        raise SystemExit("the broker refused a subscription")


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is published, and beside what.

    Attributes:
        filters: Filters of each client.
        topics: Topic names in turn.
        reads: Whether a subscriber gets all of it.
        clients: Clients connected, this one and those that do nothing.
        away: Durable sessions of clients that came and went.
    """

    filters: int
    topics: int = 1
    reads: bool = False
    clients: int = 1
    away: int = 0

    def __str__(self) -> str:
        """Say it for the table."""
        said = f"publish, {self.filters} filters"
        said += f", {self.topics} topics in turn" * (self.topics > 1)
        said += ", with a subscriber" * self.reads
        said += f", {self.clients} connected" * (self.clients > 1)
        return said + f", {self.away} away" * (self.away > 0)


# With fewer sessions what the plugin takes for itself is most of it.
MANY: Final = 9_000
TARGETS: Final = {"bare": 0.97, "dynamic": 1.0, "file": 1.0}


def _turns(publishers: dict[str, Publisher], rounds: int) -> dict[str, list[float]]:
    """Measure each in its turn, after a turn that does not count.

    What is compared is the ratio within a turn: a host that is busy for a while slows down all.
    """
    for one in publishers.values():
        one.measure()
    taken: dict[str, list[float]] = {name: [] for name in publishers}
    for _ in range(rounds):
        for name, one in publishers.items():
            taken[name].append(one.measure())
    return taken


def _ratio(taken: dict[str, list[float]], name: str) -> float:
    pairs = zip(taken[name], taken["authd"], strict=True)
    return statistics.median(other / own for other, own in pairs)


def publish_rows(case: Case, names: tuple[str, ...], *, rounds: int, messages: int) -> list[Row]:
    """Compare kinds of access control by the CPU time that a broker takes for a message."""
    with contextlib.ExitStack() as stack:
        brokers = {name: _prepared(case, name, stack) for name in names}
        publishers = {
            name: Publisher(broker=one, count=messages, topics=case.topics, reads=case.reads)
            for name, one in brokers.items()
        }
        taken = _turns(publishers, rounds)
        resident = {name: resident_bytes(one.process.pid) for name, one in brokers.items()}
    costs = {name: statistics.median(one) for name, one in taken.items()}
    note = ", ".join(
        f"{name} {1e9 * cost:.0f} ns {1e-3 / cost:.0f}k/s" for name, cost in costs.items()
    )
    rows = [
        Row(
            what=f"{case} / {name}",
            value=_ratio(taken, name),
            target=TARGETS[name],
            at_least=True,
            note=note if name == names[0] else "",
        )
        for name in names
        if name != "authd"
    ]
    return rows + _memory_rows(case, resident)


def _memory_rows(case: Case, resident: dict[str, int]) -> list[Row]:
    """Tell what each session takes, of clients that are there or were."""
    sessions = max(case.clients - 1, case.away)
    if sessions < MANY:
        return []
    return [
        Row(
            what=f"bytes a session, {case}: more than bare",
            value=(resident["authd"] - resident["bare"]) / sessions,
            target=2048,
            at_least=False,
            note=", ".join(f"{name} {size >> 20} MiB" for name, size in resident.items()),
        )
    ]


def _prepared(case: Case, name: str, stack: contextlib.ExitStack) -> Broker:
    """Run a broker, let its clients come, and some of them go."""
    idle = case.clients - 1
    one = stack.enter_context(broker(name, case.filters, crowd=max(idle, case.away)))
    come_and_go(one, case.away)
    stack.enter_context(crowd(one, idle))
    wait_until_idle(one)
    return one


CASES: Final = (
    Case(filters=5),
    Case(filters=50),
    Case(filters=500),
    Case(filters=5, reads=True),
    Case(filters=50, reads=True),
    Case(filters=500, reads=True),
    Case(filters=50, topics=200),
    Case(filters=5, clients=1000),
    Case(filters=50, clients=1000),
    Case(filters=500, clients=1000),
)


def groups(*, full: bool, live: int, durable: int) -> Iterator[list[Row]]:
    """Measure all of it, group by group; with ``full`` more rounds."""
    rounds, messages = (9, 400_000) if full else (7, 100_000)
    allow_files(max(live, 1000))
    by_hand = [Case(filters=8, clients=live)] * (live > 0)
    by_hand += [Case(filters=8, away=durable)] * (durable > 0)
    for case in by_hand or CASES:
        yield publish_rows(case, NAMES, rounds=rounds, messages=messages)
    if not by_hand:
        yield from connect_groups(full=full)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="more of everything")
    parser.add_argument("--live", type=int, default=0, help="only publish, with so many connected")
    parser.add_argument("--durable", type=int, default=0, help="the same, with so many gone")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # and what was started with it
    for rows in groups(full=options.full, live=options.live, durable=options.durable):
        sys.stdout.write(table(rows) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
