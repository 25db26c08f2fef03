"""Issuing: from keys and wishes to bundles that anyone may publish.

A bundle is what an issuer hands out: statements, and pre-signed DHT records that hold them. It
needs no network and no daemon, so an offline gateway can issue; whoever gets the bundle to a daemon
publishes it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from authd.core import limits
from authd.core.claims import Kind
from authd.core.encoding import CborValue, decode, encode
from authd.core.grants import Grant
from authd.core.identity import ID_BYTES, KEY_BYTES, DomainId, PublicKey, SigningKey
from authd.core.policy import FULL_SCOPE
from authd.core.records import Record, RecordKind, encode_record, make_record, record_salt, seal
from authd.core.roots import Authority, Root, RootClaims, sign_root
from authd.core.statements import Revoke, sign_revoke
from authd.core.topics import (
    NO_ACTION,
    POWER_ADMIN,
    POWER_NODE,
    POWER_REVOKE,
    Action,
    Scope,
    check_granted_filter,
    make_scope,
)
from authd.core.trust import subject_id
from authd.errors import FormatError
from authd.service.ports import Item

DEVICE_LIFE_S: Final = 90 * 86_400
NODE_LIFE_S: Final = 365 * 86_400
STANDING_LIVES_S: Final = frozenset({DEVICE_LIFE_S, NODE_LIFE_S})
"""A grant of exactly such a life is renewed until it is revoked; any other ends when it says."""
ROOT_LIFE_S: Final = 10 * 365 * 86_400
_BUNDLE_VERSION: Final = 1
_MAX_BUNDLE_ITEMS: Final = 64
_PLACEHOLDER: Final = re.compile(r"\{([a-z]+)\}")
MAX_BUNDLE_BYTES: Final = 128 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Statements and the records that carry them."""

    statements: tuple[Item, ...] = ()
    records: tuple[bytes, ...] = ()


def encode_bundle(bundle: Bundle) -> bytes:
    """Encode a bundle: ``[1, [[kind, statement], …], [record, …]]``."""
    statements: list[CborValue] = [[int(item.kind), item.data] for item in bundle.statements]
    return encode([_BUNDLE_VERSION, statements, list(bundle.records)])


def decode_bundle(data: bytes) -> Bundle:
    """Read a bundle; nothing in it is verified.

    Raises:
        FormatError: Not a bundle.
        LimitError: Longer than ``MAX_BUNDLE_BYTES``.
    """
    match decode(data, max_bytes=MAX_BUNDLE_BYTES):
        case [1, [*statements], [*records]] if (
            len(statements) <= _MAX_BUNDLE_ITEMS and len(records) <= _MAX_BUNDLE_ITEMS
        ):
            return Bundle(
                statements=tuple(map(_decode_item, statements)),
                records=tuple(map(_decode_bytes, records)),
            )
        case _:
            raise FormatError("not a bundle of statements and records")


def _decode_item(item: CborValue) -> Item:
    match item:
        case [int() as kind, bytes() as data] if kind in list(Kind):
            return Item(Kind(kind), data)
        case _:
            raise FormatError("bundle: not a kind and a statement")


def _decode_bytes(item: CborValue) -> bytes:
    if isinstance(item, bytes):
        return item
    raise FormatError("bundle: a record that is not a byte string")


def grants_record(issuer: SigningKey, grants: Iterable[Grant], *, now_us: int) -> Record:
    """Seal and sign the record of an issuer's grants to one subject.

    Args:
        issuer: Who gave them all.
        grants: 1 to ``limits.MAX_GRANTS_PER_PAIR``, of one subject; the newest are kept.
        now_us: Becomes the record's seq.

    Raises:
        LimitError: They do not fit one record.
    """
    newest = sorted(grants, key=lambda one: one.issued_at)[-limits.MAX_GRANTS_PER_PAIR :]
    subject = subject_id(newest[0].subject)
    content = encode([grant.encoded for grant in newest])
    return make_record(
        issuer,
        salt=record_salt(RecordKind.GRANTS, issuer.public, subject),
        seq=now_us,
        content=seal(content, issuer=issuer.public, subject_id=subject),
        expires_at=max(grant.expires_at for grant in newest),
    )


def grant_bundle(
    issuer: SigningKey,
    grant: Grant,
    *,
    earlier: Iterable[Grant],
    now_us: int,
) -> Bundle:
    """Bundle a new grant with the record of all current grants of that issuer and subject."""
    now = now_us // 1_000_000
    current = [
        one
        for one in earlier
        if one.expires_at > now
        and one.subject == grant.subject
        and one.issuer == grant.issuer
        and one.statement_id != grant.statement_id
    ]
    record = grants_record(issuer, [*current, grant], now_us=now_us)
    return Bundle(
        statements=(Item(Kind.GRANT, grant.encoded),),
        records=(encode_record(record),),
    )


def self_revocation(key: SigningKey, *, issued_at: int) -> Revoke:
    """Pre-sign a key's revocation of itself, to be kept by the operator."""
    return sign_revoke(key, target=key.public, issued_at=issued_at)


def parse_topic_scope(
    publish: Iterable[str],
    subscribe: Iterable[str],
    *,
    names: dict[str, str],
    serve: Iterable[str] = (),
) -> Scope:
    """Build a scope from the command line's filters; ``{name}`` is expanded, never signed.

    Raises:
        FormatError: Not a filter, or an unknown placeholder.
    """
    entries: dict[str, Action] = {}
    asked = ((publish, Action.PUB), (subscribe, Action.SUB), (serve, Action.SERVE))
    for filters, action in asked:
        for template in filters:
            topic_filter = check_granted_filter(_expand(template, names))
            entries[topic_filter] = entries.get(topic_filter, NO_ACTION) | action
    if not entries:
        raise FormatError("nothing is granted: name a topic with --pub, --sub or --serve")
    return make_scope(entries)


def _expand(template: str, names: dict[str, str]) -> str:
    # Not `str.format`: that would also reach into the attributes of a name.
    expanded = _PLACEHOLDER.sub(lambda found: names.get(found[1], found[0]), template)
    if "{" in expanded or "}" in expanded:
        known = ", ".join(f"{{{name}}}" for name in names)
        raise FormatError(f"`{template}`: a placeholder is one of {known}")
    return expanded


def first_root(
    root_key: SigningKey,
    *,
    authority: PublicKey,
    heartbeat: PublicKey,
    publisher: PublicKey,
    now: int,
) -> Root:
    """Make version 1 of a domain's root: one root key, one authority with every right."""
    expires_at = now + ROOT_LIFE_S
    claims = RootClaims(
        version=1,
        previous=None,
        root_keys=(root_key.public,),
        threshold=1,
        authorities=(
            Authority(
                key=authority,
                scope=FULL_SCOPE,
                depth=limits.MAX_PATH_GRANTS,
                expires_at=expires_at,
            ),
        ),
        heartbeat_keys=(heartbeat,),
        publisher=publisher,
        next_publisher=publisher,
        expires_at=expires_at,
    )
    return sign_root(claims, previous=None, keys=(root_key,))


def next_root(
    previous: Root,
    root_keys: Iterable[SigningKey],
    *,
    heartbeat_keys: tuple[PublicKey, ...],
) -> Root:
    """Make the next version of a root with other heartbeat keys.

    Raises:
        FormatError: Not 1, 3 or 5 distinct keys.
        SignatureError: ``root_keys`` do not reach the threshold.
    """
    claims = RootClaims(
        version=previous.version + 1,
        previous=previous.statement_id,
        root_keys=previous.root_keys,
        threshold=previous.threshold,
        authorities=previous.authorities,
        heartbeat_keys=heartbeat_keys,
        publisher=previous.next_publisher,
        next_publisher=previous.next_publisher,
        expires_at=previous.expires_at,
    )
    return sign_root(claims, previous=previous, keys=tuple(root_keys))


def power_scope(*powers: str) -> Scope:
    """Return the scope that names ``$authd/…`` powers."""
    return make_scope(dict.fromkeys(powers, Action.PUB))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """What a new daemon needs to join; a secret, shown once.

    Attributes:
        domain: The domain it joins.
        seed: Of its node key, which is also the operator's key if ``operator``.
        operator: Whether the key may revoke and administer.
        roots: Every version of the root, first to newest, encoded.
        grants: The node key's grants, encoded.
        publisher: Who publishes the domain's root record.
        peers: Up to 8 addresses, ``host:port``.
    """

    domain: DomainId
    seed: bytes = field(repr=False)
    operator: bool
    roots: tuple[bytes, ...]
    grants: tuple[bytes, ...]
    publisher: bytes
    peers: tuple[str, ...]


_TICKET_VERSION: Final = 1
MAX_TICKET_BYTES: Final = 16 * 1024
MAX_TICKET_PEERS: Final = 8


def encode_ticket(ticket: Ticket) -> bytes:
    """Encode a ticket."""
    return encode(
        [
            _TICKET_VERSION,
            ticket.domain,
            ticket.seed,
            int(ticket.operator),
            list(ticket.roots),
            list(ticket.grants),
            ticket.publisher,
            list(ticket.peers),
        ],
    )


def decode_ticket(data: bytes) -> Ticket:
    """Read a ticket; what it carries is verified where it is used.

    Raises:
        FormatError: Not a ticket.
        LimitError: Longer than ``MAX_TICKET_BYTES``.
    """
    match decode(data, max_bytes=MAX_TICKET_BYTES):
        case [
            1,
            bytes() as domain,
            bytes() as seed,
            0 | 1 as operator,
            [*roots],
            [*grants],
            bytes() as publisher,
            [*peers],
        ] if (
            len(peers) <= MAX_TICKET_PEERS
            and (len(domain), len(seed), len(publisher)) == (ID_BYTES, KEY_BYTES, KEY_BYTES)
            and all(isinstance(peer, str) for peer in peers)
        ):
            return Ticket(
                domain=DomainId(domain),
                seed=seed,
                operator=bool(operator),
                roots=tuple(map(_decode_bytes, roots)),
                grants=tuple(map(_decode_bytes, grants)),
                publisher=publisher,
                peers=tuple(peer for peer in peers if isinstance(peer, str)),  # all of them
            )
        case _:
            raise FormatError("not a ticket: copy it whole, from `authd invite`")


def node_scope(*, operator: bool) -> Scope:
    """Return what a node is granted; an operator's may also revoke and administer."""
    powers = (POWER_NODE, POWER_REVOKE, POWER_ADMIN) if operator else (POWER_NODE,)
    return power_scope(*powers)
