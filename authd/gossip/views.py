"""Which peers a node knows and talks to, when to dial them again, and what each may send.

The active view are the peers with a stream; the passive view are signed samples of where others
listen, and a few candidates that somebody outside gossip named. Static addresses are always tried
again. A node is *near* if the own domain admits it by itself or the operator configured its
address: at least half of the active view is near where that many near nodes can be reached, and
samples of others never push out the near ones of half of the passive view. All times are monotonic
seconds.
"""

from dataclasses import dataclass
from typing import Final

from authd.core.identity import PublicKey
from authd.gossip.messages import Sample

MAX_ACTIVE: Final = 8
MAX_ACCEPTED: Final = 10
MAX_PASSIVE: Final = 30
# Named by others than their node: enough to find the network by, too few to be worth naming junk.
MAX_CANDIDATES: Final = 16
# Addresses that nobody vouches for are tried so often at most: whoever makes up nodes must not make
# this one a scanner of ports, nor keep it busy.
_DIALS_PER_S: Final = 4.0
_BURST_DIALS: Final = 16.0
_FIRST_RETRY_S: Final = 0.5
_LAST_RETRY_S: Final = 30.0
# A learnt address that failed this often in a row is forgotten; static ones never are.
_MAX_FAILURES: Final = 6
# Long enough for another to take its place; it may have been a moment's trouble.
SHUNNED_S: Final = 300.0
NEW_AFTER_S: Final = 20.0
# Peers that fell silent are missed: where a network was parted for long, everybody has all places
# taken by peers of its own side, and only those who remember the other side can find it again.
MAX_MISSED: Final = 8
MISSED_S: Final = 86_400.0


@dataclass(slots=True)
class _Target:
    """Where to dial.

    ``static``: always tried again. ``configured``: by the operator, so near whoever answers.
    ``candidate``: known from outside gossip alone. ``missed_at``: when a live stream fell silent.
    """

    address: str
    static: bool = False
    configured: bool = False
    candidate: bool = False
    key: PublicKey | None = None
    failures: int = 0
    retry_at: float = 0.0
    dialling: bool = False
    missed_at: float | None = None


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

    def __init__(self, *, own_key: PublicKey, now: float = 0.0) -> None:
        """Begin with nothing; ``own_key`` is never dialled."""
        self._own_key = own_key
        self._dials = Allowance(rate_per_s=_DIALS_PER_S, burst=_BURST_DIALS, now=now)
        self._targets: dict[str, _Target] = {}
        self._samples: dict[PublicKey, Sample] = {}
        self._active: dict[PublicKey, None] = {}
        self._near: set[PublicKey] = set()
        self._shunned: dict[PublicKey, float] = {}
        self._left: dict[PublicKey, float] = {}

    @property
    def active(self) -> frozenset[PublicKey]:
        """Peers with a stream."""
        return frozenset(self._active)

    @property
    def near(self) -> frozenset[PublicKey]:
        """Peers with a stream that are near."""
        return frozenset(self._active.keys() & self._near)

    @property
    def candidates(self) -> list[str]:
        """Addresses that are known from outside gossip alone."""
        return [target.address for target in self._targets.values() if target.candidate]

    # --- what is known --------------------------------------------------------------------

    def add_static(self, address: str, *, configured: bool = True) -> None:
        """Always try an address again; ``configured`` by the operator, who trusts it."""
        target = self._targets.setdefault(address, _Target(address))
        target.static, target.candidate = True, False
        target.configured |= configured

    def suggest(self, address: str, key: PublicKey | None, *, near: bool, chance: float) -> bool:
        """Take in an address that somebody outside gossip named; return whether it is news.

        Args:
            address: Checked to be worth dialling.
            key: Who is said to listen there, if that was said.
            near: Whether that is a node of the own domain.
            chance: From [0, 1): chooses which of too many is forgotten.
        """
        if address in self._targets or key == self._own_key or key in self._active:
            return False
        idle = [one for one in self._targets.values() if one.candidate and not one.dialling]
        if len(self.candidates) >= MAX_CANDIDATES:
            if not idle:
                return False
            del self._targets[idle[int(chance * len(idle))].address]
        self._targets[address] = _Target(address, candidate=True, key=key)
        if key is not None:
            self._mark(key, near=near)
        return True

    def is_news(self, sample: Sample) -> bool:
        """Say whether a sample, if it verifies, says anything that is not known."""
        held = self._samples.get(sample.key)
        return sample.key != self._own_key and (held is None or held.issued_at < sample.issued_at)

    def learn(self, sample: Sample, *, near: bool, chance: float) -> bool:
        """Take in a verified sample; return whether it says something new.

        Args:
            sample: Verified by `authd.gossip.messages.verify_sample`.
            near: Whether the own domain admits that node.
            chance: From [0, 1): chooses which of too many is forgotten.
        """
        held = self._samples.get(sample.key)
        if not self.is_news(sample):
            return False
        if held is None and len(self._samples) >= MAX_PASSIVE:
            idle = self._replaceable()
            if not idle:
                return False
            self._forget(idle[int(chance * len(idle))])
        moved = held is not None and held.address != sample.address
        if moved:
            self._forget(sample.key)
        self._samples[sample.key] = sample
        self._mark(sample.key, near=near)
        target = self._targets.setdefault(sample.address, _Target(sample.address))
        target.key, target.candidate = sample.key, False
        return held is None or moved

    def _replaceable(self) -> list[PublicKey]:
        """Return whose sample may be forgotten for another: keys without a stream.

        Anybody can sign samples of made-up nodes, so these must not crowd out the own domain's.
        """
        missed = {one.key for one in self._targets.values() if one.missed_at is not None}
        idle = [key for key in self._samples if key not in self._active and key not in missed]
        far = [key for key in idle if key not in self._near]
        near_count = sum(key in self._near for key in self._samples)
        return far if far and near_count <= MAX_PASSIVE // 2 else idle

    def _mark(self, key: PublicKey, *, near: bool) -> None:
        (self._near.add if near else self._near.discard)(key)

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

    # --- whom to dial ---------------------------------------------------------------------

    def to_dial(self, *, now: float) -> list[str]:
        """Choose addresses to dial now, static and near ones first; each is to be reported back.

        While fewer than half of the active view are near, near ones are dialled even where no
        place is free: who comes to many takes that of another. Missed ones always are.
        """
        ready = [
            target
            for target in self._targets.values()
            if self._is_open(target)
            and target.retry_at <= now
            and not self.is_shunned(target.key, now=now)
        ]
        ready.sort(key=lambda one: (not one.static, not self._is_near(one), one.retry_at))
        free, lacking = self._free(), self._lacking_near()
        chosen: list[_Target] = []
        for target in ready:
            near = self._is_near(target)
            if free <= 0 and not (near and lacking > 0) and target.missed_at is None:
                continue
            if not (near or target.static or self._dials.take(now=now)):
                continue
            free, lacking = free - 1, lacking - near
            target.dialling = True
            chosen.append(target)
        return [target.address for target in chosen]

    def _is_open(self, target: _Target) -> bool:
        return not target.dialling and target.key not in {*self._active, self._own_key}

    def _is_near(self, target: _Target) -> bool:
        return target.configured or target.key in self._near

    def _dialling(self) -> list[_Target]:
        targets = self._targets.values()
        return [one for one in targets if one.dialling and one.key not in self._active]

    def _free(self) -> int:
        return MAX_ACTIVE - len(self._active) - len(self._dialling())

    def _lacking_near(self) -> int:
        coming = sum(map(self._is_near, self._dialling()))
        wanted = max(MAX_ACTIVE // 2, (len(self._active) + 1) // 2)
        return wanted - len(self.near) - coming

    def next_dial_at(self) -> float | None:
        """Say when some address is next worth dialling; None if none is, or no place is free."""
        waiting = filter(self._is_open, self._targets.values())
        if self._free() <= 0:
            near_too = self._lacking_near() > 0
            waiting = filter(
                lambda one: one.missed_at is not None or (near_too and self._is_near(one)), waiting
            )
        return min((target.retry_at for target in waiting), default=None)

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
        if target.missed_at is not None and now - target.missed_at > MISSED_S:
            target.missed_at = None
        known = target.static or target.candidate or target.key in self._samples
        kept = target.static or target.missed_at is not None
        if target.failures >= (_MAX_FAILURES if known else 1) and not kept:
            del self._targets[address]
            if target.key is not None and not target.candidate:
                self._samples.pop(target.key, None)

    # --- who is connected -----------------------------------------------------------------

    def on_up(self, key: PublicKey, *, near: bool) -> None:
        """A stream to ``key`` is live; ``near`` if the own domain admits it by itself."""
        self._active[key] = None
        for target in self._targets.values():
            if target.key == key:
                target.missed_at = None
        configured = any(one.configured and one.key == key for one in self._targets.values())
        self._mark(key, near=near or configured)

    def on_down(self, key: PublicKey, *, now: float, silent: bool = False) -> None:
        """No stream to ``key`` is live any more; ``silent`` if nobody ended it."""
        self._active.pop(key, None)
        if silent:
            self._miss(key, now=now)
        self._left = {one: at for one, at in self._left.items() if at + NEW_AFTER_S > now}
        self._left[key] = now
        known = {target.key for target in self._targets.values()}
        self._near &= self._active.keys() | self._samples.keys() | {one for one in known if one}

    def _miss(self, key: PublicKey, *, now: float) -> None:
        for target in self._targets.values():
            if target.key == key:
                target.missed_at = now
        missed = [one for one in self._targets.values() if one.missed_at is not None]
        for target in sorted(missed, key=lambda one: -(one.missed_at or 0.0))[MAX_MISSED:]:
            target.missed_at = None

    def is_new(self, key: PublicKey, *, now: float) -> bool:
        """Say whether a node has had no stream here lately."""
        return self._left.get(key, -NEW_AFTER_S) + NEW_AFTER_S <= now

    def to_displace(self, *, near: bool, chance: float) -> PublicKey:
        """Choose who gives its place to a newcomer; there is at least one stream.

        Args:
            near: Whether the newcomer is near.
            chance: From [0, 1).
        """
        placed = list(self._active)
        far = [key for key in placed if key not in self._near]
        enough = 2 * len(self.near) >= len(placed) + (not near)
        pool = placed if enough or not far else far
        return pool[int(chance * len(pool))]

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
        self._active.pop(key, None)
        self._forget(key)

    def _forget(self, key: PublicKey) -> None:
        self._samples.pop(key, None)
        if key not in self._active:
            self._near.discard(key)
        self._targets = {
            address: target
            for address, target in self._targets.items()
            if target.static or target.key != key or target.dialling
        }
