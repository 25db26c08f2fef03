"""The proxy: reads one CONNECT, writes it with a fresh login, then copies bytes both ways.

After CONNECT nothing is parsed: the two connections are spliced. A copy of the first bytes of the
broker's answer is kept, for the report alone.
"""

import asyncio
import contextlib
import enum
import socket
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol, SupportsIndex, TypeAlias

from authd.errors import AuthdError, FormatError
from authd.shim.wire import (
    ANSWER_BYTES,
    connect_length,
    describe_refusal,
    encode_connect,
    parse_connect,
)
from authd.splice import CHUNK_BYTES, Side, Streams, hold_side, splice

_HEAD_BYTES: Final = 5
# TLS says goodbye both ways; nobody waits longer for it.
_CLOSING_S: Final = 2.0
# What one side has to take when the other has left.
_LINGER_S: Final = 10.0

Login: TypeAlias = Callable[[str], tuple[str, str]]
"""From a client id to the user name and password of one CONNECT; raises `FormatError`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShimLimits:
    """Bounds of a shim.

    Attributes:
        connections: At once; one more is closed unanswered.
        connect_s: A client must have sent its CONNECT, and the broker be reached, in this time.
        half_closed_s: How long the other direction may go on after one has ended.
    """

    connections: int = 100
    connect_s: float = 10.0
    half_closed_s: float = 30.0


class Ended(enum.Enum):
    """What became of one client."""

    PASSED = "passed"
    REFUSED = "refused"
    TIMED_OUT = "timed out"
    UNREACHABLE = "unreachable"
    FULL = "full"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShimReport:
    """One client that came and went; holds no secret.

    Attributes:
        ended: What became of it.
        client_id: As the broker saw it; empty if it did not get so far.
        detail: A sentence for people; empty where nothing went wrong.
    """

    ended: Ended
    client_id: str = ""
    detail: str = ""


class Report(Protocol):
    """Takes in what became of a client."""

    def __call__(self, report: ShimReport, /) -> None:
        """Take one in."""
        ...


class Shim:
    """Listens for clients on this host and connects each to the broker with a fresh login."""

    def __init__(
        self,
        *,
        broker: tuple[str, int],
        login: Login,
        client_id: Callable[[str], str],
        report: Report,
        tls: ssl.SSLContext | None = None,
        limits: ShimLimits | None = None,
    ) -> None:
        """Prepare; nothing is opened.

        Args:
            broker: Host and port to connect to.
            login: Called once for each connection, after the broker was reached.
            client_id: From the client id that came to the one that is passed on.
            report: Told of each client when it is gone.
            tls: For the connection to the broker.
            limits: Bounds; by default those of `ShimLimits`.
        """
        self._broker = broker
        self._login = login
        self._client_id = client_id
        self._report = report
        self._tls = tls
        self._limits = limits or ShimLimits()
        self._live = 0

    async def serve(self, listener: socket.socket) -> None:
        """Serve until cancelled; the listening socket is the caller's to close."""
        listener.settimeout(0)
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as clients:
            while True:
                try:
                    client, _ = await loop.sock_accept(listener)
                except ConnectionAbortedError:
                    continue
                if self._live >= self._limits.connections:
                    client.close()
                    self._report(ShimReport(ended=Ended.FULL, detail="too many connections"))
                    continue
                self._live += 1
                clients.create_task(self._serve_client(client), name="shim client")

    async def _serve_client(self, client: socket.socket) -> None:
        try:
            self._report(await self._handle(client))
        finally:
            self._live -= 1

    async def _handle(self, client: socket.socket) -> ShimReport:
        """Carry one client to its end; the one table from errors to what is reported."""
        seen = _Seen()
        try:
            opening = asyncio.open_connection(sock=client, limit=CHUNK_BYTES)
            async with hold_side(opening, linger_s=_LINGER_S) as near:
                await self._carry(near, seen)
        except TimeoutError:
            return seen.report(Ended.TIMED_OUT, f"{seen.awaited} in {self._limits.connect_s:g} s")
        except AuthdError as error:
            return seen.report(Ended.REFUSED, str(error))
        except OSError as error:
            what = getattr(error, "verify_message", "") or error.strerror or str(error)
            return seen.report(Ended.UNREACHABLE, f"{seen.awaited}: {what}")
        refusal = describe_refusal(bytes(seen.answer))
        return seen.report(Ended.REFUSED if refusal else Ended.PASSED, refusal)

    async def _carry(self, near: Side, seen: "_Seen") -> None:
        async with contextlib.AsyncExitStack() as stack:
            async with asyncio.timeout(self._limits.connect_s):
                packet, rest = await _read_connect(near.reader)
                connect = parse_connect(packet)
                seen.client_id = self._client_id(connect.client_id)
                seen.awaited = "the broker does not answer"
                far = await stack.enter_async_context(
                    hold_side(self._dial(seen), linger_s=_LINGER_S)
                )
            # Made last: its time should be as near to the broker's as can be.
            username, password = self._login(seen.client_id)
            fresh = connect.with_login(
                client_id=seen.client_id, username=username, password=password
            )
            far.writer.write(encode_connect(fresh) + rest)
            await splice(near, far, half_closed_s=self._limits.half_closed_s)

    async def _dial(self, seen: "_Seen") -> Streams:
        host, port = self._broker
        closing_s = _CLOSING_S if self._tls else None
        loop = asyncio.get_running_loop()
        reader = _Overhearing(seen.answer)
        transport, protocol = await loop.create_connection(
            lambda: asyncio.StreamReaderProtocol(reader),
            host,
            port,
            ssl=self._tls,
            ssl_shutdown_timeout=closing_s,
        )
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


class _Overhearing(asyncio.StreamReader):
    """Reads as ever, and keeps a copy of the very first bytes."""

    def __init__(self, heard: bytearray) -> None:
        super().__init__(limit=CHUNK_BYTES, loop=asyncio.get_running_loop())
        self._heard = heard

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        if len(self._heard) < ANSWER_BYTES:
            self._heard += bytes(data)[: ANSWER_BYTES - len(self._heard)]
        super().feed_data(data)


@dataclass(slots=True)
class _Seen:
    """How far a client has come."""

    client_id: str = ""
    awaited: str = "no CONNECT came"
    answer: bytearray = field(default_factory=bytearray)

    def report(self, ended: Ended, detail: str) -> ShimReport:
        return ShimReport(ended=ended, client_id=self.client_id, detail=detail)


async def _read_connect(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read until the first packet is whole; that packet, and what came with it.

    Raises:
        FormatError: It is not a CONNECT, or the client left before it was whole.
        LimitError: It is too long.
    """
    data = bytearray()
    while (length := connect_length(bytes(data[:_HEAD_BYTES]))) is None or len(data) < length:
        part = await reader.read(CHUNK_BYTES)
        if not part:
            raise FormatError("the client left before its CONNECT was whole")
        data += part
    return bytes(data[:length]), bytes(data[length:])
