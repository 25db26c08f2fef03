"""Questions, decisions and session events as messages of ``authd.v1``.

The members of events are those of the broker socket; a member that is missing or of another type
is a mistake on our side, and ends the stream rather than being skipped.
"""

import json
from collections.abc import Iterable
from typing import Final, TypeVar

from authd.core.decision import (
    ChallengeResponse,
    ClientCertificate,
    ConnectRequest,
    Decision,
    Operation,
    Presented,
    SingleStep,
)
from authd.core.topics import Action
from authd.errors import FormatError, ReasonCode
from authd.proto_stubs import decider_pb2
from authd.service.ports import SessionEvent

OPERATIONS: Final = {
    decider_pb2.OPERATION_PUBLISH: Operation.PUBLISH,
    decider_pb2.OPERATION_RECEIVE: Operation.RECEIVE,
    decider_pb2.OPERATION_SUBSCRIBE: Operation.SUBSCRIBE,
}
WHATS: Final = {
    decider_pb2.WHAT_ONLINE: "online",
    decider_pb2.WHAT_OFFLINE: "offline",
    decider_pb2.WHAT_KICKED: "kicked",
    decider_pb2.WHAT_CUT_OFFLINE: "cut_offline",
    decider_pb2.WHAT_NOT_FOUND: "not_found",
    decider_pb2.WHAT_KICK_FAILED: "kick_failed",
}
_WILLS: Final = {
    "suppress": decider_pb2.WILL_SUPPRESS,
    "publish": decider_pb2.WILL_PUBLISH,
}

T = TypeVar("T")


def connect_request(request: decider_pb2.ConnectRequest, broker: str) -> ConnectRequest:
    """Convert a question; what it holds is judged by whoever decides."""
    return ConnectRequest(
        broker=broker,
        client_id=request.client_id,
        username=request.username,
        password=request.password,
        presented=_presented(request),
        reauthenticates=request.reauthenticates,
        address=request.address,
        boot=request.boot,
        clean=request.clean,
        enforces=frozenset(request.enforces),
    )


def _presented(request: decider_pb2.ConnectRequest) -> Presented | None:
    match request.WhichOneof("presented"):
        case "auth":
            return SingleStep(request.auth)
        case "exchange":
            exchange = request.exchange
            return ChallengeResponse(
                hello=exchange.hello,
                nonce=exchange.nonce,
                response=exchange.response,
            )
        case "certificate":
            return ClientCertificate(request.certificate)
        case _:
            return None


def decision_message(decision: Decision) -> decider_pb2.Decision:
    """Convert a decision without the session that only an allow carries."""
    return decider_pb2.Decision(
        effect=decider_pb2.EFFECT_ALLOW if decision.allowed else decider_pb2.EFFECT_DENY,
        reason=decision.reason,
        detail=decision.detail,
        temporary=not decision.allowed and decision.temporary,
    )


def evidence_json(decision: Decision) -> str:
    """Write a decision's evidence as one JSON object."""
    return json.dumps(decision.evidence.described(), sort_keys=True)


def event_message(event: SessionEvent) -> decider_pb2.WatchEvent:
    """Convert a session event.

    Raises:
        FormatError: A member is missing or of another type, or the kind is unknown.
    """
    message = decider_pb2.WatchEvent(number=event.number)
    body = event.body
    match event.kind:
        case "snapshot":
            sessions = (session_message(entry) for entry in _list(body, "sessions"))
            message.snapshot.sessions.extend(sessions)
            message.snapshot.SetInParent()
        case "set":
            message.set.CopyFrom(session_message(body))
        case "lease":
            message.leases.leases.extend(_leases(_list(body, "leases")))
            message.leases.SetInParent()
        case "cut":
            message.cut.CopyFrom(_cut(body))
        case "beat":
            message.beat.SetInParent()
        case _:
            raise FormatError(
                f"a session event of unknown kind `{event.kind}`", reason=ReasonCode.INTERNAL
            )
    return message


def session_message(entry: object) -> decider_pb2.Session:
    """Convert a session's description.

    Raises:
        FormatError: A member is missing or of another type.
    """
    body = _dict(entry)
    return decider_pb2.Session(
        session_id=_member(body, "session", str),
        client_id=_member(body, "client_id", str),
        key_id=_member(body, "key", str),
        lease_ms=_member(body, "lease_ms", int),
        rights=[_right(right) for right in _list(body, "rights")],
        will=_WILLS.get(_member(body, "will", str), decider_pb2.WILL_SUPPRESS),
    )


def _right(entry: object) -> decider_pb2.Right:
    body = _dict(entry)
    actions = Action(_member(body, "actions", int))
    right = decider_pb2.Right(
        topic_filter=_member(body, "filter", str),
        publish=Action.PUB in actions,
        subscribe=Action.SUB in actions,
    )
    if "ms" in body:
        right.ms = _member(body, "ms", int)
    return right


def _leases(entries: Iterable[object]) -> Iterable[decider_pb2.Lease]:
    for entry in entries:
        match entry:
            case [str() as session, int() as lease_ms]:
                yield decider_pb2.Lease(session_id=session, lease_ms=lease_ms)
            case _:
                raise FormatError(
                    "a lease is a session id and milliseconds", reason=ReasonCode.INTERNAL
                )


def _cut(body: dict[str, object]) -> decider_pb2.Cut:
    return decider_pb2.Cut(
        session_id=_member(body, "session", str),
        key_id=_member(body, "key", str),
        client_id=_member(body, "client_id", str),
        will=_WILLS.get(_member(body, "will", str), decider_pb2.WILL_SUPPRESS),
        reason=_member(body, "reason", str),
    )


def _member(body: dict[str, object], name: str, kind: type[T]) -> T:
    value = body.get(name)
    if not isinstance(value, kind):
        raise FormatError(
            f"member `{name}` of a session event is not of type `{kind.__name__}`",
            reason=ReasonCode.INTERNAL,
        )
    return value


def _list(body: dict[str, object], name: str) -> list[object] | tuple[object, ...]:
    value = body.get(name)
    if not isinstance(value, list | tuple):
        raise FormatError(
            f"member `{name}` of a session event is not a list", reason=ReasonCode.INTERNAL
        )
    return value


def _dict(entry: object) -> dict[str, object]:
    if not isinstance(entry, dict):
        raise FormatError(
            "an entry of a session event is not an object", reason=ReasonCode.INTERNAL
        )
    return entry
