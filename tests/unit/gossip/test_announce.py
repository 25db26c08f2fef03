"""Announcements to nodes without a stream."""

import pytest

from authd.core.claims import Kind
from authd.core.identity import PublicKey, StatementId
from authd.errors import ExpiredError, SignatureError
from authd.gossip.announce import MAX_WAITING, ROUNDS, Desk, Rounds
from authd.gossip.messages import MAX_ANNOUNCED, Ask, Deliver, Have, sign_have
from authd.service.ports import Item
from tests.unit.dht.nodes import make_key

KEY, OTHER = make_key("announcer"), make_key("other")
NOW = 1_800_000_000
ITEM = Item(Kind.GRANT, b"grant")


def one(number: int) -> StatementId:
    return StatementId(number.to_bytes(16, "big"))


# --- rounds -------------------------------------------------------------------------------------


def test_news_is_announced_to_fewer_and_fewer() -> None:
    rounds = Rounds()
    assert rounds.next_at() is None
    rounds.add([one(1)], now=10.0)
    for after_s, tells in ROUNDS:
        assert rounds.next_at() == 10.0 + after_s
        assert rounds.due(now=10.0 + after_s - 0.01) == (0, ())
        assert rounds.due(now=10.0 + after_s) == (tells, (one(1),))
    assert rounds.next_at() is None


def test_what_is_due_together_is_announced_together_and_once() -> None:
    rounds = Rounds()
    rounds.add([one(1), one(2)], now=0.0)
    rounds.add([one(2), one(3)], now=0.1)
    assert rounds.due(now=0.6) == (3, (one(1), one(2), one(3)))


def test_an_announcement_is_bounded_and_the_rest_follows() -> None:
    rounds = Rounds()
    many = [one(number) for number in range(2 * MAX_ANNOUNCED + 5)]
    rounds.add(many, now=0.0)
    told: list[StatementId] = []
    for _ in range(3):
        tells, ids = rounds.due(now=0.5)
        assert tells == 3
        told += ids
    assert told == many
    assert rounds.due(now=0.5) == (0, ())


def test_a_flood_of_news_is_left_to_repair() -> None:
    rounds = Rounds()
    rounds.add(map(one, range(MAX_WAITING + 100)), now=0.0)
    told = set[StatementId]()
    while ids := rounds.due(now=0.5)[1]:
        told |= set(ids)
    assert len(told) == MAX_WAITING


def test_where_everybody_had_it_the_next_round_is_left_out() -> None:
    rounds = Rounds()
    rounds.add([one(1), one(2)], now=0.0)
    assert rounds.due(now=0.5) == (3, (one(1), one(2)))
    rounds.settle([one(1)])
    assert rounds.due(now=1.5) == (2, (one(2),))
    assert rounds.due(now=2.5) == (2, (one(1), one(2)))
    rounds.settle([one(1), one(2), one(3)])
    assert rounds.next_at() == 8.0


# --- the desk -----------------------------------------------------------------------------------


def ask(
    desk: Desk,
    have: Have,
    *,
    held: set[StatementId] | None = None,
    admitted: set[PublicKey] | None = None,
    token: bytes = bytes(16),
    wall_now: int = NOW,
) -> Ask:
    members = {KEY.public} if admitted is None else admitted
    return desk.on_have(
        have,
        lacks=lambda wanted: wanted not in (held or set()),
        admits=lambda key: key in members,
        token=token,
        now=0.0,
        wall_now=wall_now,
    )


def test_what_is_lacking_is_asked_for_and_taken_once() -> None:
    desk = Desk(now=0.0)
    have = sign_have(KEY, [one(1), one(2)], issued_at=NOW)
    assert ask(desk, have, held={one(1)}) == Ask(bytes(16), (one(2),))
    assert desk.on_deliver(Deliver(bytes(16), (ITEM,)), now=1.0) == (ITEM,)
    assert desk.on_deliver(Deliver(bytes(16), (ITEM,)), now=1.0) == ()


def test_nothing_is_asked_for_that_is_held() -> None:
    desk = Desk(now=0.0)
    assert ask(desk, sign_have(KEY, [one(1)], issued_at=NOW), held={one(1)}).ids == ()
    assert desk.on_deliver(Deliver(bytes(16), (ITEM,)), now=1.0) == ()


def test_a_stranger_is_asked_for_nothing() -> None:
    assert ask(Desk(now=0.0), sign_have(OTHER, [one(1)], issued_at=NOW)).ids == ()


def test_an_announcement_that_is_old_or_forged_is_refused() -> None:
    forged = Have(key=KEY.public, issued_at=NOW, ids=(one(1),), signature=bytes(64))
    with pytest.raises(SignatureError):
        ask(Desk(now=0.0), forged)
    with pytest.raises(ExpiredError):
        ask(Desk(now=0.0), sign_have(KEY, [one(1)], issued_at=NOW), wall_now=NOW + 61)


def test_what_nobody_asked_for_is_not_taken() -> None:
    desk = Desk(now=0.0)
    assert desk.on_deliver(Deliver(bytes(16), (ITEM,)), now=0.0) == ()
    ask(desk, sign_have(KEY, [one(1)], issued_at=NOW))
    assert desk.on_deliver(Deliver(b"another token...", (ITEM,)), now=0.0) == ()
    assert desk.on_deliver(Deliver(bytes(16), (ITEM, ITEM, ITEM)), now=0.0) == (ITEM,)


def test_a_delivery_comes_within_ten_seconds() -> None:
    desk = Desk(now=0.0)
    ask(desk, sign_have(KEY, [one(1)], issued_at=NOW))
    assert desk.on_deliver(Deliver(bytes(16), (ITEM,)), now=10.0) == ()


def test_open_questions_are_bounded() -> None:
    desk = Desk(now=0.0)
    have = sign_have(KEY, [one(1)], issued_at=NOW)
    for number in range(257):
        ask(desk, have, token=number.to_bytes(16, "big"))
    first, second = bytes(16), (1).to_bytes(16, "big")
    assert desk.on_deliver(Deliver(first, (ITEM,)), now=0.0) == ()
    assert desk.on_deliver(Deliver(second, (ITEM,)), now=0.0) == (ITEM,)


def test_hints_are_rationed_and_a_refusal_costs_the_next_nothing() -> None:
    desk = Desk(now=0.0)
    assert sum(desk.may_come(now=0.0) for _ in range(1_000)) == 200
    assert sum(desk.may_come(now=1.0) for _ in range(1_000)) == 50
