"""A TCP proxy that delays some of what passes, and breaks some streams: the network's bad days."""

import asyncio
import random
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self

_CHUNK_BYTES: Final = 16_384


@dataclass(frozen=True)
class Weather:
    """Shares of chunks that come late, and after which the stream is reset."""

    late: float = 0.0
    late_s: float = 1.0
    reset: float = 0.0


class Proxy:
    """Many listening ports, each in front of one other; in a thread of its own."""

    def __init__(self, weather: Weather, *, seed: int) -> None:
        self._weather = weather
        self._rng = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._servers: list[asyncio.Server] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        passing = asyncio.all_tasks() - {asyncio.current_task()}
        for task in passing:
            task.cancel()
        await asyncio.gather(*passing, return_exceptions=True)

    def put_before(self, port: int) -> int:
        """Listen in front of a loopback port; returns the new port."""
        return asyncio.run_coroutine_threadsafe(self._listen(port), self._loop).result(10)

    async def _listen(self, port: int) -> int:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                writer.close()
                return
            with suppress(asyncio.CancelledError):
                await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self._servers.append(server)
        bound: int = server.sockets[0].getsockname()[1]
        return bound

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        weather = self._weather
        try:
            while chunk := await reader.read(_CHUNK_BYTES):
                if self._rng.random() < weather.late:
                    await asyncio.sleep(weather.late_s * self._rng.random())
                if self._rng.random() < weather.reset:
                    break
                writer.write(chunk)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()
