"""go-auth's contract, typed in again here, drives our server from a process of its own."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from authd.core.decision import Decision, deny
from authd.errors import ReasonCode
from tests.unit.grpc_api.conftest import Serve, allow

CONTRACT = """
syntax = "proto3";
package grpc;
import "google/protobuf/empty.proto";
service AuthService {
    rpc GetUser(GetUserRequest) returns (AuthResponse) {}
    rpc GetSuperuser(GetSuperuserRequest) returns (AuthResponse) {}
    rpc CheckAcl(CheckAclRequest) returns (AuthResponse) {}
    rpc GetName(google.protobuf.Empty) returns (NameResponse) {}
    rpc Halt(google.protobuf.Empty) returns (google.protobuf.Empty) {}
}
message GetUserRequest { string username = 1; string password = 2; string clientid = 3; }
message GetSuperuserRequest { string username = 1; }
message CheckAclRequest {
    string username = 1; string topic = 2; string clientid = 3; int32 acc = 4;
}
message AuthResponse { bool ok = 1; }
message NameResponse { string name = 1; }
"""
CLIENT = """
import json, pathlib, sys
import grpc
from google.protobuf.empty_pb2 import Empty
import contract_pb2 as pb, contract_pb2_grpc as pb_grpc
target, authority, key, certificate = sys.argv[1:]
read = lambda path: pathlib.Path(path).read_bytes()
credentials = grpc.ssl_channel_credentials(read(authority), read(key), read(certificate))
def attempt(call, *request):
    try:
        answer = call(*request, timeout=5)
        return getattr(answer, "ok", getattr(answer, "name", "empty"))
    except grpc.RpcError as error:
        return error.code().name
with grpc.secure_channel(target, credentials) as channel:
    service = pb_grpc.AuthServiceStub(channel)
    acl = lambda acc: pb.CheckAclRequest(username="u", topic="t", clientid="c", acc=acc)
    print(json.dumps([
        attempt(service.GetUser, pb.GetUserRequest(username="u", password="p", clientid="c")),
        attempt(service.GetSuperuser, pb.GetSuperuserRequest(username="u")),
        attempt(service.CheckAcl, acl(1)),
        attempt(service.CheckAcl, acl(2)),
        attempt(service.CheckAcl, acl(4)),
        attempt(service.CheckAcl, acl(3)),
        attempt(service.GetName, Empty()),
        attempt(service.Halt, Empty()),
    ]))
"""


async def run(*command: str, cwd: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        cwd=cwd,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()


@pytest.mark.parametrize(
    ("decision", "answers"),
    [
        (allow(), [True, False, True, True, True, False, "authd", "empty"]),
        (
            deny(ReasonCode.REVOKED, "revoked"),
            [False, False, False, False, False, False, "authd", "empty"],
        ),
        (
            deny(ReasonCode.LOOKUP_IN_PROGRESS, "later"),
            ["UNAVAILABLE", False, False, "UNAVAILABLE", "UNAVAILABLE", False, "authd", "empty"],
        ),
    ],
    ids=["allow", "deny", "cannot decide"],
)
async def test_a_client_of_the_published_contract_gets_its_verdicts(
    serve: Serve,
    tmp_path: Path,
    decision: Decision,
    answers: list[object],
) -> None:
    served = await serve()
    served.point.answer = decision
    (tmp_path / "contract.proto").write_text(CONTRACT)
    (tmp_path / "client.py").write_text(CLIENT)
    compiler = ("-m", "grpc_tools.protoc", "-I.", "--python_out=.", "--grpc_python_out=.")
    await run(*compiler, "contract.proto", cwd=tmp_path)
    pair = served.certificates.brokers["hall"]
    said = await run(
        "client.py",
        f"127.0.0.1:{served.server.port}",
        str(served.certificates.authority),
        str(pair.key),
        str(pair.certificate),
        cwd=tmp_path,
    )
    assert json.loads(said) == answers
