"""What every `RecordNetwork` does, on real datagrams over loopback and in memory."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from authd.clock import SystemClock, SystemEntropy
from authd.core.identity import PublicKey
from authd.core.records import Record, RecordKind, record_salt
from authd.dht.memory import MemoryRecordNetwork
from authd.dht.messages import Find, Ping, Request, node_id, seal_datagram
from authd.dht.node import DhtNode
from authd.dht.table import Contact
from authd.errors import ConfigError, NoPeersError, NotFoundError, ReasonCode, RejectedError
from authd.service.ports import RecordNetwork
from tests.unit.dht.nodes import (
    Domain,
    PathAdmission,
    address_text,
    long_grant,
    make_key,
    make_node,
    make_test_record,
    network,
    running,
)
from tests.unit.dht.test_shelf import Rows


@pytest.fixture(params=["memory", "udp"])
async def engines(request: pytest.FixtureRequest) -> AsyncIterator[list[RecordNetwork]]:
    if request.param == "memory":
        shared: dict[bytes, Record] = {}
        yield [MemoryRecordNetwork(clock=SystemClock(), shared=shared) for _ in range(3)]
        return
    async with network(Domain.make(), 8) as nodes:
        yield list(nodes)


async def test_what_one_puts_every_other_gets(engines: list[RecordNetwork]) -> None:
    record = make_test_record(content=b"x" * 850)
    assert await engines[0].put(record) >= 1
    for engine in engines:
        assert await engine.get(record.publisher, record.salt) == record


async def test_what_nobody_put_is_not_found(engines: list[RecordNetwork]) -> None:
    record = make_test_record()
    with pytest.raises(NotFoundError):
        await engines[0].get(record.publisher, record.salt)


async def test_a_newer_record_replaces_an_older_one_everywhere(
    engines: list[RecordNetwork],
) -> None:
    older, newer = make_test_record(age_s=10), make_test_record(content=b"new")
    await engines[0].put(older)
    await engines[1].put(newer)
    for engine in engines:
        assert await engine.get(newer.publisher, newer.salt) == newer


async def test_an_older_record_is_refused(engines: list[RecordNetwork]) -> None:
    older, newer = make_test_record(age_s=10), make_test_record(content=b"new")
    await engines[0].put(newer)
    with pytest.raises(RejectedError) as raised:
        await engines[1].put(older)
    assert raised.value.reason is ReasonCode.STALE_RECORD
    assert await engines[2].get(newer.publisher, newer.salt) == newer


async def test_a_stranger_cannot_overwrite(engines: list[RecordNetwork]) -> None:
    record = make_test_record()
    await engines[0].put(record)
    stranger = make_test_record("stranger", content=b"forged")
    forged = replace(stranger, publisher=record.publisher, salt=record.salt)
    with pytest.raises(RejectedError) as raised:
        await engines[1].put(forged)
    assert raised.value.reason is ReasonCode.BAD_SIGNATURE
    assert await engines[2].get(record.publisher, record.salt) == record


async def test_a_record_is_gone_at_its_end_of_life(engines: list[RecordNetwork]) -> None:
    record = make_test_record(life_s=2)
    await engines[0].put(record)
    assert await engines[1].get(record.publisher, record.salt) == record
    while SystemClock().now() < record.expires_at:
        await asyncio.sleep(0.1)
    for engine in engines:
        with pytest.raises(NotFoundError):
            await engine.get(record.publisher, record.salt)


# --- on datagrams only ----------------------------------------------------------------------


@pytest.fixture
def domain() -> Domain:
    return Domain.make()


async def test_a_node_alone_says_that_it_has_no_peers_and_publishes_later(domain: Domain) -> None:
    record = make_test_record()
    alone = make_node(domain, "alone")
    async with running(alone):
        with pytest.raises(NoPeersError):
            await alone.put(record)
        with pytest.raises(NoPeersError):
            await alone.get(record.publisher, record_salt(RecordKind.BROKER, record.publisher))
        other = make_node(domain, "other", bootstrap=[address_text(alone)])
        async with running(other):
            async with asyncio.timeout(10):
                while other.stats().records == 0:
                    await asyncio.sleep(0.02)
            assert await other.get(record.publisher, record.salt) == record


async def test_reads_go_on_when_a_third_of_the_nodes_is_killed(domain: Domain) -> None:
    async with network(domain, 12) as nodes:
        records = [make_test_record(f"issuer {i}") for i in range(10)]
        for record in records:
            assert await nodes[0].put(record) >= 8
        for node in nodes[4:8]:
            await node.__aexit__(None, None, None)
        loop = asyncio.get_running_loop()
        reader = make_node(domain, "reader", bootstrap=[address_text(nodes[0])])
        async with running(reader):
            async with asyncio.timeout(10):
                while reader.stats().peers < 7:
                    await asyncio.sleep(0.05)
            took = []
            for record in records:
                began = loop.time()
                assert await reader.get(record.publisher, record.salt) == record
                took.append(loop.time() - began)
        assert sorted(took)[len(took) // 2] < 4.0, "no read waits for one dead node after another"


async def test_a_joiner_is_handed_what_the_others_hold(domain: Domain) -> None:
    record = make_test_record()
    async with network(domain, 4) as nodes:
        await nodes[0].put(record)
        joiner = make_node(domain, "joiner", bootstrap=[address_text(nodes[1])])
        async with running(joiner):
            async with asyncio.timeout(10):
                while joiner.stats().records == 0:
                    await asyncio.sleep(0.02)


async def test_a_node_that_only_dials_reads_and_publishes_but_is_in_no_table(
    domain: Domain,
) -> None:
    record = make_test_record()
    async with network(domain, 3) as nodes:
        inside = make_node(domain, "inside", bootstrap=[address_text(nodes[0])], reachable=False)
        async with running(inside):
            async with asyncio.timeout(10):
                while inside.stats().peers < 3:
                    await asyncio.sleep(0.05)
            assert await inside.put(record) == 3
            assert await nodes[2].get(record.publisher, record.salt) == record
            assert all(address_text(inside) not in node.neighbours() for node in nodes)


async def test_a_node_without_admission_gets_into_no_table_and_gets_no_answer(
    domain: Domain,
) -> None:
    async with network(domain, 3) as nodes:
        stranger = make_node(
            domain, "stranger", bootstrap=[address_text(node) for node in nodes], admitted=False
        )
        async with running(stranger):
            await asyncio.sleep(1.0)
            receiver = node_id(make_key("node 0").public)
            contact = Contact(node_id=receiver, address=nodes[0].address)
            with pytest.raises(RejectedError):
                await stranger._dialogue.converse(contact, Find(target=bytes(20)))
            assert all(node.stats().peers == 2 for node in nodes)
            assert all(address_text(stranger) not in node.neighbours() for node in nodes)


async def test_a_dropped_node_leaves_the_table_at_once(domain: Domain) -> None:
    async with network(domain, 3) as nodes:
        gone: PublicKey = make_key("node 1").public
        nodes[0].drop(gone)
        assert address_text(nodes[1]) not in nodes[0].neighbours()
        assert nodes[0].stats().peers == 1


async def test_a_record_that_an_admitted_node_forged_is_not_believed(domain: Domain) -> None:
    record = make_test_record()
    forged = replace(record, value=make_test_record(content=b"forged").value)
    async with network(domain, 4) as nodes:
        hostile = nodes[3]
        # What a hostile node would do: hold, and show, what it never verified.
        hostile._shelf.take(forged, now=SystemClock().now(), chance=0.0)
        with pytest.raises(NotFoundError):
            await nodes[0].get(record.publisher, record.salt)
        assert await nodes[1].put(record) >= 2
        assert await nodes[2].get(record.publisher, record.salt) == record


async def test_junk_oversize_and_floods_are_dropped_and_the_node_goes_on(
    domain: Domain, caplog: pytest.LogCaptureFixture
) -> None:
    record = make_test_record()
    async with network(domain, 3) as nodes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attacker:
            attacker.bind(("127.0.0.2", 0))
            attacker.setblocking(False)  # noqa: FBT003 - the library's own signature
            junk = [b"", b"\x00", b"\x87" * 300, bytes(1_200), bytes(9_000), b"d1:ad2:id20:"]
            for _ in range(100):
                for data in junk:
                    attacker.sendto(data, nodes[0].address)
                await asyncio.sleep(0)
            await asyncio.sleep(0.1)
            for _ in range(60):
                for _ in range(100):
                    attacker.sendto(b"\x87\x01", nodes[0].address)
                await asyncio.sleep(0.01)
        refusals = nodes[0]._dialogue.refusals
        assert refusals["size"] > 0
        assert refusals["malformed"] > 0
        assert refusals["rate"] > 0
        assert await nodes[0].put(record) == 2
        assert await nodes[1].get(record.publisher, record.salt) == record
    assert not [entry for entry in caplog.records if entry.levelname == "ERROR"]


async def _ask_raw(node: DhtNode, data: bytes) -> int:
    """Send one datagram from a new port; return how many bytes come back within a moment."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("127.0.0.1", 0))
        client.setblocking(False)  # noqa: FBT003 - the library's own signature
        await loop.sock_sendto(client, data, node.address)
        received = 0
        try:
            async with asyncio.timeout(0.3):
                while True:
                    received += len(await loop.sock_recv(client, 65_536))
        except TimeoutError:
            return received


async def test_without_a_cookie_no_answer_is_longer_than_three_times_the_request(
    domain: Domain,
) -> None:
    record = make_test_record(content=b"x" * 850)
    async with network(domain, 10) as nodes:
        await nodes[1].put(record)
        receiver = node_id(make_key("node 0").public)
        requests: list[Request] = [
            Ping(),
            Ping(grants=(domain.admit(make_key("x").public).encoded,)),
            Find(target=record.target),
            Find(target=bytes(20)),
        ]
        for key in (make_key("node 1"), make_key("stranger")):
            for request in requests:
                data = seal_datagram(request, nonce=bytes(8), receiver=receiver, key=key)
                answered = await _ask_raw(nodes[0], data)
                assert 0 < answered <= 3 * len(data)


async def test_nodes_on_ipv6_find_each_other(domain: Domain) -> None:
    record = make_test_record()
    first = make_node(domain, "first", host="::1")
    async with running(first):
        second = make_node(domain, "second", bootstrap=[address_text(first)], host="::1")
        async with running(second):
            async with asyncio.timeout(10):
                while not first.neighbours() or not second.neighbours():
                    await asyncio.sleep(0.02)
            assert await second.put(record) == 1
            assert first.neighbours() == [address_text(second)]


def test_a_bootstrap_address_that_is_none_is_a_configuration_error(domain: Domain) -> None:
    with pytest.raises(ConfigError):
        make_node(domain, "node", bootstrap=["nowhere"])


async def test_a_port_in_use_is_a_configuration_error(domain: Domain) -> None:
    node = make_node(domain, "node")
    async with running(node):
        taken = DhtNode(
            key=make_key("other"),
            admission=PathAdmission(domain),
            clock=SystemClock(),
            entropy=SystemEntropy(),
            port=node.address[1],
        )
        with pytest.raises(ConfigError):
            await taken.__aenter__()


async def test_records_outlive_a_restart(domain: Domain) -> None:
    record, rows = make_test_record(), Rows()
    for life in range(2):
        node = DhtNode(
            key=make_key("node"),
            admission=PathAdmission(domain),
            clock=SystemClock(),
            entropy=SystemEntropy(),
            store=rows,
        )
        async with node:
            if not life:
                with pytest.raises(NoPeersError):
                    await node.put(record)
            assert await node.get(record.publisher, record.salt) == record


# --- what a node does by itself -------------------------------------------------------------


async def test_a_holder_restores_missing_copies_and_takes_a_newer_one(domain: Domain) -> None:
    older, newer = make_test_record(age_s=10), make_test_record(content=b"new")
    now = SystemClock().now()
    async with network(domain, 4) as nodes:
        nodes[0]._shelf.take(older, now=now, chance=0.0)
        await nodes[0]._upkeep._republish(older)
        assert [node.stats().records for node in nodes] == [1, 1, 1, 1]
        nodes[3]._shelf.take(newer, now=now, chance=0.0)
        await nodes[0]._upkeep._republish(older)
        assert nodes[0]._shelf.get(older.target, now=now) == newer


async def test_records_are_republished_when_they_are_due(domain: Domain) -> None:
    record = make_test_record()
    now = SystemClock().now()
    async with network(domain, 3) as nodes:
        nodes[0]._shelf.take(record, now=now - 3_000, chance=0.0)
        await nodes[0]._upkeep._republish_due()
        assert [node.stats().records for node in nodes] == [1, 1, 1]
        assert nodes[0]._shelf.due(now=now, most=9) == []


async def test_contacts_that_stay_silent_are_tested_and_evicted(domain: Domain) -> None:
    async with network(domain, 3) as nodes:
        silent = nodes[2].address
        await nodes[2].__aexit__(None, None, None)
        upkeep = nodes[0]._upkeep
        for _ in range(
            6
        ):  # three strikes; a last datagram of the silent one may still be on its way
            for contact in nodes[0]._table.contacts():
                entry = nodes[0]._table._find(contact.node_id)
                assert entry is not None
                entry.seen_at -= 3_600
            await upkeep._test_silent()
        assert nodes[0].neighbours() == [address_text(nodes[1])]
        assert silent != nodes[1].address


async def test_grants_that_do_not_fit_one_datagram_are_shown_in_several(domain: Domain) -> None:
    async with network(domain, 2) as nodes:
        first = nodes[0]
        key = make_key("newcomer")
        # Three long grants that say nothing about admission stand before the one that does.
        long = [long_grant(domain, key.public, number) for number in range(3)]
        newcomer = DhtNode(
            key=key,
            admission=PathAdmission(domain, [*long, domain.admit(key.public)]),
            clock=SystemClock(),
            entropy=SystemEntropy(),
            bootstrap=[address_text(first)],
        )
        async with running(newcomer), asyncio.timeout(10):
            while newcomer.stats().peers < 2 or first.stats().peers < 2:
                await asyncio.sleep(0.02)


async def test_a_node_that_lost_everybody_joins_again(domain: Domain) -> None:
    async with network(domain, 2) as nodes:
        nodes[1].drop(make_key("node 0").public)
        assert nodes[1].stats().peers == 0
        async with asyncio.timeout(10):
            while nodes[1].stats().peers == 0:
                await asyncio.sleep(0.05)
