"""Ending sessions on brokers that have no event stream, and the secrets of a takeover.

A takeover is the last resort for brokers with no way to kick: authd connects with the victim's
client id, the reserved user name ``authd-evict`` and a single-use secret that is bound to that
client id and broker for 5 seconds. The broker drops the old connection, and authd leaves again.
"""

import asyncio
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from authd.core.encoding import encode_base64url
from authd.core.identity import PublicKey
from authd.service.ports import Clock, Entropy, Evictor
from authd.service.sessions import Sessions

SECRET_BYTES: Final = 16
SECRET_LIFE_S: Final = 5.0
_MAX_QUEUED: Final = 10_000
_WORKERS: Final = 8
_RETRIES: Final = 5
_RETRY_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    broker: str
    client_id: str
    key: PublicKey
    reason: str


@dataclass(frozen=True, slots=True)
class _Secret:
    text: str = field(repr=False)
    key: PublicKey
    until: float


class Evictions:
    """A bounded queue a broker of sessions to end through evictors, and the secrets they use."""

    def __init__(self, *, clock: Clock, entropy: Entropy, sessions: Sessions) -> None:
        """Wire the parts; evictors are given to `run`."""
        self._clock = clock
        self._entropy = entropy
        self._sessions = sessions
        self._queues: dict[str, asyncio.Queue[_Order]] = {}
        self._wake = asyncio.Event()
        self._secrets: dict[tuple[str, str], _Secret] = {}

    def order(self, *, broker: str, client_id: str, key: PublicKey, reason: str) -> None:
        """Queue a session to be ended; when the queue is full the report says so."""
        order = _Order(broker=broker, client_id=client_id, key=key, reason=reason)
        queue = self._queues.setdefault(broker, asyncio.Queue(_MAX_QUEUED))
        self._wake.set()
        try:
            queue.put_nowait(order)
        except asyncio.QueueFull:
            self._sessions.confirm_cut(broker=broker, client_id=client_id, outcome="overloaded")

    def issue(self, broker: str, client_id: str, key: PublicKey) -> str:
        """Make the single-use secret of one takeover, good for 5 s."""
        now = self._clock.monotonic()
        text, until = encode_base64url(self._entropy.token(SECRET_BYTES)), now + SECRET_LIFE_S
        for place in [place for place, one in self._secrets.items() if one.until < now]:
            del self._secrets[place]
        self._secrets[(broker, client_id)] = _Secret(text, key, until)
        return text

    def redeem(self, broker: str, client_id: str, text: str) -> PublicKey | None:
        """Use up a secret; None if it is not the one for this client id on this broker, now.

        A wrong guess uses nothing up: whoever is to be evicted could prevent it by guessing.
        """
        secret = self._secrets.get((broker, client_id))
        if secret is None or secret.until < self._clock.monotonic():
            return None
        if not hmac.compare_digest(secret.text.encode(), text.encode("utf-8", "replace")):
            return None
        del self._secrets[(broker, client_id)]
        return secret.key

    async def run(self, evictors: Callable[[], Mapping[str, Evictor]]) -> None:
        """Carry out orders, each with a few tries, and record what became of them.

        Args:
            evictors: Returns the evictor of each broker as things stand; brokers without one have
                heard of the cut on their event stream.
        """
        served = set[str]()
        async with asyncio.TaskGroup() as group:
            while True:
                # Each broker has workers of its own: one that does not answer delays no other.
                for broker in self._queues.keys() - served:
                    served.add(broker)
                    for _ in range(_WORKERS):
                        work = self._work(self._queues[broker], evictors)
                        group.create_task(work, name=f"evictions on {broker}")
                await self._wake.wait()
                self._wake.clear()

    async def _work(
        self,
        queue: "asyncio.Queue[_Order]",
        evictors: Callable[[], Mapping[str, Evictor]],
    ) -> None:
        while True:
            order = await queue.get()
            evictor = evictors().get(order.broker)
            if evictor is None:
                continue
            outcome = await self._try(evictor, order)
            self._sessions.confirm_cut(
                broker=order.broker,
                client_id=order.client_id,
                outcome=outcome,
            )

    async def _try(self, evictor: Evictor, order: _Order) -> str:
        outcome = "failed"
        for attempt in range(_RETRIES):
            if attempt:
                await asyncio.sleep(_RETRY_S * attempt)
            results = await evictor.evict(
                client_ids=[order.client_id],
                key=order.key,
                reason=order.reason,
            )
            outcome = results.get(order.client_id, "failed")
            if outcome != "failed":
                break
        return outcome
