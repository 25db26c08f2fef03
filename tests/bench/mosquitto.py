"""The plugin's cost inside a real Mosquitto: ``python -m tests.bench.mosquitto [--full]``.

Each figure is a ratio to the same Mosquitto without access control (publish) or with its own
password file (connect), in one run, in turns. Published are bursts of QoS 0 messages from one
connection, until the broker has taken the last one; with and without a subscriber to all of them.
"""

import argparse
import base64
import contextlib
import hashlib
import json
import multiprocessing
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from tests.bench.measure import Row, cpu_seconds_of, in_turns, table
from tests.plugin.fake_authd import Allow, FakeAuthd, Json
from tests.plugin.mqtt import connect_packet, publish_packet
from tests.plugin.prover import Prover

PLUGIN: Final = Path(__file__).parents[2] / "plugins/mosquitto/authd_mosquitto.so"
DYNAMIC: Final = "/usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so"
NAMES: Final = ("bare", "file", "dynamic", "authd")
PASSWORD: Final = b"a password of the password file"
TOPIC: Final = "site/line/{}/temperature"
AT_ONCE: Final = 16
# A proof this far ahead is newer than all that an earlier run of the broker may have let in.
AHEAD_S: Final = 58
SETTLED_S: Final = 3.0


@dataclass(kw_only=True)
class Broker:
    """A running Mosquitto and who may use it."""

    process: subprocess.Popen[bytes]
    port: int
    device: Prover
    password: Callable[[str], bytes]
    username: bytes

    def connect(self, client_id: str, password: bytes | None = None) -> socket.socket:
        """Open a connection that the broker has accepted."""
        opened = socket.create_connection(("127.0.0.1", self.port), 10)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.sendall(self.packet(client_id, password))
        answer = opened.recv(4)
        if answer != b"\x20\x02\x00\x00":
            raise SystemExit(f"the broker refused: `{answer!r}`")
        return opened

    def packet(self, client_id: str, password: bytes | None = None) -> bytes:
        """Write a CONNECT."""
        return connect_packet(
            client_id=client_id.encode(),
            username=self.username,
            password=self.password(client_id) if password is None else password,
        )


def filters(count: int) -> list[str]:
    """Return so many filters; the last one matches what is published."""
    return [TOPIC.format(f"{number}/+") for number in range(count - 1)] + ["site/line/+/#"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- brokers ------------------------------------------------------------------------------------


def _file_lines(folder: Path, count: int) -> str:
    passwords, rules = folder / "passwords", folder / "rules"
    subprocess.run(
        ["/usr/bin/mosquitto_passwd", "-b", "-c", str(passwords), "user", PASSWORD.decode()],
        check=True,
    )
    rules.write_text(
        "user user\n" + "".join(f"topic readwrite {name}\n" for name in filters(count))
    )
    return f"password_file {passwords}\nacl_file {rules}"


def _dynamic_lines(folder: Path, count: int) -> str:
    kinds = ("publishClientSend", "publishClientReceive", "subscribePattern")
    hashed = hashlib.pbkdf2_hmac("sha512", PASSWORD, b"0123456789ab", 101)
    config: Json = {
        "defaultACLAccess": dict.fromkeys((*kinds[:2], "subscribe", "unsubscribe"), False),
        "clients": [
            {
                "username": "user",
                "password": base64.b64encode(hashed).decode(),
                "salt": base64.b64encode(b"0123456789ab").decode(),
                "iterations": 101,
                "roles": [{"rolename": "role"}],
            },
        ],
        "groups": [],
        "roles": [
            {
                "rolename": "role",
                "acls": [
                    {"acltype": kind, "topic": name, "allow": True}
                    for kind in kinds
                    for name in filters(count)
                ],
            },
        ],
    }
    path = folder / "dynamic.json"
    path.write_text(json.dumps(config))
    return f"plugin {DYNAMIC}\nplugin_opt_config_file {path}"


def _authd_lines(folder: Path, _count: int) -> str:
    return (
        f"plugin {PLUGIN}\nplugin_opt_authd_broker hall\nplugin_opt_authd_rate 10000\n"
        f"plugin_opt_authd_socket {folder / 'broker.sock'}"
    )


def _serve(path: Path, rights: list[str], verify: Json) -> None:
    answer = Allow(
        rights=tuple({"filter": name, "actions": 3} for name in rights),
        verify=verify,
        lease_ms=10**7,
    )
    with FakeAuthd(path=path, decide=lambda _question: answer):
        signal.sigwait({signal.SIGTERM})


@contextlib.contextmanager
def _stand_in(folder: Path, rights: list[str], device: Prover) -> Iterator[None]:
    """Run the daemon's stand-in in a process of its own."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    server = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(folder / "broker.sock", rights, device.verify)
    )
    server.start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    until = time.monotonic() + 20
    while not (folder / "broker.sock").exists():
        if time.monotonic() > until:
            raise SystemExit("the stand-in for the daemon does not listen")
        time.sleep(0.05)
    try:
        yield
    finally:
        server.terminate()
        server.join()


_LINES: Final[dict[str, Callable[[Path, int], str]]] = {
    "bare": lambda _folder, _count: "allow_anonymous true",
    "file": _file_lines,
    "dynamic": _dynamic_lines,
    "authd": _authd_lines,
}


def _start(folder: Path, lines: str, port: int) -> subprocess.Popen[bytes]:
    config = folder / "mosquitto.conf"
    config.write_text(
        f"user root\nlistener {port} 127.0.0.1\nlog_type none\nlog_dest none\n"
        f"max_queued_messages 0\nmax_inflight_messages 0\nset_tcp_nodelay true\n{lines}\n"
    )
    process = subprocess.Popen(
        ["/usr/sbin/mosquitto", "-c", str(config)], stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return process
        time.sleep(0.05)
    raise SystemExit(f"Mosquitto does not start with `{lines}`")


@contextlib.contextmanager
def broker(name: str, count: int) -> Iterator[Broker]:
    """Run a Mosquitto with one kind of access control and ``count`` filters for its client."""
    device = Prover()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="authd-")))
        if name == "authd":
            stack.enter_context(_stand_in(folder, filters(count), device))
        port = free_port()
        process = _start(folder, _LINES[name](folder, count), port)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        own = name == "authd"
        yield Broker(
            process=process,
            port=port,
            device=device,
            username=device.id.encode() if own else b"user",
            password=(lambda client: device.pop(client, ahead_s=AHEAD_S).encode())
            if own
            else (lambda _client: PASSWORD),
        )


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
        for one in (self.writer, self.reader):
            if one is not None:  # or the broker takes it for dead between two turns
                one.sendall(b"\xc0\x00")
                one.recv(2)
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


# --- connect ------------------------------------------------------------------------------------


def one_by_one(one: Broker, packets: list[bytes], *, pause_s: float) -> float:
    """Return the median seconds from CONNECT to CONNACK.

    The pauses keep questions to the daemon within the plugin's budget of 100 ms in any second.
    """
    taken = []
    for packet in packets:
        with socket.create_connection(("127.0.0.1", one.port), 10) as opened:
            started = time.perf_counter()
            opened.sendall(packet)
            answer = opened.recv(4)
        if answer == b"\x20\x02\x00\x00":  # else the host was too busy for an answer within 50 ms
            taken.append(time.perf_counter() - started)
        time.sleep(pause_s)
    if len(taken) < len(packets) / 2:
        raise SystemExit("the broker refused most connects")
    return statistics.median(taken)


def at_once(one: Broker, packets: list[bytes]) -> float:
    """Return the seconds per accepted connect, ``AT_ONCE`` at once; those refused are lost."""
    waiting, accepted = iter(packets), 0
    with selectors.DefaultSelector() as ready:
        started = time.perf_counter()
        for _ in range(AT_ONCE):
            _open_next(one, waiting, ready)
        while ready.get_map():
            for key, _events in ready.select(10):
                accepted += _finish(key, ready)
                _open_next(one, waiting, ready)
        return (time.perf_counter() - started) / max(accepted, 1)


def _open_next(one: Broker, waiting: Iterator[bytes], ready: selectors.BaseSelector) -> None:
    packet = next(waiting, None)
    if packet is not None:
        opened = socket.create_connection(("127.0.0.1", one.port), 10)
        opened.sendall(packet)
        ready.register(opened, selectors.EVENT_READ)


def _finish(key: selectors.SelectorKey, ready: selectors.BaseSelector) -> bool:
    opened = key.fileobj
    assert isinstance(opened, socket.socket)
    ready.unregister(opened)
    with opened:
        return opened.recv(4) == b"\x20\x02\x00\x00"


Kind: TypeAlias = Callable[[Broker, list[bytes]], float]


def _connects(one: Broker, count: int, kind: Kind, *, fresh: bool) -> Callable[[], float]:
    """Measure; `fresh` client ids are unknown to the plugin, others have a live lease."""
    turn = 0

    def measure() -> float:
        nonlocal turn
        turn += 1
        names = [f"c{turn}-{n}" if fresh else f"c{n}" for n in range(count)]
        return kind(one, [one.packet(name) for name in names])

    return measure


def _paced(one: Broker, packets: list[bytes]) -> float:
    return one_by_one(one, packets, pause_s=0.02)


def connect_rows(*, count: int, connects: int) -> list[Row]:
    """Compare the time of one connect, and how many of a flood a broker accepts in a second."""
    with contextlib.ExitStack() as stack:
        file, own = (stack.enter_context(broker(name, 5)) for name in ("file", "authd"))
        time.sleep(SETTLED_S)
        one_by_one(own, [own.packet(f"c{n}") for n in range(connects)], pause_s=0.02)
        paced = in_turns(
            _connects(file, 50, _paced, fresh=True),
            _connects(own, 50, _paced, fresh=True),
            _connects(own, 50, _paced, fresh=False),
            rounds=count,
        )
        flood = in_turns(
            _connects(file, connects, at_once, fresh=True),
            _connects(own, connects, at_once, fresh=False),
            rounds=count,
        )
        through = at_once(own, [own.packet(f"new-{n}") for n in range(connects)])
    us = [f"{1e6 * taken:.0f} us" for taken in paced]
    rates = [f"{1 / taken:.0f}/s" for taken in (*flood, through)]
    return [
        _connect_row("through the stand-in, one by one", paced[0] / paced[1], 0.4, f"file {us[0]}"),
        _connect_row(
            "judged in the plugin, one by one",
            paced[0] / paced[2],
            0.9,
            f"stand-in {us[1]}, plugin {us[2]}",
        ),
        _connect_row(
            f"judged in the plugin, {AT_ONCE} at once",
            flood[0] / flood[1],
            0.9,
            f"file {rates[0]}, plugin {rates[1]}; through the stand-in {rates[2]}, by the budget",
        ),
    ]


def _connect_row(what: str, value: float, target: float, note: str) -> Row:
    name = f"connect {what} / password file"
    return Row(what=name, value=value, target=target, at_least=True, note=note)


def groups(*, full: bool) -> Iterator[list[Row]]:
    """Measure all of it, group by group; with ``full`` more rounds."""
    rounds, messages = (9, 400_000) if full else (5, 150_000)
    for rights in (5, 50, 500):
        for reads in (False, True):
            yield publish_rows(
                count=rounds, rights=rights, messages=messages, topics=1, reads=reads
            )
    yield publish_rows(count=rounds, rights=50, messages=messages, topics=200, reads=False)
    yield connect_rows(count=5, connects=1000 if full else 400)


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
