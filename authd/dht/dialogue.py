"""Questions and answers over datagrams: who asked what, greetings, cookies, and what comes in.

Every request carries a fresh nonce; an answer counts only if it repeats that nonce, comes from the
address that was asked, and is signed by the node that was meant. Nobody's answer is passed on
before its sender's admission was checked.
"""

import asyncio
import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from authd.core.identity import PublicKey, SigningKey
from authd.dht.gate import Gate
from authd.dht.lookup import timeout_s
from authd.dht.messages import (
    MAX_DATAGRAM_BYTES,
    NONCE_BYTES,
    Address,
    Answer,
    Datagram,
    Ping,
    Pong,
    Refused,
    Request,
    Retry,
    Store,
    claimed_nonce,
    claimed_sender,
    node_id,
    seal_datagram,
    verify_datagram,
)
from authd.dht.rates import RateLimiter
from authd.dht.responder import MAX_AMPLIFICATION, Responder, fit_grants
from authd.dht.table import Contact, Table
from authd.errors import (
    FormatError,
    LimitError,
    NoResponseError,
    RejectedError,
    VerificationError,
)
from authd.service.ports import Clock, Entropy

DEFAULT_RTT_S: Final = 0.1
# Answers later than this are of no use to anyone.
_MAX_WAIT_S: Final = 2.0
# Four grants each way and a cookie need six at most.
_MAX_GREETING_ROUNDS: Final = 8
_MAX_COOKIES: Final = 4_096
_MAX_PENDING: Final = 4_096
_PREFIX_BYTES: Final = 8
# Signatures of strangers are checked so often, however many addresses they come from, true or not:
# three in a hundred of a core's time. A hundred nodes that meet at once stay below.
STRANGERS_PER_S: Final = 200.0
BURST_STRANGERS: Final = 600.0
_STRANGERS: Final = "strangers"
# A request costs up to a millisecond, and decisions wait behind it. A node asks another one a few
# times in a lookup; only a holder that hands records over asks more, and paces itself.
REQUESTS_OF_A_NODE_PER_S: Final = 100.0
BURST_REQUESTS_OF_A_NODE: Final = 400.0


@dataclass(frozen=True, slots=True)
class _Pending:
    contact: Contact
    sent_at: float
    answer: asyncio.Future[Datagram]


def chance(entropy: Entropy) -> float:
    """Draw from [0, 1)."""
    return int.from_bytes(entropy.token(4), "big") / 2**32


def _rate_key(host: str) -> str:
    # A host has all of an IPv6 /64 at its disposal (RFC 4291 §2.5.1).
    if ":" not in host:
        return host
    return ipaddress.IPv6Address(host.partition("%")[0]).packed[:_PREFIX_BYTES].hex()


class Dialogue:
    """Asks other nodes and answers them."""

    def __init__(
        self,
        *,
        key: SigningKey,
        clock: Clock,
        entropy: Entropy,
        gate: Gate,
        table: Table,
        responder: Responder,
        limiter: RateLimiter,
        reachable: bool,
        send: Callable[[bytes, Address], None],
        on_greeting: Callable[[Contact], None],
        on_contact: Callable[[Contact], None],
    ) -> None:
        """Prepare.

        Args:
            key: The node key.
            clock: Time.
            entropy: Nonces.
            gate: Who may take part.
            table: Where admitted contacts go.
            responder: What is answered.
            limiter: What each address may make us work for.
            reachable: Whether others may put this node into their tables.
            send: Sends one datagram.
            on_greeting: Called with an admitted node that greeted and is not in the table.
            on_contact: Called with each new contact in the table.
        """
        self._key = key
        self._own_id = node_id(key.public)
        self._clock = clock
        self._entropy = entropy
        self._gate = gate
        self._table = table
        self._responder = responder
        self._limiter = limiter
        self._reachable = reachable
        self._send = send
        self._on_greeting = on_greeting
        self._on_contact = on_contact
        self._pending: dict[bytes, _Pending] = {}
        self._cookies: OrderedDict[Address, bytes] = OrderedDict()
        self._strangers = RateLimiter(rate_per_s=STRANGERS_PER_S, burst=BURST_STRANGERS)
        self._requests = RateLimiter(
            rate_per_s=REQUESTS_OF_A_NODE_PER_S, burst=BURST_REQUESTS_OF_A_NODE
        )
        self.refusals: Counter[str] = Counter()

    # --- incoming -----------------------------------------------------------------------------

    def receive(self, data: bytes, address: Address) -> None:
        """Take in one untrusted datagram; bad ones are counted, never raised."""
        monotonic = self._clock.monotonic()
        if len(data) > MAX_DATAGRAM_BYTES:
            self.refusals["size"] += 1
        elif not self._limiter.allows(_rate_key(address[0]), now=monotonic):
            self.refusals["rate"] += 1
        elif not (
            self._is_familiar(data, address) or self._strangers.allows(_STRANGERS, now=monotonic)
        ):
            self.refusals["strangers"] += 1
        else:
            try:
                self._dispatch(verify_datagram(data), len(data), address)
            except (FormatError, LimitError, VerificationError) as error:
                self.refusals[error.reason] += 1

    def _is_familiar(self, data: bytes, address: Address) -> bool:
        """Say whether a datagram answers a question of ours, or comes from where a contact is."""
        if claimed_nonce(data) in self._pending:
            return True
        contact = self._table.get(node_id(PublicKey(claimed_sender(data))))
        return contact is not None and contact.address == address

    def _dispatch(self, datagram: Datagram, size: int, address: Address) -> None:
        if isinstance(datagram.message, Request):
            if datagram.receiver == self._own_id or (
                isinstance(datagram.message, Ping) and not datagram.receiver
            ):
                self._answer(datagram, size, address)
            return
        pending = self._pending.get(datagram.nonce)
        if (
            pending is None
            or pending.contact.address != address
            or datagram.receiver != self._own_id
            or pending.contact.node_id not in {b"", datagram.sender_id}
        ):
            raise FormatError("datagram: an answer to nothing that was asked")
        del self._pending[datagram.nonce]
        if not pending.answer.done():
            pending.answer.set_result(datagram)
        self._note_alive(datagram, address, pending.sent_at)

    def _answer(self, request: Datagram, size: int, address: Address) -> None:
        message = request.message
        if not isinstance(message, Request):
            return
        monotonic = self._clock.monotonic()
        if not self._requests.allows(request.sender_id.hex(), now=monotonic):
            self.refusals["requests"] += 1
            return
        answer = self._responder.answer(
            request,
            address,
            now=self._clock.now(),
            monotonic=monotonic,
            chance=chance(self._entropy),
        )
        data = self._seal(answer, request)
        proven = self._responder.proves(message, address, monotonic=monotonic)
        if len(data) > MAX_AMPLIFICATION * size and not proven:
            data = self._seal(self._responder.retry(address, monotonic=monotonic), request)
        self._send(data, address)
        if isinstance(message, Ping) and message.reachable and proven:
            self._meet(request, address)

    def _seal(self, answer: Answer, request: Datagram) -> bytes:
        return seal_datagram(
            answer,
            nonce=request.nonce,
            receiver=request.sender_id,
            key=self._key,
        )

    def _meet(self, request: Datagram, address: Address) -> None:
        known = self._table.get(request.sender_id)
        if known is not None and known.address == address:
            return
        if self._gate.admits(request.sender, now=self._clock.monotonic()):
            contact = Contact(node_id=request.sender_id, address=address, key=request.sender)
            self._on_greeting(contact)

    def _note_alive(self, datagram: Datagram, address: Address, sent_at: float) -> None:
        now = self._clock.monotonic()
        if not self._gate.admits(datagram.sender, now=now):
            return
        contact = Contact(node_id=datagram.sender_id, address=address, key=datagram.sender)
        if self._table.admit(contact, rtt_s=now - sent_at, now=now):
            self._on_contact(contact)

    # --- outgoing -----------------------------------------------------------------------------

    def srtt_s(self, node_id: bytes) -> float:
        """Return the round-trip time to expect of a node, seconds; its id may be empty."""
        measured = self._table.srtt_s(node_id) if node_id else None
        return DEFAULT_RTT_S if measured is None else measured

    async def ask(self, contact: Contact, message: Request, *, tries: int = 2) -> Datagram:
        """Send a request and return the verified answer, whatever it says.

        Args:
            contact: Whom; its id may be empty in a first contact.
            message: What.
            tries: How often it is sent; with one try the answer is waited for longest.

        Raises:
            NoResponseError: No answer in time, or too much is under way already.
        """
        if len(self._pending) >= _MAX_PENDING:
            raise NoResponseError("too many requests are under way")
        nonce = self._entropy.token(NONCE_BYTES)
        data = seal_datagram(message, nonce=nonce, receiver=contact.node_id, key=self._key)
        answer: asyncio.Future[Datagram] = asyncio.get_running_loop().create_future()
        self._pending[nonce] = _Pending(contact, self._clock.monotonic(), answer)
        wait_s = _MAX_WAIT_S if tries == 1 else timeout_s(self.srtt_s(contact.node_id))
        try:
            for _ in range(tries):
                self._send(data, contact.address)
                done, _ = await asyncio.wait({answer}, timeout=wait_s)
                if done:
                    return answer.result()
        finally:
            self._pending.pop(nonce, None)
        raise NoResponseError(f"no answer from `{contact.address[0]}:{contact.address[1]}`")

    async def greet(self, contact: Contact) -> Contact:
        """Exchange admission grants; return the contact with its verified key.

        Raises:
            NoResponseError: No answer in time.
            RejectedError: It is not admitted here, or gave an answer of another kind.
        """
        own, shown, wanted = self._gate.grants(), 0, 0
        for _ in range(_MAX_GREETING_ROUNDS):
            cookie = self._cookies.get(contact.address, b"")
            # Grants shown to somebody who cannot tell our address would be ignored.
            chunk = fit_grants(own[shown:]) if cookie else ()
            ping = Ping(cookie=cookie, reachable=self._reachable, offset=wanted, grants=chunk)
            asked_at = self._clock.monotonic()
            answer = await self.ask(contact, ping)
            contact = replace(contact, node_id=answer.sender_id, key=answer.sender)
            match answer.message:
                case Retry():
                    self._keep_cookie(contact.address, answer.message.cookie)
                case Pong() as pong:
                    self._keep_cookie(contact.address, pong.cookie)
                    if not self._admits(answer):
                        self._gate.learn(pong.grants)
                    shown, wanted = shown + len(chunk), wanted + len(pong.grants)
                    seen = wanted >= pong.total or not pong.grants or self._admits(answer)
                    if seen and shown >= len(own):
                        self._note_alive(answer, contact.address, asked_at)
                        return self._require_admitted(contact, answer)
                case _:
                    raise RejectedError("a greeting was answered with something else")
        raise RejectedError("a greeting went on for too long")

    def _admits(self, answer: Datagram) -> bool:
        return self._gate.admits(answer.sender, now=self._clock.monotonic())

    def _require_admitted(self, contact: Contact, answer: Datagram) -> Contact:
        if not self._admits(answer):
            raise RejectedError("a node shows no admission grant that counts here")
        return contact

    async def converse(self, contact: Contact, message: Request, *, tries: int = 2) -> Datagram:
        """Ask, with a cookie and a greeting if they are needed.

        Raises:
            NoResponseError: No answer in time.
            RejectedError: One side does not admit the other.
        """
        greeted = False
        for _ in range(_MAX_GREETING_ROUNDS):
            answer = await self.ask(contact, self._with_cookie(message, contact), tries=tries)
            if isinstance(answer.message, Retry):
                self._keep_cookie(contact.address, answer.message.cookie)
                continue
            refused = isinstance(answer.message, Refused)
            if not refused and self._admits(answer):
                return answer
            if greeted:
                break
            greeted = True
            await self.greet(contact)
            if not refused:
                return answer
        raise RejectedError("a node does not take this one for admitted")

    def _with_cookie(self, message: Request, contact: Contact) -> Request:
        if isinstance(message, Store):
            return message
        return replace(message, cookie=self._cookies.get(contact.address, b""))

    def _keep_cookie(self, address: Address, cookie: bytes) -> None:
        self._cookies.pop(address, None)
        self._cookies[address] = cookie
        if len(self._cookies) > _MAX_COOKIES:
            self._cookies.popitem(last=False)
