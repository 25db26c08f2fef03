"""``authd up``: run the daemon."""

import asyncio
from typing import Annotated

import typer

from authd.cli.app import app
from authd.cli.context import JsonOption, StateOption, make_context


@app.command("up")
def up(
    broker: Annotated[
        bool,
        typer.Option("--broker", help="Also run the in-project MQTT broker."),
    ] = False,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the daemon until SIGTERM. SIGHUP reads the configuration again."""
    import uvloop

    from authd.daemon import serve
    from authd.observe import configure_logging

    context = make_context(state, as_json=as_json)
    settings = context.settings()
    configure_logging(settings.log_format)

    def on_ready() -> None:
        context.output.result(
            {"ready": True, "http": settings.http, "grpc": settings.grpc},
            [
                (
                    f"authd is up: HTTP on {settings.http}, gRPC on {settings.grpc},"
                    f" sockets in {settings.run_dir}"
                ),
            ],
        )

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, embedded=broker, on_ready=on_ready))
