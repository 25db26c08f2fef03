"""The only reader of wall and monotonic time.

``now`` never runs below the newest time that was proven or persisted: a host clock that is set
back must not bring expired grants or old heartbeats back to life. How far the host's clock is
behind is reported, and counts as stale.
"""

import secrets
import time


class SystemClock:
    """The host's clock with a floor."""

    def __init__(self, *, floor: int = 0) -> None:
        """Start with the newest time known from before, seconds since the Unix epoch."""
        self._floor = floor

    def now(self) -> int:
        """Return seconds since the Unix epoch, never below the floor."""
        return max(int(time.time()), self._floor)

    def now_us(self) -> int:
        """Return microseconds since the Unix epoch, never below the floor."""
        return max(time.time_ns() // 1_000, self._floor * 1_000_000)

    def monotonic(self) -> float:
        """Return seconds on a clock that never runs back."""
        return time.monotonic()

    def raise_floor(self, proven: int) -> None:
        """Remember that it is at least ``proven``."""
        self._floor = max(self._floor, proven)

    def behind_s(self) -> int:
        """Return how far the host's clock is behind what was proven; 0 if it is not."""
        return max(0, self._floor - int(time.time()))


class SystemEntropy:
    """The operating system's random source."""

    def token(self, count: int) -> bytes:
        """Return ``count`` unpredictable bytes."""
        return secrets.token_bytes(count)
