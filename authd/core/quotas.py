"""Quotas: how much one branch of the web of trust may make every daemon hold.

What an issuer signs is charged to it and to each authority above it, up to the root's entry. How
much each may hold depends on its *level*: the fewest grants between it and an entry of a listed
domain. Each level has an eighth of the one above at most, so that one branch never fills what it
hangs on.

- *Grants of depth 0* beyond the quota are not taken in. Which are held may differ between daemons:
  that can only leave rights out.
- *Revocations* may never be left out quietly: that would keep a right alive. *Grants of depth* say
  who stands above whom, so all daemons must hold the same. A branch with more of either than its
  quota is *fallen*: it is treated as revoked whole, and then nothing more that it signs can take
  anything away. Whether it is follows from the set of statements that are held, in whatever
  order they came; more of them never lift it.

A key's revocations of itself are charged to nobody: there are at most
``limits.MAX_REVOCATIONS_PER_PAIR`` of a key that holds a grant, and grants are bounded.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from authd.core import limits
from authd.core.grants import KeySubject
from authd.core.identity import DomainId, PublicKey, StatementId, key_id
from authd.core.statements import Revoke
from authd.core.trust import TrustState, charged_key

_DEEPEST = len(limits.GRANTS_PER_BRANCH) - 1


class Branches:
    """Who stands above whom in one state; it holds until a grant of depth or a root is new."""

    def __init__(self, state: TrustState, listed: Collection[DomainId]) -> None:
        """Look at ``state``; nobody stands above an entry of the domains in ``listed``."""
        self._state = state
        self._listed = frozenset(listed)
        self._places: dict[PublicKey, tuple[int, frozenset[PublicKey]]] = {}
        self._crowded: frozenset[PublicKey] | None = None

    def fits(self, state: TrustState, listed: Collection[DomainId]) -> bool:
        """Say whether this holds for another state too: device grants change nothing."""
        mine = self._state
        same = mine.delegates is state.delegates and mine.roots is state.roots
        return same and self._listed == frozenset(listed)

    def level(self, key: PublicKey) -> int:
        """Return the fewest grants between a key and a listed entry; the deepest for a stranger."""
        return self._place(key)[0]

    def charged(self, key: PublicKey) -> frozenset[PublicKey]:
        """Return everybody whom a statement of a key is charged to, the key itself included."""
        return self._place(key)[1]

    def loads(self, own: Mapping[PublicKey, int]) -> Counter[PublicKey]:
        """Sum what each key signed over everybody it is charged to."""
        loads: Counter[PublicKey] = Counter()
        for key, count in own.items():
            for charged in self.charged(key):
                loads[charged] += count
        return loads

    def over(self, own: Mapping[PublicKey, int], quotas: tuple[int, ...]) -> frozenset[PublicKey]:
        """Find the keys whose branch holds more than the quota of its level."""
        loads = self.loads(own).items()
        return frozenset(key for key, load in loads if load > quotas[self.level(key)])

    def crowded(self) -> frozenset[PublicKey]:
        """Find the keys whose branch names more issuers than its quota."""
        if self._crowded is None:
            own = {key: len(below) for key, below in self._state.delegates.items()}
            self._crowded = self.over(own, limits.ISSUERS_PER_BRANCH)
        return self._crowded

    def _place(self, key: PublicKey) -> tuple[int, frozenset[PublicKey]]:
        found = self._places.get(key)
        if found is None:
            self._places[key] = found = self._climb(key)
        return found

    def _climb(self, key: PublicKey) -> tuple[int, frozenset[PublicKey]]:
        seen, reached = {key}, _DEEPEST
        level, depth = [key], 0
        while level:
            if any(map(self._is_listed, level)):
                reached = min(reached, depth)
            below = [one for one in level if not self._is_listed(one)]
            givers = {giver for one in below for giver in self._givers(one)} - seen
            seen |= givers
            level, depth = sorted(givers), depth + 1
        return reached, frozenset(seen)

    def _is_listed(self, key: PublicKey) -> bool:
        return any(root.domain in self._listed for root, _ in self._state.authorities_with(key))

    def _givers(self, key: PublicKey) -> Iterable[PublicKey]:
        for grant in self._state.grants_to(key_id(key)):
            if grant.depth > 0 and grant.subject == KeySubject(key):
                yield grant.issuer
        for root, _ in self._state.authorities_with(key):
            # A domain that is not listed counts here because somebody gave it something.
            for grant in self._state.grants_to(root.domain):
                if grant.depth > 0:
                    yield grant.issuer


def find_fallen(state: TrustState, branches: Branches) -> frozenset[PublicKey]:
    """Find the keys whose branch holds more revocations or names more issuers than its quota."""
    if len(state.revocations) <= min(limits.REVOCATIONS_PER_BRANCH):
        return branches.crowded()
    return branches.crowded() | branches.over(state.charges, limits.REVOCATIONS_PER_BRANCH)


def is_surplus(revoke: Revoke, state: TrustState, branches: Branches) -> bool:
    """Say whether a revocation takes nothing away that is not taken away already.

    It is of a branch that is fallen, or its signer has said the same often enough.
    """
    key = charged_key(revoke)
    if key is not None and not state.fallen.isdisjoint(branches.charged(key)):
        return True
    same = sum(
        (one.issuer, one.revoker_grant) == (revoke.issuer, revoke.revoker_grant)
        for one in state.by_target.get(revoke.target, ())
    )
    return same >= limits.MAX_REVOCATIONS_PER_PAIR


def to_list(
    missing: Iterable[StatementId],
    *,
    listed: Iterable[StatementId],
    state: TrustState,
    branches: Branches,
) -> tuple[StatementId, ...]:
    """Choose what goes on a heartbeat list: all but the surplus of branches that are fallen.

    INVARIANT: a revocation is left out only if the list holds more than the quota of its branch, so
    that whoever holds the list knows that the branch is fallen.

    Args:
        missing: Held and not on the list.
        listed: What is on the list.
        state: What is held; its ``fallen`` is that of `find_fallen`.
        branches: Of that state.
    """
    if not state.fallen:
        return tuple(missing)
    counts: Counter[PublicKey] = Counter()
    for one in listed:
        counts.update(_fallen_above(one, state, branches))
    chosen: list[StatementId] = []
    for one in missing:
        above = _fallen_above(one, state, branches)
        quotas = limits.REVOCATIONS_PER_BRANCH
        if not any(counts[key] > quotas[branches.level(key)] for key in above):
            counts.update(above)
            chosen.append(one)
    return tuple(chosen)


def _fallen_above(
    statement_id: StatementId, state: TrustState, branches: Branches
) -> frozenset[PublicKey]:
    revoke = state.revocations.get(statement_id)
    key = charged_key(revoke) if revoke else None
    return state.fallen & branches.charged(key) if key else frozenset()
