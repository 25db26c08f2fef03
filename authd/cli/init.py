"""``authd init``: a new domain."""

from pathlib import Path
from typing import Annotated

import typer

from authd.cli import setup
from authd.cli.app import app
from authd.cli.context import Context, JsonOption, StateOption, ask_passphrase, make_context
from authd.core.encoding import encode_base64url
from authd.core.grants import KeySubject, sign_grant
from authd.core.identity import SigningKey, key_id_text
from authd.core.roots import Root
from authd.node_file import NodeFile
from authd.service.issuing import NODE_LIFE_S, first_root, node_scope, self_revocation
from authd.store.keystore import AUTHORITY, HEARTBEAT, NODE, PUBLISHER, ROOT


@app.command("init")
def init(
    state: StateOption = None,
    passphrase_file: Annotated[
        Path | None,
        typer.Option(help="File with the passphrase of the root key."),
    ] = None,
    unencrypted_root: Annotated[
        bool,
        typer.Option("--unencrypted-root", help="Store the root key without a passphrase."),
    ] = False,
    http: setup.HttpOption = setup.HTTP,
    grpc: setup.GrpcOption = setup.GRPC,
    peer: setup.PeerOption = setup.PEER,
    mosquitto_port: setup.MosquittoPortOption = setup.MOSQUITTO_PORT,
    embedded_port: setup.EmbeddedPortOption = setup.EMBEDDED_PORT,
    as_json: JsonOption = False,
) -> None:
    """Make a new domain on this host. Its keys are root, authority, node and heartbeat."""
    context = make_context(state, as_json=as_json)
    setup.check_wishes(context, http, grpc, peer)
    passphrase = None
    if not unencrypted_root:
        passphrase = ask_passphrase(
            passphrase_file,
            prompt="Passphrase for the root key",
            confirm=True,
        )
    context.keystore.create()
    root_key = _new_key(context, ROOT, passphrase)
    authority, node = _new_key(context, AUTHORITY), _new_key(context, NODE)
    heartbeat, publisher = _new_key(context, HEARTBEAT), _new_key(context, PUBLISHER)
    now = context.clock.now()
    root = first_root(
        root_key,
        authority=authority.public,
        heartbeat=heartbeat.public,
        publisher=publisher.public,
        now=now,
    )
    admission = sign_grant(
        authority,
        subject=KeySubject(node.public),
        scope=node_scope(operator=False),
        issued_at=now,
        expires_at=now + NODE_LIFE_S,
    )
    setup.write_state(
        context,
        node=NodeFile(domain=encode_base64url(root.domain)),
        statements=[root, admission],
        http=http,
        grpc=grpc,
        peer=peer,
        mosquitto_port=mosquitto_port,
        embedded_port=embedded_port,
    )
    _report(context, root, authority, encrypted=passphrase is not None)


def _new_key(context: Context, name: str, passphrase: bytes | None = None) -> SigningKey:
    return context.keystore.save(name, context.entropy.token(32), passphrase=passphrase)


def _names(context: Context) -> str:
    return ", ".join(f"`{one}`" for one in context.settings().brokers[0].endpoints)


def _report(context: Context, root: Root, authority: SigningKey, *, encrypted: bool) -> None:
    domain = encode_base64url(root.domain)
    emergency = self_revocation(authority, issued_at=context.clock.now())
    break_glass = encode_base64url(emergency.encoded)
    root_path = context.state_dir / "keys" / "root.key"
    context.output.result(
        {
            "domain": domain,
            "authority": key_id_text(authority.public),
            "break_glass": break_glass,
            "state": str(context.state_dir),
            "root_key": str(root_path),
            "root_encrypted": encrypted,
        },
        [
            f"domain      {domain}",
            f"state       {context.state_dir}",
            f"authority   {key_id_text(authority.public)} (issues grants, here)",
            f"root key    {root_path} ({'encrypted' if encrypted else 'NOT encrypted'})",
            "",
            "Break-glass revocation of the authority key; keep it apart from this host:",
            break_glass,
            "",
            "Decisions go on for 1 h after the last complete news (`stale` in authd.toml);",
            "a domain with one daemon signs its own news and is never stale.",
            "",
            "Next: move the root key to another medium; it is needed only to change the root.",
            f"      set `audiences` in {context.config_path} first if devices connect by another",
            f"      name than {_names(context)}",
            f"      authd up --state {context.state_dir}",
            "      authd device new kitchen-sensor --pub 'home/kitchen/#'",
        ],
    )
