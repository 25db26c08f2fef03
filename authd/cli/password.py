"""``authd password``: one proof, now."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from authd.cli.app import app
from authd.cli.context import JsonOption, make_context
from authd.config import parse_endpoint


@app.command("password")
def password(
    key_file: Annotated[Path, typer.Argument(help="The device's key file.")],
    endpoint: Annotated[str, typer.Argument(help="`host:port` as the client will dial it.")],
    client_id: Annotated[str, typer.Option(help="Client id; by default the key file's.")] = "",
    staple: Annotated[
        bool | None,
        typer.Option("--staple/--no-staple", help="Carry the path of grants."),
    ] = None,
    shell: Annotated[
        bool,
        typer.Option("--shell", help="Print shell assignments, for `eval`."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make user name and password for one CONNECT. They are good for a minute."""
    from authd.device import DeviceKey

    context = make_context(None, as_json=as_json)
    device = DeviceKey.load(key_file)
    chosen = client_id or device.client_id
    secret = device.password(parse_endpoint(endpoint), client_id=chosen, staple=staple)
    context.output.result(
        {"username": device.username, "password": secret, "client_id": chosen},
        [
            f"AUTHD_USER={device.username}",
            f"AUTHD_PASSWORD={secret}",
            f"AUTHD_CLIENT_ID={shlex.quote(chosen)}",
        ]
        if shell
        else [f"client id  {chosen}", f"user name  {device.username}", f"password   {secret}"],
    )
