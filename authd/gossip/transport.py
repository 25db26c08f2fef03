"""Streams of frames over gRPC, accepted and dialled; nothing above this sees the library."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Final, Protocol, TypeAlias, cast

import grpc
import grpc.aio

from authd.errors import ConfigError, LimitError, NoResponseError
from authd.gossip._generated import gossip_pb2, gossip_pb2_grpc
from authd.gossip.acceptor import LOOPBACK, Acceptor, Visitor
from authd.gossip.lobby import Lobby
from authd.gossip.messages import MAX_FRAME_BYTES
from authd.gossip.views import Allowance

# The protobuf around a frame takes a few bytes.
_MAX_MESSAGE_BYTES: Final = MAX_FRAME_BYTES + 64
# Above what the acceptor, the two lobbies and the views hold together, so that they are never what
# is short; the library turns away what is more before anything is allotted to it.
_MAX_CALLS: Final = 1_024
_MAX_CONNECTIONS: Final = 1_024
# A node needs one stream and one hint of another.
_MAX_STREAMS_OF_A_CONNECTION: Final = 8
_STOP_GRACE_S: Final = 0.1
_HINT_S: Final = 3.0
_HINTS_OF_A_HOST_PER_S: Final = 20.0
_BURST_HINTS_OF_A_HOST: Final = 100.0
_LIMITS: Final = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", 4_096),
    # The window of a stream stays what it is: a peer must not choose how much waits in memory.
    ("grpc.http2.bdp_probe", 0),
)
_SERVER_OPTIONS: Final = (
    *_LIMITS,
    ("grpc.so_reuseport", 0),
    ("grpc.max_allowed_incoming_connections", _MAX_CONNECTIONS),
    ("grpc.max_concurrent_streams", _MAX_STREAMS_OF_A_CONNECTION),
    # Whoever connects and says nothing, or has nothing to do any more, is let go.
    ("grpc.server_handshake_timeout_ms", 5_000),
    ("grpc.max_connection_idle_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 2),
)
_CHANNEL_OPTIONS: Final = (
    *_LIMITS,
    # The library's own backoff is shared by address and grows to minutes; ours decides alone.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)
_BROKEN: Final = (
    grpc.RpcError,
    grpc.aio.UsageError,
    grpc.aio.InternalError,
    asyncio.InvalidStateError,
)


class Link(Protocol):
    """One stream, seen from one end."""

    async def read(self) -> bytes:
        """Return the next frame.

        Raises:
            NoResponseError: The stream ended.
        """
        ...

    async def write(self, frame: bytes) -> None:
        """Send a frame once the other end's window allows it.

        Raises:
            NoResponseError: The stream ended.
        """
        ...

    def keep(self) -> None:
        """Let the connection last as long as the stream: its other end has a place here."""
        ...


Serve: TypeAlias = Callable[[Link, str], Awaitable[None]]
"""What takes a stream that somebody dialled; with the host at its other end, as text."""
Hinted: TypeAlias = Callable[[bytes], Awaitable[bytes]]
"""What answers one frame of somebody who has no stream."""


class Transport(Protocol):
    """How frames get from node to node."""

    def listening(
        self, host: str, port: int, *, serve: Serve, hinted: Hinted
    ) -> AbstractAsyncContextManager[int]:
        """Accept streams and hints while the context lasts; yields the bound port.

        Raises:
            ConfigError: The address cannot be bound.
        """
        ...

    def dialled(self, address: str) -> AbstractAsyncContextManager[Link]:
        """Open a stream to ``host:port``; failures show at the first read or write."""
        ...

    def hinting(self, address: str) -> AbstractAsyncContextManager[Hinted]:
        """Yield what sends one frame to ``host:port`` without a stream and returns the answer.

        It raises `NoResponseError` where there is no answer in time.
        """
        ...


class _Stream(Protocol):
    """What both ends of the library's streams have in common."""

    async def read(self) -> object: ...

    async def write(self, message: gossip_pb2.Frame) -> None: ...


class _GrpcLink:
    def __init__(self, stream: _Stream, visitor: Visitor | None = None) -> None:
        self._stream = stream
        self._visitor = visitor
        self._kept = False

    def keep(self) -> None:
        if self._visitor is not None:
            self._visitor.keep()
            self._kept = True

    def let_go(self) -> None:
        """End the connection soon if this stream is what it was kept for."""
        if self._visitor is not None and self._kept:
            self._visitor.let_go()

    async def read(self) -> bytes:
        try:
            message = await self._stream.read()
        except _BROKEN as error:
            raise NoResponseError("the stream broke") from error
        if not isinstance(message, gossip_pb2.Frame):
            raise NoResponseError("the peer ended the stream")
        return bytes(message.body)

    async def write(self, frame: bytes) -> None:
        try:
            await self._stream.write(gossip_pb2.Frame(body=frame))
        except _BROKEN as error:
            raise NoResponseError("the stream broke") from error


_Context: TypeAlias = "grpc.aio.ServicerContext[gossip_pb2.Frame, gossip_pb2.Frame]"


class _Door:
    """What stands behind the port: the two methods of ``authd.v1.Gossip``.

    `Hint` is served as if it were a stream, which on the wire is the same: the library would wait
    for the request of a unary call as long as its caller likes.
    """

    def __init__(self, serve: Serve, hinted: Hinted, acceptor: Acceptor) -> None:
        self._serve = serve
        self._hinted = hinted
        self._acceptor = acceptor
        self._lobby = Lobby()
        self._hints: OrderedDict[str, Allowance] = OrderedDict()

    def handler(self) -> grpc.GenericRpcHandler:
        """Return both methods as the library takes them."""
        behaviors = {"Exchange": self._exchange, "Hint": self._hint}
        return grpc.method_handlers_generic_handler(
            gossip_pb2.DESCRIPTOR.services_by_name["Gossip"].full_name,
            {
                name: grpc.stream_stream_rpc_method_handler(
                    behavior,
                    request_deserializer=gossip_pb2.Frame.FromString,
                    response_serializer=gossip_pb2.Frame.SerializeToString,
                )
                for name, behavior in behaviors.items()
            },
        )

    async def _exchange(self, _requests: object, context: _Context) -> None:
        visitor = await self._visitor(context)
        link = _GrpcLink(cast("_Stream", context), visitor)
        try:
            await self._serve(link, visitor.host)
        finally:
            link.let_go()

    async def _hint(self, _requests: object, context: _Context) -> None:
        visitor = await self._visitor(context)
        if not self._may_hint(visitor.key):
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED)
        link = _GrpcLink(cast("_Stream", context))
        # Nobody waits for the answer to what comes too late or not at all.
        with suppress(NoResponseError, LimitError, TimeoutError):
            async with self._lobby.seat(visitor.host), asyncio.timeout(_HINT_S):
                await link.write(await self._hinted(await link.read()))

    async def _visitor(self, context: _Context) -> Visitor:
        """Return whose call it is; ends one that did not come through the acceptor."""
        visitor = self._acceptor.visitor(context.peer())
        if visitor is None:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED)
            raise NoResponseError("the call did not come through the peer port")
        visitor.on_call()
        return visitor

    def _may_hint(self, key: str) -> bool:
        now = asyncio.get_running_loop().time()
        allowance = self._hints.pop(key, None) or Allowance(
            rate_per_s=_HINTS_OF_A_HOST_PER_S, burst=_BURST_HINTS_OF_A_HOST, now=now
        )
        self._hints[key] = allowance
        if len(self._hints) > _MAX_HOSTS:
            self._hints.popitem(last=False)
        return allowance.take(now=now)


_MAX_HOSTS: Final = 4_096


class GrpcTransport:
    """`Transport` over gRPC, behind an acceptor of our own."""

    @asynccontextmanager
    async def listening(
        self, host: str, port: int, *, serve: Serve, hinted: Hinted
    ) -> AsyncIterator[int]:
        """Accept streams and hints while the context lasts; yields the bound port.

        Raises:
            ConfigError: The address cannot be bound.
        """
        server = grpc.aio.server(options=_SERVER_OPTIONS, maximum_concurrent_rpcs=_MAX_CALLS)
        try:
            acceptor = Acceptor(server.add_insecure_port(f"{LOOPBACK}:0"))
        except RuntimeError as error:
            raise ConfigError(f"cannot bind TCP `{LOOPBACK}:0`") from error
        server.add_generic_rpc_handlers((_Door(serve, hinted, acceptor).handler(),))
        await server.start()
        try:
            async with acceptor.listening(host, port) as bound:
                try:
                    yield bound
                finally:
                    # First of all: whoever has a stream hears that it ends.
                    await server.stop(_STOP_GRACE_S)
        finally:
            await server.stop(None)

    @asynccontextmanager
    async def dialled(self, address: str) -> AsyncIterator[Link]:
        """Open a stream to ``host:port``; failures show at the first read or write."""
        async with grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS) as channel:
            call = gossip_pb2_grpc.GossipStub(channel).Exchange()
            try:
                yield _GrpcLink(cast("_Stream", call))
            finally:
                call.cancel()

    @asynccontextmanager
    async def hinting(self, address: str) -> AsyncIterator[Hinted]:
        """Yield what sends one frame to ``host:port`` and returns the answer."""
        async with grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS) as channel:
            stub = gossip_pb2_grpc.GossipStub(channel)

            async def ask(frame: bytes) -> bytes:
                try:
                    answer = await stub.Hint(gossip_pb2.Frame(body=frame), timeout=_HINT_S)
                except _BROKEN as error:
                    raise NoResponseError("no answer to a hint") from error
                return bytes(answer.body)

            yield ask
