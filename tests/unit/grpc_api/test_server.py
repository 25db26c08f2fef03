import asyncio
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from authd.errors import ConfigError
from authd.grpc_api.certificates import CertificateFiles, ensure_certificates
from authd.grpc_api.server import GrpcParts, GrpcServer
from authd.proto_stubs import decider_pb2, decider_pb2_grpc, grpc_auth_pb2, grpc_auth_pb2_grpc
from tests.unit.grpc_api.conftest import ScriptedPoint, Serve, allow


async def code_of(call: Awaitable[object]) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code()


def calls_of(channel: grpc.aio.Channel) -> list[Any]:
    auth: Any = grpc_auth_pb2_grpc.AuthServiceStub(channel)
    decider: Any = decider_pb2_grpc.DeciderStub(channel)
    return [
        auth.GetUser(grpc_auth_pb2.GetUserRequest()),
        auth.GetSuperuser(grpc_auth_pb2.GetSuperuserRequest()),
        auth.CheckAcl(grpc_auth_pb2.CheckAclRequest(acc=1)),
        auth.GetName(Empty()),
        auth.Halt(Empty()),
        decider.Connect(decider_pb2.ConnectRequest()),
        decider.Authorize(decider_pb2.AuthorizeRequest()),
        decider.Explain(decider_pb2.ExplainRequest()),
        decider.Watch(decider_pb2.WatchRequest()).read(),
        decider.Report(decider_pb2.ReportRequest()),
    ]


async def test_a_certificate_that_is_not_listed_is_unauthenticated_everywhere(
    serve: Serve,
) -> None:
    served = await serve()
    served.point.answer = allow()
    served.names.clear()
    for call in calls_of(await served.channel()):
        assert await code_of(call) is grpc.StatusCode.UNAUTHENTICATED
    assert served.point.asked == []


async def test_a_broker_taken_off_the_list_is_refused_on_its_open_connection(
    serve: Serve,
) -> None:
    served = await serve()
    served.point.answer = allow()
    service: Any = grpc_auth_pb2_grpc.AuthServiceStub(await served.channel())
    assert (await service.GetUser(grpc_auth_pb2.GetUserRequest())).ok
    served.names.clear()
    code = await code_of(service.GetUser(grpc_auth_pb2.GetUserRequest()))
    assert code is grpc.StatusCode.UNAUTHENTICATED


async def test_a_client_without_a_certificate_gets_no_connection(serve: Serve) -> None:
    served = await serve()
    credentials = grpc.ssl_channel_credentials(served.certificates.authority.read_bytes())
    target = f"127.0.0.1:{served.server.port}"
    async with grpc.aio.secure_channel(target, credentials) as channel:
        service: Any = grpc_auth_pb2_grpc.AuthServiceStub(channel)
        assert await code_of(service.GetName(Empty())) is grpc.StatusCode.UNAVAILABLE
    async with grpc.aio.insecure_channel(target) as channel:
        service = grpc_auth_pb2_grpc.AuthServiceStub(channel)
        assert await code_of(service.GetName(Empty())) is grpc.StatusCode.UNAVAILABLE


async def test_a_certificate_of_another_authority_gets_no_connection(
    serve: Serve,
    tmp_path: Path,
) -> None:
    served = await serve()
    other = ensure_certificates(
        tmp_path / "other",
        host_names=(),
        brokers=("hall",),
        now=int(time.time()),
    )
    files = CertificateFiles(
        certificate=other.brokers["hall"].certificate,
        key=other.brokers["hall"].key,
    )
    service: Any = grpc_auth_pb2_grpc.AuthServiceStub(await served.channel(files))
    assert await code_of(service.GetName(Empty())) is grpc.StatusCode.UNAVAILABLE


async def test_health_and_reflection_name_both_services(serve: Serve) -> None:
    served = await serve()
    channel = await served.channel()
    health: Any = health_pb2_grpc.HealthStub(channel)
    for service in ("", "grpc.AuthService", "authd.v1.Decider"):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    made: Any = reflection_pb2_grpc.ServerReflectionStub
    reflection = made(channel)
    call = reflection.ServerReflectionInfo(
        iter([reflection_pb2.ServerReflectionRequest(list_services="")]),
    )
    answer = await call.read()
    names = {service.name for service in answer.list_services_response.service}
    assert names == {
        "grpc.AuthService",
        "authd.v1.Decider",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


async def test_run_serves_until_it_is_cancelled(serve: Serve) -> None:
    served = await serve()
    running = asyncio.create_task(served.server.run())
    await asyncio.sleep(0.05)
    assert not running.done()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_an_address_that_is_taken_or_no_address_is_an_error_of_the_configuration(
    serve: Serve,
    capfd: pytest.CaptureFixture[str],
) -> None:
    served = await serve()
    taken = f"127.0.0.1:{served.server.port}"
    for address, why in (
        (taken, "address already in use, perhaps by another authd"),
        ("256.256.256.256:1", "no address"),
    ):
        parts = GrpcParts(
            address=address,
            point=ScriptedPoint(),
            certificates=served.certificates,
            names=dict,
            sessions=ScriptedPoint(),
        )
        said = rf"^cannot listen on `{address}` \(listen.grpc\): {why}"
        with pytest.raises(ConfigError, match=said):
            async with GrpcServer(parts):
                pass
    # The library writes past Python: what it says would stand above the sentence.
    assert capfd.readouterr().err == ""
