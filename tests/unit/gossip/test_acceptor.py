"""What stands before the gRPC library, with real sockets and an echo in the library's place."""

import asyncio
import contextlib
import re
import resource
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import uvloop

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
        host, port = writer.get_extra_info("peername")[:2]
        while data := await reader.read(1_024):
            if data.startswith(PREFACE):
                self.visitors.append(self.acceptor.visitor(f"ipv4:{host}:{port}"))
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
async def house(
    limits: AcceptorLimits | None = None, *, host: str = EVERYWHERE
) -> AsyncIterator[House]:
    """Yield an echo behind an acceptor with these limits."""
    echo = Echo()
    inner = await asyncio.start_server(echo.serve, LOOPBACK, 0)
    echo.acceptor = Acceptor(inner.sockets[0].getsockname()[1], limits)
    async with inner, contextlib.AsyncExitStack() as stack:
        port = await stack.enter_async_context(echo.acceptor.listening(host, 0))
        home = House(echo, port, stop=stack.aclose)
        try:
            yield home
        finally:
            await home.close()


async def test_what_is_said_passes_both_ways_with_the_name_of_the_host() -> None:
    async with house() as home:
        caller = await home.call(host="127.0.0.9")
        assert await caller.says(b"x" * 200_000) == b"x" * 200_000
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


async def test_a32_whoever_has_begun_outlasts_connections_without_a_word() -> None:
    async with house(AcceptorLimits(of_a_host=3, strangers=6)) as home:
        honest = await home.call()
        silent = [await home.call(word=b"") for _ in range(10)]
        crowd = [await home.call(host=f"127.0.1.{number + 1}", word=b"") for number in range(20)]
        assert await silent[0].is_over()
        assert await crowd[0].is_over()
        assert await honest.says(b"still here") == b"still here"


async def test_a32_whoever_has_a_call_outlasts_those_without() -> None:
    async with house(AcceptorLimits(of_a_host=2)) as home:
        honest = await home.call()
        home.visitor().on_call()
        others = [await home.call() for _ in range(3)]
        assert await others[0].is_over()
        assert await honest.says(b"still here") == b"still here"


async def test_a32_a_host_that_connects_too_fast_is_closed_unheard() -> None:
    async with house(AcceptorLimits(connects_per_s=0.01, connects_at_once=5)) as home:
        callers = [await home.call(word=b"") for _ in range(8)]
        heard = [await one.says(PREFACE) == PREFACE for one in callers]
        assert heard == [True] * 5 + [False] * 3
        other = await home.call(host="127.0.0.2")
        assert await other.says(b"here") == b"here"


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
    async with house(AcceptorLimits(of_a_host=1, stranger_s=2.0, stranger_bytes=10_000)) as home:
        kept = await home.call()
        visitor = home.visitor()
        visitor.keep()
        strangers = [await home.call() for _ in range(3)]
        for one in strangers:  # the last of them by its time, which was later than this one's
            assert await one.is_over()
        assert await kept.says(b"x" * 50_000) == b"x" * 50_000
        visitor.let_go()
        assert await kept.is_over()


async def test_letting_go_of_a_stranger_gives_it_no_more_time() -> None:
    async with house() as home:
        await home.call()
        visitor = home.visitor()
        deadline = visitor._deadline
        visitor.let_go()
        assert visitor._deadline is deadline
        assert not deadline.cancelled()


async def test_all_connections_end_with_the_acceptor() -> None:
    async with house() as home:
        callers = [await home.call(), await home.call(word=b"")]
        assert await callers[0].says(b"here") == b"here"
        await home.stop()
        for one in callers:
            assert await one.is_over()


async def test_a_peer_that_is_kept_is_paced() -> None:
    async with house() as home:
        await home.call()
        visitor = home.visitor()
        visitor.keep()
        waits = [visitor.count(1_048_576) for _ in range(12)]
        assert waits[0] == 0.0
        assert 1.0 < waits[-1] < 3.0


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "localhost"])  # noqa: S104 - what is tested
async def test_every_address_of_a_host_is_heard(host: str) -> None:
    name = "localhost" if host == "localhost" else None
    found = socket.getaddrinfo(name, 1, type=socket.SOCK_STREAM)
    async with house(host=host) as home:
        for address in {str(one[4][0]) for one in found}:
            reader, writer = await asyncio.open_connection(address, home.port)
            assert await Caller(reader, writer).says(PREFACE) == PREFACE
            writer.close()


async def test_no_descriptors_are_a_line_in_the_log_and_a_pause(
    capsys: pytest.CaptureFixture[str],
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with house() as home:
        code = (
            f"import socket; input(); s = socket.create_connection(('127.0.0.1', {home.port}));"
            f" s.sendall({PREFACE!r}); print(s.recv(100))"
        )
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        resource.setrlimit(resource.RLIMIT_NOFILE, (_open_files(), hard))
        try:
            assert child.stdin is not None
            child.stdin.write(b"go\n")
            log = ""
            async with asyncio.timeout(20):
                while "cannot accept: Too many open files" not in log:
                    await asyncio.sleep(0.05)
                    log += capsys.readouterr().out
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        said, _ = await child.communicate()
        assert said.strip() == repr(PREFACE).encode()


def _open_files() -> int:
    """Return a limit under which no file can be opened now."""
    with open("/dev/null") as lowest:  # noqa: PTH123 - its number is what counts
        return lowest.fileno()


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


async def test_the_port_of_a_visitor_at_another_address_is_nobodys() -> None:
    async with house() as home:
        await home.call()
        (peer,) = home.echo.acceptor._by_peer
        assert home.echo.acceptor.visitor(peer) is home.visitor()
        elsewhere = peer.replace("127.0.0.1", "127.0.0.2")
        assert home.echo.acceptor.visitor(elsewhere) is None


@pytest.mark.parametrize(
    "scenario",
    [
        test_what_is_said_passes_both_ways_with_the_name_of_the_host,
        test_what_is_not_http2_never_reaches_the_library,
        test_a32_a_host_with_too_many_connections_loses_its_oldest,
        test_a32_whoever_has_begun_outlasts_connections_without_a_word,
        test_a_stranger_has_some_seconds,
        test_a_stranger_may_say_so_much,
        test_whoever_is_kept_outlasts_time_bytes_and_others,
        test_all_connections_end_with_the_acceptor,
    ],
)
def test_the_same_on_the_loop_of_the_daemon(
    scenario: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())


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
