"""The only reader of wall and monotonic time, and of the system's random source.

``now`` never runs back: below the newest time that was seen or persisted it goes on at the pace of
the monotonic clock. A host clock that is set back must not bring expired grants or old heartbeats
back to life; how far it is behind is reported, and counts as stale.
"""

import secrets
import time


class SystemClock:
    """The host's clock, made to run forward only."""

    def __init__(self, *, floor: int = 0) -> None:
        """Start with the newest time known from before, seconds since the Unix epoch."""
        self._anchor_us = floor * 1_000_000
        self._anchor_monotonic_ns = time.monotonic_ns()

    def now(self) -> int:
        """Return seconds since the Unix epoch; never less than before."""
        return self.now_us() // 1_000_000

    def now_us(self) -> int:
        """Return microseconds since the Unix epoch; never less than before."""
        wall_us, expected_us = time.time_ns() // 1_000, self._expected_us()
        if wall_us >= expected_us:
            self._anchor_us = wall_us
            self._anchor_monotonic_ns = time.monotonic_ns()
            return wall_us
        return expected_us

    def _expected_us(self) -> int:
        elapsed_ns = time.monotonic_ns() - self._anchor_monotonic_ns
        return self._anchor_us + elapsed_ns // 1_000

    def monotonic(self) -> float:
        """Return seconds on a clock that never runs back."""
        return time.monotonic()

    def behind_s(self) -> int:
        """Return how far the host's clock is behind what it should show; 0 if it is not."""
        return max(0, (self._expected_us() - time.time_ns() // 1_000) // 1_000_000)


class SystemEntropy:
    """The operating system's random source."""

    def token(self, count: int) -> bytes:
        """Return ``count`` unpredictable bytes."""
        return secrets.token_bytes(count)
