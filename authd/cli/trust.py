"""``authd trust``: other domains this daemon listens to, and why a key is trusted."""

import re
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from authd.cli.app import NO, app
from authd.cli.context import JsonOption, StateOption, make_context
from authd.cli.output import age, table
from authd.config import load_settings
from authd.core.encoding import encode_base64url
from authd.core.identity import parse_id
from authd.core.topics import check_granted_filter
from authd.errors import ConfigError, ConflictError, FormatError, NoResponseError
from authd.service.issuing import Bundle, decode_bundle
from authd.store.keystore import write_private

trust_app = typer.Typer(help="Which domains count here, and why a key does.", no_args_is_help=True)
app.add_typer(trust_app, name="trust")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


@trust_app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="How to call the domain here.")],
    domain: Annotated[str, typer.Argument(help="Its domain id.")],
    prefix: Annotated[
        list[str],
        typer.Option(help="Topic prefix its authorities may grant below; repeatable."),
    ],
    root: Annotated[
        Path | None,
        typer.Option(help="Bundle with its root, if the network does not bring it."),
    ] = None,
    stale: Annotated[str, typer.Option(help="`strict` or a grace such as `1h`.")] = "1h",
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let another domain's authorities grant below some prefixes here."""
    context = make_context(state, as_json=as_json)
    if not _NAME.fullmatch(name):
        raise FormatError(f"`{name}` is not a name: 1 to 32 of `a-z 0-9 _ -`")
    parse_id(domain)
    for one in prefix:
        if "#" in one:
            raise FormatError(f"`{one}`: write the prefix without wildcards")
        check_granted_filter(f"{one}/#")
    bundle = _read_bundle(root) if root else None
    context.settings()
    before = context.config_path.read_text("utf-8")
    if f"[domains.{name}]" in before:
        raise ConflictError(f"`{context.config_path}` has a domain `{name}` already")
    quoted = ", ".join(f'"{one}"' for one in prefix)
    after = f'{before.rstrip()}\n\n[domains.{name}]\nid = "{domain}"\nprefix = [{quoted}]\n'
    write_private(context.config_path, f'{after}stale = "{stale}"\n', overwrite=True)
    try:
        load_settings(context.config_path)
    except ConfigError:
        write_private(context.config_path, before, overwrite=True)
        raise
    reloaded = _reload(context.ask)
    if bundle is not None:
        context.publish(bundle)
    context.output.result(
        {"name": name, "domain": domain, "prefix": prefix, "reloaded": reloaded},
        [
            f"domain {name} may grant below {', '.join(prefix)}",
            "the running daemon uses it" if reloaded else "`authd up` will use it",
        ],
    )


def _reload(ask: Any) -> bool:  # noqa: ANN401 - the bound method of the context
    try:
        ask("reload")
    except NoResponseError:
        return False
    return True


def _read_bundle(path: Path) -> Bundle:
    try:
        return decode_bundle(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"`{path}`: {error.strerror}") from error


@trust_app.command("list")
def list_domains(state: StateOption = None, as_json: JsonOption = False) -> None:
    """List the domains that count here."""
    context = make_context(state, as_json=as_json)
    settings, own = context.settings(), context.node().domain
    rows: list[list[str]] = [["(own)", own, "everything", age(settings.stale_s)]]
    rows += [
        [
            one.name,
            encode_base64url(one.domain),
            ", ".join(entry.topic_filter for entry in one.policy.scope),
            age(one.policy.grace_s) if one.policy.grace_s else "strict",
        ]
        for one in settings.domains
    ]
    header = ["NAME", "DOMAIN", "MAY GRANT", "GRACE"]
    context.output.result(
        {"domains": [dict(zip(map(str.lower, header), row, strict=True)) for row in rows]},
        table(header, rows),
    )


@trust_app.command("why")
def why(
    key: Annotated[str, typer.Argument(help="A name, a key id, or a public key.")],
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the paths of grants to a key, or why there is none."""
    context = make_context(state, as_json=as_json)
    public, is_certificate = context.find_proven(key)
    body: dict[str, object] = {"key": encode_base64url(public), "certificate": is_certificate}
    answer: dict[str, Any] = context.ask("why", body)
    lines = [f"key {answer['key']}"]
    for path in answer["paths"]:
        lines += path_lines(path)
    if not answer["paths"]:
        lines += [f"  no path: {one['detail']} ({one['reason']})" for one in answer["failures"]]
    context.output.result(answer, lines)
    if not answer["paths"]:
        raise typer.Exit(NO)


def path_lines(path: dict[str, Any]) -> list[str]:
    """Write a path for people, root side first."""
    lines = [f"  domain {' -> '.join(path['domains'])}"]
    for grant, to in zip(path["grants"], path["keys"][1:], strict=True):
        lines.append(f"    {grant['from']} grants {to}  [{grant['id']}, from {grant['source']}]")
    rights = "; ".join(f"{'+'.join(one['actions'])} {one['filter']}" for one in path["scope"])
    return [*lines, f"    gives {rights}"]
