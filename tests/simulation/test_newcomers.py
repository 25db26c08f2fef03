"""A full circle of nodes lets newcomers in."""

import asyncio

import pytest

from authd.gossip.views import MAX_ACTIVE
from tests.simulation.network import Wires
from tests.simulation.swarm import Swarm
from tests.simulation.virtual import run

CIRCLE = MAX_ACTIVE + 1


@pytest.mark.parametrize("newcomers", [1, 5])
def test_a_full_circle_lets_newcomers_in_and_keeps_within_its_places(
    newcomers: int,
) -> None:
    async def play() -> None:
        # As many places as a node dials for: then a circle of one more is full.
        swarm = Swarm(Wires(seed=1), size=CIRCLE + newcomers, seed=1, places=MAX_ACTIVE)
        tasks = [await swarm.join(number) for number in range(CIRCLE)]
        await asyncio.sleep(60)
        assert {len(node.peers()) for node in swarm.nodes[:CIRCLE]} == {MAX_ACTIVE}
        tasks += [await swarm.join(number) for number in range(CIRCLE, CIRCLE + newcomers)]
        await asyncio.sleep(30)
        places = [len(node.peers()) for node in swarm.nodes]
        assert min(places) >= 3, places
        assert max(places) <= MAX_ACTIVE, places
        for task in tasks:
            task.cancel()

    run(play())
