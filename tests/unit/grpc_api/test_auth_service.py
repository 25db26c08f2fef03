import asyncio
from collections.abc import Awaitable

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty

from authd.core.decision import ConnectRequest, Operation, deny
from authd.errors import ReasonCode, StoreError
from authd.proto_stubs import grpc_auth_pb2 as pb
from authd.proto_stubs import grpc_auth_pb2_grpc as pb_grpc
from tests.unit.grpc_api.conftest import Serve, Served, allow

TEMPORARY = [reason for reason in ReasonCode if reason.temporary]
REFUSALS = [
    reason
    for reason in ReasonCode
    if not reason.temporary and reason not in (ReasonCode.OK, ReasonCode.UNKNOWN_BROKER)
]


async def stub(served: Served) -> "pb_grpc.AuthServiceAsyncStub":
    made: pb_grpc.AuthServiceAsyncStub = pb_grpc.AuthServiceStub(await served.channel())
    return made


async def code_of(call: Awaitable[object]) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code()


async def test_an_allow_is_ok_true_and_the_request_names_the_broker(serve: Serve) -> None:
    served = await serve()
    served.point.answer = allow()
    answer = await (await stub(served)).GetUser(
        pb.GetUserRequest(username="u", password="p", clientid="c"),
    )
    assert answer.ok
    assert served.point.asked == [
        ConnectRequest(
            broker="hall",
            client_id="c",
            username="u",
            password="p",
            enforces=frozenset({"rights", "lease"}),
        ),
    ]


@pytest.mark.parametrize("reason", REFUSALS)
async def test_a_refusal_is_ok_false_with_status_ok(serve: Serve, reason: ReasonCode) -> None:
    served = await serve()
    served.point.answer = deny(reason, "no")
    service = await stub(served)
    assert not (await service.GetUser(pb.GetUserRequest(username="u"))).ok
    assert not (await service.CheckAcl(pb.CheckAclRequest(acc=2, topic="t"))).ok


@pytest.mark.parametrize("reason", TEMPORARY)
async def test_what_cannot_be_decided_is_unavailable_but_a_delivery_is_refused(
    serve: Serve,
    reason: ReasonCode,
) -> None:
    served = await serve()
    served.point.answer = deny(reason, "later")
    service = await stub(served)
    unavailable = grpc.StatusCode.UNAVAILABLE
    assert await code_of(service.GetUser(pb.GetUserRequest())) is unavailable
    assert await code_of(service.CheckAcl(pb.CheckAclRequest(acc=2, topic="t"))) is unavailable
    assert await code_of(service.CheckAcl(pb.CheckAclRequest(acc=4, topic="t"))) is unavailable
    assert not (await service.CheckAcl(pb.CheckAclRequest(acc=1, topic="t"))).ok


@pytest.mark.parametrize("failure", [StoreError("disk full"), RuntimeError("unforeseen")])
async def test_a_failure_is_unavailable_and_never_an_allow(
    serve: Serve,
    failure: Exception,
) -> None:
    served = await serve()
    served.point.answer = allow()
    served.point.failure = failure
    service = await stub(served)
    code = await code_of(service.GetUser(pb.GetUserRequest()))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert not (await service.CheckAcl(pb.CheckAclRequest(acc=1, topic="t"))).ok


async def test_a_slow_decision_is_unavailable_within_the_servers_own_deadline(
    serve: Serve,
) -> None:
    served = await serve(deadline_s=0.1)
    served.point.answer = allow()
    served.point.delay_s = 30
    service = await stub(served)
    async with asyncio.timeout(5):
        code = await code_of(service.GetUser(pb.GetUserRequest()))
    assert code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("acc", "operation"),
    [(1, Operation.RECEIVE), (2, Operation.PUBLISH), (4, Operation.SUBSCRIBE)],
)
async def test_each_access_is_asked_as_its_operation(
    serve: Serve,
    acc: int,
    operation: Operation,
) -> None:
    served = await serve()
    served.point.answer = allow()
    request = pb.CheckAclRequest(username="u", topic="a/b", clientid="c", acc=acc)
    assert (await (await stub(served)).CheckAcl(request)).ok
    assert served.point.asked == [("hall", "c", operation, "a/b", "u")]


@pytest.mark.parametrize("acc", [0, 3, 5, 8, 17, -1, 2**31 - 1])
async def test_an_unknown_access_is_refused_without_asking(serve: Serve, acc: int) -> None:
    served = await serve()
    served.point.answer = allow()
    request = pb.CheckAclRequest(username="u", topic="a/b", clientid="c", acc=acc)
    assert not (await (await stub(served)).CheckAcl(request)).ok
    assert served.point.asked == []


async def test_nobody_is_superuser_the_name_is_authd_and_halt_stops_nothing(serve: Serve) -> None:
    served = await serve()
    served.point.answer = allow()
    service = await stub(served)
    assert not (await service.GetSuperuser(pb.GetSuperuserRequest(username="root"))).ok
    assert (await service.GetName(Empty())).name == "authd"
    await service.Halt(Empty())
    assert (await service.GetUser(pb.GetUserRequest(username="u"))).ok
