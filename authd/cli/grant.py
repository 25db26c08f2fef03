"""``authd grant``: give a key, a named subject or a domain some topics."""

from typing import Annotated

import typer

from authd.cli import issue, known
from authd.cli.app import app
from authd.cli.context import Context, JsonOption, StateOption, make_context
from authd.core.encoding import encode_base64url
from authd.core.grants import DomainSubject, KeySubject, Subject
from authd.core.identity import DomainId, key_id_text, parse_id
from authd.core.trust import subject_id
from authd.service.issuing import parse_topic_scope
from authd.store import keystore


@app.command("grant")
def grant(
    subject: Annotated[
        str,
        typer.Argument(help="A name, a key id, a public key, or `domain:ID`."),
    ],
    pub: issue.PubOption = None,
    sub: issue.SubOption = None,
    serve: issue.ServeOption = None,
    client_id: issue.ClientIdOption = "",
    life: issue.LifeOption = "",
    depth: issue.DepthOption = 0,
    issuer: issue.IssuerOption = None,
    bundle: issue.BundleOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Grant topics to a key or a domain. Rights add up; granting takes nothing away."""
    context = make_context(state, as_json=as_json)
    who = issue.choose_issuer(context, issuer)
    issue.check_filters(pub, sub, serve)
    to = _subject(context, subject)
    if isinstance(to, KeySubject):
        known.refuse_revoked_key(context, to.key, subject)
    text = encode_base64url(subject_id(to))
    remembered = context.subject(subject) or context.subject(text)
    signed = issue.issue(
        context,
        who,
        subject=to,
        scope=parse_topic_scope(
            pub or (),
            sub or (),
            names={"name": subject, "key": text},
            serve=serve or (),
        ),
        life=life,
        depth=depth,
        client_id=issue.parse_client_id(client_id),
    )
    handed = issue.bundle_of(context, who, signed, remembered)
    published, where = issue.hand_out(context, handed, bundle)
    if who.gateway is None:
        issue.remember(context, remembered or _new_subject(to, text), signed)
    context.output.result(
        {
            "grant": encode_base64url(signed.statement_id),
            "subject": text,
            "grant_bytes": len(signed.encoded),
            "expires_at": signed.expires_at,
            "published": published,
        },
        [f"grant {encode_base64url(signed.statement_id)} to {text}, {where}"],
    )


def _subject(context: Context, text: str) -> Subject:
    if text.startswith("domain:"):
        return DomainSubject(DomainId(parse_id(text.removeprefix("domain:"))))
    return KeySubject(context.find_key(text))


def _new_subject(subject: Subject, text: str) -> keystore.Subject:
    if isinstance(subject, KeySubject):
        return keystore.Subject(name=key_id_text(subject.key), key=encode_base64url(subject.key))
    return keystore.Subject(name=f"domain-{text}", key="", kind="domain")
