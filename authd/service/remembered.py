"""Heads of each heartbeat key, however old: two of them can prove that it lied."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, TypeAlias

from authd.core import limits
from authd.core.identity import DomainId, PublicKey
from authd.core.revocations import contradict
from authd.core.statements import Heartbeat

Signer: TypeAlias = tuple[DomainId, PublicKey]
"""A heartbeat key of a domain; in another domain it keeps other lists."""

_REMEMBERED_HEADS: Final = 2 * limits.MAX_CLOSED_HEADS


def signer_of(heartbeat: Heartbeat) -> Signer:
    """Return whose list a head is of."""
    return heartbeat.domain, heartbeat.issuer


class Remembered:
    """The heads of each key that were told last, whether they count or not.

    Attributes:
        evidence: By key, two heads that prove that it lied.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._heads: dict[Signer, OrderedDict[tuple[int, int], Heartbeat]] = {}
        self.evidence: dict[Signer, tuple[Heartbeat, Heartbeat]] = {}

    def contradicts(self, heartbeat: Heartbeat, held: Iterable[Heartbeat | None]) -> bool:
        """Remember a head; True if it and another `contradict`. Both are kept as evidence then.

        Args:
            heartbeat: Verified, whatever it is worth.
            held: Heads of its key that were taken. Those that are only remembered can be driven out
                by others, old ones told again among them.
        """
        signer = signer_of(heartbeat)
        seen = self._heads.setdefault(signer, OrderedDict())
        others = (one for one in (*held, *seen.values()) if one is not None)
        rival = next((one for one in others if contradict(one, heartbeat)), None)
        seen.setdefault((heartbeat.epoch, heartbeat.count), heartbeat)
        while len(seen) > _REMEMBERED_HEADS:
            seen.popitem(last=False)
        if rival is None:
            return False
        self.evidence[signer] = (rival, heartbeat)
        return True

    def closed_before(self, newest: Heartbeat) -> tuple[Heartbeat, ...]:
        """Return the last heads of the lists that a head's list goes on from, the oldest first."""
        seen = self._heads.get(signer_of(newest), OrderedDict()).values()
        found: list[Heartbeat] = []
        head: Heartbeat | None = newest
        while head is not None and len(found) < limits.MAX_CLOSED_HEADS:
            before = head.previous
            head = next((one for one in seen if one.end == before), None)
            found += [head] if head is not None else []
        return tuple(reversed(found))
