"""The gRPC server: TLS with client certificates, both services, health and reflection."""

import asyncio
import errno
import socket
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from authd.errors import ConfigError
from authd.grpc_api.auth_service import AuthService
from authd.grpc_api.certificates import Certificates
from authd.grpc_api.decider_service import Decider, DeciderParts, SessionDesk
from authd.grpc_api.peers import BrokerNames
from authd.proto_stubs import decider_pb2, decider_pb2_grpc, grpc_auth_pb2, grpc_auth_pb2_grpc
from authd.service.ports import DecisionPoint

DEADLINE_S: Final = 1.0
# A request is a CONNECT at most: password, name, client id and address.
MAX_REQUEST_BYTES: Final = 64 * 1_024
# More than any broker has clients in one moment; what is above waits in HTTP/2's own windows.
MAX_CALLS: Final = 1_000
STOP_GRACE_S: Final = 0.2
SERVICES: Final = (
    grpc_auth_pb2.DESCRIPTOR.services_by_name["AuthService"].full_name,
    decider_pb2.DESCRIPTOR.services_by_name["Decider"].full_name,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcParts:
    """What the server is built from.

    Attributes:
        address: ``host:port``; port 0 takes a free one.
        point: Who decides.
        certificates: The server's pair and the authority that brokers' certificates come from.
        names: Which certificate is which broker entry; asked at every call, so it may change.
        sessions: What is known of sessions, and who is told of them.
        deadline_s: Within how many seconds every question is answered.
    """

    address: str
    point: DecisionPoint
    certificates: Certificates
    names: BrokerNames
    sessions: SessionDesk
    deadline_s: float = DEADLINE_S


class GrpcServer:
    """An ``async with`` object that serves from entry to exit; `run` waits for the end."""

    def __init__(self, parts: GrpcParts) -> None:
        """Keep what to serve; nothing is opened yet."""
        self._parts = parts
        self.port = 0

    async def __aenter__(self) -> Self:
        """Listen and serve.

        Raises:
            ConfigError: The certificates cannot be read, or the address cannot be listened on.
        """
        parts = self._parts
        self._stopped = asyncio.Event()
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(
            maximum_concurrent_rpcs=MAX_CALLS,
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
            ],
        )
        self._add_services()
        await _check_free(parts.address)
        try:
            self.port = self._server.add_secure_port(
                parts.address, _credentials(parts.certificates)
            )
        except (OSError, RuntimeError) as error:
            # The library's sentence tells how to make it say more, and not what is wrong.
            raise _cannot_listen(parts.address, "the address cannot be used") from error
        await self._server.start()
        for service in ("", *SERVICES):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Say so in health, give calls under way a moment, and stop."""
        self._stopped.set()
        await self._health.enter_graceful_shutdown()
        await self._server.stop(STOP_GRACE_S)

    async def run(self) -> None:
        """Serve until cancelled."""
        # Not `wait_for_termination`: cancelling that breaks the server's own `stop`.
        await self._stopped.wait()

    def _add_services(self) -> None:
        parts = self._parts
        auth = AuthService(parts.point, parts.names, deadline_s=parts.deadline_s)
        decider = Decider(
            DeciderParts(
                point=parts.point,
                names=parts.names,
                sessions=parts.sessions,
                deadline_s=parts.deadline_s,
            ),
        )
        grpc_auth_pb2_grpc.add_AuthServiceServicer_to_server(auth, self._server)
        decider_pb2_grpc.add_DeciderServicer_to_server(decider, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME),
            self._server,
        )


async def _check_free(address: str) -> None:
    """Find out beforehand: the library writes to standard error by itself, and does not say why.

    Raises:
        ConfigError: None of the addresses can be listened on.
    """
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:
        raise _cannot_listen(address, f"no address: {error}") from error
    tried = [_try_to_bind(one[0], one[4]) for one in found]
    failures = [failure for failure in tried if failure is not None]
    if len(failures) == len(found):
        in_use = failures[0].errno == errno.EADDRINUSE
        why = "address already in use, perhaps by another authd" if in_use else failures[0].strerror
        raise _cannot_listen(address, str(why)) from failures[0]


def _try_to_bind(family: int, where: tuple[object, ...]) -> OSError | None:
    with socket.socket(family) as probe:
        # As the library does: a connection that has just ended is in nobody's way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(where)
        except OSError as error:
            return error
    return None


def _cannot_listen(address: str, why: str) -> ConfigError:
    return ConfigError(f"cannot listen on `{address}` (listen.grpc): {why}")


def _credentials(certificates: Certificates) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [(certificates.server.key.read_bytes(), certificates.server.certificate.read_bytes())],
        root_certificates=certificates.authority.read_bytes(),
        require_client_auth=True,
    )
