"""Datagrams of the DHT: one deterministic CBOR array of at most 1 200 bytes, signed by a node key.

``[version, kind, nonce, receiver, body, sender, signature]``. The signature is over the label
``authd/dht/1`` and the encodings of all items before it. An answer repeats the nonce of its
request; ``receiver`` is the id of the node it is meant for, or empty in a first contact, when only
an address is known. See ``docs/spec/dht.md``.
"""

import enum
import hashlib
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from authd.core.encoding import CborValue, decode, encode
from authd.core.identity import (
    KEY_BYTES,
    SIGNATURE_BYTES,
    PublicKey,
    SigningKey,
    admit_key,
    verify_signature,
)
from authd.errors import FormatError

VERSION: Final = 1
# Below the smallest MTU in common use (1 280 B of IPv6) with room for headers and tunnels.
MAX_DATAGRAM_BYTES: Final = 1_200
NODE_ID_BYTES: Final = 20
NONCE_BYTES: Final = 8
SEAL_BYTES: Final = 8
# Sixteen entries of 28 B and the framing stay far below a datagram.
MAX_NODES: Final = 16
MAX_SHOWN_GRANTS: Final = 4
_LABEL: Final = b"authd/dht/1"
_PORT_BYTES: Final = 2
_MAX_SEQ: Final = 2**63 - 1

Address: TypeAlias = tuple[str, int]
"""Numeric host and port."""

# The outer array has fewer than 24 items, so its head is one byte (RFC 8949 §3).
_HEAD_UNSIGNED: Final = encode([0] * 6)[:1]
_HEAD_SIGNED: Final = encode([0] * 7)[:1]
_SIGNATURE_HEAD: Final = encode(bytes(SIGNATURE_BYTES))[:2]
# Heads of array and nonce, version and kind are a byte each.
_NONCE_AT: Final = 4


def node_id(key: PublicKey) -> bytes:
    """Compute a node's place in the id space: SHA-256 of its key, first 20 bytes."""
    return hashlib.sha256(key).digest()[:NODE_ID_BYTES]


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """A node as others tell of it: nothing of it is verified."""

    node_id: bytes
    address: Address


class Kind(enum.IntEnum):
    """Datagram kinds by their number on the wire."""

    PING = 0
    FIND = 1
    STORE = 2
    PONG = 3
    FOUND = 4
    STORED = 5
    RETRY = 6
    REFUSED = 7


class Verdict(enum.IntEnum):
    """What became of a record that was to be stored."""

    ACCEPTED = 0
    STALE = 1
    INVALID = 2
    QUOTA = 3
    TOKEN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """Greet: show grants for one's own admission, ask for the other's from ``offset`` on.

    Attributes:
        cookie: Proves the sender's address; empty if none is known.
        reachable: The sender takes requests and may be put into tables.
        offset: First grant of the receiver's admission path wanted.
        grants: Part of the sender's admission path.
    """

    cookie: bytes = b""
    reachable: bool = True
    offset: int = 0
    grants: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Find:
    """Ask for the record at a target and for nodes near it; ``have_seq`` is -1 for none held."""

    cookie: bytes = b""
    target: bytes
    have_seq: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """Hand over a record; ``token`` is from the receiver's answer to a `Find` of its target."""

    token: bytes
    record: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Pong:
    """Answer to `Ping`: a cookie, how many grants the path has, and those that fit."""

    cookie: bytes
    total: int = 0
    grants: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Answer to `Find`.

    Attributes:
        token: Allows one address to store at the target for some minutes.
        seq: Of the record held; -1 for none.
        record: The record, if it is newer than what the asker has; else empty.
        nodes: Nearest nodes, as many as fit.
    """

    token: bytes
    seq: int = -1
    record: bytes = b""
    nodes: tuple[NodeInfo, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Answer to `Store`: the verdict and the seq held now; -1 for none."""

    verdict: Verdict
    seq: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Answer to a request whose answer needs a proven address: repeat it with this cookie."""

    cookie: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Answer to a node that is not admitted here: greet first, with grants."""


Request: TypeAlias = Ping | Find | Store
Answer: TypeAlias = Pong | Found | Stored | Retry | Refused
Message: TypeAlias = Request | Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Datagram:
    """A verified datagram: ``sender`` signed it."""

    message: Message
    nonce: bytes
    receiver: bytes
    sender: PublicKey

    @property
    def sender_id(self) -> bytes:
        """Id of the sender."""
        return node_id(self.sender)


def seal_datagram(message: Message, *, nonce: bytes, receiver: bytes, key: SigningKey) -> bytes:
    """Encode and sign a message.

    Raises:
        FormatError: Longer than ``MAX_DATAGRAM_BYTES``.
    """
    kind, body = _encode_body(message)
    signed = encode([VERSION, kind, nonce, receiver, body, key.public])[len(_HEAD_UNSIGNED) :]
    data = _HEAD_SIGNED + signed + _SIGNATURE_HEAD + key.sign(_LABEL + signed)
    if len(data) > MAX_DATAGRAM_BYTES:
        raise FormatError(f"datagram: {len(data)} bytes where {MAX_DATAGRAM_BYTES} are allowed")
    return data


def verify_datagram(data: bytes) -> Datagram:
    """Parse and verify a datagram.

    Args:
        data: Untrusted.

    Raises:
        LimitError: Longer than ``MAX_DATAGRAM_BYTES``.
        FormatError: Not the canonical form of a datagram.
        WeakKeyError: The sender fails the point check.
        SignatureError: The signature does not verify.
    """
    match decode(data, max_bytes=MAX_DATAGRAM_BYTES):
        case [
            int() as version,
            int() as kind,
            bytes() as nonce,
            bytes() as receiver,
            [*body],
            bytes() as sender,
            bytes() as signature,
        ] if (
            version == VERSION and len(nonce) == NONCE_BYTES and len(receiver) in {0, NODE_ID_BYTES}
        ):
            pass
        case _:
            raise FormatError("datagram: not the seven items of this version")
    if len(receiver) not in {0, NODE_ID_BYTES}:
        raise FormatError("datagram: a receiver that is no node id")
    message = _parse_body(kind, body)
    key = admit_key(sender)
    end = len(data) - len(_SIGNATURE_HEAD) - SIGNATURE_BYTES
    verify_signature(key, _LABEL + data[len(_HEAD_SIGNED) : end], signature)
    return Datagram(message=message, nonce=nonce, receiver=receiver, sender=key)


def claimed_sender(data: bytes) -> bytes:
    """Return who is said to have signed a datagram, 32 bytes; of junk, anything.

    Good only to choose whom to spend a signature check on.
    """
    end = len(data) - len(_SIGNATURE_HEAD) - SIGNATURE_BYTES
    return data[max(0, end - KEY_BYTES) : max(0, end)]


def claimed_nonce(data: bytes) -> bytes:
    """Return the nonce of a datagram, 8 bytes; of junk, anything."""
    return data[_NONCE_AT : _NONCE_AT + NONCE_BYTES]


def _encode_body(message: Message) -> tuple[Kind, list[CborValue]]:  # noqa: PLR0911 - one return a kind
    match message:
        case Ping():
            reachable = int(message.reachable)
            return Kind.PING, [message.cookie, reachable, message.offset, list(message.grants)]
        case Find():
            return Kind.FIND, [message.cookie, message.target, message.have_seq]
        case Store():
            return Kind.STORE, [message.token, message.record]
        case Pong():
            return Kind.PONG, [message.cookie, message.total, list(message.grants)]
        case Found():
            nodes = [encode_node(node) for node in message.nodes]
            return Kind.FOUND, [message.token, message.seq, message.record, nodes]
        case Stored():
            return Kind.STORED, [message.verdict, message.seq]
        case Retry():
            return Kind.RETRY, [message.cookie]
        case Refused():
            return Kind.REFUSED, []


def encode_node(node: NodeInfo) -> bytes:
    """Encode id, address and port: 26 bytes for IPv4, 38 for IPv6."""
    host, port = node.address
    return node.node_id + ipaddress.ip_address(host).packed + port.to_bytes(_PORT_BYTES, "big")


def _parse_node(item: CborValue) -> NodeInfo:
    if not isinstance(item, bytes) or len(item) not in {26, 38}:
        raise FormatError("datagram: a node that is not 26 or 38 bytes")
    host = ipaddress.ip_address(item[NODE_ID_BYTES:-_PORT_BYTES])
    port = int.from_bytes(item[-_PORT_BYTES:], "big")
    if host.is_unspecified or host.is_multicast or port == 0:
        raise FormatError("datagram: a node at an address nobody can be reached at")
    return NodeInfo(item[:NODE_ID_BYTES], (str(host), port))


def _parse_body(kind: int, body: list[CborValue]) -> Message:
    parser = _PARSERS.get(kind)
    if parser is None:
        raise FormatError(f"datagram: kind {kind} is not one of ours")
    message = parser(body)
    if message is None:
        raise FormatError(f"datagram: not the body of kind {kind}")
    return message


def _grants(items: list[CborValue]) -> tuple[bytes, ...] | None:
    grants = tuple(item for item in items if isinstance(item, bytes))
    return grants if len(grants) == len(items) <= MAX_SHOWN_GRANTS else None


def _is_seq(seq: int) -> bool:
    return -1 <= seq <= _MAX_SEQ


def _is_cookie(cookie: bytes) -> bool:
    return len(cookie) in {0, SEAL_BYTES}


def _parse_ping(body: list[CborValue]) -> Message | None:
    match body:
        case [bytes() as cookie, int() as reachable, int() as offset, [*items]] if (
            _is_cookie(cookie) and reachable in {0, 1} and 0 <= offset <= MAX_SHOWN_GRANTS
        ):
            grants = _grants(items)
            if grants is not None:
                flag = bool(reachable)
                return Ping(cookie=cookie, reachable=flag, offset=offset, grants=grants)
    return None


def _parse_find(body: list[CborValue]) -> Message | None:
    match body:
        case [bytes() as cookie, bytes() as target, int() as have_seq] if (
            _is_cookie(cookie) and len(target) == NODE_ID_BYTES and _is_seq(have_seq)
        ):
            return Find(cookie=cookie, target=target, have_seq=have_seq)
    return None


def _parse_store(body: list[CborValue]) -> Message | None:
    match body:
        case [bytes() as token, bytes() as record] if len(token) == SEAL_BYTES:
            return Store(token=token, record=record)
    return None


def _parse_pong(body: list[CborValue]) -> Message | None:
    match body:
        case [bytes() as cookie, int() as total, [*items]] if (
            len(cookie) == SEAL_BYTES and 0 <= total <= MAX_SHOWN_GRANTS
        ):
            grants = _grants(items)
            if grants is not None:
                return Pong(cookie=cookie, total=total, grants=grants)
    return None


def _parse_found(body: list[CborValue]) -> Message | None:
    match body:
        case [bytes() as token, int() as seq, bytes() as record, [*nodes]] if (
            len(token) == SEAL_BYTES and _is_seq(seq) and len(nodes) <= MAX_NODES
        ):
            parsed = tuple(map(_parse_node, nodes))
            return Found(token=token, seq=seq, record=record, nodes=parsed)
    return None


def _parse_stored(body: list[CborValue]) -> Message | None:
    match body:
        case [int() as verdict, int() as seq] if verdict in list(Verdict) and _is_seq(seq):
            return Stored(verdict=Verdict(verdict), seq=seq)
    return None


def _parse_retry(body: list[CborValue]) -> Message | None:
    match body:
        case [bytes() as cookie] if len(cookie) == SEAL_BYTES:
            return Retry(cookie=cookie)
    return None


def _parse_refused(body: list[CborValue]) -> Message | None:
    return None if body else Refused()


_PARSERS: Final[dict[int, Callable[[list[CborValue]], Message | None]]] = {
    Kind.PING: _parse_ping,
    Kind.FIND: _parse_find,
    Kind.STORE: _parse_store,
    Kind.PONG: _parse_pong,
    Kind.FOUND: _parse_found,
    Kind.STORED: _parse_stored,
    Kind.RETRY: _parse_retry,
    Kind.REFUSED: _parse_refused,
}
