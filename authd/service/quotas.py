"""Quotas at one daemon: how fast branches may speak, and how much of theirs is kept.

See `authd.core.quotas` for what is charged to whom. Speed is measured here alone: what comes too
fast is left for the next repair, which offers it again.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from authd.core import limits
from authd.core.claims import Kind
from authd.core.grants import Grant
from authd.core.identity import PublicKey, StatementId, key_id
from authd.core.policy import Policy
from authd.core.quotas import Branches, find_fallen, is_surplus
from authd.core.statements import Revoke, Statement
from authd.core.trust import TrustState, charged_key
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
        self._spoken: dict[PublicKey, Bucket] = {}
        self._below: dict[PublicKey, Bucket] = {}
        self._full: tuple[object, object, frozenset[PublicKey]] | None = None
        self.limited = 0
        self.surplus = 0

    def judge(self, state: TrustState, policy: Policy) -> TrustState:
        """Return the state with every fallen branch in it."""
        if not self.branches.fits(state, policy.domains):
            self.branches = Branches(state, policy.domains)
        return state.with_fallen(find_fallen(state, self.branches))

    # --- stock ----------------------------------------------------------------------------

    def has_room(self, statement: Statement, state: TrustState) -> bool:
        """Say whether a statement that nobody has to hold is to be kept."""
        match statement:
            case Revoke():
                return not is_surplus(statement, state, self.branches)
            case Grant() if statement.depth:
                return state.fallen.isdisjoint(self.branches.charged(statement.issuer))
            case Grant():
                full = self._full_branches(state)
                return full.isdisjoint(self.branches.charged(statement.issuer))
            case _:
                return True

    def _full_branches(self, state: TrustState) -> frozenset[PublicKey]:
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
        issuer = _issuer(statement)
        if issuer is not None:
            above = self.branches.charged(issuer) - {issuer}
            own = [self._bucket(self._spoken, issuer, now)]
            return _charge([*own, *(self._bucket(self._below, one, now) for one in above)], now)
        # A key without depth speaks for itself: whoever admitted it pays, and keeps its own voice.
        givers = {grant.issuer for grant in state.grants_to(key_id(statement.issuer))}
        return any(
            _charge(
                [self._bucket(self._below, one, now) for one in self.branches.charged(giver)], now
            )
            for giver in sorted(givers or {statement.issuer})
        )

    def _bucket(self, of: dict[PublicKey, Bucket], key: PublicKey, now: float) -> Bucket:
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


def _issuer(statement: Statement) -> PublicKey | None:
    """Return who speaks; None for what a key without depth may say for itself."""
    if isinstance(statement, Grant):
        return statement.issuer
    return charged_key(statement) if isinstance(statement, Revoke) else None


def _charge(buckets: Iterable[Bucket], now: float) -> bool:
    """Take one of each, or nothing."""
    listed = list(buckets)
    if any(one.level(now=now) < 1 for one in listed):
        return False
    for one in listed:
        one.take()
    return True


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
