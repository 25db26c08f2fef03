"""When a revocation is needed no more, and when a heartbeat list is begun anew without such.

A revocation is needed until the one grant that it names has ended, and a day longer: then the grant
gives nothing, whoever holds it. Whether it has is judged by a clock that never runs back, from the
grant itself: its id is a hash of all that it says, so no grant of that id ends later.

For ever needed is a revocation

- of a key: it counts for every grant that may ever be made to it;
- of a grant that is not known here;
- of a revoker's grant: what a revoker said counts on when its own grant has ended;
- of a grant that replaces another key: it says whether that one comes back;
- by a revoker: it is charged to somebody else.

And for as long as a branch holds too many revocations, all that is charged to it: the branch must
not stand again, because others of its revocations were not taken meanwhile.
"""

from typing import Final

from authd.core import limits
from authd.core.grants import Grant
from authd.core.identity import PublicKey, StatementId
from authd.core.quotas import Branches
from authd.core.statements import Revoke
from authd.core.topics import POWER_REVOKE, has_power
from authd.core.trust import TrustState

FOR_EVER: Final = 2**63


def needed_until(revoke: Revoke, grant: Grant | None = None) -> int | None:
    """Say when a revocation may be dropped; seconds since the Unix epoch, `FOR_EVER` for never.

    Args:
        revoke: Verified.
        grant: What it names, if that is known.

    Returns:
        None if it is about a grant that is not known; others may know.
    """
    if revoke.is_key or revoke.revoker_grant is not None:
        return FOR_EVER
    if grant is None or grant.statement_id != revoke.target:
        return None
    if grant.replaces is not None or has_power(grant.scope, POWER_REVOKE):
        return FOR_EVER
    return grant.expires_at


def is_spent(until: int, *, now: int) -> bool:
    """Say whether a revocation that was needed until a time may be dropped now."""
    return until + limits.REVOCATION_KEPT_S <= now


def droppable(
    spent: frozenset[StatementId], state: TrustState, branches: Branches
) -> frozenset[StatementId]:
    """Return those of ``spent`` that no branch with too many revocations is charged with.

    Args:
        spent: Revocations of grants that have ended.
        state: What is held.
        branches: Of that state.
    """
    if not state.flooded:
        return spent
    standing: dict[PublicKey, bool] = {}
    kept = set[StatementId]()
    for one in spent:
        revoke = state.revocations.get(one)
        if revoke is not None and revoke.issuer not in standing:
            above = branches.above(revoke.issuer)
            standing[revoke.issuer] = above.isdisjoint(state.flooded)
        if revoke is None or not standing[revoke.issuer]:
            kept.add(one)
    return spent - kept


def is_full(*, listed: int, missing: int) -> bool:
    """Say whether a list has no room for what is to go on it."""
    return listed + missing > limits.MAX_CHAIN_ENTRIES


def is_worth_closing(*, listed: int, ended: int, missing: int, age_s: int) -> bool:
    """Say whether a list is to be begun anew.

    Args:
        listed: How long it is.
        ended: How many of its entries may be dropped.
        missing: How many are to go on it now.
        age_s: Seconds since it was begun.
    """
    if is_full(listed=listed, missing=missing):
        old_enough = age_s >= limits.FULL_EVERY_S
        return old_enough and not is_full(listed=listed - ended, missing=missing)
    if listed >= limits.NEARLY_FULL_ENTRIES and age_s >= limits.NEARLY_FULL_EVERY_S:
        return ended > 0
    long_enough = listed >= limits.MIN_CLOSED_ENTRIES and age_s >= limits.NEW_LIST_EVERY_S
    return long_enough and 2 * ended > listed


def is_turn(place: int, *, of: int, now: int) -> bool:
    """Say whether one of ``of`` keys may begin a new list now: half an hour for each in turn."""
    return (now // limits.NEW_LIST_SLOT_S) % (2 * of) == 2 * place
