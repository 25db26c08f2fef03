"""Gossip between real nodes over gRPC on loopback."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest

from authd.clock import SystemClock, SystemEntropy
from authd.core.claims import Kind
from authd.core.statements import sign_revoke
from authd.errors import ConfigError, NoResponseError
from authd.gossip.handshake import Introducer, Introduction
from authd.gossip.herald import Herald
from authd.gossip.messages import Deliver, Hello, Sample, Tick, sign_sample
from authd.gossip.node import GossipNode
from authd.gossip.transport import GrpcTransport, Link
from authd.gossip.views import Views
from authd.gossip.wire import encode_frame, parse_frame
from authd.service.ports import Item
from tests.unit.dht.nodes import Domain, PathAdmission, make_key
from tests.unit.gossip.nodes import (
    MemoryStore,
    gossiping,
    grant_item,
    make_gossip,
    revoke_item,
    until,
)


@pytest.fixture
def domain() -> Domain:
    return Domain.make()


def in_sync(*stores: MemoryStore) -> Callable[[], bool]:
    return lambda: all(store.items == stores[0].items for store in stores)


@asynccontextmanager
async def mesh(
    domain: Domain, stores: list[MemoryStore], *, repair_s: float = 30.0
) -> AsyncIterator[list[GossipNode]]:
    """Run one node for each store; all know only the first, and find the others through it."""
    first = make_gossip(domain, "node 0", stores[0], repair_s=repair_s)
    async with gossiping(first):
        others = [
            make_gossip(domain, f"node {i}", store, peers=[first.address], repair_s=repair_s)
            for i, store in enumerate(stores[1:], 1)
        ]
        async with gossiping(*others):
            nodes = [first, *others]
            await until(lambda: all(len(node.peers()) == len(nodes) - 1 for node in nodes))
            yield nodes


async def test_nodes_that_know_one_find_all_and_a_push_reaches_everyone(domain: Domain) -> None:
    stores = [MemoryStore(domain) for _ in range(4)]
    async with mesh(domain, stores) as nodes:
        item = grant_item(domain, "sensor")
        stores[1].take([item])
        assert await nodes[1].push([item]) == 3
        await until(lambda: all(len(store.items) == 1 for store in stores), within_s=2)
        told = {name.partition("@")[2] for name in nodes[1].peers()}
        assert told == {node.address for node in nodes if node is not nodes[1]}
        assert set(nodes[1].known_addresses()) == told


async def test_statements_travel_on_over_a_node_in_the_middle(domain: Domain) -> None:
    stores = [MemoryStore(domain) for _ in range(3)]
    middle = make_gossip(domain, "middle", stores[1])
    async with gossiping(middle):
        ends = [
            make_gossip(domain, name, store, peers=[middle.address], port=None)
            for name, store in (("left", stores[0]), ("right", stores[2]))
        ]
        async with gossiping(*ends):
            await until(lambda: all(len(end.peers()) == 1 for end in ends))
            await until(lambda: len(middle.peers()) == 2)
            item = revoke_item(domain, "sensor")
            assert await ends[0].push([item]) == 1
            await until(lambda: len(stores[2].items) == 1, within_s=2)
            assert ends[0].address == ""
            assert len(ends[0].peers()) == 1


async def test_a_new_stream_repairs_what_each_missed(domain: Domain) -> None:
    stores = [MemoryStore(domain) for _ in range(3)]
    shared = [grant_item(domain, f"shared {i}") for i in range(60)]
    for number, store in enumerate(stores):
        store.take(shared)
        store.take([revoke_item(domain, f"missed by others {number} {i}") for i in range(5)])
    async with mesh(domain, stores):
        await until(in_sync(*stores))
        assert len(stores[0].items) == 75


async def test_a_joiner_with_nothing_gets_everything(domain: Domain) -> None:
    full, empty = MemoryStore(domain), MemoryStore(domain)
    full.take([grant_item(domain, f"device {i}") for i in range(400)])
    async with mesh(domain, [full, empty]):
        await until(in_sync(full, empty))


async def test_live_streams_are_repaired_in_time(domain: Domain) -> None:
    stores = [MemoryStore(domain) for _ in range(2)]
    async with mesh(domain, stores, repair_s=0.5):
        stores[0].take([grant_item(domain, "never pushed")])
        await until(in_sync(*stores))


async def test_a_node_whose_only_peer_is_mute_hears_of_news_by_announcement(
    domain: Domain,
) -> None:
    stores = [MemoryStore(domain) for _ in range(2)]
    first = make_gossip(domain, "first", stores[0])
    second = make_gossip(domain, "second", stores[1])
    async with gossiping(first, second):
        sample = sign_sample(make_key("second"), address=second.address, issued_at=domain.now)
        admission = second._admission
        admission.learn_grants([domain.admit(make_key("first").public).encoded])
        assert await announced(domain, stores[0], sample) == 1
        await until(in_sync(*stores), within_s=5)
        assert stores[1].items


async def announced(domain: Domain, store: MemoryStore, sample: Sample) -> int:
    """Publish where nobody is connected and only the sample says that anybody is there."""
    views = Views(own_key=make_key("first").public)
    views.learn(sample, near=True, chance=0.0)
    herald = Herald(
        key=make_key("first"),
        transport=GrpcTransport(),
        views=views,
        store=store,
        admission=PathAdmission(domain, [domain.admit(make_key("first").public)]),
        clock=SystemClock(),
        entropy=SystemEntropy(),
        took_in=lambda _new: asyncio.sleep(0),
    )
    item = grant_item(domain, "sensor")
    new = store.take([item])
    return await herald.publish(new)


async def test_a_hint_that_is_junk_is_answered_and_changes_nothing(domain: Domain) -> None:
    store = MemoryStore(domain)
    node = make_gossip(domain, "node", store)
    async with gossiping(node), GrpcTransport().hinting(node.address) as hint:
        for junk in (b"", b"\xff" * 40, encode_frame(Tick()), encode_frame(Deliver(bytes(16), ()))):
            assert parse_frame(await hint(junk)) == Tick()
        assert not store.items


async def test_a_peer_that_gives_nothing_when_asked_loses_its_place(
    domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authd.gossip.peer.QUIET_S", 0.2)
    monkeypatch.setattr("authd.gossip.peer.ANSWER_S", 0.2)
    monkeypatch.setattr("authd.gossip.node._GAP_CHECK_S", 0.1)
    store = MemoryStore(domain)
    store.take([grant_item(domain, "sensor")])
    node = make_gossip(domain, "node", store)
    async with gossiping(node), raw_stream(domain, node, "mute") as (link, _):
        await until(lambda: len(node.peers()) == 1)
        await read_to_end(link)
        await until(lambda: not node.peers())


async def test_what_does_not_verify_goes_no_further(domain: Domain) -> None:
    stores = [MemoryStore(domain) for _ in range(3)]
    middle = make_gossip(domain, "middle", stores[1])
    async with gossiping(middle):
        ends = [
            make_gossip(domain, name, store, peers=[middle.address], port=None)
            for name, store in (("left", stores[0]), ("right", stores[2]))
        ]
        async with gossiping(*ends):
            await until(lambda: all(len(end.peers()) == 1 for end in ends))
            await until(lambda: len(middle.peers()) == 2)
            good = grant_item(domain, "sensor")
            bad = Item(good.kind, good.data[:-1] + bytes([good.data[-1] ^ 1]))
            await ends[0].push([bad, good])
            await until(lambda: len(stores[2].items) == 1, within_s=2)
            assert [store.bad for store in stores] == [0, 1, 0]


async def test_heartbeats_are_exchanged_when_a_stream_starts_and_pushed(domain: Domain) -> None:
    stores = [MemoryStore(domain) for _ in range(2)]
    key = domain.heartbeat.public
    stores[1].take([stores[1].beat(domain.heartbeat)])
    async with mesh(domain, stores) as nodes:
        await until(stores[0].is_fresh)
        revoke = revoke_item(domain, "sensor")
        stores[0].take([revoke])
        await nodes[0].push([revoke])
        await until(in_sync(*stores))
        await nodes[1].push([stores[1].beat(domain.heartbeat)])

        def proven_count() -> int:
            proven = stores[0].view.view(key).proven
            return proven.count if proven else -1

        await until(lambda: proven_count() == 1)


async def test_a_gap_in_a_heartbeat_list_is_filled_from_a_peer(domain: Domain) -> None:
    knows, lacks = MemoryStore(domain), MemoryStore(domain)
    knows.take([revoke_item(domain, f"device {i}") for i in range(50)])
    knows.take([knows.beat(domain.heartbeat)])
    async with mesh(domain, [knows, lacks]):
        await until(lacks.is_fresh)
        proven = lacks.view.view(domain.heartbeat.public).proven
        assert proven is not None
        assert proven.count == 50
        assert lacks.gaps() == []


async def test_a_long_gap_is_filled_in_several_parts(domain: Domain) -> None:
    knows, lacks = MemoryStore(domain), MemoryStore(domain)
    revocations = (
        sign_revoke(domain.authority, target=number.to_bytes(16), issued_at=domain.now)
        for number in range(2_100)
    )
    knows.take(Item(Kind.REVOKE, revocation.encoded) for revocation in revocations)
    lacks.take(knows.items.values())
    knows.take([knows.beat(domain.heartbeat)])
    async with mesh(domain, [knows, lacks]):
        await until(lacks.is_fresh)


# --- who is let in --------------------------------------------------------------------------


async def test_a_stranger_without_admission_is_refused_both_ways(domain: Domain) -> None:
    stores = [MemoryStore(domain) for _ in range(3)]
    stores[0].take([grant_item(domain, "secret")])
    inside = make_gossip(domain, "inside", stores[0])
    stranger = make_gossip(domain, "stranger", stores[1], admitted=False)
    async with gossiping(inside, stranger):
        inside.add_peer(stranger.address)
        stranger.add_peer(inside.address)
        await asyncio.sleep(1.0)
        assert inside.peers() == []
        assert stores[1].items == {}
        friend = make_gossip(domain, "friend", stores[2], peers=[inside.address])
        async with gossiping(friend):
            await until(lambda: len(inside.peers()) == 1)


async def test_a_dropped_node_loses_its_stream_and_does_not_come_back(domain: Domain) -> None:
    stores = [MemoryStore(domain) for _ in range(2)]
    async with mesh(domain, stores) as nodes:
        key = make_key("node 1").public
        admission = nodes[0]._admission
        assert isinstance(admission, PathAdmission)
        admission.learn_revocation(sign_revoke(domain.authority, target=key, issued_at=domain.now))
        nodes[0].drop(key)
        await until(lambda: nodes[0].peers() == [])
        await asyncio.sleep(1.0)
        assert nodes[0].peers() == []


# --- streams of our own making --------------------------------------------------------------


@asynccontextmanager
async def raw_stream(
    domain: Domain, node: GossipNode, name: str
) -> AsyncIterator[tuple[Link, Introduction]]:
    """Dial a node as an admitted peer that then does as the test likes."""
    key, entropy = make_key(name), SystemEntropy()
    admission = PathAdmission(domain, [domain.admit(key.public)])
    introducer = Introducer(key=key, run=bytes(16), entropy=entropy, admission=admission)
    async with GrpcTransport().dialled(node.address) as link:
        yield link, await introducer.introduce(link, we_dialled=True)


async def read_to_end(link: Link) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                await link.read()
            except NoResponseError:
                return


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"junk",
        b"\x82\x02\x81\x82\x01",
        encode_frame(Hello(key=make_key("x").public, nonce=bytes(32), run=bytes(16))),
    ],
)
async def test_a_malformed_frame_ends_the_stream_of_its_sender_only(
    domain: Domain, frame: bytes
) -> None:
    stores = [MemoryStore(domain) for _ in range(2)]
    async with mesh(domain, stores) as nodes:
        async with raw_stream(domain, nodes[0], "hostile") as (link, _):
            await until(lambda: len(nodes[0].peers()) == 2)
            await link.write(frame)
            await read_to_end(link)
        await until(lambda: len(nodes[0].peers()) == 1)
        item = grant_item(domain, "sensor")
        stores[0].take([item])
        await nodes[0].push([item])
        await until(in_sync(*stores))


@pytest.mark.parametrize("frame", [b"junk", encode_frame(Tick())])
async def test_whoever_does_not_introduce_itself_is_turned_away(
    domain: Domain, frame: bytes
) -> None:
    node = make_gossip(domain, "node", MemoryStore(domain))
    async with gossiping(node), GrpcTransport().dialled(node.address) as link:
        await link.write(frame)
        await read_to_end(link)
        assert node.peers() == []


async def test_a_reset_in_mid_stream_is_followed_by_a_new_stream(domain: Domain) -> None:
    stores = [MemoryStore(domain) for _ in range(2)]
    async with mesh(domain, stores) as nodes:
        resets: list[str] = []
        for _ in range(3):
            for peer in list(nodes[0]._peers.values()):
                peer.close("reset by the test")
                resets.append(peer.name)
            await until(lambda: all(len(node.peers()) == 1 for node in nodes))
        stores[0].take([grant_item(domain, "sensor")])
        for peer in list(nodes[0]._peers.values()):
            peer.close("reset by the test")
        await until(in_sync(*stores))
        assert len(resets) == 3


async def test_a_restarted_node_is_found_again_at_its_address(domain: Domain) -> None:
    stores = [MemoryStore(domain) for _ in range(2)]
    first = make_gossip(domain, "first", stores[0])
    async with gossiping(first):
        port, address = first.port, first.address
        second = make_gossip(domain, "second", stores[1], peers=[address], port=None)
        stack = AsyncExitStack()
        await stack.enter_async_context(gossiping(second))
        await until(lambda: len(second.peers()) == 1)
    async with stack:
        await until(lambda: second.peers() == [])
        again = make_gossip(domain, "first", stores[0], port=port)
        stores[0].take([grant_item(domain, "issued while alone")])
        async with gossiping(again):
            await until(in_sync(*stores), within_s=20)


async def test_a_port_in_use_is_a_configuration_error(domain: Domain) -> None:
    node = make_gossip(domain, "node", MemoryStore(domain))
    async with gossiping(node):
        other = make_gossip(domain, "other", MemoryStore(domain), port=node.port)
        with pytest.raises(ConfigError):
            await other.__aenter__()


async def test_an_address_that_cannot_be_dialled_is_a_configuration_error(domain: Domain) -> None:
    with pytest.raises(ConfigError):
        make_gossip(domain, "node", MemoryStore(domain), peers=["unix:/run/x"])


async def test_an_oversized_message_ends_the_stream(domain: Domain) -> None:
    node = make_gossip(domain, "node", MemoryStore(domain))
    async with gossiping(node):
        async with raw_stream(domain, node, "hostile") as (link, _):
            await until(lambda: len(node.peers()) == 1)
            with suppress(NoResponseError):
                await link.write(bytes(200_000))
            await read_to_end(link)
        await until(lambda: node.peers() == [])
