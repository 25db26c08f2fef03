"""What strangers and single nodes may make a node work for, whatever their addresses are."""

import pytest

from authd.clock import SystemClock
from authd.core.identity import SigningKey
from authd.dht.dialogue import BURST_REQUESTS_OF_A_NODE, BURST_STRANGERS, Dialogue
from authd.dht.messages import Address, Find, Ping, Request, node_id, seal_datagram
from authd.dht.node import DhtNode
from authd.dht.table import Contact
from tests.unit.dht.nodes import Domain, make_key, make_node, network


@pytest.fixture
def domain() -> Domain:
    return Domain.make()


class Frozen(SystemClock):
    """A clock that stands still, so that no budget grows while a test runs."""

    def monotonic(self) -> float:
        return 1_000_000.0


def freeze(node: DhtNode) -> Dialogue:
    node._dialogue._clock = Frozen()
    return node._dialogue


def sealed(request: Request, key: SigningKey, to: str, number: int = 0) -> bytes:
    receiver = node_id(make_key(to).public)
    return seal_datagram(request, nonce=number.to_bytes(8), receiver=receiver, key=key)


def host(number: int) -> Address:
    return f"198.51.{number // 200}.{1 + number % 200}", 8_184


async def test_strangers_share_one_budget_however_many_addresses_they_have(domain: Domain) -> None:
    async with network(domain, 2) as nodes:
        dialogue = freeze(nodes[0])
        data = sealed(Ping(), make_key("stranger"), "node 0")
        for number in range(int(BURST_STRANGERS) + 500):
            dialogue.receive(data, host(number % 10_000))
        assert dialogue.refusals["strangers"] >= 500
        # Whoever is known here is heard all the same, from where it is known to be.
        before = dialogue.refusals["strangers"]
        known = sealed(Find(target=bytes(20)), make_key("node 1"), "node 0")
        dialogue.receive(known, nodes[1].address)
        assert dialogue.refusals["strangers"] == before
        # To name it from somewhere else makes nobody familiar.
        dialogue.receive(known, host(1))
        assert dialogue.refusals["strangers"] == before + 1


async def test_an_answer_is_taken_while_strangers_flood(domain: Domain) -> None:
    async with network(domain, 2) as nodes:
        data = sealed(Ping(), make_key("stranger"), "node 0")
        for number in range(int(BURST_STRANGERS) + 100):
            nodes[0]._dialogue.receive(data, host(number))
        newcomer = make_node(domain, "newcomer")
        async with newcomer:
            contact = await nodes[0]._dialogue.greet(_contact(newcomer))
            assert contact.key == make_key("newcomer").public


def _contact(node: DhtNode) -> Contact:
    return Contact(node_id=b"", address=node.address)


async def test_one_admitted_node_is_answered_so_often_and_another_still(domain: Domain) -> None:
    async with network(domain, 3) as nodes:
        dialogue, sent = freeze(nodes[0]), list[bytes]()
        dialogue._send = lambda data, _address: sent.append(data)
        greedy = make_key("node 1")
        extra = 150
        for number in range(int(BURST_REQUESTS_OF_A_NODE) + extra):
            request = sealed(Find(target=number.to_bytes(20)), greedy, "node 0", number)
            dialogue.receive(request, nodes[1].address)
        assert dialogue.refusals["requests"] >= extra
        assert len(sent) <= int(BURST_REQUESTS_OF_A_NODE)
        sent.clear()
        modest = sealed(Find(target=bytes(20)), make_key("node 2"), "node 0")
        dialogue.receive(modest, nodes[2].address)
        assert len(sent) == 1
