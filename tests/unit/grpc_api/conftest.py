import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio
import pytest

from authd.core.decision import ConnectRequest, Decision, Effect, Operation, deny
from authd.core.identity import admit_key
from authd.errors import ReasonCode
from authd.grpc_api.certificates import CertificateFiles, Certificates, ensure_certificates
from authd.grpc_api.server import GrpcParts, GrpcServer
from authd.service.ports import SessionEvent, SessionReport

NOW = 1_800_000_000
# The base point of the curve: a key that is admitted.
KEY = admit_key(bytes.fromhex("58" + "66" * 31))


def allow() -> Decision:
    return Decision(
        effect=Effect.ALLOW,
        reason=ReasonCode.OK,
        detail="granted",
        key=KEY,
        lease_until=NOW + 60,
        session="s1",
    )


@dataclass
class ScriptedPoint:
    """Answers as a test tells it to, and remembers what it was asked."""

    answer: Decision = field(default_factory=lambda: deny(ReasonCode.UNKNOWN_KEY, "not known"))
    failure: Exception | None = None
    delay_s: float = 0.0
    events: tuple[SessionEvent, ...] = ()
    then_fail: Exception | None = None
    described: dict[str, object] | None = None
    reported: list[tuple[str, SessionReport]] = field(default_factory=list)
    asked: list[object] = field(default_factory=list)
    watching: asyncio.Event = field(default_factory=asyncio.Event)
    unwatched: asyncio.Event = field(default_factory=asyncio.Event)

    async def connect(self, request: ConnectRequest) -> Decision:
        self.asked.append(request)
        await asyncio.sleep(self.delay_s)
        return self._conclude()

    def authorize(
        self,
        *,
        broker: str,
        client_id: str,
        operation: Operation,
        topic: str,
        username: str | None = None,
    ) -> Decision:
        self.asked.append((broker, client_id, operation, topic, username))
        return self._conclude()

    async def explain(
        self,
        request: ConnectRequest,
        asked: tuple[Operation, str] | None,
    ) -> Decision:
        self.asked.append((request, asked))
        return self._conclude()

    async def watch(self, broker: str, *, boot: str) -> AsyncIterator[SessionEvent]:
        self.asked.append((broker, boot))
        try:
            for event in self.events:
                yield event
            if self.then_fail is not None:
                raise self.then_fail
            self.watching.set()
            await asyncio.Event().wait()
        finally:
            self.unwatched.set()

    def describe(self, broker: str, client_id: str) -> dict[str, object] | None:
        self.asked.append((broker, client_id))
        return self.described

    def report(self, broker: str, report: SessionReport) -> None:
        if self.failure is not None:
            raise self.failure
        self.reported.append((broker, report))

    def _conclude(self) -> Decision:
        if self.failure is not None:
            raise self.failure
        return self.answer


@dataclass
class Served:
    """A server with two listed brokers, and ways to call it as one of them."""

    server: GrpcServer
    point: ScriptedPoint
    certificates: Certificates
    names: dict[bytes, str]
    stack: AsyncExitStack

    async def channel(self, files: CertificateFiles | None = None) -> grpc.aio.Channel:
        files = files or self.certificates.brokers["hall"]
        credentials = grpc.ssl_channel_credentials(
            self.certificates.authority.read_bytes(),
            files.key.read_bytes(),
            files.certificate.read_bytes(),
        )
        channel = grpc.aio.secure_channel(f"127.0.0.1:{self.server.port}", credentials)
        return await self.stack.enter_async_context(channel)


Serve = Callable[..., Awaitable[Served]]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:

        async def start(point: ScriptedPoint | None = None, deadline_s: float = 5.0) -> Served:
            point = point or ScriptedPoint()
            certificates = ensure_certificates(
                tmp_path / "tls",
                host_names=(),
                brokers=("hall", "yard"),
                now=int(time.time()),
            )
            names = dict(certificates.fingerprints)
            parts = GrpcParts(
                address="127.0.0.1:0",
                point=point,
                certificates=certificates,
                names=lambda: names,
                sessions=point,
                deadline_s=deadline_s,
            )
            server = await stack.enter_async_context(GrpcServer(parts))
            return Served(server, point, certificates, names, stack)

        yield start
