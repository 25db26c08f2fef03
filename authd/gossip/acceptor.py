"""Takes connections before the gRPC library does: how many, how long, and how much they may say.

The library has one bound for all connections, so that one host could take every place and keep it.
Here whoever has not shown who it is is a stranger: it has a place for a while and a number of
bytes. A host has few such places and strangers in all some more; where they are taken, the host
that holds most of them loses its oldest. Whoever was admitted is no stranger while its stream
lasts: no flood of others can end it, or keep a newcomer from its turn.

Connections that do not begin as HTTP/2 does (RFC 9113 §3.4) never reach the library. The others are
spliced to it over loopback.
"""

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from authd.errors import ConfigError
from authd.gossip.lobby import host_key
from authd.splice import Side, hold_side, splice

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# What the library still has to say when a stream has ended.
_LINGER_S: Final = 1.0
_CHUNK_BYTES: Final = 16_384
_BACKLOG: Final = 128
_PAUSE_S: Final = 0.05
LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptorLimits:
    """Bounds of what strangers get.

    Attributes:
        strangers: Connections at once.
        of_a_host: The same of one host. Many daemons behind one address translation announce at
            once; each is done in some round trips.
        stranger_s: How long one may last.
        stranger_bytes: How much one may say; an introduction or delivery is a tenth of it.
    """

    strangers: int = 192
    of_a_host: int = 64
    stranger_s: float = 15.0
    stranger_bytes: int = 1_048_576


class Visitor:
    """One connection that somebody opened: a stranger's at first."""

    def __init__(self, host: str, limits: AcceptorLimits) -> None:
        """Give it what strangers have; `task` serves it."""
        self.host = host
        self.key = host_key(host)
        self.task: asyncio.Task[None] | None = None
        self.has_streams = False
        self.has_ended = False
        self._kept = False
        self._bytes_left = limits.stranger_bytes
        self._deadline = asyncio.get_running_loop().call_later(limits.stranger_s, self.end)

    @property
    def is_stranger(self) -> bool:
        """Whether it takes one of the strangers' places."""
        return not self._kept and not self.has_ended

    def keep(self) -> None:
        """Let it last: its other end has shown who it is."""
        self._kept = True
        self._deadline.cancel()

    def let_go(self) -> None:
        """End it soon, if it was kept: what it was kept for is over."""
        if self._kept:
            self._deadline.cancel()
            self._deadline = asyncio.get_running_loop().call_later(_LINGER_S, self.end)

    def end(self) -> None:
        """End it now."""
        self.has_ended = True
        self._deadline.cancel()
        if self.task is not None:
            self.task.cancel()

    def count(self, size: int) -> None:
        """Count bytes that came; a stranger that says too much is cut off."""
        self._bytes_left -= size
        if self._bytes_left < 0 and self.is_stranger:
            self.end()


class Acceptor:
    """A listening socket before a gRPC server on loopback."""

    def __init__(self, inner_port: int, limits: AcceptorLimits | None = None) -> None:
        """Pass connections on to ``inner_port`` of this host."""
        self._limits = limits or AcceptorLimits()
        self._inner_port = inner_port
        self._visitors: dict[Visitor, asyncio.Task[None]] = {}
        self._by_port: dict[int, Visitor] = {}
        self._resume: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def listening(self, host: str, port: int) -> AsyncIterator[int]:
        """Accept while the context lasts; yields the bound port.

        Raises:
            ConfigError: The address cannot be bound.
        """
        with _bound(host, port) as listener:
            self._begin(listener)
            try:
                yield int(listener.getsockname()[1])
            finally:
                self._pause(listener)
                tasks = list(self._visitors.values())
                for visitor in self._visitors:
                    visitor.end()
                await asyncio.gather(*tasks, return_exceptions=True)

    def visitor(self, port: int) -> Visitor | None:
        """Return whose connection comes from ``port`` of loopback; None if from nobody's here."""
        return self._by_port.get(port)

    def _begin(self, listener: socket.socket) -> None:
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _pause(self, listener: socket.socket) -> None:
        if self._resume is not None:
            self._resume.cancel()
        asyncio.get_running_loop().remove_reader(listener)

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, address = listener.accept()
        except BlockingIOError:
            return
        except OSError:
            # It went away at once, or this process has no descriptors left: others end soon.
            self._pause(listener)
            loop = asyncio.get_running_loop()
            self._resume = loop.call_later(_PAUSE_S, self._begin, listener)
            return
        client.settimeout(0)
        self._welcome(client, str(address[0]))

    def _welcome(self, client: socket.socket, host: str) -> None:
        visitor = Visitor(host, self._limits)
        self._make_room(visitor.key)
        work = self._serve(visitor, client)
        task = asyncio.get_running_loop().create_task(work, name="gossip-visitor")
        visitor.task = self._visitors[visitor] = task
        task.add_done_callback(partial(self._on_gone, visitor, client))

    def _on_gone(
        self, visitor: Visitor, client: socket.socket, _task: "asyncio.Task[None]"
    ) -> None:
        visitor.end()
        del self._visitors[visitor]
        if not visitor.has_streams:
            client.close()

    def _make_room(self, key: str) -> None:
        """End the oldest stranger of this host, or of the host with most, if there are too many."""
        strangers = [one for one in self._visitors if one.is_stranger]
        count = Counter(one.key for one in strangers)
        if count[key] >= self._limits.of_a_host:
            greediest = key
        elif len(strangers) >= self._limits.strangers:
            greediest, _ = count.most_common(1)[0]
        else:
            return
        next(one for one in strangers if one.key == greediest).end()

    async def _serve(self, visitor: Visitor, client: socket.socket) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            # What breaks between two ends that come and go is the end of this connection only.
            opening = asyncio.open_connection(sock=client, limit=_CHUNK_BYTES)
            async with hold_side(opening) as near:
                visitor.has_streams = True
                try:
                    if await near.reader.readexactly(len(_PREFACE)) == _PREFACE:
                        await self._pass_on(visitor, near)
                finally:
                    _finish(near, at_once=visitor.has_ended)

    async def _pass_on(self, visitor: Visitor, near: Side) -> None:
        opening = asyncio.open_connection(LOOPBACK, self._inner_port, limit=_CHUNK_BYTES)
        async with hold_side(opening) as far:
            port = far.writer.get_extra_info("sockname")[1]
            self._by_port[port] = visitor
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
                del self._by_port[port]


def _finish(side: Side, *, at_once: bool) -> None:
    """Close a connection; what it does not take within a moment is dropped."""
    if at_once:
        side.writer.transport.abort()
    else:
        side.writer.close()
        asyncio.get_running_loop().call_later(_LINGER_S, side.writer.transport.abort)


def _bound(host: str, port: int) -> socket.socket:
    name = f"[{host}]" if ":" in host else host
    try:
        family = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0][0]
        both = family == socket.AF_INET6 and host in {"", "::"}
        listener = socket.create_server(
            (host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=both
        )
    except OSError as error:
        raise ConfigError(f"cannot bind TCP `{name}:{port}`: {error.strerror}") from error
    listener.settimeout(0)
    return listener
