"""The HTTP servers: brokers' port, broker socket, operator's socket."""

import asyncio
import errno
import grp
import logging
import os
import pwd
import socket
import struct
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

import structlog
from aiohttp import web

from authd.errors import ConfigError, ReasonCode
from authd.http_api.bodies import MAX_BODY_BYTES, Handler, error_body, errors

_SHUTDOWN_S: Final = 1.0
# struct ucred: pid, uid, gid.
_UCRED: Final = struct.Struct("3i")


class Routes(Protocol):
    """Anything that adds its paths to an application."""

    def add_routes(self, app: web.Application) -> None:
        """Add the paths."""
        ...


class Health:
    """``/livez``, ``/readyz`` and ``/metrics``."""

    def __init__(
        self,
        *,
        ready: Callable[[], dict[str, object]],
        metrics: Callable[[], bytes],
    ) -> None:
        """Wire the parts; ``ready`` returns what is wrong under ``problems``."""
        self._ready = ready
        self._metrics = metrics

    def add_routes(self, app: web.Application) -> None:
        """Add the paths."""
        app.router.add_get("/livez", self.livez)
        app.router.add_get("/readyz", self.readyz)
        app.router.add_get("/metrics", self.metrics)

    async def livez(self, _request: web.Request) -> web.Response:
        """Say that the process answers."""
        return web.json_response({"ok": True})

    async def readyz(self, _request: web.Request) -> web.Response:
        """Say whether decisions can be made: 200 or 503."""
        answer = self._ready()
        return web.json_response(answer, status=503 if answer.get("problems") else 200)

    async def metrics(self, _request: web.Request) -> web.Response:
        """Return the metrics in Prometheus' text format."""
        return web.Response(
            body=self._metrics(),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )


def make_app(routes: Iterable[Routes], *middlewares: object) -> web.Application:
    """Build an application in which whatever goes wrong denies."""
    app = web.Application(
        client_max_size=MAX_BODY_BYTES,
        middlewares=[errors, *middlewares],  # type: ignore[list-item]  # aiohttp's alias is private
    )
    for one in routes:
        one.add_routes(app)
    return app


def only_uids(allowed: Callable[[], frozenset[int]]) -> object:
    """Build a middleware that asks the kernel who is at the other end of a Unix socket."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if peer_uid(request) not in allowed():
            return error_body(ReasonCode.NOT_GRANTED, "this user may not use the socket")
        return await handler(request)

    return check


def peer_uid(request: web.Request) -> int:
    """Return the user at the other end of a Unix socket; -1 if it cannot be told."""
    transport = request.transport
    connection = transport.get_extra_info("socket") if transport else None
    if connection is None:
        return -1
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    uid: int = _UCRED.unpack(credentials)[1]
    return uid


def group_uids(group: str) -> frozenset[int]:
    """Return root, this user, and the members of a group if there is one."""
    uids = {0, os.geteuid()}
    try:
        entry = grp.getgrnam(group)
    except KeyError:
        return frozenset(uids)
    for name in entry.gr_mem:
        try:
            uids.add(pwd.getpwnam(name).pw_uid)
        except KeyError:
            continue
    uids.update(user.pw_uid for user in pwd.getpwall() if user.pw_gid == entry.gr_gid)
    return frozenset(uids)


class HttpServers:
    """All HTTP servers of a daemon; an object to be used with ``async with``."""

    def __init__(
        self,
        *,
        broker_app: web.Application,
        broker_address: str,
        plugin_app: web.Application,
        plugin_socket: Path,
        broker_group: str,
        admin_app: web.Application,
        admin_socket: Path,
    ) -> None:
        """Keep what to serve where."""
        self._broker_app = broker_app
        self._broker_address = broker_address
        self._unix = (
            (plugin_app, plugin_socket, 0o660, broker_group),
            (admin_app, admin_socket, 0o600, ""),
        )
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Start listening.

        Raises:
            ConfigError: An address or socket cannot be used; names it.
        """
        try:
            await self._start_tcp()
            for app, path, mode, group in self._unix:
                await self._start_unix(app, path, mode, group)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop listening and close every connection."""
        await self._stack.aclose()

    async def _runner(self, app: web.Application) -> web.AppRunner:
        runner = web.AppRunner(
            app,
            access_log=None,
            logger=_silent_logger(),
            shutdown_timeout=_SHUTDOWN_S,
        )
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        return runner

    async def _start_tcp(self) -> None:
        host, _, port = self._broker_address.rpartition(":")
        runner = await self._runner(self._broker_app)
        try:
            await web.TCPSite(runner, host.strip("[]"), int(port)).start()
        except OSError as error:
            raise ConfigError(
                f"cannot listen on `{self._broker_address}` (listen.http): {_why(error)}",
            ) from error

    async def _start_unix(self, app: web.Application, path: Path, mode: int, group: str) -> None:
        runner = await self._runner(app)
        try:
            await asyncio.to_thread(_make_way, path)
            # Nobody may connect between bind and chmod: the socket is made under a tight umask.
            before = os.umask(0o177)
            try:
                await web.UnixSite(runner, str(path)).start()
            finally:
                os.umask(before)
            _give_to(path, group, mode)
        except OSError as error:
            raise ConfigError(f"cannot listen on `{path}`: {error.strerror}") from error


def _why(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "address already in use, perhaps by another authd"
    # A loop's own words repeat the address; a resolver's numbers are below zero.
    number = error.errno or 0
    return os.strerror(number).lower() if number > 0 else str(error.strerror)


def _silent_logger() -> logging.Logger:
    # The library logs malformed requests as they came, and a request line may hold a secret.
    # What goes wrong in a handler is logged by `authd.http_api.bodies.errors`.
    logger = logging.getLogger("authd.http_api.silent")
    logger.disabled = True
    return logger


def _give_to(path: Path, group: str, mode: int) -> None:
    if group:
        try:
            os.chown(path, -1, grp.getgrnam(group).gr_gid)
        except (KeyError, PermissionError):
            structlog.get_logger("authd").warning(
                "broker socket has no group: only root and this user can use it",
                group=group,
            )
    path.chmod(mode)


def _make_way(path: Path) -> None:
    """Remove a socket that a daemon left behind; one that answers belongs to a living one."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(str(path)) == 0:
            raise ConfigError(f"`{path}` is in use: another authd is running")
    path.unlink()
