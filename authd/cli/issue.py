"""What ``device new`` and ``grant`` share: options, issuing, remembering."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import typer

from authd.cli.context import Context
from authd.config import parse_duration
from authd.core.encoding import decode_base64url, encode_base64url
from authd.core.grants import (
    ClientIdMatch,
    ClientIdRule,
    Form,
    Grant,
    Subject,
    check_client_id_rule,
    sign_grant,
    verify_grant,
)
from authd.core.identity import SigningKey
from authd.core.proofs import Audience
from authd.core.topics import Scope
from authd.device import DeviceKey
from authd.errors import ConfigError, FormatError, StoreError
from authd.service.issuing import (
    DEVICE_LIFE_S,
    STANDING_LIVES_S,
    Bundle,
    encode_bundle,
    grant_bundle,
)
from authd.store import keystore

_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
PubOption = Annotated[
    list[str] | None,
    typer.Option("--pub", help="Topic filter it may publish to; repeatable."),
]
SubOption = Annotated[
    list[str] | None,
    typer.Option("--sub", help="Topic filter it may subscribe to; repeatable."),
]
ServeOption = Annotated[
    list[str] | None,
    typer.Option("--serve", help="Topic filter it may run a broker for; repeatable."),
]
ClientIdOption = Annotated[
    str,
    typer.Option("--client-id", help="`NAME`, a prefix `NAME-*`, or `*` for any; else the key id."),
]
LifeOption = Annotated[
    str,
    typer.Option(
        "--for",
        "--until",
        help="It ends then: `12h`, `90d`, or the last day, `2030-12-31`; else it is renewed.",
    ),
]
DepthOption = Annotated[
    int,
    typer.Option("--depth", min=0, max=8, help="Grants it may put below itself."),
]
IssuerOption = Annotated[
    Path | None,
    typer.Option("--issuer", help="Key file of a gateway that grants; offline, without state."),
]
BundleOption = Annotated[
    Path | None,
    typer.Option("--bundle", help="Write the bundle to a file instead of publishing it."),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """Who grants: this domain's authority, or a gateway from its key file.

    Attributes:
        key: Signs.
        gateway: The gateway's file, if it is one.
    """

    key: SigningKey
    gateway: DeviceKey | None = None


def choose_issuer(context: Context, issuer: Path | None) -> Issuer:
    """Choose who grants.

    Raises:
        ConfigError: There is no such key.
    """
    if issuer is None:
        return Issuer(key=context.authority_key())
    gateway = DeviceKey.load(issuer)
    return Issuer(key=gateway.key, gateway=gateway)


def parse_client_id(text: str) -> ClientIdRule | None:
    """Read the command line's client-id rule.

    Raises:
        FormatError: Not one.
    """
    if not text:
        return None
    if text == "*":
        return ClientIdRule(ClientIdMatch.ANY)
    if text.endswith("*"):
        return check_client_id_rule(ClientIdRule(ClientIdMatch.PREFIX, text[:-1]))
    return check_client_id_rule(ClientIdRule(ClientIdMatch.EXACT, text))


def check_filters(*filters: Iterable[str] | None) -> None:
    """Say what is wrong with a topic filter: only `#` at its end and `+` alone are wildcards.

    Raises:
        FormatError: Not a filter (MQTT 5 §4.7.1).
    """
    for text in (one for some in filters for one in some or ()):
        levels = text.split("/")
        if any("#" in level for level in levels[:-1]):
            raise FormatError(f"`{text}` is not a topic filter: `#` may only stand last")
        if any("#" in level and level != "#" for level in levels):
            raise FormatError(f"`{text}` is not a topic filter: `#` must be a level of its own")
        if any("+" in level and level != "+" for level in levels):
            raise FormatError(f"`{text}` is not a topic filter: `+` must be a level of its own")


def broker_audiences(context: Context) -> list[str]:
    """Return every audience of the configured brokers, as grants list them.

    Raises:
        ConfigError: No broker is configured.
    """
    domain = context.node().domain_id
    audiences = [
        str(Audience(domain, endpoint))
        for broker in context.settings().brokers
        for endpoint in broker.endpoints
    ]
    if not audiences:
        raise ConfigError("no [[broker]] is configured: a device password needs one")
    return list(dict.fromkeys(audiences))


def issue(
    context: Context,
    issuer: Issuer,
    *,
    subject: Subject,
    scope: Scope,
    life: str,
    depth: int,
    client_id: ClientIdRule | None,
    forms: Iterable[Form] = (),
    audiences: Iterable[str] = (),
) -> Grant:
    """Sign a grant that begins now; without an end it is renewed until it is revoked."""
    now = context.clock.now()
    life_s = parse_life(life, now=now) if life else DEVICE_LIFE_S
    return sign_grant(
        issuer.key,
        subject=subject,
        scope=scope,
        issued_at=now,
        expires_at=now + life_s,
        depth=depth,
        client_id=client_id,
        forms=forms,
        audiences=audiences,
    )


def parse_life(text: str, *, now: int) -> int:
    """Read for how long, or until the end of which day (UTC), a grant is to count; seconds.

    Raises:
        FormatError: Neither, or a day that is over.
    """
    try:
        day = datetime.fromisoformat(text) if _DATE.fullmatch(text) else None
    except ValueError as error:
        raise FormatError(f"`{text}` is no day") from error
    if day is None:
        life_s = parse_duration(text)
    else:
        life_s = int((day.replace(tzinfo=UTC) + timedelta(days=1)).timestamp()) - now
    if life_s <= 0:
        raise FormatError(f"`{text}` is over")
    # A life of exactly the standing length would say that it is to be renewed.
    return life_s - (life_s in STANDING_LIVES_S)


def bundle_of(
    context: Context,
    issuer: Issuer,
    grant: Grant,
    remembered: keystore.Subject | None,
) -> Bundle:
    """Bundle a grant with the DHT record of all current grants of that issuer and subject."""
    earlier = remembered.grants if remembered else []
    return grant_bundle(
        issuer.key,
        grant,
        earlier=[verify_grant(decode_base64url(one)) for one in earlier],
        now_us=context.clock.now_us(),
    )


def hand_out(context: Context, bundle: Bundle, target: Path | None) -> tuple[bool, str]:
    """Publish a bundle or write it to a file; say which.

    Raises:
        StoreError: The file cannot be written.
        AuthdError: The daemon refused.
    """
    if target is None:
        online = context.publish(bundle)
        return online, context.published_line(online=online)
    try:
        target.write_bytes(encode_bundle(bundle))
    except OSError as error:
        raise StoreError(f"cannot write `{target}`: {error.strerror}") from error
    return False, f"not published: give `{target}` to any daemon with `authd publish`"


def remember(
    context: Context,
    subject: keystore.Subject,
    grant: Grant,
) -> None:
    """Keep what was issued, for revocation, renewal and names."""
    held = context.keystore.subject(subject.name) or subject
    grants = [*held.grants, encode_base64url(grant.encoded)]
    context.keystore.save_subject(replace(held, grants=grants))
