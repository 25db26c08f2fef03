"""Addresses of other daemons as text: what has the form of one, and what is worth dialling."""

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

MAX_ADDRESS_CHARS: Final = 255
_MAX_PORT: Final = 65_535
# RFC 919 §7 and RFC 1112 §4: what nobody ever listens on.
_RESERVED_FIRST_BYTE: Final = 240


def is_address(text: str) -> bool:
    """Say whether ``text`` is ``host:port`` or ``[IPv6]:port`` that one could dial."""
    host, separator, port = text.rpartition(":")
    plain = host.removeprefix("[").removesuffix("]")
    return bool(
        separator
        and len(text) <= MAX_ADDRESS_CHARS
        and plain
        and all(char.isascii() and (char.isalnum() or char in "-.:_") for char in plain)
        and (":" in plain) == (len(host) - len(plain) == len("[]"))
        and port.isascii()
        and port.isdigit()
        and 0 < int(port) <= _MAX_PORT
    )


def join_address(host: str, port: int) -> str:
    """Write host and port as ``host:port`` or ``[IPv6]:port``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback_address(text: str) -> bool:
    """Say whether ``host:port`` is each host's own."""
    host = _host(text)
    if host == "localhost" or host.endswith(".localhost"):
        return True
    number = _number(host)
    return number is not None and number.is_loopback


def is_worth_dialling(text: str, *, on_loopback: bool) -> bool:
    """Say whether an address that somebody else named may be dialled at all.

    Args:
        text: Untrusted.
        on_loopback: Whether this node is itself known by a loopback address. If it is not, another
            host's loopback address would only lead to a service of this one.
    """
    if not is_address(text):
        return False
    if is_loopback_address(text):
        return on_loopback
    number = _number(_host(text))
    if number is None:
        # Resolvers read `127.1` and `0x7f.1` as numbers too; no name's last label begins so.
        return not _host(text).rpartition(".")[2][:1].isdigit()
    if isinstance(number, IPv4Address):
        first = number.packed[0]
        return not (number.is_multicast or first == 0 or first >= _RESERVED_FIRST_BYTE)
    # Without the name of an interface a link-local address leads nowhere.
    return not (number.is_multicast or number.is_unspecified or number.is_link_local)


def _host(text: str) -> str:
    return text.rpartition(":")[0].removeprefix("[").removesuffix("]").lower().removesuffix(".")


def _number(host: str) -> IPv4Address | IPv6Address | None:
    try:
        number = ip_address(host)
    except ValueError:
        return None
    if isinstance(number, IPv6Address) and number.ipv4_mapped is not None:
        return number.ipv4_mapped
    return number
