"""Sites that nobody can dial take part all the same."""

import asyncio

import pytest

from authd.core.claims import Kind
from authd.core.statements import sign_revoke
from authd.service.ports import Item
from tests.simulation.network import Wires
from tests.simulation.swarm import Swarm, address_of
from tests.simulation.virtual import START, run
from tests.unit.dht.nodes import make_key


@pytest.mark.parametrize(
    ("size", "reachable", "places"), [(12, 3, 10), (40, 1, 40)], ids=["a few", "a hub"]
)
def test_sites_behind_nat_send_and_receive_through_the_few_that_can_be_dialled(
    size: int, reachable: int, places: int
) -> None:
    async def play() -> None:
        wires = Wires(seed=1)
        swarm = Swarm(wires, size=size, seed=1, only_dial=range(reachable, size), places=places)
        for node in swarm.nodes:
            for one in range(reachable):
                node.add_peer(address_of(one))
        tasks = await swarm.start()
        await asyncio.sleep(40)
        assert set(wires.hosts) == {address_of(one) for one in range(reachable)}
        assert all(node.peers() for node in swarm.nodes)
        revoke = sign_revoke(
            swarm.domain.authority, target=make_key("lost").public, issued_at=START
        )
        await swarm.publish(size - 1, [Item(Kind.REVOKE, revoke.encoded)])
        await asyncio.sleep(2)
        reached = [revoke.statement_id in shelf.items for shelf in swarm.shelves]
        assert all(reached), reached
        for task in tasks:
            task.cancel()

    run(play())
