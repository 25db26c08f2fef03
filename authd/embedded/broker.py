"""The embedded broker: a gate in front of amqtt that asks the daemon, and cuts when told to.

Order of things for one client:

1. The gate reads CONNECT, in time and measure, and asks the daemon over gRPC.
2. A refusal ends there: amqtt never hears of the client. A refusal that may pass is a connection
   closed without CONNACK, because many clients give up for ever on codes 4 and 5.
3. An allowed client takes the place of an older connection with its client id, which is ended
   first; then the connection is handed to amqtt with a CONNECT written anew.
4. From then on amqtt asks the plugin, and the plugin answers from memory.
5. A cut, or the end of the lease: the admission is dropped, so that everything is refused at
   once; the will is dropped unless the cut says otherwise; then the connection is ended.

INVARIANT: nobody is admitted while the event stream is down, or if it was opened anew during the
question: a revocation could have been missed in between.
"""

import asyncio
import errno
import secrets
from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import asdict, dataclass, replace
from ssl import SSLContext
from types import TracebackType
from typing import Final, Self

import structlog

from authd.embedded import messages
from authd.embedded.admissions import Admissions
from authd.embedded.consult import DeciderAddress, DeciderClient, Refusal
from authd.embedded.contain import contained
from authd.embedded.engine import LISTENER, CheckedBroker, Policy
from authd.embedded.messages import Connect, UnsupportedVersion
from authd.embedded.reports import Reports, pause
from authd.embedded.sessions import Connection, Sessions
from authd.embedded.streams import GateReader, GateWriter, close_stream, read_connect_body
from authd.errors import ConfigError, ConflictError, FormatError, NoResponseError

_log = structlog.get_logger(__name__)

CONNECT_READ_TIMEOUT_S: Final = 10.0
# A client that comes while the event stream is being opened waits this long for it.
STREAM_WAIT_S: Final = 1.0
# Each costs a socket, a task and its buffers.
MAX_CONNECTIONS: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedParts:
    """What the broker is built from.

    Attributes:
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        decider: The daemon's gRPC server, and the certificate that names this broker to it.
        monotonic: Seconds that never run back.
        tls: Server side TLS; None listens in plain text.
    """

    host: str
    port: int
    decider: DeciderAddress
    monotonic: Callable[[], float]
    tls: SSLContext | None = None


class EmbeddedBroker:
    """An ``async with`` object that holds its port from entry; `run` serves until cancelled."""

    def __init__(self, parts: EmbeddedParts) -> None:
        """Keep what to build from; nothing is opened yet."""
        self._parts = parts
        self._group: asyncio.TaskGroup | None = None
        self._open = 0
        self.port = 0

    async def __aenter__(self) -> Self:
        """Take the port, and open the channel to the daemon.

        Raises:
            ConfigError: The address cannot be taken, or a certificate cannot be read.
        """
        parts = self._parts
        self._policy = Policy(admissions=Admissions(monotonic=parts.monotonic))
        self._engine = CheckedBroker(self._policy)
        async with AsyncExitStack() as stack:
            boot = secrets.token_hex(8)
            decider = DeciderClient(parts.decider, boot=boot, monotonic=parts.monotonic)
            self._decider = await stack.enter_async_context(decider)
            self._reports = Reports(self._decider)
            self._server = await self._bind()
            stack.callback(self._server.close)
            await self._engine.start()
            stack.push_async_callback(self._engine.shutdown)
            self._stack = stack.pop_all()
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End every connection, give up the port and close the channel."""
        await self._stack.aclose()

    async def run(self) -> None:
        """Serve until cancelled; may be called again if it failed."""
        async with asyncio.TaskGroup() as group:
            self._sessions = Sessions(
                policy=self._policy,
                engine=self._engine,
                group=group,
                report=self._reports.put,
            )
            self._group = group
            group.create_task(self._watch(), name="embedded broker: events")
            group.create_task(self._reports.run(), name="embedded broker: reports")
            try:
                # Not `serve_forever`: that closes the port when it ends.
                await self._server.start_serving()
                await asyncio.Event().wait()
            finally:
                self._group = None
                self._sessions.close()

    async def _bind(self) -> asyncio.Server:
        parts = self._parts
        try:
            return await asyncio.start_server(
                self._on_connection,
                parts.host,
                parts.port,
                ssl=parts.tls,
                start_serving=False,
            )
        except OSError as error:
            address = f"{parts.host}:{parts.port}"
            raise ConfigError(
                f"cannot listen on `{address}` (embedded.port): {_why(error)}",
            ) from error

    async def _watch(self) -> None:
        while True:
            try:
                async with aclosing(self._decider.watch()) as events:
                    async for event in events:
                        self._sessions.apply(event)
            except (NoResponseError, FormatError) as error:
                _log.warning("event_stream_lost", reason=error.reason, detail=str(error))
            self._sessions.lose_stream()
            await pause()

    # --- one client -------------------------------------------------------------------------

    def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._group is None or self._open >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._open += 1
        self._group.create_task(self._serve(reader, writer), name="embedded broker: client")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await contained(self._judge(reader, writer))
        finally:
            self._open -= 1
            await close_stream(writer)

    async def _judge(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connect = await _read_connect(reader, writer)
        if connect is None:
            return
        admitted = await self._ask(connect, writer)
        if isinstance(admitted, Refusal):
            _log.info("client_refused", client_id=connect.client_id, **asdict(admitted))
            if not admitted.temporary:
                writer.write(messages.REFUSED_NOT_AUTHORIZED)
            return
        connection, older = admitted
        try:
            if older is not None:
                await self._sessions.end(older)
            if await self._sessions.prepare(connection, connect.will):
                prefix = messages.encode_connect(_anew(connect))
                await self._engine.external_connected(
                    GateReader(reader, prefix=prefix, keep_alive_s=connect.keep_alive_s),
                    GateWriter(writer),
                    LISTENER,
                )
        finally:
            await self._sessions.release(connection)

    async def _ask(
        self,
        connect: Connect,
        writer: asyncio.StreamWriter,
    ) -> tuple[Connection, Connection | None] | Refusal:
        async with asyncio.timeout(STREAM_WAIT_S):
            await self._sessions.watching.wait()
        question = self._sessions.ask()
        try:
            address = str(writer.get_extra_info("peername")[0])
            answer = await self._decider.connect(connect, address=address)
            if isinstance(answer, Refusal):
                return answer
            connection = Connection(
                client_id=connect.client_id,
                session_id=answer.session_id,
                key_id=answer.key_id,
                clean=connect.clean_session,
                abort=writer.transport.abort,
            )
            return connection, self._sessions.admit(connection, answer, question)
        except ConflictError as error:
            reason = error.reason
            return Refusal(reason=reason, detail=str(error), temporary=reason.temporary)
        finally:
            self._sessions.answered(question)


def _why(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "address already in use, perhaps by another broker: then leave out `--broker`"
    return str(error.strerror or error)


async def _read_connect(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> Connect | None:
    async with asyncio.timeout(CONNECT_READ_TIMEOUT_S):
        connect = messages.parse_connect(await read_connect_body(reader))
    if isinstance(connect, UnsupportedVersion):
        writer.write(connect.answer)
        return None
    if not connect.client_id:
        writer.write(messages.REFUSED_CLIENT_ID)
        return None
    return connect


def _anew(connect: Connect) -> Connect:
    """Leave out what is no business of amqtt's; the gate keeps wills and watches for silence."""
    return replace(connect, username="", password="", keep_alive_s=0, will=None)
