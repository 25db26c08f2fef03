"""``authd join``: make this host a daemon of an existing domain."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from authd.cli import setup
from authd.cli.app import app
from authd.cli.context import JsonOption, StateOption, make_context
from authd.config import parse_endpoint
from authd.core.encoding import decode_base64url, encode_base64url
from authd.core.grants import Grant, KeySubject, verify_grant
from authd.core.identity import SigningKey, key_id_text
from authd.core.roots import Root, verify_root
from authd.errors import ConfigError, FormatError
from authd.node_file import NodeFile
from authd.service.issuing import Ticket, decode_ticket
from authd.store.keystore import HEARTBEAT, NODE


@app.command("join")
def join(
    ticket: Annotated[str, typer.Argument(help="The ticket; `-` reads it, `@FILE` opens a file.")],
    state: StateOption = None,
    http: setup.HttpOption = setup.HTTP,
    grpc: setup.GrpcOption = setup.GRPC,
    peer: setup.PeerOption = setup.PEER,
    mosquitto_port: setup.MosquittoPortOption = setup.MOSQUITTO_PORT,
    embedded_port: setup.EmbeddedPortOption = setup.EMBEDDED_PORT,
    as_json: JsonOption = False,
) -> None:
    """Join a domain with a ticket from `authd invite`."""
    context = make_context(state, as_json=as_json)
    setup.check_wishes(context, http, grpc, peer)
    opened = _open_ticket(_read_ticket(ticket))
    roots, grants = _verify(opened)
    context.keystore.create()
    node_key = context.keystore.save(NODE, opened.seed)
    heartbeat = context.keystore.save(HEARTBEAT, context.entropy.token(32))
    node = NodeFile(
        domain=encode_base64url(opened.domain),
        networked=True,
        peers=[parse_endpoint(peer) for peer in opened.peers],
    )
    setup.write_state(
        context,
        node=node,
        statements=[*roots, *grants],
        http=http,
        grpc=grpc,
        peer=peer,
        mosquitto_port=mosquitto_port,
        embedded_port=embedded_port,
    )
    context.output.result(
        {
            "domain": node.domain,
            "node": key_id_text(node_key.public),
            "operator": opened.operator,
            "heartbeat_key": encode_base64url(heartbeat.public),
            "peers": node.peers,
            "state": str(context.state_dir),
        },
        [
            (
                f"joined domain {node.domain} as {key_id_text(node_key.public)}"
                f"{', an operator' if opened.operator else ''}"
            ),
            f"peers: {', '.join(node.peers) or 'none in the ticket'}",
            "",
            "Decisions go on for 1 h after the last complete news (`stale` in authd.toml).",
            f"Next: authd up --state {context.state_dir}",
            "",
            "With a third daemon, give the domain three heartbeat keys, where the root key is:",
            f"      authd domain heartbeat add {encode_base64url(heartbeat.public)} ...",
            "Until then one key alone signs news: while the daemon that has it is away for longer",
            "than the grace, every CONNECT here is refused.",
        ],
    )


def _read_ticket(text: str) -> str:
    if text == "-":
        if sys.stdin.isatty():
            print("Paste the ticket and press Enter:", file=sys.stderr)
        return sys.stdin.readline().strip()
    if not text.startswith("@"):
        return text.strip()
    try:
        return Path(text[1:]).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"`{text[1:]}` cannot be read") from error


def _open_ticket(text: str) -> Ticket:
    try:
        return decode_ticket(decode_base64url(text))
    except FormatError as error:
        raise FormatError("the ticket is incomplete: paste all of it") from error


def _verify(ticket: Ticket) -> tuple[list[Root], list[Grant]]:
    roots: list[Root] = []
    for data in ticket.roots:
        roots.append(verify_root(data, previous=roots[-1] if roots else None))
    if not roots or roots[0].domain != ticket.domain:
        raise FormatError("the ticket's root is not that of its domain")
    node = SigningKey.from_seed(ticket.seed)
    grants = [verify_grant(data) for data in ticket.grants]
    if not any(grant.subject == KeySubject(node.public) for grant in grants):
        raise FormatError("the ticket holds no grant for its key")
    return roots, grants
