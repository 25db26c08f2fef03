"""A client's connection as the gate and amqtt see it, with bounds on size, silence and backlog."""

import asyncio
import ssl
from typing import Final

from amqtt.adapters import ReaderAdapter, WriterAdapter

from authd.embedded.messages import CONNECT_TYPE, parse_length
from authd.errors import FormatError

# One PUBLISH; telemetry is small, and amqtt holds a packet whole for each receiver.
MAX_PACKET_BYTES: Final = 256 * 1_024
# What may wait for a client that does not read, before it is cut.
MAX_BACKLOG_BYTES: Final = 1_024 * 1_024
# MQTT 3.1.1 §3.1.2.10: the server allows one and a half times the keep-alive.
KEEP_ALIVE_FACTOR: Final = 1.5
CLOSE_TIMEOUT_S: Final = 1.0


async def read_connect_body(reader: asyncio.StreamReader) -> bytes:
    """Read a whole CONNECT packet and return what follows its fixed header.

    Raises:
        FormatError: Another packet, or a remaining length against the rules.
        LimitError: Longer than `messages.MAX_CONNECT_BYTES`.
        EOFError: The client went before the packet was complete.
    """
    if await reader.readexactly(1) != bytes([CONNECT_TYPE]):
        raise FormatError("the first packet is not a connect")
    head = b""
    while True:
        head += await reader.readexactly(1)
        length = parse_length(head)
        if length is not None:
            return await reader.readexactly(length)


class GateReader(ReaderAdapter):
    """Gives amqtt the CONNECT the gate wrote, then what the client sends, in time and measure."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        *,
        prefix: bytes,
        keep_alive_s: int,
    ) -> None:
        """Put ``prefix`` before what is still to come; a keep-alive of 0 sets no time limit."""
        self._reader = reader
        self._prefix = prefix
        self._silence_s = keep_alive_s * KEEP_ALIVE_FACTOR if keep_alive_s else None
        self._ended = False

    async def read(self, n: int = -1) -> bytes:
        """Read exactly ``n`` bytes; nothing at all once a bound was hit or the client has gone."""
        if self._prefix:
            taken, self._prefix = self._prefix[:n], self._prefix[n:]
            return taken
        if self._ended or not 0 <= n <= MAX_PACKET_BYTES:
            self._ended = True
            return b""
        try:
            async with asyncio.timeout(self._silence_s):
                return await self._reader.readexactly(n)
        except (EOFError, OSError, TimeoutError):
            self._ended = True
            return b""

    def feed_eof(self) -> None:
        """Take no more."""
        self._ended = True


class GateWriter(WriterAdapter):
    """What amqtt sends; never waits long for a client that does not read."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        """Wrap the connection's writing half."""
        self._writer = writer

    def write(self, data: bytes) -> None:
        """Queue bytes; a client too far behind is cut."""
        if self._writer.is_closing():
            return
        self._writer.write(data)
        if self._writer.transport.get_write_buffer_size() > MAX_BACKLOG_BYTES:
            self._writer.transport.abort()

    async def drain(self) -> None:
        """Wait until there is room again; at once if the connection is closing."""
        if not self._writer.is_closing():
            await self._writer.drain()

    def get_peer_info(self) -> tuple[str, int] | None:
        """Name the client's address and port."""
        peer = self._writer.get_extra_info("peername")
        return (str(peer[0]), int(peer[1])) if peer else None

    def get_ssl_info(self) -> ssl.SSLObject | None:
        """Give the TLS session, if there is one."""
        found = self._writer.get_extra_info("ssl_object")
        return found if isinstance(found, ssl.SSLObject) else None

    async def close(self) -> None:
        """Send what is queued, for a moment, then close."""
        await close_stream(self._writer)


async def close_stream(writer: asyncio.StreamWriter) -> None:
    """Close a connection; one that cannot be flushed within `CLOSE_TIMEOUT_S` is aborted."""
    writer.close()
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await writer.wait_closed()
    except (OSError, TimeoutError):
        writer.transport.abort()
