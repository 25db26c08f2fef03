"""Rendezvous records: where a node's gossip listens, in that node's own slot of the DHT.

A node writes one record for each of its domains; readers who hold its admission grant know its key
and so the address of the record. See ``docs/spec/records.md``.
"""

import hashlib
from collections.abc import Iterable
from typing import Final

from authd.core import limits
from authd.core.addresses import is_address
from authd.core.encoding import decode, encode
from authd.core.identity import DomainId, PublicKey, SigningKey
from authd.core.records import Record, RecordKind, make_record, record_salt
from authd.errors import FormatError, LimitError

SLOTS: Final = 64
LIFE_S: Final = 3_600
MAX_ADDRESSES: Final = 4
_MICROSECONDS: Final = 1_000_000


def slot_of(node: PublicKey) -> int:
    """Return a node's slot: the first byte of SHA-256 of its key, modulo ``SLOTS``."""
    return hashlib.sha256(node).digest()[0] % SLOTS


def rendezvous_salt(domain: DomainId, node: PublicKey) -> bytes:
    """Compute the salt of a node's rendezvous record in a domain; 20 bytes."""
    return record_salt(RecordKind.RENDEZVOUS, node, domain, bytes([slot_of(node)]))


def make_rendezvous(
    key: SigningKey,
    *,
    domain: DomainId,
    addresses: Iterable[str],
    now_us: int,
) -> Record:
    """Sign where a node's gossip listens; the record lives for ``LIFE_S``.

    Args:
        key: The node key.
        domain: The domain whose nodes may look for it.
        addresses: 1 to ``MAX_ADDRESSES`` of ``host:port``.
        now_us: Microseconds since the Unix epoch.

    Raises:
        LimitError: They do not fit.
        FormatError: One of them is no address, or there are none or too many.
    """
    content = encode(_check(list(addresses)))
    return make_record(
        key,
        salt=rendezvous_salt(domain, key.public),
        seq=now_us,
        content=content,
        expires_at=now_us // _MICROSECONDS + LIFE_S,
    )


def read_rendezvous(record: Record, *, domain: DomainId) -> tuple[str, ...]:
    """Read where a node's gossip listens, by its own word.

    Args:
        record: Verified.
        domain: In which domain it was looked for.

    Raises:
        FormatError: Not a rendezvous record of its publisher in that domain.
        LimitError: It claims a longer life than such a record has.
    """
    if record.salt != rendezvous_salt(domain, record.publisher):
        raise FormatError("rendezvous: not in its publisher's slot of this domain")
    if record.expires_at - record.seq // _MICROSECONDS > LIFE_S:
        raise LimitError(f"rendezvous: it would live for more than {LIFE_S} s")
    items = decode(record.content, max_bytes=limits.MAX_RECORD_VALUE_BYTES)
    if not isinstance(items, list):
        raise FormatError("rendezvous: not a list of addresses")
    return tuple(_check(items))


def _check(items: list[object] | list[str]) -> list[str]:
    if not 1 <= len(items) <= MAX_ADDRESSES:
        raise FormatError(f"rendezvous: {len(items)} addresses where 1 to {MAX_ADDRESSES} belong")
    addresses = [one for one in items if isinstance(one, str) and is_address(one)]
    if len(addresses) != len(items):
        raise FormatError("rendezvous: an address that nobody could dial")
    return addresses
