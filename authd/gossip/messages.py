"""Frames of a gossip stream: one deterministic CBOR array each, ``[kind, …]``.

The first two frames of each side are `Hello` and `Proof`: both ends sign one challenge made of both
keys and both nonces, and show the grants that admit them. See ``docs/spec/gossip.md``.
"""

import enum
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

from authd.core import limits
from authd.core.claims import Kind
from authd.core.encoding import CborValue, decode, encode
from authd.core.identity import (
    ID_BYTES,
    KEY_BYTES,
    SIGNATURE_BYTES,
    DomainId,
    PublicKey,
    SigningKey,
    StatementId,
    admit_key,
    verify_signature,
)
from authd.errors import ExpiredError, FormatError
from authd.service.ports import Item

VERSION: Final = 1
# A frame of the largest number of the largest things below, with room to spare.
MAX_FRAME_BYTES: Final = 65_536
NONCE_BYTES: Final = 32
MAX_ADDRESS_CHARS: Final = 255
MAX_SHOWN_GRANTS: Final = 4
MAX_ITEMS: Final = 32
MAX_WANTED: Final = 512
MAX_CHAIN_IDS: Final = 2_048
MAX_RANGES: Final = 64
MAX_RANGE_IDS: Final = 48
MAX_SAMPLES: Final = 16
FINGERPRINT_BYTES: Final = 16
# A node that has not been heard of for a day has another address, or none.
SAMPLE_LIFE_S: Final = 86_400
_MAX_COUNT: Final = 2**32
_STREAM_LABEL: Final = b"authd/gossip/1"
_SAMPLE_LABEL: Final = b"authd/peer/1"
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


Frame: TypeAlias = Hello | Proof | Push | Want | Reconcile | ChainAsk | ChainPart | Peers | Tick


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


# --- encoding -----------------------------------------------------------------------------------


def encode_frame(frame: Frame) -> bytes:  # noqa: PLR0911 - one return a kind
    """Encode a frame."""
    match frame:
        case Hello():
            return encode([FrameKind.HELLO, VERSION, frame.key, frame.nonce, frame.run])
        case Proof():
            return encode([FrameKind.PROOF, frame.signature, list(frame.grants)])
        case Push():
            items: list[CborValue] = [[item.kind, item.data] for item in frame.items]
            return encode([FrameKind.PUSH, items])
        case Want():
            return encode([FrameKind.WANT, list(frame.ids)])
        case Reconcile():
            return encode([FrameKind.RECONCILE, _range_values(frame.ranges)])
        case ChainAsk():
            start, end = frame.start, frame.end
            return encode([FrameKind.CHAIN_ASK, frame.domain, frame.key, frame.epoch, start, end])
        case ChainPart():
            start, ids = frame.start, list(frame.ids)
            return encode([FrameKind.CHAIN, frame.domain, frame.key, frame.epoch, start, ids])
        case Peers():
            samples: list[CborValue] = [
                [one.key, one.address, one.issued_at, one.signature] for one in frame.samples
            ]
            return encode([FrameKind.PEERS, samples])
        case Tick():
            return encode([FrameKind.TICK])


def _range_values(ranges: tuple[Range, ...]) -> list[CborValue]:
    """Encode ranges; one that begins where the one before it ends leaves its beginning out."""
    values: list[CborValue] = []
    reached = b""
    for one in ranges:
        low = b"" if one.low == reached else one.low
        values.append([low, one.high, one.count, one.fingerprint, list(one.ids)])
        reached = one.high
    return values


def parse_frame(data: bytes) -> Frame:
    """Parse a frame.

    Args:
        data: Untrusted.

    Raises:
        LimitError: Longer than ``MAX_FRAME_BYTES``.
        FormatError: Not the canonical form of a frame.
        WeakKeyError: A key that fails the point check.
    """
    match decode(data, max_bytes=MAX_FRAME_BYTES):
        case [int() as kind, *body] if kind in _PARSERS:
            frame = _PARSERS[kind](body)
        case _:
            raise FormatError("gossip: a frame of no known kind")
    if frame is None:
        raise FormatError(f"gossip: not the body of a `{FrameKind(kind).name.lower()}` frame")
    return frame


def _parse_hello(body: list[CborValue]) -> Frame | None:
    match body:
        case [int() as version, bytes() as key, bytes() as nonce, bytes() as run] if (
            version == VERSION and len(nonce) == NONCE_BYTES and len(run) == ID_BYTES
        ):
            return Hello(key=admit_key(key), nonce=nonce, run=run)
    return None


def _parse_proof(body: list[CborValue]) -> Frame | None:
    match body:
        case [bytes() as signature, [*items]] if (
            len(signature) == SIGNATURE_BYTES and len(items) <= MAX_SHOWN_GRANTS
        ):
            grants = tuple(item for item in items if isinstance(item, bytes))
            return Proof(signature=signature, grants=grants) if len(grants) == len(items) else None
    return None


def _parse_push(body: list[CborValue]) -> Frame | None:
    match body:
        case [[*entries]] if len(entries) <= MAX_ITEMS:
            items = _all(entries, _parse_item)
            return None if items is None else Push(items)
    return None


def _parse_item(entry: CborValue) -> Item | None:
    match entry:
        case [int() as kind, bytes() as data] if (
            kind in list(Kind) and len(data) <= limits.MAX_STATEMENT_BYTES
        ):
            return Item(Kind(kind), data)
    return None


def _parse_id(entry: CborValue) -> StatementId | None:
    match entry:
        case bytes() if len(entry) == ID_BYTES:
            return StatementId(entry)
    return None


def _parse_want(body: list[CborValue]) -> Frame | None:
    match body:
        case [[*entries]] if len(entries) <= MAX_WANTED:
            ids = _all(entries, _parse_id)
            return None if ids is None else Want(ids)
    return None


def _parse_reconcile(body: list[CborValue]) -> Frame | None:
    match body:
        case [[*entries]] if len(entries) <= MAX_RANGES:
            pass
        case _:
            return None
    ranges: list[Range] = []
    for entry in entries:
        one = _parse_range(entry, ranges[-1].high if ranges else b"")
        if one is None:
            return None
        ranges.append(one)
    return Reconcile(tuple(ranges))


def _parse_range(entry: CborValue, reached: bytes) -> Range | None:
    match entry:
        case [
            bytes() as low,
            bytes() as high,
            int() as count,
            bytes() as fingerprint,
            [*listed],
        ] if 0 <= count < _MAX_COUNT and len(listed) <= MAX_RANGE_IDS and low != (reached or None):
            low = low or reached
            ids = _all(listed, _parse_id)
        case _:
            return None
    bounded = len(low) == ID_BYTES and len(high) in {0, ID_BYTES} and (not high or low < high)
    sized = len(fingerprint) == FINGERPRINT_BYTES and not listed
    listing = not fingerprint and count == len(listed)
    if ids is None or not bounded or not (sized or listing):
        return None
    return Range(low=low, high=high, count=count, fingerprint=fingerprint, ids=ids)


def _parse_chain_ask(body: list[CborValue]) -> Frame | None:
    match body:
        case [bytes() as domain, bytes() as key, int() as epoch, int() as start, int() as end] if (
            len(domain) == ID_BYTES
            and epoch >= 0
            and 0 <= start < end <= min(start + MAX_CHAIN_IDS, limits.MAX_CHAIN_ENTRIES)
        ):
            return ChainAsk(
                domain=DomainId(domain),
                key=admit_key(key),
                epoch=epoch,
                start=start,
                end=end,
            )
    return None


def _parse_chain(body: list[CborValue]) -> Frame | None:
    match body:
        case [
            bytes() as domain,
            bytes() as key,
            int() as epoch,
            int() as start,
            [*listed],
        ] if len(domain) == ID_BYTES and min(epoch, start) >= 0 and len(listed) <= MAX_CHAIN_IDS:
            ids = _all(listed, _parse_id)
            if ids is not None:
                return ChainPart(
                    domain=DomainId(domain),
                    key=admit_key(key),
                    epoch=epoch,
                    start=start,
                    ids=ids,
                )
    return None


def _parse_peers(body: list[CborValue]) -> Frame | None:
    match body:
        case [[*entries]] if len(entries) <= MAX_SAMPLES:
            samples = _all(entries, _parse_sample)
            return None if samples is None else Peers(samples)
    return None


def _parse_sample(entry: CborValue) -> Sample | None:
    match entry:
        case [
            bytes() as key,
            str() as address,
            int() as issued_at,
            bytes() as signature,
        ] if is_address(address) and issued_at >= 0 and len(key) == KEY_BYTES:
            return Sample(
                key=admit_key(key),
                address=address,
                issued_at=issued_at,
                signature=signature,
            )
    return None


def _parse_tick(body: list[CborValue]) -> Frame | None:
    return None if body else Tick()


def is_address(text: str) -> bool:
    """Say whether ``text`` is ``host:port`` or ``[IPv6]:port`` that one could dial."""
    host, separator, port = text.rpartition(":")
    plain = host.removeprefix("[").removesuffix("]")
    return bool(
        separator
        and len(text) <= MAX_ADDRESS_CHARS
        and plain
        and all(char.isascii() and (char.isalnum() or char in "-.:_") for char in plain)
        and (":" in plain) == (len(host) - len(plain) == len("[]"))
        and port.isascii()
        and port.isdigit()
        and 0 < int(port) <= _MAX_PORT
    )


_MAX_PORT: Final = 65_535


def _all(
    entries: Iterable[CborValue], parse: Callable[[CborValue], _T | None]
) -> tuple[_T, ...] | None:
    parsed: list[_T] = []
    for entry in entries:
        one = parse(entry)
        if one is None:
            return None
        parsed.append(one)
    return tuple(parsed)


_PARSERS: Final[dict[int, Callable[[list[CborValue]], Frame | None]]] = {
    FrameKind.HELLO: _parse_hello,
    FrameKind.PROOF: _parse_proof,
    FrameKind.PUSH: _parse_push,
    FrameKind.WANT: _parse_want,
    FrameKind.RECONCILE: _parse_reconcile,
    FrameKind.CHAIN_ASK: _parse_chain_ask,
    FrameKind.CHAIN: _parse_chain,
    FrameKind.PEERS: _parse_peers,
    FrameKind.TICK: _parse_tick,
}


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
