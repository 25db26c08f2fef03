"""What ends when: grants by day, so that nobody has to walk through a million; revocations."""

from collections.abc import Iterable, Iterator
from typing import Final

from authd.core import limits
from authd.core.endings import droppable, is_spent, needed_until
from authd.core.grants import Grant
from authd.core.identity import ID_BYTES, StatementId
from authd.core.quotas import Branches
from authd.core.statements import Revoke
from authd.core.trust import TrustState, subject_id
from authd.service.ports import Clock

_DAY_S: Final = 86_400
# How often it is looked which revocations are needed no more: that is a walk through all of them.
_LOOK_EVERY_S: Final = 3_600


class Ends:
    """The subjects of grants by the day the grant ends; a subject may be named twice."""

    def __init__(self) -> None:
        """Start empty."""
        self._days: dict[int, bytearray] = {}

    def add(self, grant: Grant) -> None:
        """Note a grant."""
        day = grant.expires_at // _DAY_S
        self._days.setdefault(day, bytearray()).extend(subject_id(grant.subject))

    def take(self, before: int, most: int) -> list[bytes]:
        """Take out up to ``most`` subjects whose grant ended on a day that was over at ``before``.

        Args:
            before: Seconds since the Unix epoch.
            most: At least 1.
        """
        day = min(self._days, default=None)
        if day is None or (day + 1) * _DAY_S > before:
            return []
        held = self._days[day]
        taken = held[-most * ID_BYTES :]
        del held[-most * ID_BYTES :]
        if not held:
            del self._days[day]
        return list(_split(taken))

    def remove(self, grant: Grant) -> None:
        """Take out a grant that is forgotten before it ends, as newer ones make it."""
        day, name = grant.expires_at // _DAY_S, subject_id(grant.subject)
        held = self._days.get(day, bytearray())
        place = held.find(name)
        while place >= 0 and place % ID_BYTES:
            place = held.find(name, place + 1)
        if place >= 0:
            held[place : place + ID_BYTES] = held[-ID_BYTES:]
            del held[-ID_BYTES:]
        if not held:
            self._days.pop(day, None)

    def until(self, end: int) -> Iterator[bytes]:
        """Yield the subjects of grants that end up to the day of ``end``; days may change."""
        for day in sorted(one for one in self._days if one <= end // _DAY_S):
            yield from _split(bytes(self._days.get(day, b"")))


class Endings:
    """Until when each revocation of a known grant is needed; others are for ever."""

    def __init__(self, clock: Clock) -> None:
        """Start empty."""
        self._clock = clock
        self._until: dict[StatementId, int] = {}
        # Monotonic seconds: since when each of those that are needed no more was seen to be.
        self._since: dict[StatementId, float] = {}
        self._spent = frozenset[StatementId]()
        self._stayed = frozenset[StatementId]()
        self._looked: int | None = None
        self._looked_at = 0
        self._droppable: tuple[tuple[object, ...], frozenset[StatementId]] | None = None
        self._settled: tuple[tuple[object, ...], frozenset[StatementId]] | None = None

    def note(self, revoke: Revoke, grant: Grant) -> None:
        """Note what a revocation is about."""
        until = needed_until(revoke, grant)
        if until is not None:
            self.note_until(revoke, until)

    def note_until(self, revoke: Revoke, until: int) -> None:
        """Note until when a revocation is needed."""
        self._until[revoke.statement_id] = until
        if is_spent(until, now=self._looked_at):
            # It belongs to what was found; the next walk finds it.
            self._looked = None

    def drop(self, revocations: Iterable[StatementId]) -> None:
        """Let go of revocations that are no longer held."""
        # The next walk leaves them out of what was found.
        for one in revocations:
            self._until.pop(one, None)

    def until(self, revoke: Revoke) -> int | None:
        """Return until when a revocation is needed, as far as that was noted."""
        return self._until.get(revoke.statement_id)

    def is_needed(self, revoke: Revoke, at: int) -> bool:
        """Say whether a revocation is known to be needed at a time."""
        until = needed_until(revoke) or self._until.get(revoke.statement_id)
        return until is not None and until > at

    def _look(self) -> None:
        now = self._clock.now()
        looked = now // _LOOK_EVERY_S
        if looked == self._looked:
            return
        self._looked, self._looked_at = looked, now
        found = frozenset(one for one, end in self._until.items() if is_spent(end, now=now))
        if found != self._spent:
            self._spent = found
        elapsed = self._clock.monotonic()
        self._since = {one: self._since.get(one, elapsed) for one in found}
        latest = elapsed - limits.SPENT_FOR_S
        stayed = frozenset(one for one, since in self._since.items() if since <= latest)
        if stayed != self._stayed:
            self._stayed = stayed

    def spent(self, state: TrustState, branches: Branches) -> frozenset[StatementId]:
        """Return what is needed no more by this host's clock; the same object while it is the same.

        Args:
            state: What is held.
            branches: Of that state.
        """
        self._look()
        asked = (self._spent, state.flooded, branches)
        known = self._droppable
        if known is None or any(a is not b for a, b in zip(known[0], asked, strict=True)):
            found = droppable(self._spent, state, branches)
            self._droppable = known = (asked, found)
        return known[1]

    def settled(self, state: TrustState, branches: Branches) -> frozenset[StatementId]:
        """Return what may be forgotten: it was `spent` for ``limits.SPENT_FOR_S``.

        Args:
            state: What is held.
            branches: Of that state.
        """
        asked = (self.spent(state, branches), self._stayed)
        known = self._settled
        if known is None or any(a is not b for a, b in zip(known[0], asked, strict=True)):
            self._settled = known = (asked, asked[0] & asked[1])
        return known[1]


def _split(joined: bytes | bytearray) -> Iterator[bytes]:
    for start in range(0, len(joined), ID_BYTES):
        yield bytes(joined[start : start + ID_BYTES])
