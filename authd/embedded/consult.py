"""The questions to the daemon, over gRPC, and the stream of what happens to sessions.

The broker asks like any other: with its own client certificate, over TLS, although the daemon is
the same process. Whatever goes wrong on the way is a refusal that may pass.
"""

import asyncio
import enum
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import grpc
import grpc.aio

from authd.embedded.admissions import Admission, Right
from authd.embedded.messages import Connect
from authd.errors import ConfigError, FormatError, NoResponseError, ReasonCode
from authd.proto_stubs import decider_pb2, decider_pb2_grpc

# Longer than the daemon's own deadline for an answer, so that its sentence arrives.
CONNECT_TIMEOUT_S: Final = 3.0
# The daemon beats after five seconds of silence: two missed beats and some slack.
SILENCE_TIMEOUT_S: Final = 12.0
ENFORCES: Final = ("rights", "lease", "kick", "will")
# As in the contract.
MAX_REPORTS: Final = 500
# The daemon takes requests of at most 64 KiB; one that is longer would be sent again for ever.
MAX_REPORTS_BYTES: Final = 60_000
# Tags, lengths and numbers of a report, and the tag and length of each text in it.
_REPORT_BYTES: Final = 24
_TEXT_BYTES: Final = 4
# A snapshot of ten thousand sessions with eight rights each.
MAX_MESSAGE_BYTES: Final = 16 * 1_024 * 1_024


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a client may not connect; ``temporary`` if the same CONNECT may be allowed shortly."""

    reason: str
    detail: str
    temporary: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Every session of this broker that may go on."""

    sessions: tuple[Admission, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """A session's rights and lease are now these."""

    session: Admission


@dataclass(frozen=True, slots=True, kw_only=True)
class Leases:
    """Session id → when its lease now ends, on the monotonic clock."""

    ends_at: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Who must go.

    Attributes:
        session_id: That session alone; if empty, the two below.
        key_id: Every session of this key,
        client_id: and this client, if it belongs to the key or is unknown; may be empty.
        publish_will: Whether the will may still be published.
        reason: Why, for the log.
    """

    session_id: str
    key_id: str
    client_id: str
    publish_will: bool
    reason: str

    def names(self, admission: Admission) -> bool:
        """Say whether this session is meant."""
        if self.session_id:
            return admission.session_id == self.session_id
        return admission.key_id == self.key_id


Event = Snapshot | Changed | Leases | Cut


@dataclass(frozen=True, slots=True, kw_only=True)
class DeciderAddress:
    """Where the daemon listens, and what identifies this broker to it.

    Attributes:
        target: ``host:port`` of the daemon's gRPC server.
        authority: PEM of the authority that signed the server's certificate.
        certificate: PEM of this broker entry's client certificate.
        key: PEM of its private key.
    """

    target: str
    authority: Path
    certificate: Path
    key: Path


class What(enum.IntEnum):
    """What became of a session."""

    ONLINE = decider_pb2.WHAT_ONLINE
    OFFLINE = decider_pb2.WHAT_OFFLINE
    KICKED = decider_pb2.WHAT_KICKED
    CUT_OFFLINE = decider_pb2.WHAT_CUT_OFFLINE
    NOT_FOUND = decider_pb2.WHAT_NOT_FOUND
    KICK_FAILED = decider_pb2.WHAT_KICK_FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One thing to tell the daemon about a session.

    Attributes:
        session_id: The daemon's name for it.
        client_id: Whose it is.
        what: What became of it.
        retained: Topics on which it left a retained message that is still kept, newest last.
        retained_more: How many more there are.
    """

    session_id: str
    client_id: str
    what: What
    retained: tuple[str, ...] = ()
    retained_more: int = 0

    @property
    def size_bytes(self) -> int:
        """How long it is on its way, at most."""
        texts = (self.session_id, self.client_id, *self.retained)
        return _REPORT_BYTES + sum(len(text.encode()) + _TEXT_BYTES for text in texts)


class DeciderClient:
    """One channel to the daemon; an ``async with`` object."""

    def __init__(
        self,
        address: DeciderAddress,
        *,
        boot: str,
        monotonic: Callable[[], float],
    ) -> None:
        """Keep where to connect to; nothing is opened yet.

        Args:
            address: Where the daemon is, and who asks.
            boot: Which run of this broker it is: 16 hexadecimal digits.
            monotonic: Seconds that never run back.
        """
        self._address = address
        self._boot = boot
        self._now = monotonic

    async def __aenter__(self) -> Self:
        """Open the channel.

        Raises:
            ConfigError: A certificate or key cannot be read.
        """
        try:
            credentials = grpc.ssl_channel_credentials(
                root_certificates=self._address.authority.read_bytes(),
                private_key=self._address.key.read_bytes(),
                certificate_chain=self._address.certificate.read_bytes(),
            )
        except OSError as error:
            raise ConfigError(f"cannot read the broker's certificates: {error}") from error
        options = [
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2_000),
        ]
        self._channel = grpc.aio.secure_channel(self._address.target, credentials, options)
        self._stub: decider_pb2_grpc.DeciderAsyncStub = decider_pb2_grpc.DeciderStub(self._channel)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the channel; calls under way end."""
        await self._channel.close()

    async def connect(self, connect: Connect, *, address: str) -> Admission | Refusal:
        """Ask whether a client may connect. Never raises on an unreachable daemon."""
        request = decider_pb2.ConnectRequest(
            client_id=connect.client_id,
            username=connect.username,
            password=connect.password,
            address=address,
            clean=connect.clean_session,
            boot=self._boot,
            enforces=ENFORCES,
        )
        asked_at = self._now()
        try:
            response = await self._stub.Connect(request, timeout=CONNECT_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            return _unreachable(error)
        decision = response.decision
        if decision.effect != decider_pb2.EFFECT_ALLOW:
            return Refusal(
                reason=decision.reason,
                detail=decision.detail,
                temporary=decision.temporary,
            )
        if response.session.client_id != connect.client_id:
            return Refusal(
                reason=ReasonCode.INTERNAL,
                detail="the daemon answered for another client id",
                temporary=True,
            )
        return _admission(response.session, asked_at)

    async def watch(self) -> AsyncGenerator[Event, None]:
        """Yield events, the first a `Snapshot`, until the stream can no longer be relied on.

        Raises:
            NoResponseError: The stream broke off or fell silent: open another.
            FormatError: A number is missing, or the first event is no snapshot.
        """
        call = self._stub.Watch(decider_pb2.WatchRequest(boot=self._boot))
        last: int | None = None
        try:
            while True:
                message = await _read(call)
                event = _event(message, self._now())
                if last is None and not isinstance(event, Snapshot):
                    raise FormatError("the event stream does not begin with a snapshot")
                expected = last if event is None else (last or 0) + 1
                if last is not None and message.number != expected:
                    raise FormatError(f"event `{message.number}` follows event {last}")
                last = message.number
                if event is not None:
                    yield event
        finally:
            call.cancel()

    async def report(self, reports: Iterable[Report]) -> None:
        """Tell the daemon what became of sessions, at most `MAX_REPORTS` at once.

        Raises:
            NoResponseError: It did not take them.
        """
        request = decider_pb2.ReportRequest(
            reports=[
                decider_pb2.Report(
                    session_id=report.session_id,
                    client_id=report.client_id,
                    what=report.what.value,
                    retained=report.retained,
                    retained_more=report.retained_more,
                )
                for report in reports
            ],
        )
        try:
            await self._stub.Report(request, timeout=CONNECT_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise NoResponseError(f"reports were not taken: {error.details()}") from error


async def _read(
    call: grpc.aio.UnaryStreamCall[decider_pb2.WatchRequest, decider_pb2.WatchEvent],
) -> decider_pb2.WatchEvent:
    try:
        async with asyncio.timeout(SILENCE_TIMEOUT_S):
            message = await call.read()
    except TimeoutError as error:
        raise NoResponseError("the event stream is silent") from error
    except grpc.aio.AioRpcError as error:
        raise NoResponseError(f"the event stream broke off: {error.details()}") from error
    if not isinstance(message, decider_pb2.WatchEvent):
        raise NoResponseError("the event stream ended")
    return message


def _event(message: decider_pb2.WatchEvent, now: float) -> Event | None:
    match message.WhichOneof("event"):
        case "snapshot":
            sessions = message.snapshot.sessions
            return Snapshot(sessions=tuple(_admission(session, now) for session in sessions))
        case "set":
            return Changed(session=_admission(message.set, now))
        case "leases":
            leases = message.leases.leases
            return Leases(
                ends_at={lease.session_id: now + lease.lease_ms / 1_000 for lease in leases},
            )
        case "cut":
            return Cut(
                session_id=message.cut.session_id,
                key_id=message.cut.key_id,
                client_id=message.cut.client_id,
                publish_will=message.cut.will == decider_pb2.WILL_PUBLISH,
                reason=message.cut.reason,
            )
        case "beat":
            return None
        case _:
            # A kind this version does not know may be a restriction: start over, do not skip it.
            raise FormatError("an event of an unknown kind")


def _admission(session: decider_pb2.Session, now: float) -> Admission:
    lease_ends_at = now + session.lease_ms / 1_000
    return Admission(
        client_id=session.client_id,
        session_id=session.session_id,
        key_id=session.key_id,
        rights=tuple(
            Right(
                topic_filter=right.topic_filter,
                publish=right.publish,
                subscribe=right.subscribe,
                ends_at=now + right.ms / 1_000 if right.HasField("ms") else lease_ends_at,
            )
            for right in session.rights
        ),
        lease_ends_at=lease_ends_at,
        publish_will=session.will == decider_pb2.WILL_PUBLISH,
    )


def _unreachable(error: grpc.aio.AioRpcError) -> Refusal:
    return Refusal(
        reason=ReasonCode.NO_RESPONSE,
        detail=f"the daemon did not answer: {error.code().name.lower()}",
        temporary=True,
    )
