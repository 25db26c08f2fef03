"""A small real ``authd.v1.Decider`` with scripted answers, and clients to drive the broker with."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import grpc
import grpc.aio
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from authd.embedded.broker import EmbeddedBroker, EmbeddedParts
from authd.embedded.consult import DeciderAddress
from authd.grpc_api.certificates import ensure_certificates
from authd.proto_stubs import decider_pb2 as pb
from authd.proto_stubs import decider_pb2_grpc as pb_grpc

PATIENCE_S = 5.0
LEASE_MS = 60_000


def right(topic_filter: str, *, pub: bool = False, sub: bool = False) -> pb.Right:
    return pb.Right(topic_filter=topic_filter, publish=pub, subscribe=sub)


def session(
    client_id: str,
    *rights: pb.Right,
    key_id: str = "",
    lease_ms: int = LEASE_MS,
    session_id: str = "",
) -> pb.Session:
    return pb.Session(
        session_id=session_id or f"session of {client_id}",
        client_id=client_id,
        key_id=key_id or f"key of {client_id}",
        lease_ms=lease_ms,
        rights=rights,
        will=pb.WILL_SUPPRESS,
    )


@dataclass
class ScriptedDecider(pb_grpc.DeciderServicer):
    """Allows the clients it has a session for; what it says on the stream is up to the test."""

    sessions: dict[str, pb.Session] = field(default_factory=dict)
    refusals: dict[str, pb.Decision] = field(default_factory=dict)
    asked: list[pb.ConnectRequest] = field(default_factory=list)
    reports: list[pb.Report] = field(default_factory=list)
    before_answer: Callable[[], Any] | None = None
    is_down: bool = False
    number: int = 10
    streams: int = 0
    _queues: set["asyncio.Queue[pb.WatchEvent | None]"] = field(default_factory=set)

    def allow(self, *sessions: pb.Session) -> None:
        self.sessions.update({entry.client_id: entry for entry in sessions})

    async def Connect(self, request: pb.ConnectRequest, context: Any) -> pb.ConnectResponse:
        self.asked.append(request)
        if self.is_down:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "down")
        found = self.sessions.get(request.client_id)
        if self.before_answer is not None:
            await self.before_answer()
        if found is None:
            unknown = pb.Decision(effect=pb.EFFECT_DENY, reason="unknown_key", detail="not known")
            return pb.ConnectResponse(decision=self.refusals.get(request.client_id, unknown))
        return pb.ConnectResponse(decision=pb.Decision(effect=pb.EFFECT_ALLOW), session=found)

    async def Authorize(self, request: pb.AuthorizeRequest, context: Any) -> pb.AuthorizeResponse:
        raise NotImplementedError

    async def Explain(self, request: pb.ExplainRequest, context: Any) -> pb.ExplainResponse:
        raise NotImplementedError

    async def Watch(self, request: pb.WatchRequest, context: Any) -> AsyncIterator[pb.WatchEvent]:
        queue: asyncio.Queue[pb.WatchEvent | None] = asyncio.Queue()
        if self.is_down:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "down")
        self._queues.add(queue)
        self.streams += 1
        try:
            snapshot = pb.Snapshot(sessions=self.sessions.values())
            yield pb.WatchEvent(number=self.number, snapshot=snapshot)
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._queues.discard(queue)

    async def Report(self, request: pb.ReportRequest, context: Any) -> pb.ReportResponse:
        if self.is_down:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "down")
        self.reports.extend(request.reports)
        return pb.ReportResponse()

    def told(self, client_id: str) -> list[str]:
        """List what the broker reported of a client."""
        mine = (report for report in self.reports if report.client_id == client_id)
        return [pb.What.Name(report.what) for report in mine]

    def say(self, **event: Any) -> None:
        """Send one event on every stream."""
        self.number += 1
        self.say_as_is(pb.WatchEvent(number=self.number, **event))

    def say_as_is(self, event: pb.WatchEvent | None) -> None:
        for queue in self._queues:
            queue.put_nowait(event)

    def cut(self, client_id: str, *, will: "pb.Will.ValueType" = pb.WILL_SUPPRESS) -> None:
        """Take a client's session away and say so."""
        gone = self.sessions.pop(client_id)
        self.say(
            cut=pb.Cut(
                session_id=gone.session_id,
                key_id=gone.key_id,
                client_id=client_id,
                will=will,
                reason="revoked",
            ),
        )


@dataclass
class Running:
    """A broker under test with its decider."""

    broker: EmbeddedBroker
    decider: ScriptedDecider


@asynccontextmanager
async def running(directory: Path, decider: ScriptedDecider) -> AsyncIterator[Running]:
    """Serve a decider and an embedded broker that asks it; both end on exit."""
    certificates = ensure_certificates(
        directory,
        host_names=(),
        brokers=("embedded",),
        now=int(time.time()),
    )
    server = grpc.aio.server()
    pb_grpc.add_DeciderServicer_to_server(decider, server)
    credentials = grpc.ssl_server_credentials(
        [(certificates.server.key.read_bytes(), certificates.server.certificate.read_bytes())],
        root_certificates=certificates.authority.read_bytes(),
        require_client_auth=True,
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    address = DeciderAddress(
        target=f"127.0.0.1:{port}",
        authority=certificates.authority,
        certificate=certificates.brokers["embedded"].certificate,
        key=certificates.brokers["embedded"].key,
    )
    parts = EmbeddedParts(host="127.0.0.1", port=0, decider=address, monotonic=time.monotonic)
    try:
        async with EmbeddedBroker(parts) as broker, asyncio.TaskGroup() as group:
            serving = group.create_task(broker.run(), name="broker under test")
            yield Running(broker, decider)
            serving.cancel()
    finally:
        await server.stop(0)


class Client:
    """An ordinary paho client, with what happened to it."""

    def __init__(self, client_id: str, *, clean: bool = True, **will: Any) -> None:
        self.paho = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=clean,
            protocol=paho.MQTTv311,
            reconnect_on_failure=False,
        )
        self.paho.username_pw_set(client_id, "password")
        if will:
            self.paho.will_set(**will)
        self.codes: list[int] = []
        self.granted: list[int] = []
        self.messages: list[tuple[str, bytes]] = []
        self.session_present = False
        self.disconnected = threading.Event()
        self.paho.on_connect = self._on_connect
        self.paho.on_subscribe = self._on_subscribe
        self.paho.on_message = self._on_message
        self.paho.on_disconnect = self._on_disconnect

    async def connect(self, port: int, *, keepalive: int = 60) -> Self:
        """Send CONNECT and wait for CONNACK or the end of the connection."""
        self.disconnected.clear()
        seen = len(self.codes)
        self.paho.connect("127.0.0.1", port, keepalive=keepalive)
        self.paho.loop_start()
        await until(lambda: len(self.codes) > seen or self.disconnected.is_set())
        return self

    async def subscribe(self, *filters: str, qos: int = 0) -> list[int]:
        """Subscribe and return the granted codes."""
        seen = len(self.granted)
        self.paho.subscribe([(topic_filter, qos) for topic_filter in filters])
        await until(lambda: len(self.granted) >= seen + len(filters))
        return self.granted[seen:]

    async def publish(self, topic: str, data: bytes, *, retain: bool = False, qos: int = 1) -> None:
        """Publish and wait for the broker to have taken it."""
        info = self.paho.publish(topic, data, qos=qos, retain=retain)
        await until(info.is_published)

    def break_off(self) -> None:
        """Close the socket without saying goodbye."""
        socket = self.paho.socket()
        assert socket is not None
        socket.close()

    async def close(self) -> None:
        self.paho.disconnect()
        await asyncio.to_thread(self.paho.loop_stop)

    def _on_connect(self, _c: Any, _u: Any, flags: Any, reason: Any, _p: Any) -> None:
        self.codes.append(reason.value)
        self.session_present = flags.session_present

    def _on_subscribe(self, _c: Any, _u: Any, _mid: int, reasons: Any, _p: Any) -> None:
        self.granted.extend(reason.value for reason in reasons)

    def _on_message(self, _c: Any, _u: Any, message: paho.MQTTMessage) -> None:
        self.messages.append((message.topic, bytes(message.payload)))

    def _on_disconnect(self, *_: Any) -> None:
        self.disconnected.set()


async def until(condition: Callable[[], bool], *, seconds: float = PATIENCE_S) -> None:
    """Wait for something that other tasks and threads bring about."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)
