"""Whom a node tells of its news."""

from typing import cast

from authd.clock import SystemEntropy
from authd.core.identity import StatementId
from authd.gossip.herald import Herald
from authd.gossip.messages import sign_sample
from authd.gossip.transport import Transport
from authd.gossip.views import Views
from authd.service.ports import Admission, Clock, GossipStore
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


def test_rounds_of_one_news_reach_other_nodes_each_time() -> None:
    views = Views(own_key=make_key("own").public, now=0.0)
    for number in range(KNOWN):
        address = f"192.0.2.{number + 1}:8184"
        sample = sign_sample(make_key(f"node {number}"), address=address, issued_at=NOW)
        assert views.learn(sample, near=True, chance=0.5)
    herald = Herald(
        key=make_key("own"),
        transport=cast("Transport", None),
        views=views,
        store=cast("GossipStore", None),
        admission=cast("Admission", None),
        clock=cast("Clock", Still()),
        entropy=SystemEntropy(),
        took_in=nothing,
    )
    rounds = [herald._choose(count) for count in (3, 2, 2, 2, 3)]
    told = [sample.address for chosen in rounds for sample in chosen]
    assert len(set(told)) == len(told) == KNOWN
    again = [sample.address for sample in herald._choose(3)]
    assert set(again) == set(told[:3]), "who was told longest ago comes first"
    assert len(herald._choose(KNOWN + 1)) == KNOWN
