"""Announcements to nodes without a stream: what is new here, told to a few at random.

Pushing along streams alone leaves out whoever has only silent or dead peers. So each node, a while
after it took in something new, tells random nodes of its passive view which ids it has: three, then
two at a time, then one. One that lacks some asks for them and gets them. Where all had them already
the next round is left out; in the place of one that does not answer three others are told. Nothing
is believed for being announced: what is delivered goes the way of every statement. All times are
monotonic seconds.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from authd.core.identity import PublicKey, StatementId
from authd.gossip.messages import MAX_ANNOUNCED, Ask, Deliver, Have, verify_have
from authd.gossip.views import Allowance
from authd.service.ports import Item

# Seconds after the news, and how many are told then.
ROUNDS: Final = ((0.5, 3), (1.5, 2), (2.5, 2), (3.5, 2), (8.0, 1), (20.0, 1))
# More than this at once is a repair, not news.
MAX_WAITING: Final = 1_024
_TOKEN_LIFE_S: Final = 10.0
_MAX_TOKENS: Final = 256
_HINTS_PER_S: Final = 50.0
_BURST_HINTS: Final = 200.0


class Rounds:
    """What is to be announced, and when."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._waiting: list[tuple[float, int, tuple[StatementId, ...]]] = []
        self._count = 0

    def add(self, ids: Iterable[StatementId], *, now: float) -> None:
        """Plan the rounds of what is new; what is too much is left to repair."""
        listed = tuple(ids)[: MAX_WAITING - self._count]
        if listed:
            self._count += len(listed)
            self._waiting += [(now + after_s, tells, listed) for after_s, tells in ROUNDS]
            self._waiting.sort()

    def next_at(self) -> float | None:
        """Say when the next round is due; None if none is."""
        return self._waiting[0][0] if self._waiting else None

    def due(self, *, now: float) -> tuple[int, tuple[StatementId, ...]]:
        """Take what is due: how many to tell, and at most ``MAX_ANNOUNCED`` ids.

        What is more than that follows with the next call.
        """
        ids: dict[StatementId, None] = {}
        tells = 0
        while self._waiting and self._waiting[0][0] <= now and len(ids) < MAX_ANNOUNCED:
            at, count, listed = self._waiting.pop(0)
            room = MAX_ANNOUNCED - len(ids)
            ids |= dict.fromkeys(listed[:room])
            tells = max(tells, count)
            if listed[room:]:
                self._waiting.insert(0, (at, count, listed[room:]))
        self._recount()
        return tells, tuple(ids)

    def settle(self, ids: Iterable[StatementId]) -> None:
        """Leave out the next round of ids that everybody who was told had already."""
        settled = set(ids)
        waiting: list[tuple[float, int, tuple[StatementId, ...]]] = []
        for at, count, listed in self._waiting:
            if settled.isdisjoint(listed):
                waiting.append((at, count, listed))
                continue
            left = tuple(one for one in listed if one not in settled)
            settled -= set(listed)
            if left:
                waiting.append((at, count, left))
        self._waiting = waiting
        self._recount()

    def _recount(self) -> None:
        self._count = len(set().union(*(listed for _, _, listed in self._waiting)))


@dataclass(frozen=True, slots=True)
class _Expected:
    ids: frozenset[StatementId]
    until: float


class Desk:
    """Answers announcements, and says which deliveries were asked for."""

    def __init__(self, *, now: float) -> None:
        """Begin with nothing asked for."""
        self._allowance = Allowance(rate_per_s=_HINTS_PER_S, burst=_BURST_HINTS, now=now)
        self._expected: OrderedDict[bytes, _Expected] = OrderedDict()

    def may_come(self, *, now: float) -> bool:
        """Charge one hint; False if there are too many."""
        return self._allowance.take(now=now)

    def on_have(
        self,
        have: Have,
        *,
        lacks: Callable[[StatementId], bool],
        admits: Callable[[PublicKey], bool],
        token: bytes,
        now: float,
        wall_now: int,
    ) -> Ask:
        """Ask for what is lacking here, if an admitted node announces it.

        Args:
            have: Unverified; it is verified only if it says something new.
            lacks: Whether an id is not held.
            admits: Whether a node key is admitted.
            token: Random; goes with the delivery.
            now: Monotonic seconds.
            wall_now: Seconds since the Unix epoch.

        Raises:
            VerificationError: The announcement is old, or not signed by the key it names.
        """
        lacking = tuple(one for one in have.ids if lacks(one))
        if not lacking or not admits(have.key):
            return Ask(token, ())
        verify_have(have, now=wall_now)
        self._expected[token] = _Expected(frozenset(lacking), now + _TOKEN_LIFE_S)
        while len(self._expected) > _MAX_TOKENS:
            self._expected.popitem(last=False)
        return Ask(token, lacking)

    def on_deliver(self, deliver: Deliver, *, now: float) -> tuple[Item, ...]:
        """Return what was delivered, if it was asked for and comes in time; a token counts once."""
        expected = self._expected.pop(deliver.token, None)
        if expected is None or now >= expected.until:
            return ()
        return deliver.items[: len(expected.ids)]
