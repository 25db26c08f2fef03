"""Halves that were apart for so long that all streams between them are gone find each other."""

import asyncio
from collections.abc import Callable

import pytest

from authd.core.claims import Kind
from authd.core.statements import sign_revoke
from authd.gossip.node import REPAIR_S
from authd.service.ports import Item
from tests.simulation.network import Wires
from tests.simulation.swarm import Swarm, address_of
from tests.simulation.virtual import START, run
from tests.unit.dht.nodes import make_key

SIZE = 50


@pytest.mark.parametrize("parted_s", [60, 900])
def test_halves_hold_the_same_within_a_repair_period_of_the_heal(
    parted_s: int, figures: Callable[[str], None]
) -> None:
    async def play() -> None:
        wires = Wires(seed=1)
        swarm = Swarm(wires, size=SIZE, seed=1, known=[0])
        tasks = await swarm.start()
        await asyncio.sleep(30)
        side = {address_of(number): number % 2 for number in range(SIZE)}
        wires.conditions.parted = lambda one, other: side[one] != side[other]
        await asyncio.sleep(parted_s)
        across = [
            peer
            for node in swarm.nodes
            for peer in node._peers.values()
            if peer.address in side and side[peer.address] != side[node.address]
        ]
        assert not across, "no stream lives on"
        revokes = [
            sign_revoke(swarm.domain.authority, target=make_key(name).public, issued_at=START)
            for name in ("even", "odd")
        ]
        for number, revoke in enumerate(revokes):
            await swarm.publish(number, [Item(Kind.REVOKE, revoke.encoded)])
        await asyncio.sleep(5)
        wires.conditions.parted = lambda _one, _other: False
        healed_at = asyncio.get_running_loop().time()
        await asyncio.sleep(REPAIR_S)
        missing = [
            number
            for number, shelf in enumerate(swarm.shelves)
            if any(one.statement_id not in shelf.items for one in revokes)
        ]
        assert not missing, missing
        last = max(one.came_at[revoke.statement_id] for one in swarm.shelves for revoke in revokes)
        figures(f"simulated: halves parted for {parted_s} s: whole {last - healed_at:.2f} s later")
        for task in tasks:
            task.cancel()

    run(play())
