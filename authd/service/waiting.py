"""Where statements wait for the one that makes them welcome: small, bounded, oldest out first."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from authd.core.claims import Kind
from authd.core.statements import Statement
from authd.service.ports import Item

# An attacker can fill this and no more; what is pushed out comes again by repair.
MAX_WAITING: Final = 512


@dataclass(frozen=True, slots=True)
class Waiting:
    """A statement nobody here vouches for yet.

    Attributes:
        item: As it came.
        source: Where from.
        statement: What it verified as, so that looking again costs no signature; None for a root.
    """

    item: Item
    source: str
    statement: Statement | None


class WaitingRoom:
    """At most `MAX_WAITING` statements in the order they came."""

    def __init__(self) -> None:
        """Start empty."""
        self._held: OrderedDict[bytes, Waiting] = OrderedDict()

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._held)

    def add(self, one: Waiting) -> bool:
        """Let a statement wait; say whether it is new here."""
        known = one.item.data in self._held
        self._held[one.item.data] = one
        while len(self._held) > MAX_WAITING:
            self._held.popitem(last=False)
        return not known

    def all(self) -> list[Waiting]:
        """Return what waits now."""
        return list(self._held.values())

    def remove(self, one: Waiting) -> None:
        """Let one go."""
        self._held.pop(one.item.data, None)

    def names_in_revocation(self, named: Iterable[bytes]) -> bool:
        """Say whether a revocation that waits is about one of these keys or grants."""
        names = tuple(named)
        return any(
            one.item.kind is Kind.REVOKE and any(name in one.item.data for name in names)
            for one in self._held.values()
        )
