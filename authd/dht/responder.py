"""What a node answers: a function of the request, what it holds, and the time. No I/O."""

from collections.abc import Sequence
from typing import Final, assert_never

from authd.core.identity import PublicKey
from authd.core.records import encode_record, verify_record
from authd.dht.gate import Gate
from authd.dht.messages import (
    MAX_DATAGRAM_BYTES,
    MAX_NODES,
    MAX_SHOWN_GRANTS,
    Address,
    Answer,
    Datagram,
    Find,
    Found,
    NodeInfo,
    Ping,
    Pong,
    Refused,
    Request,
    Retry,
    Store,
    Stored,
    Verdict,
    encode_node,
)
from authd.dht.seals import Seals
from authd.dht.shelf import Shelf
from authd.dht.table import Table
from authd.errors import (
    FormatError,
    LimitError,
    StaleRecordError,
    StoreError,
    VerificationError,
)

# Envelope (133 B) and the heads of a body's items, rounded up.
_FRAMING_BYTES: Final = 165
_ITEM_HEAD_BYTES: Final = 3
# More than this multiple of a request goes only to a proven address.
MAX_AMPLIFICATION: Final = 3


def fit_grants(grants: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return the first grants that fit one datagram."""
    left = MAX_DATAGRAM_BYTES - _FRAMING_BYTES
    fitting: list[bytes] = []
    for grant in grants[:MAX_SHOWN_GRANTS]:
        left -= len(grant) + _ITEM_HEAD_BYTES
        if left < 0:
            break
        fitting.append(grant)
    return tuple(fitting)


class Responder:
    """Answers requests from what this node holds."""

    def __init__(self, *, table: Table, shelf: Shelf, seals: Seals, gate: Gate) -> None:
        """Answer from ``table`` and ``shelf``, for nodes that ``gate`` lets in."""
        self._table = table
        self._shelf = shelf
        self._seals = seals
        self._gate = gate

    def answer(
        self,
        request: Datagram,
        address: Address,
        *,
        now: int,
        monotonic: float,
        chance: float,
    ) -> Answer:
        """Answer a verified request.

        Args:
            request: Verified; its message is a request.
            address: Where it came from; nothing proves it but a cookie or token inside.
            now: Seconds since the Unix epoch.
            monotonic: Seconds on a clock that never runs back.
            chance: From [0, 1).
        """
        message = request.message
        if not isinstance(message, Request):
            raise FormatError("datagram: an answer to nothing that was asked")
        proven = self.proves(message, address, monotonic=monotonic)
        admitted = self._gate.admits(request.sender, now=monotonic)
        match message:
            case Ping():
                if not admitted and not proven:
                    return self.retry(address, monotonic=monotonic)
                return self._greet(message, request.sender, address, monotonic)
            case Find() | Store() if not admitted:
                return Refused()
            case Find():
                return self._find(message, request, address, now=now, monotonic=monotonic)
            case Store():
                return self._store(message, address, now=now, monotonic=monotonic, chance=chance)
            case _:
                assert_never(message)

    def proves(self, message: Request, address: Address, *, monotonic: float) -> bool:
        """Say whether a request proves that its sender receives at ``address``."""
        if isinstance(message, Store):
            return False  # its token is checked with its target, and the answer is small
        return self._seals.is_cookie(message.cookie, address, now=monotonic)

    def retry(self, address: Address, *, monotonic: float) -> Retry:
        """Ask for the request again, with a cookie."""
        return Retry(cookie=self._seals.cookie(address, now=monotonic))

    def _greet(self, ping: Ping, sender: PublicKey, address: Address, monotonic: float) -> Pong:
        if ping.grants and not self._gate.admits(sender, now=monotonic):
            self._gate.learn(ping.grants)
        shown = self._gate.grants()[:MAX_SHOWN_GRANTS]
        return Pong(
            cookie=self._seals.cookie(address, now=monotonic),
            total=len(shown),
            grants=fit_grants(shown[ping.offset :]),
        )

    def _find(
        self,
        find: Find,
        request: Datagram,
        address: Address,
        *,
        now: int,
        monotonic: float,
    ) -> Found:
        held = self._shelf.get(find.target, now=now)
        record = encode_record(held) if held and held.seq > find.have_seq else b""
        nearest = self._table.nearest(
            find.target,
            count=MAX_NODES,
            exclude=frozenset({request.sender_id}),
        )
        return Found(
            token=self._seals.token(address, find.target, now=monotonic),
            seq=held.seq if held else -1,
            record=record,
            nodes=_fit_nodes([NodeInfo(c.node_id, c.address) for c in nearest], len(record)),
        )

    def _store(
        self,
        store: Store,
        address: Address,
        *,
        now: int,
        monotonic: float,
        chance: float,
    ) -> Stored:
        try:
            record = verify_record(store.record, now=now)
        except (FormatError, LimitError, StaleRecordError, VerificationError):
            return Stored(verdict=Verdict.INVALID)
        if not self._seals.is_token(store.token, address, record.target, now=monotonic):
            return Stored(verdict=Verdict.TOKEN)
        try:
            verdict = self._shelf.take(record, now=now, chance=chance)
        except StoreError:
            verdict = Verdict.QUOTA  # what cannot be made durable is not acknowledged
        held = self._shelf.get(record.target, now=now)
        return Stored(verdict=verdict, seq=held.seq if held else -1)


def _fit_nodes(nodes: Sequence[NodeInfo], record_bytes: int) -> tuple[NodeInfo, ...]:
    left = MAX_DATAGRAM_BYTES - _FRAMING_BYTES - record_bytes
    fitting: list[NodeInfo] = []
    for node in nodes:
        left -= len(encode_node(node)) + _ITEM_HEAD_BYTES
        if left < 0:
            break
        fitting.append(node)
    return tuple(fitting)
