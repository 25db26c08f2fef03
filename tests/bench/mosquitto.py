"""The plugin's cost inside a real Mosquitto: ``python -m tests.bench.mosquitto [--full]``.

Each figure is a ratio to the same Mosquitto without access control (publish) or with its own
password file (connect, `mosquitto_connects.py`), in one run, in turns. Published are bursts of
QoS 0 messages from one connection, until the broker has taken the last one; with and without a
subscriber to all of them. What the plugin allows comes from a stand-in for the daemon there, and
from a real daemon where connects are measured.
"""

import argparse
import contextlib
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.bench.measure import Row, cpu_seconds_of, in_turns, table
from tests.bench.mosquitto_brokers import NAMES, TOPIC, Broker, broker
from tests.bench.mosquitto_connects import connect_groups
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
        self.writer = self.broker.connect("writer")
        self.reader = self.broker.connect("reader") if self.reads else None
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


def publish_rows(*, count: int, rights: int, messages: int, topics: int, reads: bool) -> list[Row]:
    """Compare the four kinds by the messages a broker takes in a second of its own CPU time."""
    with contextlib.ExitStack() as stack:
        brokers = [stack.enter_context(broker(name, rights)) for name in NAMES]
        publishers = [
            Publisher(broker=one, count=messages, topics=topics, reads=reads) for one in brokers
        ]
        costs = in_turns(*(one.measure for one in publishers), rounds=count)
    what = f"publish, {rights} filters, {topics} topics" + (", with a subscriber" if reads else "")
    figures = dict(zip(NAMES, costs, strict=True))
    note = ", ".join(f"{name} {1 / cost / 1000:.0f}k/s" for name, cost in figures.items())
    return [
        Row(
            what=f"{what} / {name}",
            value=figures[name] / figures["authd"],
            target=target,
            at_least=True,
            note=note if name == "bare" else "",
        )
        for name, target in (("bare", 0.97), ("dynamic", 1.0), ("file", 1.0))
    ]


def groups(*, full: bool) -> Iterator[list[Row]]:
    """Measure all of it, group by group; with ``full`` more rounds."""
    rounds, messages = (9, 400_000) if full else (5, 150_000)
    for rights in (5, 50, 500):
        for reads in (False, True):
            yield publish_rows(
                count=rounds, rights=rights, messages=messages, topics=1, reads=reads
            )
    yield publish_rows(count=rounds, rights=50, messages=messages, topics=200, reads=False)
    yield from connect_groups(full=full)


def mosquitto_rows(*, full: bool) -> list[Row]:
    """Return all rows."""
    return [row for group in groups(full=full) for row in group]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="more of everything; takes minutes")
    for rows in groups(full=parser.parse_args().full):
        sys.stdout.write(table(rows) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
