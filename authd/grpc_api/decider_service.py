"""``authd.v1.Decider``: what brokers ask that are written for authd."""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Final, Protocol

import grpc

from authd.core.decision import Decision, deny
from authd.errors import AuthdError, ConflictError, ReasonCode
from authd.grpc_api.answers import Asked, decide_in_time, status_of
from authd.grpc_api.convert import (
    OPERATIONS,
    WHATS,
    connect_request,
    decision_message,
    event_message,
    evidence_json,
    session_message,
)
from authd.grpc_api.peers import BrokerNames, Context, identify
from authd.proto_stubs import decider_pb2, decider_pb2_grpc
from authd.service.leftovers import check_retained
from authd.service.ports import DecisionPoint, SessionEvent, SessionReport

# As on the broker socket.
MAX_REPORTS: Final = 500


class SessionDesk(Protocol):
    """What this edge needs of sessions besides decisions."""

    def describe(self, broker: str, client_id: str) -> dict[str, object] | None:
        """Return a session as the broker socket's ``set`` event has it; None without one."""
        ...

    def report(self, broker: str, report: SessionReport) -> None:
        """Take in what became of a session."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DeciderParts:
    """What the servicer is built from.

    Attributes:
        point: Who decides.
        names: Which certificate is which broker entry.
        sessions: What is known of sessions, and who is told of them.
        deadline_s: Within how many seconds every question is answered.
    """

    point: DecisionPoint
    names: BrokerNames
    sessions: SessionDesk
    deadline_s: float


class Decider(decider_pb2_grpc.DeciderServicer):
    """Answers ``authd.v1.Decider`` from a decision point."""

    def __init__(self, parts: DeciderParts) -> None:
        """Answer as ``parts`` say."""
        self._parts = parts

    async def Connect(
        self,
        request: decider_pb2.ConnectRequest,
        context: Context,
    ) -> decider_pb2.ConnectResponse:
        """Judge a CONNECT."""
        broker = await identify(context, self._parts.names)
        asked = connect_request(request, broker)
        session: list[decider_pb2.Session] = []

        async def ask() -> Decision:
            decision = await self._parts.point.connect(asked)
            if decision.allowed:
                session.append(self._describe(broker, request.client_id, decision.session))
            return decision

        decision = await self._decide(ask)
        return decider_pb2.ConnectResponse(
            decision=decision_message(decision),
            session=session[0] if decision.allowed else None,
        )

    async def Authorize(
        self,
        request: decider_pb2.AuthorizeRequest,
        context: Context,
    ) -> decider_pb2.AuthorizeResponse:
        """Judge one operation from memory."""
        broker = await identify(context, self._parts.names)

        def ask() -> Decision:
            operation = OPERATIONS.get(request.operation)
            if operation is None:
                return deny(ReasonCode.MALFORMED, "no operation was named")
            return self._parts.point.authorize(
                broker=broker,
                client_id=request.client_id,
                operation=operation,
                topic=request.topic,
                username=request.username or None,
            )

        return decider_pb2.AuthorizeResponse(decision=decision_message(await self._decide(ask)))

    async def Explain(
        self,
        request: decider_pb2.ExplainRequest,
        context: Context,
    ) -> decider_pb2.ExplainResponse:
        """Judge as live decisions are judged, and show the evidence."""
        connect = connect_request(request.connect, await identify(context, self._parts.names))
        operation = OPERATIONS.get(request.operation)
        asked = None if operation is None else (operation, request.topic)
        decision = await self._decide(lambda: self._parts.point.explain(connect, asked))
        return decider_pb2.ExplainResponse(
            decision=decision_message(decision),
            evidence_json=evidence_json(decision),
        )

    async def Watch(
        self,
        request: decider_pb2.WatchRequest,
        context: Context,
    ) -> AsyncIterator[decider_pb2.WatchEvent]:
        """Stream what happens to the broker's sessions; ends when a newer stream replaces it."""
        broker = await identify(context, self._parts.names)
        events = self._parts.point.watch(broker, boot=request.boot)
        try:
            async for event in events:
                yield event_message(event)
        except AuthdError as error:
            await context.abort(_failure_status(error), str(error))
        finally:
            await _close(events)

    async def Report(
        self,
        request: decider_pb2.ReportRequest,
        context: Context,
    ) -> decider_pb2.ReportResponse:
        """Pass on what became of sessions; kinds that this version does not know are left out."""
        broker = await identify(context, self._parts.names)
        if len(request.reports) > MAX_REPORTS:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "too many reports in one call")
        try:
            for report in request.reports:
                if report.what in WHATS:
                    self._parts.sessions.report(broker, _session_report(report))
        except AuthdError as error:
            await context.abort(_failure_status(error), str(error))
        return decider_pb2.ReportResponse()

    def _describe(self, broker: str, client_id: str, session_id: str) -> decider_pb2.Session:
        session = self._parts.sessions.describe(broker, client_id)
        if session is None or session.get("session") != session_id:
            raise ConflictError("the session ended while it began", reason=ReasonCode.OVERLOADED)
        return session_message(session)

    async def _decide(self, ask: Asked) -> Decision:
        return await decide_in_time(ask, deadline_s=self._parts.deadline_s)


def _session_report(report: decider_pb2.Report) -> SessionReport:
    return SessionReport(
        client_id=report.client_id,
        session_id=report.session_id,
        what=WHATS[report.what],
        retained=check_retained(report.retained, report.retained_more),
    )


def _failure_status(error: AuthdError) -> grpc.StatusCode:
    status = status_of(error.reason)
    return grpc.StatusCode.UNAVAILABLE if status is grpc.StatusCode.OK else status


async def _close(events: AsyncIterator[SessionEvent]) -> None:
    """End the stream at its source also when the caller left between two events."""
    if isinstance(events, AsyncGenerator):
        await events.aclose()
