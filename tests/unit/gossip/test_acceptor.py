"""What stands before the gRPC library, with real sockets and an echo in the library's place."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest

from authd.errors import ConfigError
from authd.gossip._generated import gossip_pb2, gossip_pb2_grpc
from authd.gossip.acceptor import LOOPBACK, Acceptor, AcceptorLimits, Visitor
from authd.gossip.transport import GrpcTransport, Link

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SOON_S = 5.0
EVERYWHERE = "0.0.0.0"  # noqa: S104 - callers come from several loopback addresses


class Echo:
    """Says back what comes; remembers whose it was."""

    def __init__(self) -> None:
        self.acceptor: Acceptor
        self.visitors: list[Visitor | None] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = writer.get_extra_info("peername")[1]
        while data := await reader.read(1_024):
            if data.startswith(PREFACE):
                self.visitors.append(self.acceptor.visitor(port))
            writer.write(data)
        writer.close()


class Caller:
    """A connection from outside."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def says(self, data: bytes) -> bytes:
        """Return what comes back; nothing if the connection is over."""
        try:
            self._writer.write(data)
            async with asyncio.timeout(SOON_S):
                return await self._reader.readexactly(len(data))
        except (OSError, asyncio.IncompleteReadError):
            return b""

    async def is_over(self) -> bool:
        """Wait for the end."""
        async with asyncio.timeout(SOON_S):
            try:
                return await self._reader.read(1) == b""
            except OSError:
                return True


class House:
    """An echo behind an acceptor, and whoever calls there."""

    def __init__(self, echo: Echo, port: int, *, stop: Callable[[], Awaitable[None]]) -> None:
        self.echo, self.port, self.stop = echo, port, stop
        self._writers: list[asyncio.StreamWriter] = []

    async def call(self, *, host: str = "127.0.0.1", word: bytes = PREFACE) -> Caller:
        """Connect, and begin as HTTP/2 does."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(host, 0))
        self._writers.append(writer)
        caller = Caller(reader, writer)
        if word:
            assert await caller.says(word) == word
        return caller

    def visitor(self) -> Visitor:
        """Return the only one who has come so far."""
        (visitor,) = self.echo.visitors
        assert visitor is not None
        return visitor

    async def close(self) -> None:
        for writer in self._writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@asynccontextmanager
async def house(limits: AcceptorLimits | None = None) -> AsyncIterator[House]:
    """Yield an echo behind an acceptor with these limits."""
    echo = Echo()
    inner = await asyncio.start_server(echo.serve, LOOPBACK, 0)
    echo.acceptor = Acceptor(inner.sockets[0].getsockname()[1], limits)
    async with inner, contextlib.AsyncExitStack() as stack:
        port = await stack.enter_async_context(echo.acceptor.listening(EVERYWHERE, 0))
        home = House(echo, port, stop=stack.aclose)
        try:
            yield home
        finally:
            await home.close()


async def test_what_is_said_passes_both_ways_with_the_name_of_the_host() -> None:
    async with house() as home:
        caller = await home.call(host="127.0.0.9")
        assert await caller.says(b"x" * 300_000) == b"x" * 300_000
        visitor = home.visitor()
        assert visitor.host == "127.0.0.9"


async def test_what_is_not_http2_never_reaches_the_library() -> None:
    async with house() as home:
        caller = await home.call(word=b"")
        assert await caller.says(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n") == b""
        assert not home.echo.visitors


async def test_a32_a_host_with_too_many_connections_loses_its_oldest() -> None:
    async with house(AcceptorLimits(of_a_host=3)) as home:
        callers = [await home.call() for _ in range(3)]
        other = await home.call(host="127.0.0.2")
        newest = await home.call()
        assert await callers[0].is_over()
        for one in (*callers[1:], other, newest):
            assert await one.says(b"still here") == b"still here"


async def test_a32_where_all_places_are_taken_the_host_with_most_makes_room() -> None:
    async with house(AcceptorLimits(strangers=4)) as home:
        few = await home.call(host="127.0.0.2")
        many = [await home.call() for _ in range(3)]
        newest = await home.call(host="127.0.0.3")
        assert await many[0].is_over()
        for one in (few, *many[1:], newest):
            assert await one.says(b"still here") == b"still here"


async def test_a32_silent_connections_make_room_as_others_do() -> None:
    async with house(AcceptorLimits(of_a_host=2)) as home:
        silent = [await home.call(word=b"") for _ in range(2)]
        newest = await home.call()
        assert await silent[0].is_over()
        assert await newest.says(b"still here") == b"still here"


async def test_a_stranger_has_some_seconds() -> None:
    async with house(AcceptorLimits(stranger_s=0.2)) as home:
        silent, talking = await home.call(word=b""), await home.call()
        assert await silent.is_over()
        assert await talking.is_over()


async def test_a_stranger_may_say_so_much() -> None:
    async with house(AcceptorLimits(stranger_bytes=10_000)) as home:
        caller = await home.call()
        assert await caller.says(b"x" * 9_000) == b"x" * 9_000
        assert await caller.says(b"x" * 9_000) == b""


async def test_whoever_is_kept_outlasts_time_bytes_and_others() -> None:
    async with house(AcceptorLimits(of_a_host=1, stranger_s=0.3, stranger_bytes=10_000)) as home:
        kept = await home.call()
        visitor = home.visitor()
        visitor.keep()
        strangers = [await home.call() for _ in range(3)]
        for one in strangers:
            assert await one.is_over()
        assert await kept.says(b"x" * 50_000) == b"x" * 50_000
        visitor.let_go()
        assert await kept.is_over()


async def test_letting_go_of_a_stranger_gives_it_no_more_time() -> None:
    async with house(AcceptorLimits(stranger_s=0.2)) as home:
        caller = await home.call()
        visitor = home.visitor()
        visitor.let_go()
        began = asyncio.get_running_loop().time()
        assert await caller.is_over()
        assert asyncio.get_running_loop().time() - began < 1.0


async def test_all_connections_end_with_the_acceptor() -> None:
    async with house() as home:
        callers = [await home.call(), await home.call(word=b"")]
        assert await callers[0].says(b"here") == b"here"
        await home.stop()
        for one in callers:
            assert await one.is_over()


async def test_a_taken_port_is_an_error_that_names_it() -> None:
    async with house() as home:
        with pytest.raises(ConfigError, match=rf"cannot bind TCP `127\.0\.0\.1:{home.port}`"):
            async with Acceptor(1).listening("127.0.0.1", home.port):
                pass


async def test_a_call_that_goes_around_the_acceptor_is_refused() -> None:
    async def serve(link: Link, _host: str) -> None:
        await link.write(b"welcome")

    async def hinted(frame: bytes) -> bytes:
        return frame

    before = listening_ports()
    async with GrpcTransport().listening("127.0.0.1", 0, serve=serve, hinted=hinted) as port:
        (inner,) = listening_ports() - before - {port}
        async with GrpcTransport().dialled(f"127.0.0.1:{port}") as link:
            assert await link.read() == b"welcome"
        async with grpc.aio.insecure_channel(f"127.0.0.1:{inner}") as channel:
            stub = gossip_pb2_grpc.GossipStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.Hint(gossip_pb2.Frame(body=b"psst"))
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
            call = stub.Exchange()
            with pytest.raises(grpc.aio.AioRpcError):
                await call.read()
            assert await call.code() is grpc.StatusCode.PERMISSION_DENIED


def listening_ports() -> set[int]:
    """Return the TCP ports that this process listens on (proc(5): state 0A)."""
    links = []
    for one in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            links.append(str(one.readlink()))
    own = {found[1] for link in links if (found := re.fullmatch(r"socket:\[(\d+)\]", link))}
    tables = [Path(f"/proc/self/net/{name}").read_text("ascii") for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table.splitlines()[1:]]
    return {int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A" and row[9] in own}
