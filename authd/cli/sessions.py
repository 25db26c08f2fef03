"""``authd sessions list``."""

from typing import Any

import typer

from authd.cli.app import app
from authd.cli.context import JsonOption, StateOption, make_context
from authd.cli.output import age, table

sessions_app = typer.Typer(help="Live and durable sessions on the brokers.", no_args_is_help=True)
app.add_typer(sessions_app, name="sessions")


@sessions_app.command("list")
def list_sessions(state: StateOption = None, as_json: JsonOption = False) -> None:
    """List sessions with their key, lease and rights."""
    context = make_context(state, as_json=as_json)
    answer: dict[str, Any] = context.ask("sessions")
    rows = [
        [
            one["broker"],
            one["client_id"],
            one["key"],
            one["form"],
            "live" if one["live"] else "offline",
            age(one["lease_s"]),
            ", ".join(f"{'+'.join(r['actions'])} {r['filter']}" for r in one["rights"]),
        ]
        for one in answer["sessions"]
    ]
    header = ["BROKER", "CLIENT ID", "KEY", "FORM", "STATE", "LEASE", "RIGHTS"]
    context.output.result(answer, table(header, rows) if rows else ["no sessions"])
