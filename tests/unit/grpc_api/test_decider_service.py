import asyncio
import json
from typing import Any

import grpc
import pytest

from authd.core.decision import (
    ChallengeResponse,
    ClientCertificate,
    ConnectRequest,
    Operation,
    Presented,
    SingleStep,
    deny,
)
from authd.errors import ReasonCode, StoreError
from authd.proto_stubs import decider_pb2 as pb
from authd.proto_stubs import decider_pb2_grpc as pb_grpc
from authd.service.leftovers import NOTHING, Retained
from authd.service.ports import SessionEvent, SessionReport
from tests.unit.grpc_api.conftest import Serve, Served, allow

CONNECT = pb.ConnectRequest(
    client_id="c",
    username="u",
    password="p",
    address="192.0.2.7",
    clean=True,
    boot="9f0c11e27ab34d55",
    enforces=["rights", "kick"],
)
AS_ASKED = ConnectRequest(
    broker="hall",
    client_id="c",
    username="u",
    password="p",
    address="192.0.2.7",
    boot="9f0c11e27ab34d55",
    clean=True,
    enforces=frozenset({"rights", "kick"}),
)
SESSION = {
    "client_id": "c",
    "session": "s1",
    "key": "k",
    "lease_ms": 60_000,
    "rights": [{"filter": "a/+", "actions": 1}, {"filter": "b/#", "actions": 3, "ms": 500}],
    "will": "publish",
}
SESSION_MESSAGE = pb.Session(
    client_id="c",
    session_id="s1",
    key_id="k",
    lease_ms=60_000,
    rights=[
        pb.Right(topic_filter="a/+", publish=True),
        pb.Right(topic_filter="b/#", publish=True, subscribe=True, ms=500),
    ],
    will=pb.WILL_PUBLISH,
)


PRESENTED = [
    ({"auth": b"\x01"}, SingleStep(b"\x01")),
    (
        {"exchange": pb.Exchange(hello=b"h", nonce=b"n", response=b"r")},
        ChallengeResponse(hello=b"h", nonce=b"n", response=b"r"),
    ),
    ({"certificate": bytes(32)}, ClientCertificate(bytes(32))),
    ({"auth": b""}, SingleStep(b"")),
]


async def stub(served: Served, broker: str = "hall") -> "pb_grpc.DeciderAsyncStub":
    channel = await served.channel(served.certificates.brokers[broker])
    made: pb_grpc.DeciderAsyncStub = pb_grpc.DeciderStub(channel)
    return made


async def test_an_allow_carries_the_session_as_the_daemon_describes_it(serve: Serve) -> None:
    served = await serve()
    served.point.answer = allow()
    served.point.described = SESSION
    response = await (await stub(served)).Connect(CONNECT)
    assert served.point.asked == [AS_ASKED, ("hall", "c")]
    assert response == pb.ConnectResponse(
        decision=pb.Decision(effect=pb.EFFECT_ALLOW, reason="ok", detail="granted"),
        session=SESSION_MESSAGE,
    )


@pytest.mark.parametrize(("given", "presented"), PRESENTED)
async def test_what_was_shown_beside_a_password_is_passed_on(
    serve: Serve, given: dict[str, Any], presented: Presented
) -> None:
    served = await serve()
    message = pb.ConnectRequest(client_id="c", reauthenticates="s1", **given)
    await (await stub(served)).Connect(message)
    expected = ConnectRequest(
        broker="hall",
        client_id="c",
        username="",
        presented=presented,
        reauthenticates="s1",
        clean=False,
    )
    assert served.point.asked == [expected]


@pytest.mark.parametrize(
    ("described", "reason"),
    [
        (None, "overloaded"),
        (SESSION | {"session": "another"}, "overloaded"),
        (SESSION | {"rights": None}, "internal"),
    ],
)
async def test_an_allow_whose_session_has_gone_or_cannot_be_told_is_a_temporary_deny(
    serve: Serve,
    described: dict[str, object] | None,
    reason: str,
) -> None:
    served = await serve()
    served.point.answer = allow()
    served.point.described = described
    response = await (await stub(served)).Connect(CONNECT)
    decision = response.decision
    assert (decision.effect, decision.reason, decision.temporary) == (
        pb.EFFECT_DENY,
        reason,
        True,
    )
    assert not response.HasField("session")


@pytest.mark.parametrize("reason", [code for code in ReasonCode if code is not ReasonCode.OK])
async def test_a_deny_carries_its_reason_and_no_session(serve: Serve, reason: ReasonCode) -> None:
    served = await serve()
    served.point.answer = deny(reason, "because")
    response = await (await stub(served)).Connect(CONNECT)
    assert response == pb.ConnectResponse(
        decision=pb.Decision(
            effect=pb.EFFECT_DENY,
            reason=reason,
            detail="because",
            temporary=reason.temporary,
        ),
    )


@pytest.mark.parametrize(
    ("failure", "reason"),
    [(StoreError("disk full"), "store_failed"), (RuntimeError("secret"), "internal")],
)
async def test_a_failure_is_a_temporary_deny(
    serve: Serve,
    failure: Exception,
    reason: str,
) -> None:
    served = await serve()
    served.point.failure = failure
    service = await stub(served)
    for decision in (
        (await service.Connect(CONNECT)).decision,
        (await service.Explain(pb.ExplainRequest(connect=CONNECT))).decision,
        (await service.Authorize(pb.AuthorizeRequest(operation=pb.OPERATION_PUBLISH))).decision,
    ):
        assert (decision.effect, decision.reason) == (pb.EFFECT_DENY, reason)
        assert decision.temporary
        assert "secret" not in decision.detail


async def test_a_slow_decision_is_a_temporary_deny(serve: Serve) -> None:
    served = await serve(deadline_s=0.1)
    served.point.delay_s = 30
    async with asyncio.timeout(5):
        decision = (await (await stub(served)).Connect(CONNECT)).decision
    assert (decision.effect, decision.reason, decision.temporary) == (
        pb.EFFECT_DENY,
        "overloaded",
        True,
    )


@pytest.mark.parametrize(
    ("sent", "asked"),
    [
        (pb.OPERATION_PUBLISH, Operation.PUBLISH),
        (pb.OPERATION_RECEIVE, Operation.RECEIVE),
        (pb.OPERATION_SUBSCRIBE, Operation.SUBSCRIBE),
    ],
)
async def test_authorize_asks_for_the_operation(
    serve: Serve,
    sent: pb.Operation.ValueType,
    asked: Operation,
) -> None:
    served = await serve()
    served.point.answer = allow()
    request = pb.AuthorizeRequest(client_id="c", operation=sent, topic="a/b")
    response = await (await stub(served)).Authorize(request)
    assert response.decision.effect == pb.EFFECT_ALLOW
    assert served.point.asked == [("hall", "c", asked, "a/b", None)]


async def test_authorize_without_an_operation_is_refused_without_asking(serve: Serve) -> None:
    served = await serve()
    served.point.answer = allow()
    response = await (await stub(served)).Authorize(pb.AuthorizeRequest(topic="a/b"))
    assert response.decision.reason == ReasonCode.MALFORMED
    assert response.decision.effect == pb.EFFECT_DENY
    assert served.point.asked == []


async def test_explain_carries_the_evidence(serve: Serve) -> None:
    served = await serve()
    served.point.answer = allow()
    service = await stub(served)
    response = await service.Explain(
        pb.ExplainRequest(connect=CONNECT, operation=pb.OPERATION_PUBLISH, topic="a"),
    )
    assert json.loads(response.evidence_json) == {
        "audience": "",
        "form": "",
        "matched": "",
        "paths": [],
    }
    await service.Explain(pb.ExplainRequest(connect=CONNECT))
    assert served.point.asked == [(AS_ASKED, (Operation.PUBLISH, "a")), (AS_ASKED, None)]


async def test_every_kind_of_event_arrives_as_it_was_told(serve: Serve) -> None:
    served = await serve()
    cut = {"key": "k", "client_id": "", "session": "s1", "will": "suppress", "reason": "revoked"}
    served.point.events = (
        SessionEvent(number=7, kind="snapshot", body={"sessions": [SESSION]}),
        SessionEvent(number=8, kind="set", body=dict(SESSION)),
        SessionEvent(number=9, kind="lease", body={"leases": [["s1", 5], ("s2", 0)]}),
        SessionEvent(number=10, kind="cut", body=dict(cut)),
        SessionEvent(number=10, kind="beat", body={}),
    )
    call = (await stub(served)).Watch(pb.WatchRequest(boot="9f0c11e27ab34d55"))
    received = [await call.read() for _ in served.point.events]
    leases = [pb.Lease(session_id="s1", lease_ms=5), pb.Lease(session_id="s2")]
    assert received == [
        pb.WatchEvent(number=7, snapshot=pb.Snapshot(sessions=[SESSION_MESSAGE])),
        pb.WatchEvent(number=8, set=SESSION_MESSAGE),
        pb.WatchEvent(number=9, leases=pb.Leases(leases=leases)),
        pb.WatchEvent(
            number=10,
            cut=pb.Cut(session_id="s1", key_id="k", will=pb.WILL_SUPPRESS, reason="revoked"),
        ),
        pb.WatchEvent(number=10, beat=pb.Beat()),
    ]
    assert served.point.asked == [("hall", "9f0c11e27ab34d55")]
    call.cancel()
    async with asyncio.timeout(5):
        await served.point.unwatched.wait()


async def test_an_empty_snapshot_is_still_a_snapshot(serve: Serve) -> None:
    served = await serve()
    served.point.events = (SessionEvent(number=0, kind="snapshot", body={"sessions": []}),)
    call = (await stub(served)).Watch(pb.WatchRequest())
    message: Any = await call.read()
    assert message.WhichOneof("event") == "snapshot"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("unknown", {}),
        ("snapshot", {}),
        ("snapshot", {"sessions": ["s"]}),
        ("set", SESSION | {"lease_ms": "60000"}),
        ("set", SESSION | {"rights": [{"filter": "a"}]}),
        ("lease", {"leases": [["s1"]]}),
        ("cut", {"session": "s1"}),
    ],
)
async def test_an_event_that_cannot_be_told_ends_the_stream(
    serve: Serve,
    kind: str,
    body: dict[str, object],
) -> None:
    served = await serve()
    served.point.events = (SessionEvent(number=1, kind=kind, body=body),)
    call = (await stub(served)).Watch(pb.WatchRequest())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    async with asyncio.timeout(5):
        await served.point.unwatched.wait()


async def test_a_failing_source_ends_the_stream(serve: Serve) -> None:
    served = await serve()
    served.point.then_fail = StoreError("disk full")
    call = (await stub(served)).Watch(pb.WatchRequest())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_reports_are_passed_on_in_order_and_unknown_kinds_left_out(serve: Serve) -> None:
    served = await serve()
    kinds: list[Any] = [*pb.What.values(), 99]
    reports = [pb.Report(session_id="s1", client_id="c", what=what) for what in kinds]
    service: Any = await stub(served)
    await service.Report(pb.ReportRequest(reports=reports))
    told = ["online", "offline", "kicked", "cut_offline", "not_found", "kick_failed"]
    assert served.point.reported == [
        ("hall", SessionReport(client_id="c", session_id="s1", what=what)) for what in told
    ]


async def test_what_a_session_left_behind_is_passed_on_within_bounds(serve: Serve) -> None:
    served = await serve()
    service: Any = await stub(served)
    reports = [
        pb.Report(what=pb.WHAT_KICKED, retained=["a", "a", "b/#", "c"], retained_more=2),
        pb.Report(what=pb.WHAT_OFFLINE),
    ]
    await service.Report(pb.ReportRequest(reports=reports))
    left = [report.retained for _, report in served.point.reported]
    assert left == [Retained(("a", "c"), 3), NOTHING]


async def test_too_many_reports_and_a_report_that_cannot_be_kept_are_errors(
    serve: Serve,
) -> None:
    served = await serve()
    service: Any = await stub(served)
    many = pb.ReportRequest(reports=[pb.Report(what=pb.WHAT_ONLINE)] * 501)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.Report(many)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert served.point.reported == []
    served.point.failure = StoreError("disk full")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.Report(pb.ReportRequest(reports=[pb.Report(what=pb.WHAT_ONLINE)]))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
