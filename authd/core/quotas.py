"""Quotas: how much one branch of the web of trust may make every daemon hold.

What an issuer signs is charged to it and to each authority above it on a shortest way up to the
root's entry; a domain that somebody granted something stands there like a key. How much each may
hold depends on its *level*: the fewest links between it and an entry of a listed domain. Each level
has an eighth of the one above at most, so that one branch never fills what it hangs on.

- *Grants of depth 0* beyond the quota are not taken in. Which are held may differ between daemons:
  that can only leave rights out.
- *Revocations* may never be left out quietly: that would keep a right alive. *Grants of depth* say
  who stands above whom, so all daemons must hold the same. A branch with more of either than its
  quota is *fallen*: it is treated as revoked whole, and then nothing more that it signs can take
  anything away. Whether it is follows from the set of statements that are held, in whatever
  order they came; more of what is charged to it never lift it.

Nobody falls by what others do: a branch that is fallen weighs as much as its quota and no more,
however much a list made daemons hold of it. And whoever is granted something by a branch that is
fallen, asked or not, loses nothing that others gave: it *stands* while there is any way up.

A key's revocations of itself are charged to nobody: there are at most
``limits.MAX_REVOCATIONS_PER_PAIR`` of a key that holds a grant, and grants are bounded.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final, TypeAlias

from authd.core import limits
from authd.core.encoding import encode_base64url
from authd.core.grants import Grant, KeySubject
from authd.core.identity import ID_BYTES, DomainId, PublicKey, StatementId, key_id, key_id_text
from authd.core.statements import Revoke
from authd.core.trust import TrustState

Branch: TypeAlias = bytes
"""What heads a branch: a key, or the id of a domain."""

_DEEPEST: Final = len(limits.GRANTS_PER_BRANCH) - 1
# Below everybody who has a way up.
_NOWHERE: Final = 2**31
_NOBODY: Final = frozenset[Branch]()


def branch_name(branch: Branch) -> str:
    """Write the id of a key or of a domain."""
    return encode_base64url(branch) if len(branch) == ID_BYTES else key_id_text(PublicKey(branch))


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a key or a domain stands.

    Attributes:
        links: The fewest up to a listed entry.
        charged: Those on the shortest ways, itself included.
        seen: All that were asked who stands above them to find that.
    """

    links: int
    charged: frozenset[Branch]
    seen: frozenset[Branch]


class Branches:
    """Who stands above whom in one state; it holds until a grant of depth or a root is new."""

    def __init__(self, state: TrustState, listed: Collection[DomainId]) -> None:
        """Look at ``state``; nobody stands above an entry of the domains in ``listed``."""
        self._state = state
        self._listed = frozenset(listed)
        self._givers: dict[Branch, frozenset[Branch]] = {}
        self._places: dict[Branch, _Place] = {}
        self._crowded: frozenset[Branch] | None = None
        self._answering: tuple[object, frozenset[Branch]] | None = None

    def fits(self, state: TrustState, listed: Collection[DomainId]) -> bool:
        """Say whether this holds for another state too: device grants change nothing."""
        mine = self._state
        same = mine.delegates is state.delegates and mine.roots is state.roots
        return same and self._listed == frozenset(listed)

    def following(self, state: TrustState, listed: Collection[DomainId]) -> "Branches":
        """Return those of another state; what did not change is not looked for again."""
        after = Branches(state, listed)
        if state.roots is not self._state.roots or after._listed != self._listed:
            return after
        changed = set[Branch]()
        for branch, givers in self._givers.items():
            if self._is_as_in(branch, state) or after.givers(branch) == givers:
                after._givers[branch] = givers
            else:
                changed.add(branch)
        after._places = {
            one: place for one, place in self._places.items() if changed.isdisjoint(place.seen)
        }
        return after

    def _is_as_in(self, branch: Branch, state: TrustState) -> bool:
        if len(branch) == ID_BYTES or any(True for _ in state.domains_with(PublicKey(branch))):
            return False
        name = key_id(PublicKey(branch))
        return self._state.grants.get(name) is state.grants.get(name)

    def level(self, branch: Branch) -> int:
        """Return the fewest links up to a listed entry; the deepest for a stranger."""
        return min(self._place(branch).links, _DEEPEST)

    def charged(self, branch: Branch) -> frozenset[Branch]:
        """Return everybody whom a statement of a key is charged to, the key itself included.

        Those on a shortest way up: whoever gave something to a key that stands higher already
        vouches for nothing, and is not to fall by what that key may say up there.
        """
        return self._place(branch).charged

    def givers(self, branch: Branch) -> frozenset[Branch]:
        """Return who stands directly above a key or domain; nobody above a listed entry."""
        found = self._givers.get(branch)
        if found is None:
            self._givers[branch] = found = frozenset(self._find_givers(branch))
        return found

    def above(self, branch: Branch, without: AbstractSet[Branch] = _NOBODY) -> frozenset[Branch]:
        """Climb by every way, but not through those in ``without``; the branch itself is in."""
        seen, open_ = {branch}, [branch]
        while open_:
            new = self.givers(open_.pop()) - without - seen
            seen |= new
            open_ += new
        return frozenset(seen)

    def stands(self, branch: Branch, without: AbstractSet[Branch]) -> bool:
        """Say whether a way up is left for a key, if those in ``without`` are taken out.

        Any way will do: nobody can keep others from having it by giving them something.
        """
        if without.isdisjoint(self.charged(branch)):
            return True
        if branch in without or self._place(branch).links == _NOWHERE:
            return False
        return any(map(self._is_listed, self.above(branch, without)))

    # --- loads ----------------------------------------------------------------------------

    def loads(
        self,
        own: Mapping[PublicKey, int],
        quotas: tuple[int, ...] = (),
        over: AbstractSet[Branch] = _NOBODY,
    ) -> Counter[Branch]:
        """Sum what each key signed over everybody it is charged to.

        Args:
            own: By key, how many.
            quotas: By level.
            over: Branches with more than their quota: just that much is charged above them.
        """
        loads: Counter[Branch] = Counter()
        for key, count in own.items():
            for charged in self._reach(key, over):
                loads[charged] += count
        for branch in over:
            for above in self._reach(branch, over - {branch}) - {branch}:
                loads[above] += quotas[self.level(branch)] + 1
        return loads

    def _reach(self, branch: Branch, over: AbstractSet[Branch]) -> frozenset[Branch]:
        charged = self.charged(branch)
        if over.isdisjoint(charged):
            return charged
        seen, open_ = {branch}, [branch]
        while open_:
            one = open_.pop()
            if one not in over:
                new = self._shortest(one) - seen
                seen |= new
                open_ += new
        return frozenset(seen)

    def over(self, own: Mapping[PublicKey, int], quotas: tuple[int, ...]) -> frozenset[Branch]:
        """Find the branches that hold more than the quota of their level, the lowest first."""
        over: set[Branch] = set()
        while True:
            loads = self.loads(own, quotas, over).items()
            more = {one for one, load in loads if load > quotas[self.level(one)]} - over
            if not more:
                return frozenset(over)
            lowest = max(self._place(one).links for one in more)
            over |= {one for one in more if self._place(one).links == lowest}

    def crowded(self) -> frozenset[Branch]:
        """Find the branches that name more issuers than their quota."""
        if self._crowded is None:
            own = {key: len(below) for key, below in self._state.delegates.items()}
            self._crowded = self.over(own, limits.ISSUERS_PER_BRANCH)
        return self._crowded

    def upholds(self, grant: Grant, state: TrustState) -> bool:
        """Say whether a branch might stand again, or answer for less, if a grant were forgotten.

        Args:
            grant: One of ``state``.
            state: What is held; one that this `fits`.
        """
        if grant.depth == 0:
            return False
        if not state.fallen.isdisjoint(self.above(grant.issuer)):
            return True
        if self._answering is None or self._answering[0] is not state.charges:
            above = frozenset[Branch]().union(*map(self.above, state.charges))
            self._answering = (state.charges, above)
        subject = grant.subject
        below = subject.key if isinstance(subject, KeySubject) else subject.domain
        return below in self._answering[1]

    # --- places ---------------------------------------------------------------------------

    def _place(self, branch: Branch) -> "_Place":
        found = self._places.get(branch)
        if found is None:
            self._places[branch] = found = self._climb(branch)
        return found

    def _climb(self, branch: Branch) -> "_Place":
        seen: set[Branch] = {branch}
        levels: list[set[Branch]] = [{branch}]
        while levels[-1]:
            ends = {one for one in levels[-1] if self._is_listed(one)}
            if ends:
                return _Place(len(levels) - 1, self._on_the_way(levels, ends), frozenset(seen))
            givers = {giver for one in levels[-1] for giver in self.givers(one)} - seen
            seen |= givers
            levels.append(givers)
        return _Place(_NOWHERE, frozenset(seen), frozenset(seen))

    def _on_the_way(self, levels: list[set[Branch]], ends: set[Branch]) -> frozenset[Branch]:
        kept, upper = set(ends), ends
        for level in reversed(levels[:-1]):
            upper = {one for one in level if not upper.isdisjoint(self.givers(one))}
            kept |= upper
        return frozenset(kept)

    def _shortest(self, branch: Branch) -> frozenset[Branch]:
        links = self._place(branch).links
        givers = self.givers(branch)
        if links == _NOWHERE:
            return givers
        return frozenset(one for one in givers if self._place(one).links < links)

    def _is_listed(self, branch: Branch) -> bool:
        if len(branch) == ID_BYTES:
            return False
        key = PublicKey(branch)
        return any(root.domain in self._listed for root, _ in self._state.authorities_with(key))

    def _find_givers(self, branch: Branch) -> Iterable[Branch]:
        if self._is_listed(branch):
            return
        is_domain = len(branch) == ID_BYTES
        for grant in self._state.grants_to(
            branch if is_domain else key_id(PublicKey(branch)),
        ):
            if grant.depth > 0 and _names(grant, branch):
                yield grant.issuer
        for domain in () if is_domain else self._state.domains_with(PublicKey(branch)):
            # A domain that is not listed counts here because somebody gave it something.
            if domain not in self._listed and self._state.grants_to(domain):
                yield domain


def _names(grant: Grant, branch: Branch) -> bool:
    subject = grant.subject
    return branch == (subject.key if isinstance(subject, KeySubject) else subject.domain)


def find_flooded(state: TrustState, branches: Branches) -> frozenset[Branch]:
    """Find the branches that hold more revocations than their quota."""
    if len(state.revocations) <= min(limits.REVOCATIONS_PER_BRANCH):
        return _NOBODY
    return branches.over(state.charges, limits.REVOCATIONS_PER_BRANCH)


def find_fallen(state: TrustState, branches: Branches) -> frozenset[Branch]:
    """Find the branches that hold more revocations or name more issuers than their quota."""
    return branches.crowded() | find_flooded(state, branches)


@dataclass(frozen=True, slots=True)
class Filling:
    """A branch that is about to fall.

    Attributes:
        branch: Which.
        what: ``revocations`` or ``issuers``.
        held: How many it holds.
        most: With more it falls.
    """

    branch: Branch
    what: str
    held: int
    most: int


def find_filling(state: TrustState, branches: Branches) -> tuple[Filling, ...]:
    """Find the branches that hold three quarters of what they may, and have not fallen."""
    issuers = {key: len(below) for key, below in state.delegates.items()}
    found = []
    for what, own, quotas in (
        ("revocations", state.charges, limits.REVOCATIONS_PER_BRANCH),
        ("issuers", issuers, limits.ISSUERS_PER_BRANCH),
    ):
        over = branches.over(own, quotas)
        for branch, held in sorted(branches.loads(own, quotas, over).items()):
            most = quotas[branches.level(branch)]
            if 4 * held >= 3 * most and branch not in over | state.fallen:
                found.append(Filling(branch, what, held, most))
    return tuple(found)


def is_surplus(revoke: Revoke, state: TrustState, branches: Branches) -> bool:
    """Say whether a revocation takes nothing away that is not taken away already.

    No way up is left for its signer but by branches that hold too many, or it has said the same
    often enough. A branch that fell because it names too many issuers is still heard: a daemon that
    knows of fewer of them holds it for standing.
    """
    key = state.charged_key(revoke)
    if key is not None and not branches.stands(key, state.flooded):
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
    """Choose what goes on a heartbeat list: all but the surplus of branches that hold too many.

    INVARIANT: a revocation is left out only if no way up is left for its signer but by branches
    that are fallen by what the list names alone, so that whoever holds the list knows.

    Args:
        missing: Held and not on the list.
        listed: What is on the list.
        state: What is held; its ``flooded`` is that of `find_flooded`.
        branches: Of that state.
    """
    if not state.flooded:
        return tuple(missing)
    chosen, doubtful = list[StatementId](), list[tuple[StatementId, PublicKey]]()
    for one in missing:
        key = _signer(one, state)
        if key is None or branches.stands(key, state.flooded):
            chosen.append(one)
        else:
            doubtful.append((one, key))
    if not doubtful:
        return tuple(chosen)
    quotas = limits.REVOCATIONS_PER_BRANCH
    counts = Counter(filter(None, (_signer(one, state) for one in (*listed, *chosen))))
    flooded, unseen = branches.over(counts, quotas), 0
    for one, key in doubtful:
        if unseen >= max(1, quotas[-1] // 16):
            # A few too many are listed, so that not every one is counted anew.
            flooded, unseen = branches.over(counts, quotas), 0
        if branches.stands(key, flooded):
            counts[key] += 1
            unseen += 1
            chosen.append(one)
    return tuple(chosen)


def _signer(statement_id: StatementId, state: TrustState) -> PublicKey | None:
    revoke = state.revocations.get(statement_id)
    return state.charged_key(revoke) if revoke else None
