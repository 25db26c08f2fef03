"""``authd inspect``: what is in a statement, bundle, ticket, key file or password."""

import json
from pathlib import Path
from typing import Annotated

import typer

from authd.cli.app import app
from authd.cli.context import JsonOption, make_context
from authd.core.claims import Kind
from authd.core.encoding import decode_base64url, encode_base64url
from authd.core.grants import Grant, KeySubject
from authd.core.identity import admit_key, key_id_text
from authd.core.proofs import UnverifiedPop, parse_credentials
from authd.core.roots import parse_root
from authd.core.statements import Revoke, verify
from authd.errors import AuthdError, FormatError
from authd.service.issuing import decode_bundle, decode_ticket
from authd.service.operator import describe_scope


@app.command("inspect")
def inspect(
    what: Annotated[str, typer.Argument(help="A file, or base64url text.")],
    as_json: JsonOption = False,
) -> None:
    """Show what is inside; secrets are left out."""
    context = make_context(None, as_json=as_json)
    data, text = _read(what)
    described = _describe(data, text)
    context.output.result(described, json.dumps(described, indent=1).splitlines())


def _read(what: str) -> tuple[bytes, str]:
    """Return what is there as bytes, and as text if it is text."""
    path = Path(what)
    try:
        data = path.read_bytes() if path.is_file() else None
    except OSError:
        # Longer than a file name can be.
        data = None
    if data is None:
        text = what.strip()
        return (decode_base64url(text) if "." not in text else b""), text
    text = data.decode("ascii").strip() if data.isascii() else ""
    return _unwrap(data), text


def _unwrap(data: bytes) -> bytes:
    try:
        return decode_base64url(data.decode("ascii").strip())
    except (UnicodeDecodeError, FormatError):
        return data


def _describe(data: bytes, text: str) -> dict[str, object]:
    for kind in (Kind.GRANT, Kind.REVOKE, Kind.HEARTBEAT, Kind.BROKER):
        try:
            return _statement(kind, data)
        except AuthdError:
            continue
    for attempt in (_root, _bundle, _ticket, _key_file):
        try:
            return attempt(data)
        except AuthdError:
            continue
    return _password(text)


def _statement(kind: Kind, data: bytes) -> dict[str, object]:
    statement = verify(kind, data)
    described: dict[str, object] = {
        "kind": kind.name.lower(),
        "id": encode_base64url(statement.statement_id),
        "bytes": len(data),
        "issuer": key_id_text(statement.issuer),
        "signature": "valid",
    }
    if isinstance(statement, Grant):
        subject = statement.subject
        described |= {
            "subject": key_id_text(subject.key)
            if isinstance(subject, KeySubject)
            else f"domain:{encode_base64url(subject.domain)}",
            "scope": describe_scope(statement.scope),
            "depth": statement.depth,
            "issued_at": statement.issued_at,
            "expires_at": statement.expires_at,
            "client_id": str(statement.client_id) if statement.client_id else "(the key id)",
            "forms": [form.name.lower() for form in sorted(statement.forms)],
            "audiences": sorted(statement.audiences),
        }
    if isinstance(statement, Revoke):
        described |= {
            "target": encode_base64url(statement.target),
            "target_kind": "key" if statement.is_key else "grant",
            "reason": statement.reason,
        }
    return described


def _root(data: bytes) -> dict[str, object]:
    root = parse_root(data)
    return {
        "kind": "root",
        "id": encode_base64url(root.statement_id),
        "bytes": len(data),
        "version": root.claims.version,
        "threshold": root.claims.threshold,
        "root_keys": [key_id_text(key) for key in root.claims.root_keys],
        "authorities": [key_id_text(one.key) for one in root.claims.authorities],
        "heartbeat_keys": [key_id_text(key) for key in root.claims.heartbeat_keys],
        "expires_at": root.claims.expires_at,
        "signatures": f"{len(root.signatures)}, not checked: that needs the version before",
    }


def _bundle(data: bytes) -> dict[str, object]:
    bundle = decode_bundle(data)
    return {
        "kind": "bundle",
        "statements": [
            _root(item.data) if item.kind is Kind.ROOT else _statement(item.kind, item.data)
            for item in bundle.statements
        ],
        "records": len(bundle.records),
    }


def _ticket(data: bytes) -> dict[str, object]:
    ticket = decode_ticket(data)
    return {
        "kind": "ticket",
        "domain": encode_base64url(ticket.domain),
        "operator": ticket.operator,
        "peers": list(ticket.peers),
        "root_versions": len(ticket.roots),
        "grants": [_statement(Kind.GRANT, grant) for grant in ticket.grants],
    }


def _key_file(data: bytes) -> dict[str, object]:
    try:
        content = json.loads(data)
        public = admit_key(decode_base64url(content["public"]))
        described: dict[str, object] = {"kind": "key file", "format": str(content["format"])}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError("not a key file") from error
    described |= {"key": encode_base64url(public), "key_id": key_id_text(public)}
    described["encrypted"] = "encrypted_seed" in content
    if "path" in content:
        path = [_statement(Kind.GRANT, decode_base64url(one)) for one in content["path"]]
        described |= {"client_id": str(content.get("client_id")), "path": path}
    return described


def _password(text: str) -> dict[str, object]:
    placeholder = "A" * 22
    pop = parse_credentials(placeholder, text.strip())
    if not isinstance(pop, UnverifiedPop):
        raise FormatError("this looks like a device password: a secret, nothing to inspect")
    return {
        "kind": "proof",
        "form": pop.form.name.lower(),
        "time": pop.time,
        "nonce": encode_base64url(pop.nonce),
        "issuer_hint": encode_base64url(pop.issuer_hint) if pop.issuer_hint else None,
        "stapled": [_statement(Kind.GRANT, one) for one in pop.stapled],
        "signature": "not checked: that needs key, audience and client id",
    }
