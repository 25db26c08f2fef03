"""Mosquittos with one kind of access control each: none, a file, dynamic-security.

The fourth kind, the plugin beside a real daemon, is made in `mosquitto_sites.py`. Clients that do
nothing but be there are held by processes of their own, because a process may open only so many
files.
"""

import base64
import contextlib
import hashlib
import json
import multiprocessing
import resource
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from authd.demo.stage import free_port
from tests.bench.measure import cpu_seconds_of
from tests.plugin.fake_authd import Json
from tests.plugin.mqtt import connect_packet

DYNAMIC: Final = "/usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so"
ACCEPTED: Final = b"\x20\x02\x00\x00"
DISCONNECT: Final = b"\xe0\x00"
PASSWORD: Final = b"a password of the password file"
TOPIC: Final = "site/line/{}/temperature"
CROWD_IN_S: Final = 300.0
IDLE_IN_S: Final = 300.0
IDLE_CPU_S: Final = 0.02
# It goes on looking after what it holds.
IDLE_DAEMON_S: Final = 0.3
# The daemon is told of every session that comes and goes: it is given the time to take that in.
LEFT_PER_S: Final = 200
# Files that a broker has open besides its clients' connections, and more than enough of them.
SPARE_FILES: Final = 100


@dataclass(kw_only=True)
class Broker:
    """A running Mosquitto and who may use it: user name and password of a client id, now.

    Attributes:
        daemon: Process id of the daemon beside it, if there is one.
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

    def packet(self, client_id: str, *, clean: bool = True) -> bytes:
        """Write a CONNECT that needs no PINGREQ."""
        username, password = self.show(client_id)
        return connect_packet(
            client_id=client_id.encode(),
            username=username,
            password=password,
            clean=clean,
            keepalive_s=0,
        )


def wait_until_idle(one: Broker) -> None:
    """Wait until broker and daemon have told each other what they know, and rest."""
    until, before = time.monotonic() + IDLE_IN_S, (-1.0, -1.0)
    while (now := _spent(one))[0] - before[0] > IDLE_CPU_S or now[1] - before[1] > IDLE_DAEMON_S:
        if time.monotonic() > until:
            raise SystemExit("the broker is never idle")
        before = now
        time.sleep(1.0)


def _spent(one: Broker) -> tuple[float, float]:
    daemon = 0.0 if one.daemon is None else cpu_seconds_of(one.daemon)
    return cpu_seconds_of(one.process.pid), daemon


def filters(count: int) -> list[str]:
    """Return so many filters; the last one matches what is published."""
    return [f"site/line/{number}/+" for number in range(count - 1)] + ["site/line/+/#"]


# --- kinds of access control --------------------------------------------------------------------


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


_LINES: Final[dict[str, Callable[[Path, int], str]]] = {
    "bare": lambda _folder, _count: "allow_anonymous true",
    "file": _file_lines,
    "dynamic": _dynamic_lines,
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
def other_broker(name: str, count: int) -> Iterator[Broker]:
    """Run a Mosquitto without the plugin, with ``count`` filters for its clients."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="authd-")))
        port = free_port()
        process = start(folder, _LINES[name](folder, count), port)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        yield Broker(process=process, port=port, show=lambda _client: (b"user", PASSWORD))


# --- many clients -------------------------------------------------------------------------------


def allow_files(clients: int) -> None:
    """Let this process, and those it starts, open a file for each of so many clients.

    Raises:
        SystemExit: The host does not allow it; says what to raise.
    """
    wanted = clients + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
    except (ValueError, OSError) as error:
        raise SystemExit(
            f"a broker with {clients} clients opens {wanted} files and a process may open {hard}"
            f" here: raise the hard limit first (`ulimit -Hn {wanted}`, or `LimitNOFILE=` of the"
            " service that started this shell)"
        ) from error


@contextlib.contextmanager
def crowd(one: Broker, count: int) -> Iterator[None]:
    """Keep so many clients connected, in a process of their own; each tries until it is in."""
    if count == 0:
        yield
        return
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    holder = context.Process(target=_hold, args=(one, count, here, there))
    holder.start()
    there.close()
    try:
        if not here.poll(CROWD_IN_S):
            raise SystemExit(f"{count} clients did not get in within {CROWD_IN_S:.0f} s")
        here.recv()
        yield
    except EOFError as error:
        raise SystemExit(f"{count} clients did not get in") from error
    finally:
        here.close()
        holder.join()


def _hold(one: Broker, count: int, parents: Connection, told: Connection) -> None:
    """Connect them, say so, and wait until the parent has closed its end."""
    parents.close()
    with contextlib.ExitStack() as stack:
        all_join(one, [f"crowd-{number}" for number in range(count)], stack)
        told.send(count)
        with contextlib.suppress(EOFError):
            told.recv()


def all_join(one: Broker, names: list[str], stack: contextlib.ExitStack) -> None:
    """Connect clients of these names, which stay until ``stack`` ends."""
    until = time.monotonic() + CROWD_IN_S
    for name in names:
        while (opened := _joins(one, name)) is None:
            if time.monotonic() > until:
                raise SystemExit(f"`{name}` never got in")
            time.sleep(0.01)
        stack.enter_context(opened)


def come_and_go(one: Broker, count: int) -> None:
    """Leave so many durable sessions behind: each client connects once and disconnects."""
    began = time.monotonic()
    for number in range(count):
        while (opened := _joins(one, f"crowd-{number}", clean=False)) is None:
            time.sleep(0.01)
        with opened:
            opened.sendall(DISCONNECT)
        if one.daemon is not None:
            time.sleep(max(0.0, began + number / LEFT_PER_S - time.monotonic()))


def _joins(one: Broker, client_id: str, *, clean: bool = True) -> socket.socket | None:
    opened = socket.create_connection(("127.0.0.1", one.port), 10)
    opened.sendall(one.packet(client_id, clean=clean))
    if opened.recv(4) == ACCEPTED:
        return opened
    opened.close()
    return None
