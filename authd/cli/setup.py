"""What ``init`` and ``join`` share: a state directory with its configuration and store."""

from collections.abc import Iterable
from typing import Annotated

import typer

from authd.cli.context import Context
from authd.cli.template import first_config
from authd.config import DEFAULT_GRPC, DEFAULT_HTTP, DEFAULT_PEER, parse_endpoint
from authd.core.claims import Kind
from authd.core.grants import Grant
from authd.core.roots import Root
from authd.errors import ConflictError
from authd.node_file import NodeFile, node_file_path, save_node_file
from authd.service.ports import StoredStatement
from authd.store.keystore import write_private
from authd.store.sqlite import SqliteStore

HttpOption = Annotated[str, typer.Option("--http", help="Where brokers ask over HTTP.")]
GrpcOption = Annotated[str, typer.Option("--grpc", help="Where brokers ask over gRPC.")]
PeerOption = Annotated[str, typer.Option("--peer", help="Where other daemons connect.")]
MosquittoPortOption = Annotated[
    int, typer.Option(min=1, max=65_535, help="Port clients reach Mosquitto on.")
]
EmbeddedPortOption = Annotated[
    int, typer.Option(min=1, max=65_535, help="Port of the broker of `up --broker`.")
]
HTTP, GRPC, PEER = DEFAULT_HTTP, DEFAULT_GRPC, DEFAULT_PEER
MOSQUITTO_PORT, EMBEDDED_PORT = 1883, 1883


def check_wishes(context: Context, *addresses: str) -> None:
    """Refuse what cannot be done before any key is made: keys are never overwritten.

    Raises:
        ConflictError: The state directory is in use.
        FormatError: An address is wrong.
    """
    for address in addresses:
        parse_endpoint(address)
    if node_file_path(context.state_dir).exists():
        raise ConflictError(
            f"`{context.state_dir}` belongs to a daemon already: choose another with --state",
        )


def write_state(
    context: Context,
    *,
    node: NodeFile,
    statements: Iterable[Root | Grant],
    http: str,
    grpc: str,
    peer: str,
    mosquitto_port: int,
    embedded_port: int,
) -> None:
    """Write configuration, statements and, last, the node file that makes it a daemon's.

    Raises:
        FormatError: An address is wrong.
        StoreError: Something cannot be written.
    """
    config = first_config(
        state_dir=context.state_dir,
        http=parse_endpoint(http),
        grpc=parse_endpoint(grpc),
        peer=parse_endpoint(peer),
        mosquitto_port=mosquitto_port,
        embedded_port=embedded_port,
    )
    if not context.config_path.exists():
        write_private(context.config_path, config, overwrite=False)
    now = context.clock.now()
    stored = [
        StoredStatement(
            kind=Kind.ROOT if isinstance(one, Root) else Kind.GRANT,
            statement_id=one.statement_id,
            data=one.encoded,
            source="local",
            received_at=now,
        )
        for one in statements
    ]
    with SqliteStore(context.state_dir / "authd.db") as store:
        store.save_statements(stored, durable=True)
    save_node_file(context.state_dir, node)
