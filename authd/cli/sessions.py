"""``authd sessions list``."""

from typing import Any

import typer

from authd.cli import known
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
    names = known.names_of(context)
    for one in answer["sessions"]:
        one["name"] = names.get(one["key"], "")
    context.output.result(answer, _lines(answer["sessions"]) or ["no sessions"])


def _lines(sessions: list[dict[str, Any]]) -> list[str]:
    """Write a row for each session, and below it what does not fit beside it."""
    rows = [
        [
            one["broker"],
            one["name"] or "-",
            one["key"],
            one["form"],
            "live" if one["live"] else "offline",
            age(one["lease_s"]),
        ]
        for one in sessions
    ]
    if not rows:
        return []
    head, *lines = table(["BROKER", "NAME", "KEY", "FORM", "STATE", "LEASE"], rows)
    pairs = ((line, _rest(one)) for line, one in zip(lines, sessions, strict=True))
    return [head, *(line for pair in pairs for line in pair)]


def _rest(one: dict[str, Any]) -> str:
    rights = ", ".join(f"{'+'.join(r['actions'])} {r['filter']}" for r in one["rights"])
    client_id = "" if one["client_id"] == one["key"] else f"client id {one['client_id']}: "
    return f"  {client_id}{rights}"
