"""Rows of the daemon's edges: decisions over HTTP and gRPC ÷ servers that decide nothing.

Both servers run in processes of their own and get the same requests from this one. What is compared
is the CPU time each takes for a request, all its threads together: decisions a second on one core,
whatever else the host is doing.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio

from authd.demo.stage import Site, Stage
from authd.device import DeviceKey
from authd.proto_stubs import grpc_auth_pb2, grpc_auth_pb2_grpc
from tests.bench.measure import Row, cpu_seconds_of, in_turns
from tests.stages import go_auth_base, lone_site

_ROUNDS: Final = 7
_REQUESTS: Final = 2_000
_CONNECTIONS: Final = 16
_BROKER: Final = "old"
_TOPIC: Final = "site/lamp/state"
_PUBLISH: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One of the two servers: its process and where it listens."""

    pid: int
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A daemon with one device that may publish."""

    site: Site
    device: DeviceKey

    @property
    def pid(self) -> int:
        """The daemon's process."""
        assert self.site.daemon is not None
        assert self.site.daemon.child is not None
        return self.site.daemon.child.pid

    def password(self) -> str:
        """Make a proof for one CONNECT."""
        return self.device.password(f"127.0.0.1:{self.site.spare_port}")


@contextlib.contextmanager
def scene() -> Iterator[Scene]:
    """Start a daemon; stop it at the end."""
    with (
        tempfile.TemporaryDirectory(prefix="authd-bench-") as directory,
        Stage(Path(directory), mosquitto=None, plugin=None) as stage,
    ):
        site = lone_site(stage)
        key = stage.directory / "lamp.key"
        stage.authd("device", "new", "lamp", f"--pub={_TOPIC}", f"--out={key}", site=site)
        yield Scene(site=site, device=DeviceKey.load(key))


@contextlib.contextmanager
def baseline(*arguments: str) -> Iterator[Server]:
    """Start a server that decides nothing; stop it at the end."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.bench.servers", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        yield Server(pid=child.pid, port=int(child.stdout.readline()))
        child.stdin.close()


Load = Callable[[Sequence[Any]], Coroutine[Any, Any, None]]


def cpu_for_each(
    pid: int, requests: Callable[[], Sequence[Any]], load: Load
) -> Callable[[], float]:
    """Return a measure: CPU seconds a server takes for one of the requests."""

    def measure() -> float:
        prepared = requests()
        before = cpu_seconds_of(pid)
        asyncio.run(load(prepared))
        return (cpu_seconds_of(pid) - before) / len(prepared)

    return measure


def _row(what: str, target: float, bare_s: float, ours_s: float) -> Row:
    return Row(
        what=what,
        value=bare_s / ours_s,
        target=target,
        at_least=True,
        note=f"{ours_s * 1e6:.0f} us of CPU ours, {bare_s * 1e6:.0f} us bare:"
        f" {1 / ours_s:.0f}/s on one core",
    )


# --- HTTP -----------------------------------------------------------------------------------------


def http_rows(*, full: bool) -> list[Row]:
    """Measure the go-auth dialect over HTTP."""
    with scene() as ours, baseline("http") as bare:
        base = "/" + go_auth_base(ours.site, _BROKER).partition("://")[2].partition("/")[2]
        port, count = ours.site.http_port, _REQUESTS * (5 if full else 1)
        connect = http_load(port, f"{base}/go-auth/user")
        connect_s = in_turns(
            cpu_for_each(bare.pid, lambda: _connects(ours, count), http_load(bare.port, "/user")),
            cpu_for_each(ours.pid, lambda: _connects(ours, count), connect),
            rounds=_ROUNDS,
        )
        # The last of these made the session that messages are decided for.
        acl_s = in_turns(
            cpu_for_each(bare.pid, lambda: _messages(ours, count), http_load(bare.port, "/acl")),
            cpu_for_each(
                ours.pid, lambda: _messages(ours, count), http_load(port, f"{base}/go-auth/acl")
            ),
            rounds=_ROUNDS,
        )
    return [
        _row("HTTP ACL / aiohttp that parses the same JSON", 0.65, *acl_s),
        _row("HTTP CONNECT / the same and one bare verify", 0.7, *connect_s),
    ]


def _connects(ours: Scene, count: int) -> list[bytes]:
    who = {"username": ours.device.username, "clientid": ours.device.client_id}
    return [json.dumps({**who, "password": ours.password()}).encode() for _ in range(count)]


def _messages(ours: Scene, count: int) -> list[bytes]:
    who = {"username": ours.device.username, "clientid": ours.device.client_id}
    return [json.dumps({**who, "topic": _TOPIC, "acc": _PUBLISH}).encode()] * count


def http_load(port: int, path: str) -> Load:
    """Return a load of POST requests over a few connections that are kept open."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        "Content-Type: application/json\r\nContent-Length: "
    ).encode()

    async def load(bodies: Sequence[bytes]) -> None:
        waiting = iter([b"%s%d\r\n\r\n%s" % (head, len(body), body) for body in bodies])
        async with asyncio.TaskGroup() as group:
            for _ in range(_CONNECTIONS):
                group.create_task(_client(port, waiting))

    return load


async def _client(port: int, waiting: Iterator[bytes]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for request in waiting:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"a request was not allowed: {head!r}")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(length))
    writer.close()
    await writer.wait_closed()


# --- gRPC -----------------------------------------------------------------------------------------


def grpc_rows(*, full: bool) -> list[Row]:
    """Measure ``grpc.AuthService``, both servers behind the same certificates."""
    count = _REQUESTS * (5 if full else 1)
    with scene() as ours:
        tls = ours.site.state / "tls"
        with baseline("grpc", str(tls)) as bare:
            loads = [grpc_load(port, tls) for port in (bare.port, ours.site.grpc_port)]
            connect_s = in_turns(
                cpu_for_each(bare.pid, lambda: _users(ours, count), loads[0]),
                cpu_for_each(ours.pid, lambda: _users(ours, count), loads[1]),
                rounds=_ROUNDS,
            )
            acl_s = in_turns(
                cpu_for_each(bare.pid, lambda: _acls(ours, count), loads[0]),
                cpu_for_each(ours.pid, lambda: _acls(ours, count), loads[1]),
                rounds=_ROUNDS,
            )
    return [
        _row("gRPC CheckAcl / empty grpc.aio handler", 0.8, *acl_s),
        _row("gRPC GetUser / empty handler and one bare verify", 0.8, *connect_s),
    ]


def _users(ours: Scene, count: int) -> list[grpc_auth_pb2.GetUserRequest]:
    return [
        grpc_auth_pb2.GetUserRequest(
            username=ours.device.username,
            clientid=ours.device.client_id,
            password=ours.password(),
        )
        for _ in range(count)
    ]


def _acls(ours: Scene, count: int) -> list[grpc_auth_pb2.CheckAclRequest]:
    request = grpc_auth_pb2.CheckAclRequest(
        username=ours.device.username,
        clientid=ours.device.client_id,
        topic=_TOPIC,
        acc=_PUBLISH,
    )
    return [request] * count


def grpc_load(port: int, tls: Path) -> Load:
    """Return a load of calls on one channel, a few at a time."""
    credentials = grpc.ssl_channel_credentials(
        (tls / "ca.crt").read_bytes(),
        (tls / f"broker-{_BROKER}.key").read_bytes(),
        (tls / f"broker-{_BROKER}.crt").read_bytes(),
    )

    async def load(requests: Sequence[Any]) -> None:
        waiting = iter(requests)
        async with (
            grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials) as channel,
            asyncio.TaskGroup() as group,
        ):
            stub = grpc_auth_pb2_grpc.AuthServiceStub(channel)
            for _ in range(_CONNECTIONS):
                group.create_task(_caller(stub, waiting))

    return load


async def _caller(stub: Any, waiting: Iterator[Any]) -> None:
    for request in waiting:
        is_user = isinstance(request, grpc_auth_pb2.GetUserRequest)
        answer = await (stub.GetUser if is_user else stub.CheckAcl)(request)
        if not answer.ok:
            raise RuntimeError("a request was not allowed")
