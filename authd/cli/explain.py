"""``authd explain``: what a key may do, decided as live decisions are."""

from typing import Annotated, Any

import typer

from authd.cli.app import NO, app
from authd.cli.context import JsonOption, StateOption, make_context
from authd.cli.output import age
from authd.cli.trust import path_lines
from authd.core.encoding import encode_base64url
from authd.core.topics import is_topic_filter, is_topic_name
from authd.errors import FormatError


@app.command("explain")
def explain(
    key: Annotated[str, typer.Argument(help="A name, a key id, or a public key.")],
    operation: Annotated[
        str,
        typer.Argument(help="`publish`, `subscribe` or `receive`; nothing asks about CONNECT."),
    ] = "",
    topic: Annotated[str, typer.Argument(help="Topic name or filter.")] = "",
    broker: Annotated[str, typer.Option(help="Name of a [[broker]].")] = "",
    client_id: Annotated[str, typer.Option(help="By default the key id.")] = "",
    form: Annotated[str, typer.Option(help="How it would prove its key.")] = "",
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether a key would be admitted, and why. Exit 0 for allow, 1 for deny."""
    context = make_context(state, as_json=as_json)
    _check_topic(operation, topic)
    public, is_certificate = context.find_proven(key)
    subject = context.subject(key)
    body: dict[str, object] = {
        "key": encode_base64url(public),
        "broker": broker or context.settings().brokers[0].name,
        "client_id": client_id,
        "form": "tls" if is_certificate else form or (subject.form if subject else "pop"),
        "operation": operation,
        "topic": topic,
    }
    answer: dict[str, Any] = context.ask("explain", body)
    lines = [f"{answer['effect']}: {answer['detail']} ({answer['reason']})"]
    if answer["effect"] == "allow":
        lines.append(f"lease: {age(answer['lease_s'])} without further news")
        for path in answer["paths"]:
            lines += path_lines(path)
    context.output.result(answer, lines)
    if answer["effect"] != "allow":
        raise typer.Exit(NO)


def _check_topic(operation: str, topic: str) -> None:
    """Refuse what no client could ask for: a denial would say something else than it means."""
    if operation in ("publish", "receive") and not is_topic_name(topic):
        raise FormatError(f"`{topic}` is not a topic name: `{operation}` wants one, no wildcards")
    if operation == "subscribe" and not is_topic_filter(topic):
        raise FormatError(f"`{topic}` is not a topic filter: `+` is a level, `#` the last one")
