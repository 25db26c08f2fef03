"""Which peers a node knows and talks to, when to dial them again, and what each may send.

The active view are the peers with a stream; the passive view are signed samples of where others
listen. Static addresses are always tried again. All times are monotonic seconds.
"""

from dataclasses import dataclass
from typing import Final

from authd.core.identity import PublicKey
from authd.gossip.messages import Sample

MAX_ACTIVE: Final = 8
MAX_ACCEPTED: Final = 10
MAX_PASSIVE: Final = 30
_FIRST_RETRY_S: Final = 0.5
_LAST_RETRY_S: Final = 30.0
# A learnt address that failed this often in a row is forgotten; static ones never are.
_MAX_FAILURES: Final = 6
# Long enough for another to take its place; it may have been a moment's trouble.
SHUNNED_S: Final = 300.0
NEW_AFTER_S: Final = 60.0


@dataclass(slots=True)
class _Target:
    address: str
    static: bool
    key: PublicKey | None = None
    failures: int = 0
    retry_at: float = 0.0
    dialling: bool = False


class Allowance:
    """A token bucket that says how long to wait instead of refusing."""

    def __init__(self, *, rate_per_s: float, burst: float, now: float) -> None:
        """Allow ``burst`` at once and ``rate_per_s`` in the long run."""
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._level = burst
        self._then = now

    def charge(self, count: int, *, now: float) -> float:
        """Take ``count`` and return the seconds to wait before going on."""
        self._level += (now - self._then) * self._rate_per_s
        self._level = min(self._burst, self._level) - count
        self._then = now
        return max(0.0, -self._level / self._rate_per_s)

    def take(self, *, now: float) -> bool:
        """Take one if there is one; a refusal costs nothing."""
        if self.charge(0, now=now) or self._level < 1:
            return False
        self._level -= 1
        return True


class Views:
    """Known addresses, signed samples, and who is connected."""

    def __init__(self, *, own_key: PublicKey) -> None:
        """Begin with nothing; ``own_key`` is never dialled."""
        self._own_key = own_key
        self._targets: dict[str, _Target] = {}
        self._samples: dict[PublicKey, Sample] = {}
        self._active: set[PublicKey] = set()
        self._shunned: dict[PublicKey, float] = {}
        self._left: dict[PublicKey, float] = {}

    @property
    def active(self) -> frozenset[PublicKey]:
        """Peers with a stream."""
        return frozenset(self._active)

    def add_static(self, address: str) -> None:
        """Always try an address again."""
        target = self._targets.setdefault(address, _Target(address, static=True))
        target.static = True

    def is_news(self, sample: Sample) -> bool:
        """Say whether a sample, if it verifies, says anything that is not known."""
        held = self._samples.get(sample.key)
        return sample.key != self._own_key and (held is None or held.issued_at < sample.issued_at)

    def learn(self, sample: Sample, *, chance: float) -> bool:
        """Take in a verified sample; return whether it says something new.

        Args:
            sample: Verified by `authd.gossip.messages.verify_sample`.
            chance: From [0, 1): chooses which of too many is forgotten.
        """
        held = self._samples.get(sample.key)
        if not self.is_news(sample):
            return False
        if held is None and len(self._samples) >= MAX_PASSIVE:
            idle = [key for key in self._samples if key not in self._active]
            if not idle:
                return False
            self._forget(idle[int(chance * len(idle))])
        moved = held is not None and held.address != sample.address
        if moved:
            self._forget(sample.key)
        self._samples[sample.key] = sample
        target = self._targets.setdefault(sample.address, _Target(sample.address, static=False))
        target.key = sample.key
        return held is None or moved

    def samples(self, *, but: PublicKey, count: int, chance: float) -> list[Sample]:
        """Return up to ``count`` samples of others than ``but``, a different choice each time."""
        others = [sample for key, sample in self._samples.items() if key != but]
        start = int(chance * len(others))
        return (others[start:] + others[:start])[:count]

    def sample(self, key: PublicKey) -> Sample | None:
        """Return where a node listens, if it has said so."""
        return self._samples.get(key)

    def addresses(self) -> list[str]:
        """Return where other nodes listen, ``host:port``, as far as they have said so."""
        return [sample.address for sample in self._samples.values()]

    def to_dial(self, *, now: float) -> list[str]:
        """Choose addresses to dial now, static ones first; each is to be reported back."""
        free = self._free()
        ready = [
            target
            for target in self._targets.values()
            if not target.dialling
            and target.retry_at <= now
            and target.key not in self._active
            and target.key != self._own_key
            and not self.is_shunned(target.key, now=now)
        ]
        ready.sort(key=lambda target: (not target.static, target.retry_at))
        for target in ready[: max(0, free)]:
            target.dialling = True
        return [target.address for target in ready[: max(0, free)]]

    def _free(self) -> int:
        dialling = sum(
            one.dialling and one.key not in self._active for one in self._targets.values()
        )
        return MAX_ACTIVE - len(self._active) - dialling

    def next_dial_at(self) -> float | None:
        """Say when some address is next worth dialling; None if none is, or no place is free."""
        if self._free() <= 0:
            return None
        waiting = [
            target.retry_at
            for target in self._targets.values()
            if not target.dialling
            and target.key not in self._active
            and target.key != self._own_key
        ]
        return min(waiting, default=None)

    def on_identified(self, address: str, key: PublicKey) -> None:
        """Remember who answers at an address."""
        target = self._targets.get(address)
        if target is not None:
            target.key = key

    def on_dial_end(self, address: str, *, worked: bool, now: float, chance: float) -> None:
        """Plan the next attempt: at once after a stream that worked, else with full jitter.

        Args:
            address: What was dialled.
            worked: The stream lived for a while.
            now: Monotonic seconds.
            chance: From [0, 1).
        """
        target = self._targets.get(address)
        if target is None:
            return
        target.dialling = False
        target.failures = 0 if worked else target.failures + 1
        longest_s = min(_LAST_RETRY_S, _FIRST_RETRY_S * 2**target.failures)
        target.retry_at = now + longest_s * chance
        if target.failures >= _MAX_FAILURES and not target.static:
            del self._targets[address]
            if target.key is not None:
                self._samples.pop(target.key, None)

    def on_up(self, key: PublicKey) -> None:
        """A stream to ``key`` is live."""
        self._active.add(key)

    def on_down(self, key: PublicKey, *, now: float) -> None:
        """No stream to ``key`` is live any more."""
        self._active.discard(key)
        self._left = {one: at for one, at in self._left.items() if at + NEW_AFTER_S > now}
        self._left[key] = now

    def is_new(self, key: PublicKey, *, now: float) -> bool:
        """Say whether a node has had no stream here lately."""
        return self._left.get(key, -NEW_AFTER_S) + NEW_AFTER_S <= now

    def passive(self) -> list[Sample]:
        """Return where nodes listen that have no stream with this one."""
        return [one for key, one in self._samples.items() if key not in self._active]

    def shun(self, key: PublicKey, *, now: float) -> None:
        """Leave a node alone for a while: it was connected, and of no use."""
        self._shunned = {one: until for one, until in self._shunned.items() if until > now}
        self._shunned[key] = now + SHUNNED_S

    def is_shunned(self, key: PublicKey | None, *, now: float) -> bool:
        """Say whether a node is to be left alone now."""
        return key is not None and self._shunned.get(key, 0.0) > now

    def forget(self, key: PublicKey) -> None:
        """Drop a node whose admission ended."""
        self._active.discard(key)
        self._forget(key)

    def _forget(self, key: PublicKey) -> None:
        self._samples.pop(key, None)
        self._targets = {
            address: target
            for address, target in self._targets.items()
            if target.static or target.key != key or target.dialling
        }
