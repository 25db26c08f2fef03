"""``authd broker``: what to write into a broker's configuration, and whether it works."""

import ssl
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from authd.cli.app import NO, YES, app
from authd.cli.context import Context, JsonOption, StateOption, make_context
from authd.cli.findings import Finding, State, fault, fine, unknown
from authd.cli.snippets import join_group, mosquitto_config
from authd.config import BrokerSettings, parse_endpoint
from authd.errors import ConfigError, FormatError, NoResponseError

broker_app = typer.Typer(help="Brokers: their configuration, and its test.", no_args_is_help=True)
app.add_typer(broker_app, name="broker")

_MOSQUITTO: Final = "mosquitto"
_PLUGIN: Final = Path("/usr/lib/authd-mqtt/authd_mosquitto.so")
_DEFAULT_CONFIG: Final = Path("/etc/mosquitto/mosquitto.conf")
_MARKS: Final = {State.FINDING: "FAULT", State.UNKNOWN: "?", State.NOTE: "note", State.OK: "ok"}
_ORDER: Final = tuple(_MARKS)

KindArgument = Annotated[str, typer.Argument(help="`mosquitto`.")]
NameOption = Annotated[
    str, typer.Option("--name", help="Name of the [[broker]] entry; by default the only one.")
]


@broker_app.command("snippet")
def snippet(
    kind: KindArgument,
    name: NameOption = "",
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print what to write into a broker's configuration."""
    from authd.demo.stage import find_plugin

    context = make_context(state, as_json=as_json)
    _check_kind(kind)
    entry = _entry(context, name)
    socket = context.settings().run_dir / "broker.sock"
    built = None if _PLUGIN.exists() else find_plugin()
    lines = mosquitto_config(entry, socket, _PLUGIN, built)
    context.output.result({"broker": entry.name, "config": "\n".join(lines) + "\n"}, lines)


@broker_app.command("probe")
def probe(
    kind: KindArgument,
    name: NameOption = "",
    at: Annotated[
        str, typer.Option("--at", help="`host:port` of the listener; by default this host's.")
    ] = "",
    config: Annotated[
        Path | None,
        typer.Option("--config", help="The broker's file; by default the running broker's."),
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", help="The listener speaks TLS.")] = False,
    cafile: Annotated[
        Path | None, typer.Option("--cafile", help="Who vouches for the broker.")
    ] = None,
    stall: Annotated[
        bool, typer.Option("--stall", help="Hold the daemon for a second, and see who gets in.")
    ] = False,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Try a running broker and read its configuration. Exit 0 if all is well, 1 for faults."""
    context = make_context(state, as_json=as_json)
    _check_kind(kind)
    tls_context = _tls_context(cafile) if tls else None
    entry = _entry(context, name)
    endpoint = parse_endpoint(at or f"127.0.0.1:{entry.endpoints[0].rpartition(':')[2]}")
    findings = list(_probe(context, entry, endpoint, config, tls_context, stall=stall))
    _report(context, entry, endpoint, findings)


def _probe(
    context: Context,
    entry: BrokerSettings,
    endpoint: str,
    config: Path | None,
    tls: ssl.SSLContext | None,
    *,
    stall: bool,
) -> Iterator[Finding]:
    from authd.cli.mosquitto_live import Target, probe_fail_mode, probe_live

    host, _, port = endpoint.rpartition(":")
    target = Target(host=host.strip("[]"), port=int(port), endpoint=endpoint, tls=tls)
    yield from probe_live(target)
    status = _ask_status(context)
    yield from _judge_daemon(status, entry, endpoint, context.settings().broker_group)
    admin_socket = context.settings().run_dir / "admin.sock" if stall else None
    yield probe_fail_mode(target, daemon_up=status is not None, admin_socket=admin_socket)
    yield from _judge_host(context, target.port, config)


# --- the daemon's view ------------------------------------------------------------------------


def _ask_status(context: Context) -> dict[str, Any] | None:
    try:
        return context.ask("status")
    except NoResponseError:
        return None


def _judge_daemon(
    status: dict[str, Any] | None, entry: BrokerSettings, endpoint: str, group: str
) -> Iterator[Finding]:
    if status is None:
        yield fault("daemon", "no daemon answers on this host", "start it with `authd up`")
        return
    (row,) = [one for one in status["brokers"] if one["name"] == entry.name] or [None]
    if row is None:
        yield fault(
            "attached",
            f"the running daemon does not know `{entry.name}`",
            "send it SIGHUP, or restart it, so that it reads authd.toml again",
        )
        return
    if row["attached"]:
        yield fine("attached", f"the plugin of `{entry.name}` listens to this daemon")
    else:
        yield fault(
            "attached",
            f"no plugin listens as `{entry.name}`: nobody gets in, and nobody would be cut",
            "restart the broker with the lines of `authd broker snippet mosquitto`; its user must"
            f" be in the group that may open the socket: {join_group(group)}",
        )
    if endpoint in entry.endpoints:
        yield fine("audience", f"proofs made for `{endpoint}` count")
    else:
        yield fault(
            "audience",
            f"`{endpoint}` is not in `audiences` of `{entry.name}`: proofs made for it are refused",
            "add it in authd.toml, or use a name that is there with `--at`",
        )


# --- the host's view --------------------------------------------------------------------------


def _judge_host(context: Context, port: int, config: Path | None) -> Iterator[Finding]:
    from authd.cli.mosquitto_config import Expected, judge_config, read_config
    from authd.cli.mosquitto_process import find_process, judge_process

    process = find_process(port)
    yield from judge_process(process)
    path = config or (process.config if process else None)
    if path is None and _DEFAULT_CONFIG.exists() and process is None:
        path = _DEFAULT_CONFIG
    if path is None:
        yield unknown("config", "the broker's configuration was not found", "name it: `--config`")
        return
    settings = context.settings()
    expected = Expected(
        names=tuple(one.name for one in settings.brokers if one.kind == _MOSQUITTO),
        socket=str(settings.run_dir / "broker.sock"),
    )
    try:
        found = read_config(path)
    except ConfigError as error:
        if config is not None:
            raise
        yield unknown("config", str(error), "run the probe as a user who may read it")
        return
    yield from judge_config(found, expected)


# --- what it takes, and what it says ----------------------------------------------------------


def _check_kind(kind: str) -> None:
    if kind != _MOSQUITTO:
        raise FormatError(f"`{kind}` is no kind of broker known here: `{_MOSQUITTO}`")


def _entry(context: Context, name: str) -> BrokerSettings:
    entries = [one for one in context.settings().brokers if one.kind == _MOSQUITTO]
    chosen = [one for one in entries if name in ("", one.name)]
    if len(chosen) == 1:
        return chosen[0]
    known = ", ".join(f"`{one.name}`" for one in entries) or "none"
    raise FormatError(f"choose an entry of kind `mosquitto` with `--name`: {known}")


def _tls_context(cafile: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=None if cafile is None else str(cafile))
    except OSError as error:
        raise ConfigError(f"`{cafile}`: {error.strerror or 'no certificates'}") from error


def _report(context: Context, entry: BrokerSettings, at: str, findings: Iterable[Finding]) -> None:
    rows = sorted(findings, key=lambda one: _ORDER.index(one.state))
    faults = sum(one.state is State.FINDING for one in rows)
    data: dict[str, object] = {
        "broker": entry.name,
        "at": at,
        "clean": not faults,
        "findings": [asdict(one) for one in rows],
    }
    lines = [line for one in rows for line in _lines(one)]
    context.output.result(data, [*lines, "", _summary(faults)])
    raise typer.Exit(NO if faults else YES)


def _lines(finding: Finding) -> Iterator[str]:
    yield f"{_MARKS[finding.state]:5}  {finding.check}: {finding.sentence}"
    if finding.advice:
        yield f"       {finding.advice}"


def _summary(faults: int) -> str:
    return f"{faults} to be mended" if faults else "nothing to be mended"
