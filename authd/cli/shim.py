"""``authd shim``: lets an unmodified client of this host connect with a device's key."""

import asyncio
import contextlib
import ipaddress
import json
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import typer

from authd.cli.app import app
from authd.cli.context import JsonOption, make_context
from authd.cli.output import Output
from authd.config import parse_endpoint
from authd.core.claims import Kind
from authd.core.grants import Grant, KeySubject, verify_grant
from authd.core.identity import PublicKey
from authd.core.limits import MAX_PATH_GRANTS
from authd.device import DeviceKey
from authd.errors import AuthdError, ConfigError, FormatError
from authd.service.issuing import decode_bundle
from authd.shim import Ended, Shim, ShimLimits, ShimReport

_BACKLOG: Final = 64


@app.command("shim")
def shim(
    key: Annotated[Path, typer.Option("--key", help="The device's key file.")],
    to: Annotated[str, typer.Option("--to", help="The broker's `host:port`.")],
    listen: Annotated[
        str, typer.Option("--listen", help="Where clients of this host connect.")
    ] = "127.0.0.1:1883",
    tls: Annotated[bool, typer.Option("--tls", help="Speak TLS with the broker.")] = False,
    cafile: Annotated[
        Path | None,
        typer.Option("--cafile", help="Who vouches for the broker; by default this host's list."),
    ] = None,
    path: Annotated[
        Path | None,
        typer.Option("--path", help="Bundle with the grants to show, for brokers not met yet."),
    ] = None,
    client_id: Annotated[
        str, typer.Option(help="Client id for every client; by default the one it sends.")
    ] = "",
    connections: Annotated[int, typer.Option(min=1, max=10_000, help="Clients at once.")] = 100,
    listen_anywhere: Annotated[
        bool,
        typer.Option("--listen-anywhere", help="Let other hosts in: they become this device."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Put fresh proofs into the CONNECTs of other clients. For those that cannot make one."""
    import uvloop

    output = make_context(None, as_json=as_json).output
    device = _load(key, path)
    endpoint = parse_endpoint(to)
    tls_context = _tls_context(cafile, tls=tls)
    with _listen(listen, output, anywhere=listen_anywhere) as listener:
        server = Shim(
            broker=_host_and_port(endpoint),
            login=lambda chosen: (device.username, device.password(endpoint, client_id=chosen)),
            client_id=lambda sent: client_id or sent or device.client_id,
            report=lambda report: _tell(output, report),
            tls=tls_context,
            limits=ShimLimits(connections=connections),
        )
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(
                _until_told(
                    server, listener, lambda: _tell_ready(output, listener, endpoint, device)
                )
            )


async def _until_told(server: Shim, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(server.serve(listener), name="shim")
        on_ready()
        await told.wait()
        serving.cancel()


# --- the key ----------------------------------------------------------------------------------


def _load(key: Path, bundle: Path | None) -> DeviceKey:
    device = DeviceKey.load(key)
    if bundle is None:
        return device
    return replace(device, path=_path_to(device.key.public, _grants_of(bundle)), staple=True)


def _grants_of(bundle: Path) -> list[Grant]:
    try:
        data = bundle.read_bytes()
    except OSError as error:
        raise ConfigError(f"`{bundle}`: {error.strerror}") from error
    try:
        items = decode_bundle(data).statements
        return [verify_grant(one.data) for one in items if one.kind is Kind.GRANT]
    except AuthdError as error:
        raise ConfigError(f"`{bundle}`: {error}") from error


def _path_to(key: PublicKey, grants: list[Grant]) -> tuple[Grant, ...]:
    """Order grants as a path that ends at a key, root side first."""
    by_subject = {one.subject: one for one in grants}
    path: list[Grant] = []
    found = by_subject.get(KeySubject(key))
    while found is not None and len(path) < MAX_PATH_GRANTS:
        path.insert(0, found)
        found = by_subject.get(KeySubject(found.issuer))
    if not path:
        raise FormatError("the bundle holds no grant to this key")
    return tuple(path)


# --- the two ends -----------------------------------------------------------------------------


def _host_and_port(endpoint: str) -> tuple[str, int]:
    host, _, port = endpoint.rpartition(":")
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise FormatError(f"`{host}` is no name of a host") from error
    return host.strip("[]"), int(port)


def _tls_context(cafile: Path | None, *, tls: bool) -> ssl.SSLContext | None:
    if not tls:
        if cafile is not None:
            raise FormatError("`--cafile` says who vouches for the broker: add `--tls`")
        return None
    try:
        return ssl.create_default_context(cafile=None if cafile is None else str(cafile))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"`{cafile}`: {error.strerror or 'no certificates'}") from error


@contextlib.contextmanager
def _listen(listen: str, output: Output, *, anywhere: bool) -> Iterator[socket.socket]:
    host, port = _host_and_port(parse_endpoint(listen))
    host = "127.0.0.1" if host == "localhost" else host
    try:
        address = ipaddress.ip_address(host)
    except ValueError as error:
        raise FormatError(f"`{listen}` is no address to listen on") from error
    if not address.is_loopback and not anywhere:
        raise FormatError(
            f"`{listen}` can be reached by other hosts, and whoever reaches the shim is this"
            " device: add `--listen-anywhere` if that is meant"
        )
    if not address.is_loopback:
        output.progress(f"WARNING  whoever reaches `{listen}` is this device")
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET  # noqa: PLR2004 - IPv6
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(_BACKLOG)
        except OSError as error:
            raise ConfigError(f"`{listen}`: {error.strerror}") from error
        yield listener


# --- what it says -----------------------------------------------------------------------------


def _tell_ready(output: Output, listener: socket.socket, endpoint: str, device: DeviceKey) -> None:
    host, port = listener.getsockname()[:2]
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if output.as_json:
        _print({"event": "listening", "listen": where, "to": endpoint, "key_id": device.username})
    else:
        print(f"clients that connect to {where} are {device.username} at {endpoint}", flush=True)


def _tell(output: Output, report: ShimReport) -> None:
    if output.as_json:
        about = {"client_id": report.client_id, "detail": report.detail}
        _print({"event": report.ended.value, **about})
    elif report.ended is not Ended.PASSED:
        who = f"client `{report.client_id}`" if report.client_id else "a client"
        output.progress(f"{who}: {report.ended.value}: {report.detail}")


def _print(event: dict[str, str]) -> None:
    print(json.dumps(event), flush=True)
