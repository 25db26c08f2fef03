"""Two connections joined: what comes on one goes out on the other, both ways.

Each direction waits for its receiver before it reads on, so a slow side slows the other and
nothing piles up here. When one side says that it will send no more, the other is told so and may
finish (half-close, RFC 9293 §3.6), for a while; over TLS, which has no half-close, the connection
ends.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

# One system call's worth: more only adds memory for each connection.
CHUNK_BYTES: Final = 65_536

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Meter: TypeAlias = Callable[[int], float]
"""Is told how many bytes came from the near side; returns how many seconds to wait with them."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two connections."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


@contextlib.asynccontextmanager
async def hold_side(opening: Awaitable[Streams], *, linger_s: float) -> AsyncIterator[Side]:
    """Hold a connection; what is written and not sent yet is still sent after the end.

    Args:
        opening: Gives the connection.
        linger_s: How long the other end has to take what is left.

    Raises:
        OSError: It cannot be opened.
    """
    reader, writer = await opening
    try:
        # A peer that vanished without a word is noticed some day.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        yield Side(reader, writer)
    finally:
        writer.close()
        asyncio.get_running_loop().call_later(linger_s, writer.transport.abort)


async def splice(
    near: Side,
    far: Side,
    *,
    half_closed_s: float,
    chunk_bytes: int = CHUNK_BYTES,
    meter: Meter | None = None,
) -> None:
    """Copy both ways until both have ended, or one for ``half_closed_s``, or one badly.

    Args:
        near: The side whose bytes are metered.
        far: The other.
        half_closed_s: How long one direction may go on after the other has ended.
        chunk_bytes: Read at once at most.
        meter: Called before bytes of ``near`` are passed on.
    """
    async with asyncio.TaskGroup() as group:
        ways = {
            group.create_task(_pump(near, far, chunk_bytes, meter), name="splice out"),
            group.create_task(_pump(far, near, chunk_bytes, None), name="splice back"),
        }
        ended, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        if all(one.result() for one in ended):
            await asyncio.wait(ways, timeout=half_closed_s)
        for one in ways:
            one.cancel()


async def _pump(source: Side, target: Side, chunk_bytes: int, meter: Meter | None) -> bool:
    """Copy one way until its end; say whether the other way may still go on."""
    try:
        while data := await source.reader.read(chunk_bytes):
            if meter is not None:
                wait_s = meter(len(data))
                if wait_s:
                    await asyncio.sleep(wait_s)
            if target.writer.is_closing():
                return False
            target.writer.write(data)
            await target.writer.drain()
        if target.writer.is_closing() or not target.writer.can_write_eof():
            return False
        target.writer.write_eof()
    except OSError:
        # Reset by one side: there is nobody to go on for.
        return False
    return True
