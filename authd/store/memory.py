"""What stops a proof from being used twice, in memory: for tests and for what never restarts."""

from dataclasses import dataclass

from authd.service.ports import NONCE_KEPT_S


@dataclass(frozen=True, slots=True, kw_only=True)
class _Nonce:
    expires_at: int
    broker: str
    session: str


class MemoryReplay:
    """Implements the ports `ReplayStore` and `CounterStore`; forgets all with the process."""

    def __init__(self) -> None:
        """Start empty."""
        self._nonces: dict[bytes, _Nonce] = {}
        self._counters: dict[bytes, int] = {}

    def seen(self, replay_id: bytes) -> bool:
        """Say whether a nonce was consumed."""
        return replay_id in self._nonces

    def consume(
        self,
        replay_id: bytes,
        *,
        expires_at: int,
        now: int,
        broker: str = "",
        session: str = "",
    ) -> bool:
        """Remember a nonce; False if somebody else consumed it."""
        ended = [one for one, held in self._nonces.items() if held.expires_at + NONCE_KEPT_S < now]
        for one in ended:
            del self._nonces[one]
        mine = _Nonce(expires_at=expires_at, broker=broker, session=session)
        held = self._nonces.setdefault(replay_id, mine)
        return held is mine or (bool(session) and (held.broker, held.session) == (broker, session))

    def open_nonces(self, broker: str, *, now: int, most: int) -> list[bytes]:
        """Return the nonces of a broker that are kept, newest first."""
        held = [
            (one.expires_at, replay_id)
            for replay_id, one in self._nonces.items()
            if one.broker in (broker, "") and one.expires_at + NONCE_KEPT_S >= now
        ]
        return [replay_id for _, replay_id in sorted(held, reverse=True)][:most]

    def last_counter(self, slot: bytes) -> int | None:
        """Return the last counter taken for a slot."""
        return self._counters.get(slot)

    def raise_counter(self, slot: bytes, counter: int) -> bool:
        """Keep a counter if it is higher than the last one; False if it is not."""
        if counter <= self._counters.get(slot, -1):
            return False
        self._counters[slot] = counter
        return True
