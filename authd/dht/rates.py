"""Token buckets per address: what a sender may make this node work for."""

from collections import OrderedDict
from typing import Final

# Each entry is some 200 B; a flood from more addresses than this only forgets the oldest.
_MAX_TRACKED: Final = 20_000


class RateLimiter:
    """One token bucket for each key, forgotten in the order of last use."""

    def __init__(self, *, rate_per_s: float, burst: float) -> None:
        """Allow ``burst`` at once and ``rate_per_s`` in the long run, for each key."""
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allows(self, key: str, *, now: float) -> bool:
        """Take one token of ``key``; False if there is none. ``now`` is monotonic seconds."""
        level, then = self._levels.pop(key, (self._burst, now))
        level = min(self._burst, level + (now - then) * self._rate_per_s)
        allowed = level >= 1
        self._levels[key] = (level - allowed, now)
        if len(self._levels) > _MAX_TRACKED:
            self._levels.popitem(last=False)
        return allowed
