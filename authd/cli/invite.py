"""``authd invite``: one ticket for one new daemon."""

import base64
import time
from typing import Annotated, Final

import typer

from authd.cli.app import app
from authd.cli.context import Context, JsonOption, StateOption, make_context
from authd.cli.heartbeat import own_roots
from authd.core.claims import Kind
from authd.core.encoding import encode_base64url
from authd.core.grants import Grant, KeySubject, sign_grant
from authd.core.identity import SigningKey, key_id_text
from authd.errors import ConfigError, NoResponseError, RejectedError
from authd.node_file import save_node_file
from authd.service.issuing import (
    MAX_TICKET_PEERS,
    NODE_LIFE_S,
    Bundle,
    Ticket,
    encode_ticket,
    node_scope,
    self_revocation,
)
from authd.service.ports import Item
from authd.store.keystore import PUBLISHER, Subject

# How long a daemon may take to open its peer port, and how often it is asked whether it has.
_OPENING_S: Final = 5.0
_POLL_S: Final = 0.1


@app.command("invite")
def invite(
    operator: Annotated[
        bool,
        typer.Option("--operator", help="The new daemon may also revoke and administer."),
    ] = False,
    name: Annotated[str, typer.Option(help="How to call it here.")] = "",
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print a ticket for one new daemon. It is a secret and shown once."""
    context = make_context(state, as_json=as_json)
    authority = context.authority_key()
    own = _own_address(context)
    _open_port(context)
    node_key = SigningKey.from_seed(context.entropy.token(32))
    now = context.clock.now()
    grant = sign_grant(
        authority,
        subject=KeySubject(node_key.public),
        scope=node_scope(operator=operator),
        issued_at=now,
        expires_at=now + NODE_LIFE_S,
    )
    ticket = _make_ticket(context, node_key, grant, own=own, operator=operator)
    _remember(context, name, node_key, grant, now=now)
    online = context.publish(Bundle(statements=(Item(Kind.GRANT, grant.encoded),)))
    text = base64.urlsafe_b64encode(encode_ticket(ticket)).decode("ascii").rstrip("=")
    context.output.result(
        {
            "ticket": text,
            "node": key_id_text(node_key.public),
            "operator": operator,
            "peers": list(ticket.peers),
            "published": online,
        },
        [
            (
                f"Ticket for daemon {key_id_text(node_key.public)}"
                f"{' (operator)' if operator else ''}; a secret, shown once:"
            ),
            "",
            text,
            "",
            "Next, on the new host: authd join -    (and paste the ticket)",
        ],
    )


def _make_ticket(
    context: Context,
    node_key: SigningKey,
    grant: Grant,
    *,
    own: str,
    operator: bool,
) -> Ticket:
    return Ticket(
        domain=context.node().domain_id,
        seed=node_key.seed,
        operator=operator,
        roots=tuple(root.encoded for root in own_roots(context)),
        grants=(grant.encoded,),
        publisher=context.keystore.load(PUBLISHER).public,
        peers=_peers(context, own),
    )


def _own_address(context: Context) -> str:
    settings = context.settings()
    own = settings.advertise or settings.peer
    if own.startswith(("0.0.0.0:", "[::]:")):
        raise ConfigError(
            f"`{settings.path}`: set `listen.advertise` to the `host:port` by which other daemons"
            f" reach this one; `{own}` means nothing to them",
        )
    return own


def _peers(context: Context, own: str) -> tuple[str, ...]:
    peers = [own, *context.settings().static_peers, *context.node().peers]
    try:
        status = context.ask("status")
    except NoResponseError:
        status = {}
    live = status.get("addresses")
    if isinstance(live, list):
        peers += map(str, live)
    return tuple(dict.fromkeys(peer for peer in peers if peer))[:MAX_TICKET_PEERS]


def _remember(
    context: Context,
    name: str,
    node_key: SigningKey,
    grant: Grant,
    *,
    now: int,
) -> None:
    context.keystore.save_subject(
        Subject(
            name=name or f"node-{key_id_text(node_key.public)[:8]}",
            key=encode_base64url(node_key.public),
            kind="node",
            grants=[encode_base64url(grant.encoded)],
            self_revocation=encode_base64url(self_revocation(node_key, issued_at=now).encoded),
        ),
    )


def _open_port(context: Context) -> None:
    """Have the daemon open its peer port, if one runs: a ticket for a closed one is no use.

    Raises:
        ConfigError: It cannot; says why.
        RejectedError: It has not in time.
    """
    node = context.node()
    try:
        if not node.networked:
            node.networked = True
            save_node_file(context.state_dir, node)
            context.ask("reload")
        _await_port(context)
    except NoResponseError:
        return


def _await_port(context: Context) -> None:
    until = context.clock.monotonic() + _OPENING_S
    while True:
        status = context.ask("status")
        if status.get("discovery"):
            return
        degraded = status.get("degraded")
        if isinstance(degraded, dict) and "network" in degraded:
            raise ConfigError(f"no ticket: nobody could reach this daemon: {degraded['network']}")
        if context.clock.monotonic() > until:
            raise RejectedError("no ticket: the daemon has not opened its peer port: try again")
        time.sleep(_POLL_S)
