"""``authd publish``: hand in a bundle that was made somewhere else."""

from pathlib import Path
from typing import Annotated

import typer

from authd.cli.app import app
from authd.cli.context import JsonOption, StateOption, make_context
from authd.errors import ConfigError
from authd.service.issuing import decode_bundle


@app.command("publish")
def publish(
    bundle: Annotated[
        Path, typer.Argument(help="A bundle, from `--bundle FILE` of other commands.")
    ],
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Publish a bundle of statements and records. Anyone may, it is signed."""
    context = make_context(state, as_json=as_json)
    try:
        decoded = decode_bundle(bundle.read_bytes())
    except OSError as error:
        raise ConfigError(f"`{bundle}`: {error.strerror}") from error
    online = context.publish(decoded)
    context.output.result(
        {
            "statements": len(decoded.statements),
            "records": len(decoded.records),
            "published": online,
        },
        [
            (
                f"{len(decoded.statements)} statements and {len(decoded.records)} records:"
                f" {context.published_line(online=online)}"
            ),
        ],
    )
