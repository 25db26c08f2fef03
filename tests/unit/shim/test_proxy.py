"""The proxy between real sockets: what it passes on, what it refuses, how connections end."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from authd.errors import FormatError
from authd.shim import Ended, Shim, ShimLimits, ShimReport
from authd.shim.wire import parse_connect
from tests.unit.shim.packets import body, packet, text

CONNECT = packet(body())
FRESH = packet(body(flags=0xC2, fields=text("lamp") + text("key") + text("fresh")))
FAST = ShimLimits(connections=2, connect_s=0.4, half_closed_s=0.3)
WAIT_S = 5.0


@dataclass
class Broker:
    """Takes connections, and lets a test speak for the broker on each."""

    port: int = 0
    taken: "asyncio.Queue[Streams]" = field(default_factory=asyncio.Queue)

    async def next(self) -> "Streams":
        async with asyncio.timeout(WAIT_S):
            return await self.taken.get()


@dataclass
class Streams:
    """One end of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def exactly(self, count: int) -> bytes:
        async with asyncio.timeout(WAIT_S):
            return await self.reader.readexactly(count)

    async def rest(self) -> bytes:
        """Read to the end; a reset is an end as well."""
        async with asyncio.timeout(WAIT_S):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    def reset(self) -> None:
        """Close without a goodbye."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@dataclass
class World:
    """A shim before a broker."""

    broker: Broker
    port: int
    reports: list[ShimReport]
    opened: list[asyncio.StreamWriter] = field(default_factory=list)

    async def client(self, data: bytes = b"") -> Streams:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.opened.append(writer)
        writer.write(data)
        return Streams(reader, writer)

    async def through(self) -> tuple[Streams, Streams]:
        """Bring a client through to the broker."""
        client = await self.client(CONNECT)
        broker = await self.broker.next()
        assert await broker.exactly(len(FRESH)) == FRESH
        return client, broker

    async def report(self) -> ShimReport:
        async with asyncio.timeout(WAIT_S):
            while not self.reports:
                await asyncio.sleep(0.01)
        return self.reports.pop(0)


def login(client_id: str) -> tuple[str, str]:
    if client_id == "odd":
        raise FormatError("`odd` is odd")
    return "key", "fresh"


async def stop(serving: "asyncio.Task[None]", opened: list[asyncio.StreamWriter]) -> None:
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving
    for writer in opened:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    broker, reports = Broker(), list[ShimReport]()
    opened: list[asyncio.StreamWriter] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(writer)
        await broker.taken.put(Streams(reader, writer))

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    broker.port = server.sockets[0].getsockname()[1]
    shim = Shim(
        broker=("127.0.0.1", broker.port),
        login=login,
        client_id=lambda sent: sent or "lamp",
        report=reports.append,
        limits=FAST,
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(shim.serve(listener))
        yield World(broker, listener.getsockname()[1], reports, opened)
        await stop(serving, opened)
    server.close()


async def test_the_broker_sees_a_fresh_login_and_every_later_byte(world: World) -> None:
    client, broker = await world.through()
    client.writer.write(b"\xff\x00any bytes")
    assert await broker.exactly(11) == b"\xff\x00any bytes"
    broker.writer.write(b"\x20\x02\0\0")
    assert await client.exactly(4) == b"\x20\x02\0\0"
    client.writer.close()
    assert await broker.rest() == b""
    broker.writer.close()
    assert await world.report() == ShimReport(ended=Ended.PASSED, client_id="lamp")


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (b"\x20\x02\0\x05", "the broker's CONNACK is 5, not authorized"),
        (b"\x20\x03\0\x87\0", "the broker's CONNACK is 0x87, not authorized"),
        (b"\x20\x83\x01\0\x88" + bytes(129), "the broker's CONNACK is 0x88, server unavailable"),
        (b"\x20\x03\0\xfe\0", "the broker's CONNACK is 0xfe, an unknown code"),
    ],
)
async def test_a_refusal_by_the_broker_is_passed_on_and_said(
    world: World, answer: bytes, detail: str
) -> None:
    client, broker = await world.through()
    for byte in answer:
        broker.writer.write(bytes([byte]))
        await broker.writer.drain()
        await asyncio.sleep(0)
    broker.writer.close()
    assert await client.rest() == answer
    client.writer.close()
    report = await world.report()
    assert (report.ended, report.client_id, report.detail) == (Ended.REFUSED, "lamp", detail)


@pytest.mark.parametrize(
    "answer",
    [
        b"\x20\x02\0\0\x20\x02\0\x05",
        b"\x20\x02\0",
        b"\x20\x80\x80\x80\x80\0\x05",
        b"\x20",
        b"\xf0\x02\0\x05",
        b"\x30\x05\0\x01a\x20\x02\0\x05",
    ],
)
async def test_nothing_but_a_refusal_is_taken_for_one(world: World, answer: bytes) -> None:
    client, broker = await world.through()
    broker.writer.write(answer)
    broker.writer.close()
    assert await client.rest() == answer
    client.writer.close()
    assert await world.report() == ShimReport(ended=Ended.PASSED, client_id="lamp")


async def test_what_came_with_the_connect_goes_with_it(world: World) -> None:
    await world.client(CONNECT + b"\xc0\0")
    broker = await world.broker.next()
    assert await broker.exactly(len(FRESH) + 2) == FRESH + b"\xc0\0"


async def test_a_connect_may_come_byte_by_byte(world: World) -> None:
    client = await world.client()
    for byte in CONNECT:
        client.writer.write(bytes([byte]))
        await client.writer.drain()
        await asyncio.sleep(0)
    broker = await world.broker.next()
    assert await broker.exactly(len(FRESH)) == FRESH


async def test_an_empty_client_id_is_filled_in(world: World) -> None:
    await world.client(packet(body(fields=text(""))))
    broker = await world.broker.next()
    assert parse_connect(await broker.exactly(len(FRESH))).client_id == "lamp"


@pytest.mark.parametrize(
    ("sent", "detail"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "not that of a CONNECT"),
        (b"\x10\xff\xff\xff\x7f", "bytes"),
        (packet(body(fields=text("odd"))), "`odd` is odd"),
        (packet(body(name=b"MQIsdp", level=3)), "MQTT 3.1.1 or 5"),
    ],
)
async def test_what_is_refused_is_closed_and_said(world: World, sent: bytes, detail: str) -> None:
    client = await world.client(sent)
    assert await client.rest() == b""
    report = await world.report()
    assert report.ended is Ended.REFUSED
    assert detail in report.detail


async def test_nothing_reaches_the_broker_before_the_connect_is_whole(world: World) -> None:
    client = await world.client(CONNECT[:-1])
    client.writer.close()
    assert (await world.report()).ended is Ended.REFUSED
    assert world.broker.taken.empty()


async def test_a_client_that_says_nothing_is_closed(world: World) -> None:
    client = await world.client()
    assert await client.rest() == b""
    report = await world.report()
    assert (report.ended, report.detail) == (Ended.TIMED_OUT, "no CONNECT came in 0.4 s")


async def test_one_client_more_than_the_bound_is_closed(world: World) -> None:
    first, _ = await world.through()
    await world.through()
    third = await world.client(CONNECT)
    assert await third.rest() == b""
    assert (await world.report()).ended is Ended.FULL
    first.writer.close()
    assert (await world.report()).ended is Ended.PASSED
    await world.through()


async def test_an_unreachable_broker_closes_the_client() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    reports: list[ShimReport] = []
    shim = Shim(
        broker=("127.0.0.1", port), login=login, client_id=str, report=reports.append, limits=FAST
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(shim.serve(listener))
        world = World(Broker(), listener.getsockname()[1], reports)
        client = await world.client(CONNECT)
        assert await client.rest() == b""
        report = await world.report()
        await stop(serving, world.opened)
    assert report.ended is Ended.UNREACHABLE
    assert "Connect" in report.detail


async def test_the_broker_may_finish_after_the_client_has(world: World) -> None:
    client, broker = await world.through()
    client.writer.write(b"\xe0\0")
    client.writer.write_eof()
    assert await broker.rest() == b"\xe0\0"
    broker.writer.write(b"late")
    broker.writer.close()
    assert await client.rest() == b"late"


async def test_a_half_closed_connection_does_not_stay_for_ever(world: World) -> None:
    client, broker = await world.through()
    broker.writer.write_eof()
    assert await client.rest() == b""
    assert (await world.report()).ended is Ended.PASSED
    assert await broker.rest() == b""


@pytest.mark.parametrize("side", ["client", "broker"])
async def test_a_reset_of_one_side_ends_the_other(world: World, side: str) -> None:
    client, broker = await world.through()
    one, other = (client, broker) if side == "client" else (broker, client)
    one.reset()
    assert await other.rest() == b""
    assert (await world.report()).ended is Ended.PASSED


async def test_a_slow_receiver_slows_the_sender(world: World) -> None:
    client, broker = await world.through()
    chunk, sent = bytes(65_536), 0
    with contextlib.suppress(TimeoutError):
        while sent < 64 * 1024 * 1024:
            client.writer.write(chunk)
            sent += len(chunk)
            async with asyncio.timeout(0.5):
                await client.writer.drain()
    assert sent < 64 * 1024 * 1024, "the shim swallowed what nobody read"
    client.writer.write_eof()
    assert len(await broker.rest()) == sent


async def test_many_bytes_pass_unchanged_both_ways(world: World) -> None:
    client, broker = await world.through()
    data = bytes(range(256)) * 20_000

    async def send(one: Streams) -> None:
        one.writer.write(data)
        await one.writer.drain()

    async with asyncio.TaskGroup() as group:
        group.create_task(send(client))
        group.create_task(send(broker))
        at_broker = group.create_task(broker.exactly(len(data)))
        at_client = group.create_task(client.exactly(len(data)))
    assert at_broker.result() == at_client.result() == data
