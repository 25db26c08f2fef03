"""``authd domain heartbeat add``: a new root version with more heartbeat keys."""

from pathlib import Path
from typing import Annotated

import typer

from authd.cli.app import app
from authd.cli.context import Context, JsonOption, StateOption, ask_passphrase, make_context
from authd.core.claims import Kind
from authd.core.encoding import decode_base64url, encode_base64url
from authd.core.identity import SigningKey, admit_key
from authd.core.roots import Root, parse_root, verify_root
from authd.errors import ConfigError
from authd.service.issuing import Bundle, next_root
from authd.service.ports import Item
from authd.store.keystore import ROOT
from authd.store.sqlite import SqliteStore

domain_app = typer.Typer(help="Change what the domain's root says.", no_args_is_help=True)
heartbeat_app = typer.Typer(help="Heartbeat keys of the domain.", no_args_is_help=True)
domain_app.add_typer(heartbeat_app, name="heartbeat")
app.add_typer(domain_app, name="domain")


@heartbeat_app.command("add")
def add(
    keys: Annotated[list[str], typer.Argument(help="Heartbeat keys, as `authd join` prints.")],
    passphrase_file: Annotated[
        Path | None,
        typer.Option(help="File with the passphrase of the root key."),
    ] = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign the next root version with these heartbeat keys added: 1, 3 or 5 in all."""
    context = make_context(state, as_json=as_json)
    newest = newest_root(context)
    added = tuple(admit_key(decode_base64url(key)) for key in keys)
    wanted = tuple(dict.fromkeys(newest.heartbeat_keys + added))
    root = next_root(newest, [_root_key(context, passphrase_file)], heartbeat_keys=wanted)
    online = context.publish(Bundle(statements=(Item(Kind.ROOT, root.encoded),)))
    context.output.result(
        {
            "version": root.version,
            "heartbeat_keys": [encode_base64url(key) for key in root.heartbeat_keys],
            "published": online,
        },
        [
            (
                f"root version {root.version}: {len(root.heartbeat_keys)} heartbeat keys,"
                f" any {len(root.heartbeat_keys) // 2 + 1} of them keep the domain fresh"
            ),
            context.published_line(online=online),
        ],
    )


def newest_root(context: Context) -> Root:
    """Read the newest root of the own domain from the store.

    Raises:
        ConfigError: There is none.
    """
    return own_roots(context)[-1]


def own_roots(context: Context) -> list[Root]:
    """Read every version of the own domain's root from the store, in order.

    Raises:
        ConfigError: There is none.
    """
    own = context.node().domain_id
    with SqliteStore(context.state_dir / "authd.db") as store:
        statements = store.load_statements()
    roots: list[Root] = []
    for one in statements:
        if one.kind is not Kind.ROOT or not _is_next(one.data, roots, own):
            continue
        roots.append(verify_root(one.data, previous=roots[-1] if roots else None))
    if not roots:
        raise ConfigError(f"`{context.state_dir}` holds no root of the domain")
    return roots


def _is_next(data: bytes, roots: list[Root], own: bytes) -> bool:
    # Other domains' roots lie there too, and a rival of a version as evidence.
    unverified = parse_root(data)
    if roots:
        return unverified.claims.previous == roots[-1].statement_id
    return unverified.statement_id == own


def _root_key(context: Context, passphrase_file: Path | None) -> SigningKey:
    passphrase = None
    if context.keystore.is_encrypted(ROOT):
        passphrase = ask_passphrase(
            passphrase_file,
            prompt="Passphrase of the root key",
            confirm=False,
        )
    return context.keystore.load(ROOT, passphrase=passphrase)
