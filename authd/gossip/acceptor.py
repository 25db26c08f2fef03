"""Takes connections before the gRPC library does: how many, how long, and how much they may say.

The library has one bound for all connections, so that one host could take every place and keep it.
Here whoever has not shown who it is is a stranger: it has a place for a while and a number of
bytes. A host has few such places and strangers in all some more; where they are taken, the host
that holds most of them makes room, and of its connections those go first that said nothing yet,
then those without a call, each time the oldest. Whoever was admitted is no stranger while its
stream lasts: it is paced, and no flood of others can end it.

Connections that do not begin as HTTP/2 does (RFC 9113 §3.4) never reach the library. The others are
spliced to it over loopback.
"""

import asyncio
import contextlib
import enum
import resource
import socket
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from authd.errors import ConfigError
from authd.gossip.lobby import Hush, host_key
from authd.gossip.views import Allowance
from authd.splice import Side, hold_side, splice

LOOPBACK: Final = "127.0.0.1"
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# What the library still has to say when a stream has ended.
_LINGER_S: Final = 1.0
_CHUNK_BYTES: Final = 16_384
# What the kernel keeps of a connection that nobody reads: a stranger's, and a peer's.
_STRANGER_BUFFER_BYTES: Final = 32_768
_PEER_BUFFER_BYTES: Final = 262_144
# A peer pushes at most 200 statements a second; repair of a large set is some megabytes.
_PEER_BYTES_PER_S: Final = 4_194_304.0
_BACKLOG: Final = 4_096
# Connections taken in one turn of the loop, so that a flood of them leaves turns for decisions.
_AT_ONCE: Final = 64
_NEXT_S: Final = 0.002
_NO_DESCRIPTORS_S: Final = 0.1
_MAX_HOSTS: Final = 4_096
# A visitor takes three: its socket, and both ends of the one to the library. What is left serves
# brokers, clients of the API, the database and peers.
_DESCRIPTORS_OF_A_STRANGER: Final = 9
_EVERYWHERE: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared with, not bound
_log = structlog.get_logger("authd.gossip")


class _Stage(enum.IntEnum):
    """How far a stranger has come."""

    SILENT = 0
    HTTP2 = 1
    CALL = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptorLimits:
    """Bounds of what strangers get.

    Attributes:
        strangers: Connections at once; fewer where the process may open few files.
        of_a_host: The same of one host. Many daemons behind one address translation announce at
            once; each is done in some round trips.
        stranger_s: How long one may last.
        stranger_bytes: How much one may say; an introduction or delivery is a quarter of it.
        connects_per_s: New connections of one host in the long run; what is over is closed.
        connects_at_once: The same at once.
    """

    strangers: int = 192
    of_a_host: int = 64
    stranger_s: float = 15.0
    stranger_bytes: int = 262_144
    connects_per_s: float = 200.0
    connects_at_once: float = 256.0

    @property
    def places(self) -> int:
        """How many strangers this process has descriptors for."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY:
            return self.strangers
        return min(self.strangers, soft // _DESCRIPTORS_OF_A_STRANGER)


class Visitor:
    """One connection that somebody opened: a stranger's at first."""

    def __init__(self, client: socket.socket, host: str, limits: AcceptorLimits) -> None:
        """Give it what strangers have; `task` serves it."""
        self.host = host
        self.key = host_key(host)
        self.task: asyncio.Task[None] | None = None
        self.stage = _Stage.SILENT
        self.has_streams = False
        self.has_ended = False
        self._client = client
        self._pace: Allowance | None = None
        self._bytes_left = limits.stranger_bytes
        self._deadline = asyncio.get_running_loop().call_later(limits.stranger_s, self.end)

    @property
    def is_stranger(self) -> bool:
        """Whether it takes one of the strangers' places."""
        return self._pace is None and not self.has_ended

    def on_call(self) -> None:
        """Note that a call came on it."""
        self.stage = _Stage.CALL

    def keep(self) -> None:
        """Let it last: its other end has shown who it is."""
        now = asyncio.get_running_loop().time()
        self._pace = Allowance(rate_per_s=_PEER_BYTES_PER_S, burst=_PEER_BYTES_PER_S, now=now)
        self._deadline.cancel()
        with contextlib.suppress(OSError):  # it may have gone meanwhile
            _limit_buffer(self._client, _PEER_BUFFER_BYTES)

    def let_go(self) -> None:
        """End it soon, if it was kept: what it was kept for is over."""
        if self._pace is not None:
            self._deadline.cancel()
            self._deadline = asyncio.get_running_loop().call_later(_LINGER_S, self.end)

    def end(self) -> None:
        """End it now."""
        self.has_ended = True
        self._deadline.cancel()
        if self.task is not None:
            self.task.cancel()

    def count(self, size: int) -> float:
        """Count bytes that came; return how many seconds they are to wait.

        A stranger that says too much is cut off.
        """
        if self._pace is not None:
            return self._pace.charge(size, now=asyncio.get_running_loop().time())
        self._bytes_left -= size
        if self._bytes_left < 0:
            self.end()
        return 0.0


class Acceptor:
    """Listening sockets before a gRPC server on loopback."""

    def __init__(self, inner_port: int, limits: AcceptorLimits | None = None) -> None:
        """Pass connections on to ``inner_port`` of this host."""
        self._limits = limits or AcceptorLimits()
        self._places = self._limits.places
        self._inner_port = inner_port
        self._visitors: dict[Visitor, asyncio.Task[None]] = {}
        self._by_peer: dict[str, Visitor] = {}
        self._connects: OrderedDict[str, Allowance] = OrderedDict()
        self._resume: dict[socket.socket, asyncio.TimerHandle] = {}
        self._hush = Hush(now=asyncio.get_running_loop().time(), of_a_speaker=1.0)

    @asynccontextmanager
    async def listening(self, host: str, port: int) -> AsyncIterator[int]:
        """Accept while the context lasts; yields the bound port.

        Raises:
            ConfigError: The address cannot be bound.
        """
        listeners = _bound(host, port)
        for one in listeners:
            self._begin(one)
        try:
            yield int(listeners[0].getsockname()[1])
        finally:
            for one in listeners:
                self._pause(one)
                one.close()
            tasks = list(self._visitors.values())
            for visitor in self._visitors:
                visitor.end()
            await asyncio.gather(*tasks, return_exceptions=True)

    def visitor(self, peer: str) -> Visitor | None:
        """Return whose connection the library calls ``peer``; None if nobody's who came here."""
        return self._by_peer.get(peer)

    # --- in -------------------------------------------------------------------------------

    def _begin(self, listener: socket.socket) -> None:
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _pause(self, listener: socket.socket) -> None:
        resume = self._resume.pop(listener, None)
        if resume is not None:
            resume.cancel()
        asyncio.get_running_loop().remove_reader(listener)

    def _accept(self, listener: socket.socket) -> None:
        wait_s = _NEXT_S
        for _ in range(_AT_ONCE):
            try:
                client, address = listener.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self._say(f"cannot accept: {error.strerror}")
                wait_s = _NO_DESCRIPTORS_S
                break
            # Both families at one socket: IPv4 comes mapped (RFC 4291 section 2.5.5.2).
            self._welcome(client, str(address[0]).removeprefix("::ffff:"))
        self._pause(listener)
        loop = asyncio.get_running_loop()
        self._resume[listener] = loop.call_later(wait_s, self._begin, listener)

    def _say(self, detail: str) -> None:
        if self._hush.may_say(detail, now=asyncio.get_running_loop().time()):
            _log.warning("gossip.accept_failed", detail=detail)

    def _welcome(self, client: socket.socket, host: str) -> None:
        if not self._may_come(host_key(host)):
            client.close()
            return
        client.settimeout(0)
        visitor = Visitor(client, host, self._limits)
        self._make_room(visitor.key)
        work = self._serve(visitor, client)
        task = asyncio.get_running_loop().create_task(work, name="gossip-visitor")
        visitor.task = self._visitors[visitor] = task
        task.add_done_callback(partial(self._on_gone, visitor, client))

    def _may_come(self, key: str) -> bool:
        now = asyncio.get_running_loop().time()
        allowance = self._connects.pop(key, None) or Allowance(
            rate_per_s=self._limits.connects_per_s, burst=self._limits.connects_at_once, now=now
        )
        self._connects[key] = allowance
        if len(self._connects) > _MAX_HOSTS:
            self._connects.popitem(last=False)
        return allowance.take(now=now)

    def _make_room(self, key: str) -> None:
        """End a stranger of this host, or of the host with most, if there are too many."""
        strangers = [one for one in self._visitors if one.is_stranger]
        count = Counter(one.key for one in strangers)
        if count[key] >= self._limits.of_a_host:
            first = [one for one in strangers if one.key == key]
        elif len(strangers) >= self._places:
            stage = min(one.stage for one in strangers)
            first = [one for one in strangers if one.stage == stage]
            greediest, _ = Counter(one.key for one in first).most_common(1)[0]
            first = [one for one in first if one.key == greediest]
        else:
            return
        min(first, key=lambda one: one.stage).end()

    def _on_gone(
        self, visitor: Visitor, client: socket.socket, _task: "asyncio.Task[None]"
    ) -> None:
        visitor.end()
        del self._visitors[visitor]
        if not visitor.has_streams:
            client.close()

    # --- through --------------------------------------------------------------------------

    async def _serve(self, visitor: Visitor, client: socket.socket) -> None:
        # What breaks between two ends that come and go is the end of this connection only.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            opening = asyncio.open_connection(sock=client, limit=_CHUNK_BYTES)
            async with hold_side(opening, linger_s=_LINGER_S) as near:
                visitor.has_streams = True
                try:
                    if await near.reader.readexactly(len(_PREFACE)) == _PREFACE:
                        visitor.stage = _Stage.HTTP2
                        await self._pass_on(visitor, near)
                finally:
                    if visitor.has_ended:
                        near.writer.transport.abort()

    async def _pass_on(self, visitor: Visitor, near: Side) -> None:
        opening = asyncio.open_connection(LOOPBACK, self._inner_port, limit=_CHUNK_BYTES)
        async with hold_side(opening, linger_s=_LINGER_S) as far:
            port = far.writer.get_extra_info("sockname")[1]
            peer = f"ipv4:{LOOPBACK}:{port}"
            self._by_peer[peer] = visitor
            try:
                far.writer.write(_PREFACE)
                await splice(
                    near,
                    far,
                    half_closed_s=_LINGER_S,
                    chunk_bytes=_CHUNK_BYTES,
                    meter=visitor.count,
                )
            finally:
                del self._by_peer[peer]


def _limit_buffer(link: socket.socket, size: int) -> None:
    """Bound what the kernel takes in before it is read."""
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


def _bound(host: str, port: int) -> list[socket.socket]:
    """Listen on every address of a host; on both families if it is none in particular."""
    name = f"[{host}]" if ":" in host else host
    listeners: list[socket.socket] = []
    try:
        for family, address in _addresses(host):
            listeners.append(_listener(family, address, port))
            port = listeners[0].getsockname()[1]
    except (OSError, ValueError) as error:
        for one in listeners:
            one.close()
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"cannot bind TCP `{name}:{port}` (listen.peer): {why}") from error
    return listeners


def _addresses(host: str) -> list[tuple[int, str]]:
    if host in _EVERYWHERE:
        everywhere = (socket.AF_INET6, "::") if socket.has_dualstack_ipv6() else None
        return [everywhere or (socket.AF_INET, "0.0.0.0")]  # noqa: S104 - as configured
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((int(one[0]), str(one[4][0])) for one in found))


def _listener(family: int, address: str, port: int) -> socket.socket:
    listener = socket.create_server(
        (address, port), family=family, backlog=_BACKLOG, dualstack_ipv6=address == "::"
    )
    # Inherited by what is accepted.
    _limit_buffer(listener, _STRANGER_BUFFER_BYTES)
    listener.settimeout(0)
    return listener
