"""``authd revoke`` and ``authd revocations``: take a key or a grant out, everywhere."""

import json
import shlex
import string
import time
from typing import Annotated, Any, Final

import typer

from authd.cli import known
from authd.cli.app import NO, app
from authd.cli.context import Context, JsonOption, StateOption, make_context
from authd.cli.output import table
from authd.core.claims import Kind
from authd.core.encoding import decode_base64url, encode_base64url
from authd.core.grants import Grant, KeySubject, verify_grant
from authd.core.identity import SigningKey, parse_id
from authd.core.statements import Revoke, sign_revoke, verify_revoke
from authd.core.topics import POWER_REVOKE, has_power
from authd.errors import AuthdError, ConfigError, FormatError
from authd.service.issuing import Bundle
from authd.service.ports import Item
from authd.service.renewal import same_rights, successors
from authd.store.keystore import AUTHORITY, NODE, Subject
from authd.store.sqlite import SqliteStore

_POLL_S: Final = 0.1
_OUTCOMES: Final = {
    "not_found": "was not connected",
    "cut_offline": "was away; its durable session is ended",
    "kick_failed": "could not be disconnected; every message of it is denied",
}
_AS_IS: Final = frozenset(f"{string.ascii_letters}{string.digits}/".encode())


@app.command("revoke")
def revoke(
    target: Annotated[
        str,
        typer.Argument(help="A name, a key id, a public key, or `grant:ID`."),
    ],
    reason: Annotated[str, typer.Option(help="Shown with every refusal; at most 64 bytes.")] = "",
    wait_s: Annotated[
        float,
        typer.Option("--wait", help="Seconds to wait until it is in force."),
    ] = 5.0,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke a key or grant everywhere and cut its live sessions."""
    context = make_context(state, as_json=as_json)
    all_signed = _sign(context, target, reason)
    signed = all_signed[0]
    items = tuple(Item(Kind.REVOKE, one.encoded) for one in all_signed)
    online = context.publish(Bundle(statements=items))
    if not online:
        context.output.result(
            {"id": encode_base64url(signed.statement_id), "state": "outbox", "cut": []},
            [context.published_line(online=False)],
        )
        raise typer.Exit(NO)
    answer = _wait(context, signed, wait_s)
    context.output.result(answer, _lines(answer))
    if answer["state"] != "in force":
        raise typer.Exit(NO)


@app.command("revocations")
def revocations(state: StateOption = None, as_json: JsonOption = False) -> None:
    """List revocations, each pending or in force."""
    context = make_context(state, as_json=as_json)
    answer: dict[str, Any] = context.ask("revocations")
    names = known.names_of(context)
    for one in answer["revocations"]:
        one["name"] = names.get(one["target"], "")
    rows = [
        [*(one[what] or "-" for what in ("name", "kind", "target", "state", "reason")), one["id"]]
        for one in answer["revocations"]
    ]
    header = ["NAME", "KIND", "TARGET", "STATE", "REASON", "ID"]
    lines = table(header, rows) if rows else ["no revocations"]
    for one in answer["revocations"]:
        lines += _retained_lines(one, f"{one['kind']} {one['target']}: ")
    context.output.result(answer, lines)


# --- signing --------------------------------------------------------------------------------


def _sign(context: Context, target: str, reason: str) -> list[Revoke]:
    if target.startswith("grant:"):
        return _sign_grants(context, parse_id(target.removeprefix("grant:")), reason)
    subject = context.subject(target)
    if subject is not None and subject.form == "tls":
        # A certificate's key is known by its digest alone, so what is revoked is its one grant.
        return _sign_grants(context, _grant_of(subject), reason)
    if subject is not None and subject.self_revocation and not reason:
        # The key's own word counts in every domain: it is preferred over ours.
        return [verify_revoke(decode_base64url(subject.self_revocation))]
    return [_sign_by_issuer(context, context.find_key(target), reason)]


def _sign_grants(context: Context, target: bytes, reason: str) -> list[Revoke]:
    """Revoke a grant and whatever it was renewed by, or is the renewal of."""
    held = _grants(context)
    named = next((one for one in held if one.statement_id == target), None)
    now = context.clock.now()
    others = [
        one.statement_id
        for one in held
        if named is not None
        and one.statement_id != target
        and one.expires_at > now
        and same_rights(one, named)
    ]
    targets = dict.fromkeys((target, *others))
    if context.keystore.has(AUTHORITY) and named is not None:
        # Another host may have renewed it and nobody here have heard of that yet.
        key = context.keystore.load(AUTHORITY)
        for one in held if key.public == named.issuer else ():
            if one.statement_id in targets:
                renewed = successors(key, one, now=now)
                targets.update(dict.fromkeys(item.statement_id for item in renewed))
    return [_sign_by_issuer(context, one, reason) for one in targets]


def _grants(context: Context) -> list[Grant]:
    with SqliteStore(context.state_dir / "authd.db") as store:
        statements = store.load_statements()
    try:
        return [verify_grant(one.data) for one in statements if one.kind is Kind.GRANT]
    except AuthdError as error:
        raise FormatError("the store holds a damaged grant") from error


def _grant_of(subject: Subject) -> bytes:
    try:
        return verify_grant(decode_base64url(subject.grants[-1])).statement_id
    except (AuthdError, IndexError) as error:
        raise FormatError(f"what is known of `{subject.name}` is damaged") from error


def _sign_by_issuer(context: Context, target: bytes, reason: str) -> Revoke:
    now = context.clock.now()
    if context.keystore.has(AUTHORITY):
        key = context.keystore.load(AUTHORITY)
        return sign_revoke(key, target=target, issued_at=now, reason=reason)
    key = context.keystore.load(NODE)
    return sign_revoke(
        key,
        target=target,
        issued_at=now,
        reason=reason,
        revoker_grant=_revoker_grant(context, key),
    )


def _revoker_grant(context: Context, key: SigningKey) -> Grant:
    for grant in _grants(context):
        if grant.subject == KeySubject(key.public) and has_power(grant.scope, POWER_REVOKE):
            return grant
    raise ConfigError(
        "this daemon may not revoke: it joined without `--operator`; run this on one that may",
    )


# --- waiting --------------------------------------------------------------------------------


def _wait(context: Context, signed: Revoke, wait_s: float) -> dict[str, Any]:
    deadline = context.clock.monotonic() + wait_s
    body: dict[str, object] = {"id": encode_base64url(signed.statement_id)}
    while True:
        answer = context.ask("revocation", body)
        done = answer["state"] == "in force" and _all_confirmed(answer)
        if done or context.clock.monotonic() >= deadline:
            return answer
        time.sleep(_POLL_S)


def _all_confirmed(answer: dict[str, Any]) -> bool:
    return all(cut["outcome"] != "sent" for cut in answer["cut"])


def _lines(answer: dict[str, Any]) -> list[str]:
    cut = [
        f"  {one['broker']}: {one['client_id']} {_OUTCOMES.get(one['outcome'], one['outcome'])}"
        for one in answer["cut"]
    ]
    state = answer["state"]
    sentence = (
        "in force: every daemon that is fresh refuses it"
        if state == "in force"
        else "pending: it is enforced here; not yet signed by most heartbeat keys"
        " (`authd revocations` shows when it is)"
    )
    return [
        f"revoked {answer['kind']} {answer['target']}",
        sentence,
        "sessions cut by this daemon:" if cut else "no session of it was live at this daemon",
        *cut,
        *_retained_lines(answer, ""),
    ]


# --- what stays behind ----------------------------------------------------------------------


def _retained_lines(answer: dict[str, Any], title: str) -> list[str]:
    """Say which retained messages may still be delivered, and how each is cleared."""
    left, more = answer.get("retained", ()), answer.get("retained_more", 0)
    if not left and not more:
        return []
    return [
        f"{title}retained messages may be left, for whoever subscribes; clear with",
        *(f"  {_shown(one)}: {clearing(one['topic'])}" for one in left),
        *([f"  and at least {more} more that are not named"] if more else []),
    ]


def _shown(left: dict[str, str]) -> str:
    """Write down who left what: as JSON writes it, because the client chose the names."""
    client_id, topic = (
        json.dumps(left[name]).replace("\x7f", "\\u007f") for name in ("client_id", "topic")
    )
    return f"{left['broker']}: {client_id} left {topic}"


def clearing(topic: str) -> str:
    """Write the command that clears a topic, for any POSIX shell, in printable ASCII alone.

    Args:
        topic: Untrusted; a topic name, so it does not end with a line feed.
    """
    if topic.isascii() and topic.isprintable():
        return f"mosquitto_pub -r -n -t {shlex.quote(topic)}"
    # `%b` and not the format: some shells look for `%` only after they have read the escapes.
    written = "".join(chr(byte) if byte in _AS_IS else f"\\0{byte:03o}" for byte in topic.encode())
    return f'mosquitto_pub -r -n -t "$(printf %b {shlex.quote(written)})"'
