"""``authd device``: a key or a certificate, its grant, and what to paste where."""

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from authd.cli import issue, known
from authd.cli.app import app
from authd.cli.context import Context, JsonOption, StateOption, make_context
from authd.cli.output import table
from authd.cli.snippets import names_dialled, password_snippets, pop_snippets
from authd.config import parse_endpoint
from authd.core.encoding import encode_base64url
from authd.core.grants import Form, Grant, KeySubject
from authd.core.identity import SigningKey, key_id_text
from authd.core.proofs import PASSWORD_BYTES, Audience, password_key
from authd.device import DeviceKey
from authd.errors import FormatError
from authd.service.issuing import parse_topic_scope, self_revocation
from authd.store.keystore import Subject, write_private

device_app = typer.Typer(help="Devices: a device is its key.", no_args_is_help=True)
app.add_typer(device_app, name="device")


@device_app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="How to call it here; never leaves this host.")],
    pub: issue.PubOption = None,
    sub: issue.SubOption = None,
    password: Annotated[
        bool,
        typer.Option("--password", help="For a client that keeps one fixed password."),
    ] = False,
    counter: Annotated[
        bool,
        typer.Option("--counter", help="For a board without a clock: it counts its CONNECTs."),
    ] = False,
    at: Annotated[
        str,
        typer.Option("--at", help="With `--counter`: the one `host:port` where it counts."),
    ] = "",
    client_id: issue.ClientIdOption = "",
    life: issue.LifeOption = "",
    depth: issue.DepthOption = 0,
    issuer: issue.IssuerOption = None,
    bundle: issue.BundleOption = None,
    out: Annotated[Path | None, typer.Option(help="Key file; by default NAME.key here.")] = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a device key, grant it topics and show how to connect. The grant is published."""
    context = make_context(state, as_json=as_json)
    who = issue.choose_issuer(context, issuer)
    if password and (who.gateway is not None or depth):
        raise FormatError("a device password is granted by the domain's authority, with depth 0")
    replaced = _replaced(context, who, name)
    issue.check_filters(pub, sub)
    if (password and counter) or (at and not counter):
        raise FormatError("`--password` and `--counter` are two forms, and `--at` is of a counter")
    secret = encode_base64url(context.entropy.token(PASSWORD_BYTES)) if password else ""
    key = password_key(secret) if password else SigningKey.from_seed(context.entropy.token(32))
    grant = issue.issue(
        context,
        who,
        subject=KeySubject(key.public),
        scope=parse_topic_scope(
            pub or (), sub or (), names={"name": name, "key": key_id_text(key.public)}
        ),
        life=life,
        depth=depth,
        client_id=issue.parse_client_id(client_id),
        forms=[Form.PASSWORD] if password else [Form.COUNTER] if counter else (),
        audiences=issue.broker_audiences(context)
        if password
        else [_counting_audience(context, who, at)]
        if counter
        else (),
    )
    device = _device(context, who, key, grant)
    key_file = None if password else _write_key(out or Path(f"{name}.key"), device)
    form = "password" if password else "counter" if counter else "pop"
    kept_as = known.set_aside(context, replaced) if replaced else ""
    published, where = _publish(context, who, name, device, grant, bundle, form=form)
    notes = [f"the revoked key of that name is kept as {kept_as}"] if kept_as else []
    _report(context, name, device, grant, secret, key_file, [where, *notes], published=published)


def _replaced(context: Context, who: issue.Issuer, name: str) -> Subject | None:
    """Return the revoked subject whose name is taken over; names of a gateway are not kept here."""
    if who.gateway is not None:
        return None
    return known.holder_to_set_aside(
        context, name, f"; `authd grant {name}` gives it more, `authd revoke {name}` ends it"
    )


def _device(context: Context, who: issue.Issuer, key: SigningKey, grant: Grant) -> DeviceKey:
    gateway = who.gateway
    rule = grant.client_id
    return DeviceKey(
        key=key,
        domain=gateway.domain if gateway else context.node().domain_id,
        client_id=rule.value if rule and rule.match == 0 else key_id_text(key.public),
        path=(*(gateway.path if gateway else ()), grant),
        staple=gateway is not None,
    )


def _write_key(path: Path, device: DeviceKey) -> Path:
    write_private(path, device.dump(), overwrite=False)
    return path


def _publish(
    context: Context,
    who: issue.Issuer,
    name: str,
    device: DeviceKey,
    grant: Grant,
    target: Path | None,
    *,
    form: str,
) -> tuple[bool, str]:
    bundle = issue.bundle_of(context, who, grant, None)
    if who.gateway is None:
        own = self_revocation(device.key, issued_at=context.clock.now())
        subject = Subject(
            name=name,
            key=encode_base64url(device.key.public),
            kind="gateway" if grant.depth else "device",
            form=form,
            self_revocation=encode_base64url(own.encoded),
        )
        # Not added to what stands there: that is of a revoked key, and was set aside.
        grants = [encode_base64url(grant.encoded)]
        context.keystore.save_subject(replace(subject, grants=grants))
        return issue.hand_out(context, bundle, target)
    if target is None:
        return False, "not published: the key file carries the whole path and shows it"
    return issue.hand_out(context, bundle, target)


def _report(
    context: Context,
    name: str,
    device: DeviceKey,
    grant: Grant,
    secret: str,
    key_file: Path | None,
    where: list[str],
    *,
    published: bool,
) -> None:
    endpoints = _endpoints(context)
    endpoint, names = endpoints[0], names_dialled(endpoints)
    if key_file is None:
        snippets = [*names, *password_snippets(device, secret, endpoint)]
    elif Form.COUNTER in grant.forms:
        snippets = _counter_snippets(key_file, next(iter(grant.audiences)).partition("/")[2])
    else:
        snippets = [*names, *pop_snippets(device, key_file, endpoint)]
    data: dict[str, object] = {
        "name": name,
        "key_id": device.username,
        "key": encode_base64url(device.key.public),
        "client_id": device.client_id,
        "grant": encode_base64url(grant.statement_id),
        "grant_bytes": len(grant.encoded),
        "expires_at": grant.expires_at,
        "key_file": str(key_file) if key_file else None,
        "published": published,
        "audiences": endpoints,
    }
    if secret:
        data["password"] = secret
    context.output.result(
        data,
        [
            f"{name} is key {device.username}",
            f"grant of {len(grant.encoded)} bytes, {where[0]}",
            *where[1:],
            *([f"key file    {key_file} (move it to the device)"] if key_file else []),
            "",
            *snippets,
        ],
    )


def _counting_audience(context: Context, who: issue.Issuer, at: str) -> str:
    """Return the one audience at which a counter counts (`docs/spec/proofs.md`)."""
    domain = who.gateway.domain if who.gateway else context.node().domain_id
    if at:
        return str(Audience(domain, parse_endpoint(at)))
    known = issue.broker_audiences(context)
    if len(known) > 1:
        names = ", ".join(f"`{one.partition('/')[2]}`" for one in known)
        raise FormatError(f"a counter counts at one endpoint: choose `--at` from {names}")
    return known[0]


def _counter_snippets(key_file: Path, endpoint: str) -> list[str]:
    return [
        f"a board without a clock, at `{endpoint}` alone; it keeps `count` over restarts:",
        "  from authd.device import DeviceKey",
        f"  key = DeviceKey.load({json.dumps(str(key_file))})",
        "  count += 1  # on its disk before it is sent",
        f'  client.username_pw_set(key.username, key.counter_password("{endpoint}", count))',
    ]


@device_app.command("cert")
def cert(
    name: Annotated[str, typer.Argument(help="How to call it here; never leaves this host.")],
    pub: issue.PubOption = None,
    sub: issue.SubOption = None,
    certificate: Annotated[
        Path | None,
        typer.Option(help="PEM of a certificate or public key that exists already."),
    ] = None,
    key_type: Annotated[
        str,
        typer.Option(help="`p256`, `ed25519` or `rsa`, for a key that is made."),
    ] = "p256",
    client_id: issue.ClientIdOption = "",
    life: issue.LifeOption = "",
    bundle: issue.BundleOption = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Stem of the files; by default NAME.crt and NAME.key here."),
    ] = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make or take a TLS client certificate and grant its key topics."""
    from authd.cli.certificate import CertificateOptions, grant_to_certificate

    options = CertificateOptions(
        name=name,
        publish=pub or [],
        subscribe=sub or [],
        client_id=client_id,
        life=life,
        certificate=certificate,
        key_type=key_type,
        out=out,
        bundle=bundle,
    )
    grant_to_certificate(make_context(state, as_json=as_json), options)


@device_app.command("list")
def list_devices(state: StateOption = None, as_json: JsonOption = False) -> None:
    """List what was made here: name, key, form, and until when it counts."""
    context = make_context(state, as_json=as_json)
    found = known.devices(context)
    rows = [[one.name, one.key_id, one.form, one.state, _day(one.until)] for one in found]
    context.output.result(
        {"devices": [asdict(one) for one in found]},
        table(["NAME", "KEY", "FORM", "STATE", "UNTIL"], rows) if rows else ["no devices"],
    )


def _day(until: int) -> str:
    return datetime.fromtimestamp(until, UTC).date().isoformat() if until else "-"


def _endpoints(context: Context) -> list[str]:
    """Return every name that the brokers of this host are dialled by, the first for examples."""
    settings = context.settings() if context.config_path.exists() else None
    brokers = settings.brokers if settings else ()
    names = [endpoint for broker in brokers for endpoint in broker.endpoints]
    return list(dict.fromkeys(names)) or ["BROKER:1883"]
