"""The newest heads of each heartbeat key, however old: two of them can prove that it lied."""

from collections import OrderedDict
from typing import Final

from authd.core import limits
from authd.core.identity import PublicKey
from authd.core.revocations import contradict
from authd.core.statements import Heartbeat

_REMEMBERED_HEADS: Final = 64


class Remembered:
    """Heads by key, epoch and length of the list."""

    def __init__(self) -> None:
        """Start empty."""
        self._heads: dict[PublicKey, OrderedDict[tuple[int, int], Heartbeat]] = {}
        self.evidence: dict[PublicKey, tuple[Heartbeat, Heartbeat]] = {}

    def contradicts(self, heartbeat: Heartbeat) -> bool:
        """Remember a head; True if it and one that is remembered `contradict`.

        Both are kept as ``evidence`` then.
        """
        seen = self._heads.setdefault(heartbeat.issuer, OrderedDict())
        rival = next((one for one in seen.values() if contradict(one, heartbeat)), None)
        seen.setdefault((heartbeat.epoch, heartbeat.count), heartbeat)
        while len(seen) > _REMEMBERED_HEADS:
            seen.popitem(last=False)
        if rival is None:
            return False
        self.evidence[heartbeat.issuer] = (rival, heartbeat)
        return True

    def closed_before(self, newest: Heartbeat) -> tuple[Heartbeat, ...]:
        """Return the last heads of the lists that a head's list goes on from, the oldest first."""
        seen = self._heads.get(newest.issuer, OrderedDict()).values()
        found: list[Heartbeat] = []
        head: Heartbeat | None = newest
        while head is not None and len(found) < limits.MAX_CLOSED_HEADS:
            before = head.previous
            head = next((one for one in seen if one.end == before), None)
            found += [head] if head is not None else []
        return tuple(reversed(found))
