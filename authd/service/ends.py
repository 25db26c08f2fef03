"""Which grants end when, by day: 16 bytes a grant, so that nobody has to walk through a million."""

from collections.abc import Iterator
from typing import Final

from authd.core.grants import Grant
from authd.core.identity import ID_BYTES
from authd.core.trust import subject_id

_DAY_S: Final = 86_400


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


def _split(joined: bytes | bytearray) -> Iterator[bytes]:
    for start in range(0, len(joined), ID_BYTES):
        yield bytes(joined[start : start + ID_BYTES])
