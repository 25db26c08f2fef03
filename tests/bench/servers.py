"""Servers to compare with: they read, parse and answer like the daemon, and decide nothing.

``python -m tests.bench.servers http`` or ``grpc DIRECTORY`` listens on a free loopback port, prints
it, and serves until its standard input ends.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import uvloop
from aiohttp import web
from google.protobuf.empty_pb2 import Empty
from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair

from authd.proto_stubs import grpc_auth_pb2, grpc_auth_pb2_grpc

_PUBLIC, _SECRET = crypto_sign_seed_keypair(bytes(32))
# About as many bytes as a proof signs.
_SIGNED = crypto_sign(bytes(100), _SECRET)


async def _acl(request: web.Request) -> web.Response:
    body = json.loads(await request.read())
    return web.json_response({"ok": bool(body), "error": ""})


async def _user(request: web.Request) -> web.Response:
    body = json.loads(await request.read())
    crypto_sign_open(_SIGNED, _PUBLIC)
    return web.json_response({"ok": bool(body), "error": ""})


async def serve_http() -> None:
    """Serve ``/acl``, and ``/user`` with one bare verification."""
    app = web.Application()
    app.router.add_post("/acl", _acl)
    app.router.add_post("/user", _user)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    await _until_told(runner.addresses[0][1])
    await runner.cleanup()


class _Empty(grpc_auth_pb2_grpc.AuthServiceServicer):
    """Answers the two questions that are measured."""

    async def GetUser(self, _request: grpc_auth_pb2.GetUserRequest, _context: Any) -> Any:
        crypto_sign_open(_SIGNED, _PUBLIC)
        return grpc_auth_pb2.AuthResponse(ok=True)

    async def CheckAcl(self, _request: grpc_auth_pb2.CheckAclRequest, _context: Any) -> Any:
        return grpc_auth_pb2.AuthResponse(ok=True)

    async def GetSuperuser(self, _request: Any, _context: Any) -> Any:
        return grpc_auth_pb2.AuthResponse(ok=False)

    async def GetName(self, _request: Any, _context: Any) -> Any:
        return grpc_auth_pb2.NameResponse(name="bare")

    async def Halt(self, _request: Any, _context: Any) -> Any:
        return Empty()


async def serve_grpc(directory: Path) -> None:
    """Serve ``grpc.AuthService`` with a daemon's certificates, GetUser with one bare verify."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    grpc_auth_pb2_grpc.add_AuthServiceServicer_to_server(_Empty(), server)
    credentials = grpc.ssl_server_credentials(
        [((directory / "server.key").read_bytes(), (directory / "server.crt").read_bytes())],
        root_certificates=(directory / "ca.crt").read_bytes(),
        require_client_auth=True,
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    await _until_told(port)
    await server.stop(0)


async def _until_told(port: int) -> None:
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)


def main() -> None:
    """Run from the command line."""
    serving = serve_http() if sys.argv[1] == "http" else serve_grpc(Path(sys.argv[2]))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serving)


if __name__ == "__main__":
    main()
