"""Whom a node tells of its news."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from authd.clock import SystemEntropy
from authd.core.identity import StatementId
from authd.errors import NoResponseError
from authd.gossip.herald import Herald
from authd.gossip.messages import TOKEN_BYTES, Ask, sign_sample
from authd.gossip.transport import Hinted, Transport
from authd.gossip.views import Views
from authd.gossip.wire import encode_frame
from authd.service.ports import Admission, Clock, GossipStore
from tests.simulation.virtual import run
from tests.unit.dht.nodes import make_key

NOW = 1_800_000_000
KNOWN = 12


class Still:
    """A clock that stands."""

    def monotonic(self) -> float:
        return 0.0

    def now(self) -> int:
        return NOW


async def nothing(_new: set[StatementId]) -> None:
    """Take in what nobody delivers here."""


class Line:
    """A transport on which some addresses never answer, or refuse, and the others lack nothing."""

    def __init__(self, *, silent: bool, refuses: bool = False) -> None:
        self.asked: list[str] = []
        self.last_at_s = 0.0
        self._gone = 2 if silent or refuses else 0
        self._wait_s = 0.0 if refuses else 3.0

    @asynccontextmanager
    async def hinting(self, address: str) -> AsyncIterator[Hinted]:
        self.asked.append(address)
        self.last_at_s = asyncio.get_running_loop().time()
        gone = len(self.asked) <= self._gone

        async def ask(_frame: bytes) -> bytes:
            if gone:
                await asyncio.sleep(self._wait_s)
                raise NoResponseError("no answer to a hint")
            return encode_frame(Ask(bytes(TOKEN_BYTES), ()))

        yield ask


def herald_of(transport: object = None) -> Herald:
    """Return one that knows `KNOWN` nodes."""
    views = Views(own_key=make_key("own").public, now=0.0)
    for number in range(KNOWN):
        address = f"192.0.2.{number + 1}:8184"
        sample = sign_sample(make_key(f"node {number}"), address=address, issued_at=NOW)
        assert views.learn(sample, near=True, chance=0.5)
    return Herald(
        key=make_key("own"),
        transport=cast("Transport", transport),
        views=views,
        store=cast("GossipStore", None),
        admission=cast("Admission", None),
        clock=cast("Clock", Still()),
        entropy=SystemEntropy(),
        took_in=nothing,
    )


def test_rounds_of_one_news_reach_other_nodes_each_time() -> None:
    herald = herald_of()
    rounds = [herald._choose(count) for count in (3, 2, 2, 2, 3)]
    told = [sample.address for chosen in rounds for sample in chosen]
    assert len(set(told)) == len(told) == KNOWN
    again = [sample.address for sample in herald._choose(3)]
    assert set(again) == set(told[:3]), "who was told longest ago comes first"
    assert len(herald._choose(KNOWN + 1)) == KNOWN


@pytest.mark.parametrize("refuses", [False, True])
def test_in_the_place_of_each_that_does_not_answer_three_others_are_told(*, refuses: bool) -> None:
    line = Line(silent=True, refuses=refuses)
    began = run(_round_of_three(line))
    assert len(set(line.asked)) == len(line.asked) == 3 + 2 * 3
    assert line.last_at_s - began == (0.0 if refuses else 1.0)


def test_where_all_answer_nobody_else_is_told() -> None:
    line = Line(silent=False)
    run(_round_of_three(line))
    assert len(line.asked) == 3


async def _round_of_three(line: Line) -> float:
    began = asyncio.get_running_loop().time()
    await herald_of(line)._tell_round(3, (StatementId(bytes(16)),))
    return began
