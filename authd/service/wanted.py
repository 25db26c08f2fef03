"""What heartbeat lists name and is not held here, and what was taken in only because they do."""

from collections.abc import Collection, Iterable
from typing import TypeAlias

from authd.core import limits
from authd.core.identity import DomainId, PublicKey, StatementId
from authd.core.trust import TrustState

List: TypeAlias = tuple[DomainId, PublicKey]
"""The list of a heartbeat key of a domain."""


class Wanted:
    """Revocations that are to be asked for, whatever quota they exceed."""

    def __init__(self, own_domain: DomainId) -> None:
        """Start empty; each list of the own domain has a budget to itself."""
        self._own_domain = own_domain
        self._lacking: dict[List, set[StatementId]] = {}
        self._listed: dict[object, set[StatementId]] = {}

    def lacks(self, revocation: StatementId) -> bool:
        """Say whether a list names a revocation that is not held."""
        return any(revocation in lacking for lacking in self._lacking.values())

    def take(self, revocation: StatementId) -> bool:
        """Say whether a list needs a revocation here, and charge it to that list.

        Whoever holds a heartbeat key could name revocations without end; beyond
        ``limits.MAX_LISTED_SURPLUS`` its list cannot be proven, and it alone counts no more. Other
        domains have as much together: they may have any number of keys.
        """
        for domain, key in [one for one, ids in self._lacking.items() if revocation in ids]:
            account = (domain, key) if domain == self._own_domain else domain
            taken = self._listed.setdefault(account, set())
            if revocation in taken or len(taken) < limits.MAX_LISTED_SURPLUS:
                taken.add(revocation)
                return True
        return False

    def note(self, of: List, ids: Iterable[StatementId], state: TrustState) -> None:
        """Note what a list names and ``state`` does not hold."""
        lacking = {one for one in ids if one not in state.revocations}
        if lacking:
            self._lacking.setdefault(of, set()).update(lacking)

    def hold(self, revocations: Collection[StatementId]) -> None:
        """Note that revocations are held now."""
        for lacking in self._lacking.values():
            lacking.difference_update(revocations)

    def drop(self, revocations: Collection[StatementId]) -> None:
        """Note that revocations are held no more, because no list names them."""
        for taken in self._listed.values():
            taken.difference_update(revocations)

    def close(self, of: List) -> None:
        """Let go of a list: nobody needs what only one that was closed names."""
        self._lacking.pop(of, None)

    def keep_only(self, domain: DomainId, keys: Collection[PublicKey]) -> None:
        """Let go of the lists of keys that a domain has no more."""
        for one in [one for one in self._lacking if one[0] == domain and one[1] not in keys]:
            del self._lacking[one]
