"""When a revocation is needed no more, and when a list is begun anew."""

import pytest

from authd.core import limits
from authd.core.endings import (
    FOR_EVER,
    droppable,
    is_spent,
    is_turn,
    is_worth_closing,
    needed_until,
)
from authd.core.grants import Grant
from authd.core.identity import StatementId
from authd.core.quotas import Branches, find_flooded, is_surplus
from authd.core.statements import Revoke, sign_revoke
from authd.core.topics import POWER_REVOKE
from authd.core.trust import TrustState
from tests.unit.core.world import DAY, NOW, World, key, make_grant, make_revoke, scope

LAMP = make_grant("X", "lamp", expires_at=NOW + DAY)


def test_a_revocation_of_one_grant_is_needed_until_that_grant_has_ended() -> None:
    assert needed_until(make_revoke("X", LAMP), LAMP) == LAMP.expires_at


@pytest.mark.parametrize(
    ("revoke", "grant"),
    [
        (make_revoke("X", "lamp"), None),
        (make_revoke("X", "lamp"), LAMP),
        (make_revoke("lamp", "lamp"), None),
        (
            make_revoke("op", LAMP, revoker_grant=make_grant("X", "op", scope(POWER_REVOKE))),
            LAMP,
        ),
    ],
)
def test_a_revocation_of_a_key_or_by_a_revoker_is_needed_for_ever(
    revoke: Revoke, grant: Grant | None
) -> None:
    assert needed_until(revoke, grant) == FOR_EVER
    assert not is_spent(FOR_EVER, now=2**40)


@pytest.mark.parametrize(
    "grant",
    [
        make_grant("X", "op", scope(POWER_REVOKE)),
        make_grant("X", "lamp", replaces=key("lost").public),
    ],
)
def test_what_a_grant_says_after_its_end_can_be_taken_back_for_ever(grant: Grant) -> None:
    assert needed_until(make_revoke("X", grant), grant) == FOR_EVER


def test_of_a_grant_that_is_not_known_nobody_can_say() -> None:
    assert needed_until(make_revoke("X", LAMP)) is None
    assert needed_until(make_revoke("X", LAMP), make_grant("X", "lamp", expires_at=NOW)) is None


def test_it_is_kept_a_day_longer() -> None:
    assert not is_spent(NOW, now=NOW + DAY - 1)
    assert is_spent(NOW, now=NOW + DAY)


@pytest.mark.parametrize(
    ("listed", "ended", "age_s", "worth"),
    [
        (limits.MIN_CLOSED_ENTRIES, limits.MIN_CLOSED_ENTRIES // 2 + 1, 30 * DAY, True),
        (limits.MIN_CLOSED_ENTRIES, limits.MIN_CLOSED_ENTRIES // 2, 30 * DAY, False),
        (limits.MIN_CLOSED_ENTRIES, limits.MIN_CLOSED_ENTRIES, 30 * DAY - 1, False),
        (limits.MIN_CLOSED_ENTRIES - 1, limits.MIN_CLOSED_ENTRIES - 1, 30 * DAY, False),
        (limits.NEARLY_FULL_ENTRIES, 1, DAY, True),
        (limits.NEARLY_FULL_ENTRIES, 0, 90 * DAY, False),
        (limits.NEARLY_FULL_ENTRIES, limits.NEARLY_FULL_ENTRIES, DAY - 1, False),
        (limits.MAX_CHAIN_ENTRIES - 9, 9, DAY - 1, False),
        (limits.MAX_CHAIN_ENTRIES - 8, 1, 3_600, True),
        (limits.MAX_CHAIN_ENTRIES - 8, 1, 3_599, False),
        (limits.MAX_CHAIN_ENTRIES, 8, 90 * DAY, False),
    ],
)
def test_when_a_list_is_worth_a_new_one(
    *, listed: int, ended: int, age_s: int, worth: bool
) -> None:
    assert is_worth_closing(listed=listed, ended=ended, missing=9, age_s=age_s) is worth


@pytest.mark.parametrize("count", [1, 3, 5])
def test_keys_take_turns_with_a_pause_between(count: int) -> None:
    turns = [
        [place for place in range(count) if is_turn(place, of=count, now=slot * 1_800 + 1_799)]
        for slot in range(4 * count)
    ]
    assert turns[: 2 * count] == [[n // 2] if n % 2 == 0 else [] for n in range(2 * count)]
    assert turns[2 * count :] == turns[: 2 * count]


# --- dropping ---------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REVOCATIONS_PER_BRANCH", (40, 4, 3, 2))


def ids(*revokes: Revoke) -> frozenset[StatementId]:
    return frozenset(one.statement_id for one in revokes)


def revokes(name: str, count: int) -> list[Revoke]:
    return [sign_revoke(key(name), target=bytes([n]) * 16, issued_at=NOW) for n in range(count)]


@pytest.mark.usefixtures("small")
def test_a_branch_that_holds_too_many_keeps_all_of_them_and_stays_fallen() -> None:
    world = World()
    world.grants("X -> a -> b -> c")
    world.grants("X -> d -> e")
    flood, below = revokes("a", 5), make_revoke("b", LAMP)
    beside = make_revoke("d", LAMP)
    for one in (*flood, below, beside):
        world.state = world.state.apply_revocations([one])
    branches = Branches(world.state, world.domains)
    spent = ids(*flood, below, beside)
    assert droppable(spent, world.state, branches) == spent, "nobody was found flooded yet"
    state = world.state.with_fallen(find_flooded(world.state, branches))
    assert state.flooded == {key("a").public}
    left = droppable(spent, state, branches)
    assert left == ids(beside)
    # What was not taken because the branch had fallen must not count again.
    missed = make_revoke("a", "c")
    assert is_surplus(missed, state, branches)
    after = state.without_revocations(left)
    assert find_flooded(after, branches) == state.flooded
    assert droppable(frozenset(), state, branches) == frozenset()
    unknown = frozenset({StatementId(bytes(16))})
    assert droppable(unknown, state, branches) == frozenset(), "of what is not held nothing is said"


def test_what_is_dropped_is_charged_to_nobody_and_counts_for_nothing() -> None:
    world = World()
    world.grants("X -> a")
    one, two = make_revoke("a", LAMP), make_revoke("X", LAMP)
    for_ever = [make_revoke("a", "lamp"), make_revoke("a", "a")]
    power = make_grant("X", "op", scope(POWER_REVOKE))
    for_ever.append(make_revoke("op", LAMP, revoker_grant=power))
    empty = world.state
    state = empty.apply_revocations([one, two, *for_ever])
    assert state.grant_revocation(LAMP) == two
    after = state.without_revocations(ids(two))
    assert after.grant_revocation(LAMP) is None
    assert after == empty.apply_revocations([one, *for_ever])
    assert after.without_revocations(ids(two, *for_ever)) == after
    alone = empty.apply_revocations([one])
    assert alone.without_revocations(ids(one)) == empty
    assert TrustState().without_revocations([StatementId(bytes(16))]) == TrustState()
