"""Quotas at one daemon: how fast branches may speak, and how much of theirs is kept.

See `authd.core.quotas` for what is charged to whom. Speed is measured here alone: what comes too
fast is left for the next repair, which offers it again.
"""

from collections import OrderedDict
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Final

from authd.core import limits
from authd.core.claims import Kind
from authd.core.grants import Grant, KeySubject
from authd.core.identity import StatementId, key_id
from authd.core.policy import Policy
from authd.core.quotas import (
    Branch,
    Branches,
    Filling,
    branch_name,
    find_filling,
    find_flooded,
    is_surplus,
)
from authd.core.statements import Revoke, Statement
from authd.core.trust import TrustState
from authd.service.ports import Clock

# Ids that peers would offer again and again; 100 B each.
MAX_DECLINED: Final = 65_536
# Room may be free by then.
DECLINED_FOR_S: Final = 3_600.0


class Bucket:
    """A token bucket."""

    def __init__(self, *, rate_per_s: float, burst: float, now: float) -> None:
        """Begin full; ``now`` is monotonic seconds."""
        self._rate_per_s, self._burst = rate_per_s, burst
        self._level, self._then = burst, now

    def level(self, *, now: float) -> float:
        """Return how many tokens there are."""
        self._level = min(self._burst, self._level + (now - self._then) * self._rate_per_s)
        self._then = now
        return self._level

    def take(self) -> None:
        """Take one that `level` has said to be there."""
        self._level -= 1


class Quotas:
    """What every branch has used up here."""

    def __init__(self, *, clock: Clock) -> None:
        """Begin with nothing charged."""
        self._clock = clock
        self.branches = Branches(TrustState(), ())
        self._spoken: dict[Branch, Bucket] = {}
        self._below: dict[Branch, Bucket] = {}
        self._full: tuple[object, object, frozenset[Branch]] | None = None
        # Set by whoever knows which revocations are of grants that ended long ago.
        self.is_over: Callable[[Revoke], bool] = lambda _: False
        self._filling: tuple[tuple[object, ...], tuple[Filling, ...]] | None = None
        self.limited = 0
        self.surplus = 0

    def judge(self, state: TrustState, policy: Policy) -> TrustState:
        """Return the state with every fallen branch in it."""
        if not self.branches.fits(state, policy.domains):
            self.branches = self.branches.following(state, policy.domains)
        flooded = find_flooded(state, self.branches)
        return state.with_fallen(flooded | self.branches.crowded(), flooded)

    def warnings(self, state: TrustState) -> list[str]:
        """Say which branches are about to fall."""
        asked = (state.charges, state.delegates, self.branches)
        known = self._filling
        if known is None or any(a is not b for a, b in zip(known[0], asked, strict=True)):
            self._filling = known = (asked, find_filling(state, self.branches))
        return [
            f"the branch of `{branch_name(one.branch)}` holds {one.held} {one.what} of"
            f" {one.most}: with more it is treated as revoked whole"
            for one in known[1]
        ]

    # --- stock ----------------------------------------------------------------------------

    def has_room(self, statement: Statement, state: TrustState) -> bool:
        """Say whether a statement that nobody has to hold is to be kept."""
        match statement:
            case Revoke():
                over = self.is_over(statement)
                return not over and not is_surplus(statement, state, self.branches)
            case Grant() if statement.depth:
                return self.branches.stands(statement.issuer, state.fallen)
            case Grant():
                return self.branches.stands(statement.issuer, self._full_branches(state))
            case _:
                return True

    def is_needed(self, grant: Grant, state: TrustState) -> bool:
        """Say whether a grant is kept however long ago it ended.

        It says who answers for what was revoked, or until when its revocation is needed, or is what
        makes a key's revocation of itself welcome, which takes up room that the branch is not to
        have twice.
        """
        if grant.statement_id in state.by_target:
            return True
        subject = grant.subject
        revoked = isinstance(subject, KeySubject) and state.self_revocation(subject.key)
        return bool(revoked) or self.branches.upholds(grant, state)

    def _full_branches(self, state: TrustState) -> frozenset[Branch]:
        known = self._full
        if known is None or known[0] is not state.issued or known[1] is not self.branches:
            quotas = tuple(quota - 1 for quota in limits.GRANTS_PER_BRANCH)
            full = self.branches.over(state.issued, quotas)
            self._full = known = (state.issued, self.branches, full)
        return known[2]

    # --- speed ----------------------------------------------------------------------------

    def may_speak(self, statement: Statement, state: TrustState) -> bool:
        """Charge a statement that came from the network; False if its branch speaks too fast."""
        now = self._clock.monotonic()
        above = _above(statement, state, self.branches)
        if above is not None:
            own = self._bucket(self._spoken, statement.issuer, now)
            if own.level(now=now) < 1 or not self._may_any(above, now):
                return False
            own.take()
            return True
        # A key without depth speaks for itself: whoever admitted it pays, and keeps its own voice.
        givers = {grant.issuer for grant in state.grants_to(key_id(statement.issuer))}
        return self._may_any(givers or {statement.issuer}, now)

    def _may_any(self, above: AbstractSet[Branch], now: float) -> bool:
        """Charge all above who have breath left, if there is a way up by such alone.

        Whoever gave something to a key that did not ask for it cannot take its voice by that.
        """
        if not above:
            return True
        every = frozenset[Branch]().union(*map(self.branches.above, above))
        buckets = {one: self._bucket(self._below, one, now) for one in every}
        tired = {one for one, bucket in buckets.items() if bucket.level(now=now) < 1}
        ways = [one for one in sorted(above) if self.branches.stands(one, tired)]
        for one in frozenset[Branch]().union(*map(self.branches.charged, ways)) - tired:
            buckets[one].take()
        return bool(ways)

    def _bucket(self, of: dict[Branch, Bucket], key: Branch, now: float) -> Bucket:
        # Only issuers that somebody vouches for come here: quotas bound how many there are.
        if key not in of:
            wide = of is self._below and self.branches.level(key) == 0
            of[key] = Bucket(
                rate_per_s=limits.ENTRY_STATEMENTS_PER_S
                if wide
                else limits.ISSUER_STATEMENTS_PER_S,
                burst=limits.ENTRY_BURST if wide else limits.ISSUER_BURST,
                now=now,
            )
        return of[key]


def _above(statement: Statement, state: TrustState, branches: Branches) -> frozenset[Branch] | None:
    """Return who stands above a statement; None for what a key without depth says for itself."""
    if isinstance(statement, Grant):
        return branches.givers(statement.issuer)
    charged = state.charged_key(statement) if isinstance(statement, Revoke) else None
    if charged is None or charged == statement.issuer:
        return None if charged is None else branches.givers(charged)
    # A revoker has a voice of its own, below that of its authority.
    return frozenset({charged})


class Declined:
    """Ids of statements that were verified and are not kept, so that they are not asked for."""

    def __init__(self, *, clock: Clock) -> None:
        """Start empty."""
        self._clock = clock
        self._ids: OrderedDict[StatementId, Kind] = OrderedDict()
        self._since = clock.monotonic()

    def add(self, statement_id: StatementId, kind: Kind) -> None:
        """Remember one for an hour at most, and the newest `MAX_DECLINED`."""
        self._ids[statement_id] = kind
        while len(self._ids) > MAX_DECLINED:
            self._ids.popitem(last=False)

    def ids(self) -> dict[StatementId, Kind]:
        """Return what is remembered now."""
        now = self._clock.monotonic()
        if now - self._since >= DECLINED_FOR_S:
            self._ids.clear()
            self._since = now
        return self._ids
