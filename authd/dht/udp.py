"""The socket: one UDP port, a handler that cannot fail, addresses as text."""

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from typing import Final, cast

import structlog

from authd.dht.messages import Address
from authd.errors import AuthdError, ConfigError, NoPeersError

_RESOLVE_S: Final = 5.0
_MAX_PORT: Final = 65_535
_log = structlog.get_logger("authd.dht")


class Endpoint(asyncio.DatagramProtocol):
    """Sends and receives datagrams; every error is counted and none is raised."""

    def __init__(self, receive: Callable[[bytes, Address], None]) -> None:
        """Hand each datagram to ``receive``."""
        self._receive = receive
        self._transport: asyncio.DatagramTransport | None = None
        self._version = 4
        self._full = False
        self.sent_bytes = 0
        self.received_bytes = 0
        self.refused = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.DatagramTransport", transport)
        self._version = ipaddress.ip_address(self.address[0]).version

    @property
    def address(self) -> Address:
        """Where the socket is bound."""
        if self._transport is None:
            raise NoPeersError("the DHT's port is not open")
        host, port = self._transport.get_extra_info("sockname")[:2]
        return host, port

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        """Hand a datagram on; whatever it does to the handler ends here."""
        self.received_bytes += len(data)
        try:
            self._receive(data, (str(addr[0]), int(addr[1])))
        except AuthdError:
            self.refused += 1
        except Exception:  # noqa: BLE001 - the one net of this edge: no datagram ends the daemon
            self.refused += 1
            _log.exception("dht.datagram_failed", peer=str(addr[0]))

    def error_received(self, exc: Exception) -> None:  # noqa: ARG002 - the interface is fixed
        """Count what the kernel reports, such as a closed port at the other end."""
        self.refused += 1

    def pause_writing(self) -> None:
        """Stop sending while the socket is full: what would wait is as good as lost."""
        self._full = True

    def resume_writing(self) -> None:
        """Send again."""
        self._full = False

    def send(self, data: bytes, address: Address) -> None:
        """Send a datagram if that is possible; nothing tells whether it arrives."""
        transport = self._transport
        if transport is None or transport.is_closing() or self._full:
            return
        if ipaddress.ip_address(address[0]).version != self._version:
            return
        transport.sendto(data, address)
        self.sent_bytes += len(data)

    async def resolve(self, text: str) -> list[Address]:
        """Resolve ``host:port`` to addresses this socket can send to; empty if there are none."""
        host, port = parse_host_port(text)
        family = socket.AF_INET if self._version == 4 else socket.AF_INET6  # noqa: PLR2004 - IPv4
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_RESOLVE_S):
                found = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_DGRAM)
        except (OSError, TimeoutError):
            return []
        return [(str(entry[4][0]), int(entry[4][1])) for entry in found]

    def close(self) -> None:
        """Close the socket."""
        if self._transport is not None:
            self._transport.close()


def parse_host_port(text: str) -> Address:
    """Read ``host:port`` or ``[IPv6]:port``.

    Raises:
        ConfigError: Anything else.
    """
    host, separator, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (separator and host and port.isascii() and port.isdigit()):
        raise ConfigError(f"`{text}` is not `host:port`")
    if not 0 < int(port) <= _MAX_PORT:
        raise ConfigError(f"`{text}` has a port outside 1 to {_MAX_PORT}")
    return host, int(port)


def address_text(address: Address) -> str:
    """Write an address as ``host:port`` or ``[IPv6]:port``."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def open_endpoint(
    host: str,
    port: int,
    receive: Callable[[bytes, Address], None],
) -> Endpoint:
    """Bind a UDP socket.

    Raises:
        ConfigError: The address cannot be bound.
    """
    loop = asyncio.get_running_loop()
    try:
        # Bound here: what an event loop raises does not always say why.
        link = await _bound(host, port)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        where = address_text((host, port))
        raise ConfigError(f"cannot bind UDP `{where}` (listen.peer): {why}") from error
    _, endpoint = await loop.create_datagram_endpoint(lambda: Endpoint(receive), sock=link)
    return endpoint


async def _bound(host: str, port: int) -> socket.socket:
    """Bind to the first address of a host.

    Raises:
        OSError: It has none, or that cannot be bound.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    link = socket.socket(family, kind, protocol)
    try:
        link.settimeout(0)
        link.bind(address)
    except OSError:
        link.close()
        raise
    return link
