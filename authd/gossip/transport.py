"""Streams of frames over gRPC, accepted and dialled; nothing above this sees the library."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Protocol, TypeAlias, cast

import grpc
import grpc.aio

from authd.errors import ConfigError, NoResponseError
from authd.gossip._generated import gossip_pb2, gossip_pb2_grpc
from authd.gossip.messages import MAX_FRAME_BYTES

# The protobuf around a frame takes a few bytes.
_MAX_MESSAGE_BYTES: Final = MAX_FRAME_BYTES + 64
# Streams that are still proving who they are, and those that are through.
_MAX_STREAMS: Final = 64
_STOP_GRACE_S: Final = 0.1
_HINT_S: Final = 3.0
_LIMITS: Final = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
)
_SERVER_OPTIONS: Final = (*_LIMITS, ("grpc.so_reuseport", 0))
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


Serve: TypeAlias = Callable[[Link], Awaitable[None]]
"""What takes a stream that somebody dialled."""
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
    def __init__(self, stream: _Stream) -> None:
        self._stream = stream

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


class _Servicer(gossip_pb2_grpc.GossipServicer):
    def __init__(self, serve: Serve, hinted: Hinted) -> None:
        self._serve = serve
        self._hinted = hinted

    async def Exchange(  # type: ignore[override]  # noqa: N802 - both fixed by the contract
        self,
        request_iterator: object,  # noqa: ARG002 - frames are read from the context
        context: grpc.aio.ServicerContext[gossip_pb2.Frame, gossip_pb2.Frame],
    ) -> None:
        await self._serve(_GrpcLink(cast("_Stream", context)))

    async def Hint(  # noqa: N802 - fixed by the contract
        self,
        request: gossip_pb2.Frame,
        context: grpc.aio.ServicerContext[gossip_pb2.Frame, gossip_pb2.Frame],  # noqa: ARG002 - fixed
    ) -> gossip_pb2.Frame:
        return gossip_pb2.Frame(body=await self._hinted(bytes(request.body)))


class GrpcTransport:
    """`Transport` over gRPC."""

    @asynccontextmanager
    async def listening(
        self, host: str, port: int, *, serve: Serve, hinted: Hinted
    ) -> AsyncIterator[int]:
        """Accept streams and hints while the context lasts; yields the bound port.

        Raises:
            ConfigError: The address cannot be bound.
        """
        server = grpc.aio.server(options=_SERVER_OPTIONS, maximum_concurrent_rpcs=_MAX_STREAMS)
        gossip_pb2_grpc.add_GossipServicer_to_server(_Servicer(serve, hinted), server)
        name = f"[{host}]" if ":" in host else host
        try:
            bound = server.add_insecure_port(f"{name}:{port}")
        except RuntimeError as error:
            raise ConfigError(f"cannot bind TCP `{name}:{port}`") from error
        await server.start()
        try:
            yield bound
        finally:
            await server.stop(_STOP_GRACE_S)

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
