"""Frames of a gossip stream as bytes: one deterministic CBOR array each, ``[kind, …]``.

See ``docs/spec/gossip.md``; the values are in `authd.gossip.messages`.
"""

from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from authd.core import limits
from authd.core.addresses import is_address
from authd.core.claims import Kind
from authd.core.encoding import CborValue, decode, encode
from authd.core.identity import (
    ID_BYTES,
    KEY_BYTES,
    SIGNATURE_BYTES,
    DomainId,
    StatementId,
    admit_key,
)
from authd.errors import FormatError
from authd.gossip.messages import (
    FINGERPRINT_BYTES,
    MAX_ANNOUNCED,
    MAX_CHAIN_IDS,
    MAX_FRAME_BYTES,
    MAX_ITEMS,
    MAX_RANGE_IDS,
    MAX_RANGES,
    MAX_SAMPLES,
    MAX_SHOWN_GRANTS,
    MAX_WANTED,
    NONCE_BYTES,
    TOKEN_BYTES,
    VERSION,
    Ask,
    ChainAsk,
    ChainPart,
    Deliver,
    Frame,
    FrameKind,
    Have,
    Hello,
    Peers,
    Proof,
    Push,
    Range,
    Reconcile,
    Sample,
    Tick,
    Want,
)
from authd.service.ports import Item

_MAX_COUNT: Final = 2**32
_T = TypeVar("_T")


def encode_frame(frame: Frame) -> bytes:  # noqa: PLR0911 - one return a kind
    """Encode a frame."""
    match frame:
        case Hello() | Proof():
            return _encode_introduction(frame)
        case Have() | Ask() | Deliver():
            return _encode_hint(frame)
        case Push():
            return encode([FrameKind.PUSH, _item_values(frame.items)])
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


def _encode_introduction(frame: Hello | Proof) -> bytes:
    if isinstance(frame, Hello):
        return encode([FrameKind.HELLO, VERSION, frame.key, frame.nonce, frame.run])
    return encode([FrameKind.PROOF, frame.signature, list(frame.grants)])


def _encode_hint(frame: Have | Ask | Deliver) -> bytes:
    match frame:
        case Have():
            ids: list[CborValue] = list(frame.ids)
            return encode([FrameKind.HAVE, frame.key, frame.issued_at, ids, frame.signature])
        case Ask():
            return encode([FrameKind.ASK, frame.token, list(frame.ids)])
        case Deliver():
            return encode([FrameKind.DELIVER, frame.token, _item_values(frame.items)])


def _item_values(items: Iterable[Item]) -> list[CborValue]:
    return [[item.kind, item.data] for item in items]


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


def _parse_have(body: list[CborValue]) -> Frame | None:
    match body:
        case [bytes() as key, int() as issued_at, [*entries], bytes() as signature] if (
            len(entries) <= MAX_ANNOUNCED and issued_at >= 0 and len(signature) == SIGNATURE_BYTES
        ):
            ids = _all(entries, _parse_id)
            if ids:
                return Have(key=admit_key(key), issued_at=issued_at, ids=ids, signature=signature)
    return None


def _parse_ask(body: list[CborValue]) -> Frame | None:
    match body:
        case [bytes() as token, [*entries]] if (
            len(token) == TOKEN_BYTES and len(entries) <= MAX_ANNOUNCED
        ):
            ids = _all(entries, _parse_id)
            return None if ids is None else Ask(token, ids)
    return None


def _parse_deliver(body: list[CborValue]) -> Frame | None:
    match body:
        case [bytes() as token, [*entries]] if (
            len(token) == TOKEN_BYTES and len(entries) <= MAX_ITEMS
        ):
            items = _all(entries, _parse_item)
            return None if items is None else Deliver(token, items)
    return None


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
    FrameKind.HAVE: _parse_have,
    FrameKind.ASK: _parse_ask,
    FrameKind.DELIVER: _parse_deliver,
}
