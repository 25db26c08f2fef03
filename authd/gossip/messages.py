"""Frames of a gossip stream as values; `authd.gossip.wire` turns them into bytes and back.

The first two frames of each side are `Hello` and `Proof`: both ends sign one challenge made of both
keys and both nonces, and show the grants that admit them. See ``docs/spec/gossip.md``.
"""

import enum
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

from authd.core import limits
from authd.core.claims import Kind, parse
from authd.core.encoding import encode
from authd.core.identity import (
    DomainId,
    PublicKey,
    SigningKey,
    StatementId,
    verify_signature,
)
from authd.core.roots import parse_root
from authd.errors import ExpiredError
from authd.service.ports import Item

VERSION: Final = 1
# A frame of the largest number of the largest things below, with room to spare.
MAX_FRAME_BYTES: Final = 65_536
NONCE_BYTES: Final = 32
MAX_SHOWN_GRANTS: Final = 4
MAX_ITEMS: Final = 32
MAX_WANTED: Final = 512
MAX_CHAIN_IDS: Final = 2_048
MAX_RANGES: Final = 64
MAX_RANGE_IDS: Final = 48
MAX_SAMPLES: Final = 16
MAX_ANNOUNCED: Final = 64
TOKEN_BYTES: Final = 16
FINGERPRINT_BYTES: Final = 16
HAVE_LIFE_S: Final = 60
# A node that has not been heard of for a day has another address, or none.
SAMPLE_LIFE_S: Final = 86_400
_STREAM_LABEL: Final = b"authd/gossip/1"
_SAMPLE_LABEL: Final = b"authd/peer/1"
_HAVE_LABEL: Final = b"authd/have/1"
_T = TypeVar("_T")


class FrameKind(enum.IntEnum):
    """Frames by their number on the wire."""

    HELLO = 0
    PROOF = 1
    PUSH = 2
    WANT = 3
    RECONCILE = 4
    CHAIN_ASK = 5
    CHAIN = 6
    PEERS = 7
    TICK = 8
    HAVE = 9
    ASK = 10
    DELIVER = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """Who speaks, with a nonce for the challenge and an id of this run of the daemon."""

    key: PublicKey
    nonce: bytes
    run: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The signed challenge, and the grants that admit the signer."""

    signature: bytes
    grants: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Push:
    """Statements for the other side."""

    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Want:
    """Ids of statements the other side has and this one lacks."""

    ids: tuple[StatementId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """One range of the id space, half-open, as its sender holds it.

    Attributes:
        low: First id in it.
        high: First id beyond it; empty for the end of the id space.
        count: How many ids the sender holds in it.
        fingerprint: Of those ids; empty if they are listed.
        ids: Those ids, if there are few.
    """

    low: bytes
    high: bytes
    count: int
    fingerprint: bytes = b""
    ids: tuple[StatementId, ...] = ()


@dataclass(frozen=True, slots=True)
class Reconcile:
    """Ranges to compare."""

    ranges: tuple[Range, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainAsk:
    """Ask for entries ``[start, end)`` of a heartbeat key's list."""

    domain: DomainId
    key: PublicKey
    epoch: int
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainPart:
    """Entries of a heartbeat key's list from ``start`` on; none if they are not known."""

    domain: DomainId
    key: PublicKey
    epoch: int
    start: int
    ids: tuple[StatementId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Where a node listens, signed by itself; says nothing about its admission."""

    key: PublicKey
    address: str
    issued_at: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class Peers:
    """Where other nodes listen; unverified until `verify_sample`."""

    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class Tick:
    """Sent when there is nothing else to say: silence means the stream is dead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Have:
    """Statements that are new at a node, for one that has no stream with it."""

    key: PublicKey
    issued_at: int
    ids: tuple[StatementId, ...]
    signature: bytes


@dataclass(frozen=True, slots=True)
class Ask:
    """Which of the announced statements are wanted; the token goes with their delivery."""

    token: bytes
    ids: tuple[StatementId, ...]


@dataclass(frozen=True, slots=True)
class Deliver:
    """What was asked for."""

    token: bytes
    items: tuple[Item, ...]


Frame: TypeAlias = (
    Hello
    | Proof
    | Push
    | Want
    | Reconcile
    | ChainAsk
    | ChainPart
    | Peers
    | Tick
    | Have
    | Ask
    | Deliver
)


# --- the challenge ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """What both ends of one stream sign: who dialled whom, and both nonces."""

    dialler: Hello
    acceptor: Hello

    def sign(self, key: SigningKey) -> bytes:
        """Sign the challenge as the end that ``key`` is."""
        return key.sign(self._message(key.public))

    def verify(self, signer: PublicKey, signature: bytes) -> None:
        """Verify the other end's signature.

        Raises:
            SignatureError: It does not verify.
        """
        verify_signature(signer, self._message(signer), signature)

    def _message(self, signer: PublicKey) -> bytes:
        ends = [[end.key, end.nonce, end.run] for end in (self.dialler, self.acceptor)]
        return _STREAM_LABEL + encode([signer, *ends])

    def stream_key(self) -> bytes:
        """Return the key of this stream's fingerprints: nobody can know it beforehand."""
        return hashlib.sha256(self.dialler.nonce + self.acceptor.nonce).digest()


# --- samples ------------------------------------------------------------------------------------


def sign_sample(key: SigningKey, *, address: str, issued_at: int) -> Sample:
    """Say where this node listens."""
    message = _sample_message(key.public, address, issued_at)
    signature = key.sign(message)
    return Sample(key=key.public, address=address, issued_at=issued_at, signature=signature)


def verify_sample(sample: Sample, *, now: int) -> Sample:
    """Verify a sample.

    Raises:
        ExpiredError: Older than a day, or from ahead of this host's clock.
        SignatureError: The signature does not verify.
    """
    ahead_s = sample.issued_at - now
    if ahead_s > limits.MAX_ISSUED_AHEAD_S or -ahead_s > SAMPLE_LIFE_S:
        raise ExpiredError("peer sample: not of the last day")
    message = _sample_message(sample.key, sample.address, sample.issued_at)
    verify_signature(sample.key, message, sample.signature)
    return sample


def _sample_message(key: PublicKey, address: str, issued_at: int) -> bytes:
    return _SAMPLE_LABEL + encode([key, address, issued_at])


# --- announcements ------------------------------------------------------------------------------


def sign_have(key: SigningKey, ids: Iterable[StatementId], *, issued_at: int) -> Have:
    """Say which statements are new at this node; at most ``MAX_ANNOUNCED``."""
    listed = tuple(ids)
    signature = key.sign(_have_message(key.public, issued_at, listed))
    return Have(key=key.public, issued_at=issued_at, ids=listed, signature=signature)


def verify_have(have: Have, *, now: int) -> Have:
    """Verify an announcement.

    Raises:
        ExpiredError: Made more than a minute ago, or ahead of this host's clock by as much.
        SignatureError: The signature does not verify.
    """
    if abs(have.issued_at - now) > HAVE_LIFE_S:
        raise ExpiredError("announcement: not of the last minute")
    message = _have_message(have.key, have.issued_at, have.ids)
    verify_signature(have.key, message, have.signature)
    return have


def _have_message(key: PublicKey, issued_at: int, ids: tuple[StatementId, ...]) -> bytes:
    return _HAVE_LABEL + encode([key, issued_at, list(ids)])


def id_of(item: Item) -> StatementId:
    """Return the id of a statement that was verified before.

    Raises:
        FormatError: It was not.
        LimitError: The same.
    """
    if item.kind is Kind.ROOT:
        return parse_root(item.data).statement_id
    return parse(item.kind, item.data).statement_id


# --- batches ------------------------------------------------------------------------------------


def batches(items: Iterable[_T], size: int) -> Iterator[tuple[_T, ...]]:
    """Cut ``items`` into tuples of at most ``size``."""
    batch: list[_T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield tuple(batch)
            batch = []
    if batch:
        yield tuple(batch)
