"""``authd demo``: the whole path on this host, narrated."""

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from authd.cli.app import NO, app
from authd.cli.context import JsonOption


@app.command("demo")
def demo(
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Keep states and logs to look at afterwards."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show devices admitted, refused, explained and cut off. On three brokers, here."""
    from authd.demo.narrator import Narrator
    from authd.demo.script import Script
    from authd.demo.stage import Stage, StageError, find_mosquitto, find_plugin

    directory = Path(tempfile.mkdtemp(prefix="authd-demo-"))
    narrator = Narrator(as_json=as_json)
    mosquitto, plugin = find_mosquitto(), find_plugin()
    if mosquitto is None or plugin is None:
        missing = "Mosquitto" if mosquitto is None else "the Mosquitto plugin"
        narrator.say(f"{missing} is not installed: embedded brokers stand in")
    try:
        with Stage(directory, mosquitto=mosquitto, plugin=plugin) as stage:
            Script(stage, narrator).run()
    except StageError as error:
        narrator.claim("the demonstration ran to its end", ok=False, detail=str(error))
    finally:
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)
    narrator.finish(kept=f"States and logs: {directory}" if keep else "")
    if not narrator.ok:
        raise typer.Exit(NO)
