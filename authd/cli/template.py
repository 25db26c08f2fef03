"""The first ``authd.toml``."""

import socket
from pathlib import Path

from authd.config import parse_endpoint
from authd.errors import FormatError

_TEMPLATE = """\
# authd configuration. An unknown key is refused: a misspelt one never goes unnoticed.

# How long decisions go on after the last complete news from the own domain:
# "strict" refuses at once (after 65 s at most), a duration such as "1h" goes on that long.
stale = "1h"

# "auto" also sends device grants of the own domain to every daemon; "none" uses the DHT alone.
replicate = "auto"

[listen]
http = "{http}"      # brokers, health and metrics
grpc = "{grpc}"      # brokers; TLS with client certificates from {state}/tls
peer = "{peer}"      # other daemons; closed until the first `authd invite` or `authd join`
# advertise = "this-host.example:8184"      # how other daemons reach this one, for `authd invite`

# Each broker that asks. `audiences` are the names clients dial: a proof is made for one of them.
[[broker]]
name = "mosquitto"
kind = "mosquitto"
audiences = [{mosquitto}]

# The broker of `authd up --broker`.
[[broker]]
name = "embedded"
kind = "embedded"
audiences = [{embedded}]

[embedded]
port = {embedded_port}

[discovery]
# true looks for other daemons of the domain on the local network, by multicast DNS, and shows this
# one there: address, peer port and a tag of the domain. Who may be a peer does not depend on it.
mdns = false
"""


def first_config(
    *,
    state_dir: Path,
    http: str,
    grpc: str,
    peer: str,
    mosquitto_port: int,
    embedded_port: int,
) -> str:
    """Write the first configuration of a state directory."""
    return _TEMPLATE.format(
        state=state_dir,
        http=http,
        grpc=grpc,
        peer=peer,
        mosquitto=_names(mosquitto_port),
        embedded=_names(embedded_port),
        embedded_port=embedded_port,
    )


def _names(port: int) -> str:
    hosts = dict.fromkeys(["localhost", "127.0.0.1", socket.gethostname().lower()])
    return ", ".join(f'"{host}:{port}"' for host in hosts if _can_be_dialled(host, port))


def _can_be_dialled(host: str, port: int) -> bool:
    # Hosts may be called what no audience can be, with `_` for example.
    try:
        return bool(parse_endpoint(f"{host}:{port}"))
    except FormatError:
        return False
