"""How the entries of a long heartbeat list are fetched from one peer, part by part."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import pytest

from authd.core.identity import DomainId, PublicKey, StatementId
from authd.gossip.handshake import Introduction
from authd.gossip.messages import ChainAsk, ChainPart
from authd.gossip.peer import Peer
from authd.gossip.transport import Link
from authd.service.ports import Clock, GossipStore
from tests.unit.dht.nodes import make_key

KEY = make_key("hb").public
DOMAIN = DomainId(bytes(32))
ROUND_TRIP_S = 0.2
PUSH_EVERY_S = 7.0


def entry(number: int) -> StatementId:
    return StatementId(number.to_bytes(16, "big"))


@dataclass
class Shelf:
    """Lacks ``wanted`` entries of one list, and everything else."""

    wanted: int
    is_whole: bool = False

    def gaps(self) -> list[tuple[DomainId, PublicKey, int, int, int]]:
        return [] if self.is_whole else [(DOMAIN, KEY, 5, 0, self.wanted)]

    def fill(self, *place_and_ids: object) -> None:
        ids = list(cast("Sequence[StatementId]", place_and_ids[-1]))
        self.is_whole = ids == [entry(number) for number in range(self.wanted)]

    def statement(self, statement_id: StatementId) -> StatementId:
        return statement_id  # the revocations themselves are all held


class Hours:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.at_s = 0.0

    def monotonic(self) -> float:
        return self.at_s


class Fetching:
    """A peer, what it asked for, and what comes back a round trip later."""

    def __init__(self, wanted: int) -> None:
        self.clock, self.shelf = Hours(), Shelf(wanted)
        introduction = Introduction(
            key=make_key("peer").public, run=bytes(16), stream_key=bytes(32), we_dialled=True
        )
        self.peer = Peer(
            link=cast("Link", None),
            introduction=introduction,
            address="192.0.2.1:1",
            store=cast("GossipStore", self.shelf),
            clock=cast("Clock", self.clock),
            spread=lambda _items, _but: None,
            learn=lambda _samples, _of: None,
        )
        self.sent = 0
        self._under_way: list[tuple[float, ChainAsk]] = []
        self._push_at = PUSH_EVERY_S

    async def go_on(self, for_s: float, *, lies: bool = False, grows: bool = False) -> None:
        """Let time pass; heads that others push meanwhile make the peer look for gaps."""
        end_s = self.clock.at_s + for_s
        self.peer.ask_for_gaps()
        while self.clock.at_s < end_s and not self.shelf.is_whole:
            while not self.peer._queue.empty():
                asked = self.peer._queue.get_nowait()
                assert isinstance(asked, ChainAsk)
                self._under_way.append((self.clock.at_s + ROUND_TRIP_S, asked))
            self.clock.at_s += 0.05
            await self._deliver(lies=lies)
            if self.clock.at_s >= self._push_at:
                self._push_at += PUSH_EVERY_S
                self.shelf.wanted += grows
                self.peer.ask_for_gaps()

    async def _deliver(self, *, lies: bool) -> None:
        due = [one for one in self._under_way if one[0] <= self.clock.at_s]
        self._under_way = [one for one in self._under_way if one not in due]
        for _, asked in due:
            ids = tuple(entry(number + lies) for number in range(asked.start, asked.end))
            self.sent += len(ids)
            await self.peer._on_chain_part(
                ChainPart(domain=DOMAIN, key=KEY, epoch=5, start=asked.start, ids=ids)
            )


@pytest.mark.parametrize("grows", [False, True])
async def test_a_long_list_comes_once_however_many_heads_come_meanwhile(*, grows: bool) -> None:
    fetching = Fetching(120_000)
    await fetching.go_on(120, grows=grows)
    assert fetching.shelf.is_whole
    assert fetching.sent < 1.2 * fetching.shelf.wanted


async def test_a_part_that_does_not_come_is_asked_for_again_and_nothing_before_it() -> None:
    fetching = Fetching(20_000)
    await fetching.go_on(1)
    sent = fetching.sent
    assert 0 < sent < fetching.shelf.wanted
    fetching._under_way.clear()
    await fetching.go_on(60)
    assert fetching.shelf.is_whole
    assert fetching.sent == 20_000


async def test_what_was_not_signed_is_asked_for_from_the_beginning() -> None:
    fetching = Fetching(3_000)
    await fetching.go_on(10, lies=True)
    assert not fetching.shelf.is_whole
    await fetching.go_on(30)
    assert fetching.shelf.is_whole
