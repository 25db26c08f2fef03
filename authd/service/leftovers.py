"""Retained messages that clients may have left on their brokers, as the brokers say.

A broker goes on delivering them after their publisher is revoked, so the operator is shown which
topics to clear. Nothing is decided by what is kept here: topics are the clients' choice, brokers
count as well as they can, and other clients may have cleared or replaced a message since. It is
in memory alone and bounded: a restart forgets it.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from authd.core import topics
from authd.core.identity import PublicKey

# A device publishes on a few topics of its own; whoever has many is found by the first of them.
MAX_TOPICS: Final = 32
MAX_KEYS: Final = 10_000
# A count that a broker makes up must not look like anything else than a large one.
MAX_MORE: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Retained:
    """What one report says of one session.

    Attributes:
        topics: At most `MAX_TOPICS` distinct topic names of at most 256 bytes, newest last.
        more: How many are not among them, 0 to `MAX_MORE`.
    """

    topics: tuple[str, ...] = ()
    more: int = 0


NOTHING: Final = Retained()


def check_retained(named: Iterable[str], more: int) -> Retained:
    """Take of what a broker says what can be meant; what cannot be kept is counted.

    Args:
        named: Untrusted, newest last; of more than `MAX_TOPICS` the last ones count.
        more: Untrusted.
    """
    distinct = dict.fromkeys(named)
    kept = [one for one in distinct if topics.is_topic_name(one)][-MAX_TOPICS:]
    return Retained(tuple(kept), max(0, min(more + len(distinct) - len(kept), MAX_MORE)))


@dataclass(frozen=True, slots=True)
class Leftover:
    """A topic on which a client may have left a retained message."""

    broker: str
    client_id: str
    topic: str


@dataclass(slots=True)
class _Notes:
    """Of one key: what it left, oldest first, and at least how many more there were."""

    left: dict[Leftover, None] = field(default_factory=dict)
    more: int = 0
    rested_on: set[bytes] = field(default_factory=set)


class Leftovers:
    """What is known of each key; whichever was not heard of for longest makes room."""

    def __init__(self) -> None:
        """Start empty."""
        self._notes: OrderedDict[PublicKey, _Notes] = OrderedDict()
        self._resting_on: dict[bytes, set[PublicKey]] = {}

    def note(
        self,
        key: PublicKey,
        retained: Retained,
        *,
        broker: str,
        client_id: str,
        rested_on: Iterable[bytes] = (),
    ) -> None:
        """Add what a report says to what is known of a key.

        Args:
            key: Whose session it was.
            retained: What the report says; nothing at all leaves everything as it is.
            broker: Name of the entry.
            client_id: Of the session.
            rested_on: Keys and grant ids that the session's rights rested on.
        """
        if retained == NOTHING:
            return
        notes = self._notes.setdefault(key, _Notes())
        self._notes.move_to_end(key)
        for topic in retained.topics:
            leftover = Leftover(broker, client_id, topic)
            notes.left.pop(leftover, None)
            notes.left[leftover] = None
        surplus = list(notes.left)[:-MAX_TOPICS]
        for leftover in surplus:
            del notes.left[leftover]
        notes.more = max(notes.more, min(retained.more + len(surplus), MAX_MORE))
        self._rest(key, notes, rested_on)
        while len(self._notes) > MAX_KEYS:
            self._forget(next(iter(self._notes)))

    def of(self, keys: Iterable[PublicKey], *, most: int) -> tuple[list[Leftover], int]:
        """Return up to ``most`` topics that these keys left, and at least how many more."""
        found, more = list[Leftover](), 0
        for key in keys:
            notes = self._notes.get(key)
            if notes is not None:
                shown = list(notes.left)[: max(0, most - len(found))]
                found += shown
                more += notes.more + len(notes.left) - len(shown)
        return found, more

    def resting_on(self, name: bytes) -> list[PublicKey]:
        """Return the keys that left something by rights that rested on this key or grant id."""
        return sorted(self._resting_on.get(name, ()))

    def _rest(self, key: PublicKey, notes: _Notes, rested_on: Iterable[bytes]) -> None:
        # What rights rest on changes with every renewal: only the last session's counts.
        self._unrest(key, notes)
        notes.rested_on = set(rested_on)
        for name in notes.rested_on:
            self._resting_on.setdefault(name, set()).add(key)

    def _unrest(self, key: PublicKey, notes: _Notes) -> None:
        for name in notes.rested_on:
            held = self._resting_on[name]
            held.discard(key)
            if not held:
                del self._resting_on[name]

    def _forget(self, key: PublicKey) -> None:
        self._unrest(key, self._notes.pop(key))
