"""What this host knows of what it issued: names, what is revoked, and until when the rest counts.

All of it is read from files, so that it can be said whether or not a daemon runs.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from authd.cli.context import Context
from authd.core.claims import Kind
from authd.core.encoding import decode_base64url, encode_base64url
from authd.core.grants import Grant, verify_grant
from authd.core.identity import PublicKey, key_id_text
from authd.core.statements import Revoke, verify_revoke
from authd.errors import AuthdError, ConflictError, FormatError, RevokedError
from authd.outbox import Outbox
from authd.service.issuing import decode_bundle
from authd.service.ports import Item
from authd.store.keystore import AUTHORITY, Subject
from authd.store.sqlite import SqliteStore

_FEW: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What is known of a subject.

    Attributes:
        state: ``valid``, ``revoked`` or ``expired``.
        until: When the last of its grants ends, in seconds since the Unix epoch; 0 if unknown.
    """

    name: str
    key_id: str
    form: str
    state: str
    until: int


# --- names ------------------------------------------------------------------------------------


def names_of(context: Context) -> dict[str, str]:
    """Return the names known here, by key id and by the ids of what was granted under them.

    Raises:
        ConfigError: A subject's file is damaged.
    """
    names: dict[str, str] = {}
    for subject in context.keystore.subjects():
        if subject.key:
            names[id_of(subject)] = subject.name
        for grant in _own_grants(subject):
            names[encode_base64url(grant.statement_id)] = subject.name
    return names


def id_of(subject: Subject) -> str:
    """Return the key id of a subject, or the id of its certificate's digest.

    Raises:
        FormatError: What is known of it is damaged.
    """
    return key_id_text(PublicKey(decode_base64url(subject.key)))


def _own_grants(subject: Subject) -> list[Grant]:
    try:
        return [verify_grant(decode_base64url(one)) for one in subject.grants]
    except AuthdError as error:
        raise FormatError(f"what is known of `{subject.name}` is damaged") from error


# --- revocations ------------------------------------------------------------------------------


def refuse_revoked_key(context: Context, key: PublicKey, called: str) -> None:
    """Raise if a key is revoked: nothing that is granted to it would ever count.

    Raises:
        RevokedError: It is revoked, or a revocation of it waits for the daemon.
    """
    if key in revoked_targets(context, [key]):
        raise RevokedError(
            f"key `{key_id_text(key)}` of `{called}` is revoked and never comes back: make a new"
            " one with `authd device new`, which takes the name over",
        )


def revoked_targets(context: Context, targets: Iterable[bytes]) -> frozenset[bytes]:
    """Return which of these keys and grant ids are revoked, as far as this host knows.

    Raises:
        AuthdError: The store or the outbox cannot be read.
    """
    wanted = frozenset(targets)
    authority = context.keystore.load(AUTHORITY).public if context.keystore.has(AUTHORITY) else None
    return frozenset(
        revoke.target
        for revoke in _revocations(context, wanted)
        if revoke.target in wanted and _counts(revoke, authority)
    )


def _counts(revoke: Revoke, authority: PublicKey | None) -> bool:
    """Say whether a revocation is the key's own word, or this domain's."""
    speaks_for = revoke.revoker_grant.issuer if revoke.revoker_grant else revoke.issuer
    return revoke.issuer == revoke.target or speaks_for == authority


def _revocations(context: Context, wanted: frozenset[bytes]) -> Iterator[Revoke]:
    for item in (*_stored(context, Kind.REVOKE), *_waiting(context)):
        # Checking a signature takes a thousand times as long as looking for a few ids.
        if len(wanted) <= _FEW and not any(one in item.data for one in wanted):
            continue
        try:
            yield verify_revoke(item.data)
        except AuthdError as error:
            raise FormatError("a revocation that is kept here is damaged") from error


def _stored(context: Context, kind: Kind) -> list[Item]:
    path = context.state_dir / "authd.db"
    if not path.exists():
        return []
    with SqliteStore(path) as store:
        return [Item(kind, one.data) for one in store.load_statements() if one.kind is kind]


def _waiting(context: Context) -> Iterator[Item]:
    outbox = Outbox(context.state_dir)
    for path in outbox.pending():
        try:
            bundle = decode_bundle(outbox.read(path))
        except AuthdError:
            continue  # the daemon puts it aside and says so; nothing in it will count
        yield from (one for one in bundle.statements if one.kind is Kind.REVOKE)


# --- names that are free again ----------------------------------------------------------------


def holder_to_set_aside(context: Context, name: str, advice: str) -> Subject | None:
    """Return the revoked subject of a name, which may be given to a new key; None if it is free.

    Raises:
        ConflictError: The subject of that name is not revoked; ends with ``advice``.
    """
    held = context.keystore.subject(name)
    if held is not None and not _is_over(context, held):
        raise ConflictError(f"`{name}` exists already{advice}")
    return held


def _is_over(context: Context, subject: Subject) -> bool:
    if subject.form == "tls":
        # A certificate's key cannot be revoked; what it was granted can.
        ids = {grant.statement_id for grant in _own_grants(subject)}
        return revoked_targets(context, ids) == ids
    key = decode_base64url(subject.key)
    return key in revoked_targets(context, [key])


def set_aside(context: Context, held: Subject) -> str:
    """Keep a revoked subject, with its pre-signed revocation, as ``NAME.1`` and so on.

    Raises:
        StoreError: It cannot be written.
    """
    taken = {one.name for one in context.keystore.subjects()}
    number = next(n for n in range(1, len(taken) + 2) if f"{held.name}.{n}" not in taken)
    context.keystore.save_subject(replace(held, name=f"{held.name}.{number}"))
    return f"{held.name}.{number}"


# --- everything -------------------------------------------------------------------------------


def devices(context: Context) -> list[Device]:
    """Return every device and gateway that was made here, by name.

    Raises:
        AuthdError: What is kept here cannot be read.
    """
    subjects = [one for one in context.keystore.subjects() if one.kind in ("device", "gateway")]
    grants = {subject.name: _own_grants(subject) for subject in subjects}
    renewals = _renewals(context, {g.issuer for held in grants.values() for g in held})
    for subject in subjects:
        grants[subject.name] += renewals.get(decode_base64url(subject.key), [])
    targets = {decode_base64url(subject.key) for subject in subjects}
    targets |= {grant.statement_id for held in grants.values() for grant in held}
    revoked = revoked_targets(context, targets)
    return [_device(context, subject, grants[subject.name], revoked) for subject in subjects]


def _renewals(context: Context, issuers: set[PublicKey]) -> dict[bytes, list[Grant]]:
    """Return what the daemon holds from the issuers of this host, by subject."""
    held: dict[bytes, list[Grant]] = {}
    for item in _stored(context, Kind.GRANT):
        grant = verify_grant(item.data)
        key = getattr(grant.subject, "key", None)
        if grant.issuer in issuers and key is not None:
            held.setdefault(key, []).append(grant)
    return held


def _device(
    context: Context, subject: Subject, grants: list[Grant], revoked: frozenset[bytes]
) -> Device:
    left = [one for one in grants if one.statement_id not in revoked]
    until = max((one.expires_at for one in left or grants), default=0)
    if decode_base64url(subject.key) in revoked or (grants and not left):
        state = "revoked"
    else:
        state = "valid" if until > context.clock.now() else "expired"
    return Device(
        name=subject.name, key_id=id_of(subject), form=subject.form, state=state, until=until
    )
