"""Mosquittos with one kind of access control each: none, a file, dynamic-security, the plugin."""

import base64
import contextlib
import hashlib
import json
import multiprocessing
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from authd.demo.stage import free_port
from tests.bench.measure import cpu_seconds_of
from tests.plugin.fake_authd import Allow, FakeAuthd, Json, Session
from tests.plugin.mqtt import connect_packet
from tests.plugin.prover import Prover

PLUGIN: Final = Path(__file__).parents[2] / "plugins/mosquitto/authd_mosquitto.so"
DYNAMIC: Final = "/usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so"
NAMES: Final = ("bare", "file", "dynamic", "authd")
ACCEPTED: Final = b"\x20\x02\x00\x00"
PASSWORD: Final = b"a password of the password file"
TOPIC: Final = "site/line/{}/temperature"
# A proof this far ahead is newer than all that an earlier run of the broker may have let in.
AHEAD_S: Final = 4
SETTLED_S: Final = 3.0
CROWD_IN_S: Final = 300.0
IDLE_IN_S: Final = 120.0
IDLE_CPU_S: Final = 0.02


@dataclass(kw_only=True)
class Broker:
    """A running Mosquitto and who may use it: user name and password of a client id, now.

    Attributes:
        daemon: Process id of the daemon beside it, if there is a real one.
    """

    process: subprocess.Popen[bytes]
    port: int
    show: Callable[[str], tuple[bytes, bytes]]
    daemon: int | None = None

    def connect(self, client_id: str) -> socket.socket:
        """Open a connection that the broker has accepted."""
        opened = socket.create_connection(("127.0.0.1", self.port), 10)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.sendall(self.packet(client_id))
        answer = opened.recv(4)
        if answer != ACCEPTED:
            raise SystemExit(f"the broker refused: `{answer!r}`")
        return opened

    def packet(self, client_id: str) -> bytes:
        """Write a CONNECT that needs no PINGREQ."""
        username, password = self.show(client_id)
        return connect_packet(
            client_id=client_id.encode(), username=username, password=password, keepalive_s=0
        )


def wait_until_idle(one: Broker) -> None:
    """Wait until the broker has read what it was told and rests."""
    until, before = time.monotonic() + IDLE_IN_S, -1.0
    while (now := cpu_seconds_of(one.process.pid)) - before > IDLE_CPU_S:
        if time.monotonic() > until:
            raise SystemExit("the broker is never idle")
        before = now
        time.sleep(1.0)


def filters(count: int) -> list[str]:
    """Return so many filters; the last one matches what is published."""
    return [TOPIC.format(f"{number}/+") for number in range(count - 1)] + ["site/line/+/#"]


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


def plugin_lines(path: Path, name: str) -> str:
    """Return the lines of a broker of this name that asks at this socket."""
    return (
        f"plugin {PLUGIN}\nplugin_opt_authd_broker {name}\nplugin_opt_authd_rate 10000\n"
        f"plugin_opt_authd_socket {path}"
    )


def _authd_lines(folder: Path, _count: int) -> str:
    return plugin_lines(folder / "broker.sock", "hall")


def _serve(path: Path, names: list[str], key: str, verify: Json, away: int) -> None:
    rights: list[Json] = [{"filter": name, "actions": 3} for name in names]
    answer = Allow(rights=tuple(rights), verify=verify, lease_ms=10**7)
    ids = [secrets.token_urlsafe(8) for _ in range(away)]
    sessions = {
        session: Session(
            client_id=f"crowd-{number}",
            session=session,
            key=key,
            rights=rights,
            verify=verify,
            lease_ms=10**7,
            offline=True,
        )
        for number, session in enumerate(ids)
    }
    with FakeAuthd(path=path, decide=lambda _question: answer, sessions=sessions):
        signal.sigwait({signal.SIGTERM})


@contextlib.contextmanager
def _stand_in(folder: Path, rights: list[str], device: Prover, away: int) -> Iterator[None]:
    """Run the daemon's stand-in in a process of its own; it knows sessions that are away."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    server = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(folder / "broker.sock", rights, device.id, device.verify, away)
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


def start(folder: Path, lines: str, port: int) -> subprocess.Popen[bytes]:
    """Start a Mosquitto with these lines and wait until it listens."""
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
def broker(name: str, count: int, *, away: int = 0) -> Iterator[Broker]:
    """Run a Mosquitto with one kind of access control and ``count`` filters for its client.

    The plugin is told of so many sessions that are ``away``: ``crowd-0``, ``crowd-1``, …
    """
    device = Prover()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="authd-")))
        if name == "authd":
            stack.enter_context(_stand_in(folder, filters(count), device, away))
        port = free_port()
        process = start(folder, _LINES[name](folder, count), port)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        if name == "authd":
            yield Broker(process=process, port=port, show=_proofs(device))
        else:
            yield Broker(process=process, port=port, show=lambda _client: (b"user", PASSWORD))


def _proofs(device: Prover) -> Callable[[str], tuple[bytes, bytes]]:
    username = device.id.encode()
    return lambda client: (username, device.pop(client, ahead_s=AHEAD_S).encode())


@contextlib.contextmanager
def crowd(one: Broker, count: int) -> Iterator[None]:
    """Keep so many clients connected; each tries until it is in."""
    with contextlib.ExitStack() as stack:
        all_join(one, [f"crowd-{number}" for number in range(count)], stack)
        yield


def all_join(one: Broker, names: list[str], stack: contextlib.ExitStack) -> None:
    """Connect clients of these names, which stay until ``stack`` ends."""
    until = time.monotonic() + CROWD_IN_S
    for name in names:
        while not _joins(one, name, stack):
            if time.monotonic() > until:
                raise SystemExit(f"`{name}` never got in")
            time.sleep(0.01)


def _joins(one: Broker, client_id: str, stack: contextlib.ExitStack) -> bool:
    opened = socket.create_connection(("127.0.0.1", one.port), 10)
    opened.sendall(one.packet(client_id))
    if opened.recv(4) == ACCEPTED:
        stack.enter_context(opened)
        return True
    opened.close()
    return False
