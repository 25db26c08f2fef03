"""Daemons find each other by rendezvous records and on the link, over real sockets."""

import asyncio
import contextlib
import json
import select
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest
from zeroconf import IPVersion
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from authd.clock import SystemClock, SystemEntropy
from authd.core.identity import DomainId, PublicKey
from authd.core.records import make_record
from authd.demo.stage import Site, Stage, free_port
from authd.dht.node import DhtNode
from authd.discovery.mdns import MAX_WAITING, SERVICE, LanDiscovery, domain_tag, own_addresses
from authd.discovery.rendezvous import Members, Rendezvous
from authd.discovery.slots import make_rendezvous, rendezvous_salt
from authd.gossip.node import GossipNode, GossipSettings
from tests.unit.dht.nodes import Domain, PathAdmission, address_text, make_key
from tests.unit.gossip.nodes import MemoryStore, grant_item, until


@pytest.fixture
def domain() -> Domain:
    return Domain.make()


@dataclass
class Member:
    """A daemon as far as the network goes: one admission, a DHT node, gossip, rendezvous."""

    domain: Domain
    name: str
    bootstrap: list[str] = field(default_factory=list)
    peers: list[str] = field(default_factory=list)
    listens: bool = True
    meets: bool = True

    def __post_init__(self) -> None:
        self.key = make_key(self.name)
        self.store = MemoryStore(self.domain)
        self.admission = PathAdmission(self.domain, [self.domain.admit(self.key.public)])
        clock, entropy = SystemClock(), SystemEntropy()
        self.dht = DhtNode(
            key=self.key,
            admission=self.admission,
            clock=clock,
            entropy=entropy,
            bootstrap=self.bootstrap,
            miss_remembered_s=0.1,
        )
        self.gossip = GossipNode(
            key=self.key,
            admission=self.admission,
            store=self.store,
            clock=clock,
            entropy=entropy,
            settings=GossipSettings(port=0 if self.listens else None, peers=tuple(self.peers)),
        )
        self.rendezvous = Rendezvous(
            key=self.key,
            domain=self.domain.domain,
            address=lambda: self.gossip.address,
            network=self.dht,
            members=Members(state=lambda: self.admission.state, own=self.key.public),
            admits=self.admission.is_own,
            connected=lambda: self.gossip.active,
            suggest=self.gossip.suggest,
            clock=clock,
            entropy=entropy,
        )

    @property
    def peer_names(self) -> set[PublicKey]:
        return set(self.gossip.active)


@asynccontextmanager
async def alive(*members: Member) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        runs = []
        for one in members:
            await stack.enter_async_context(one.dht)
            await stack.enter_async_context(one.gossip)
            runs += [one.dht.run(), one.gossip.run()]
            runs += [one.rendezvous.run()] if one.meets else []
        tasks = [asyncio.create_task(run) for run in runs]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends


# --- rendezvous -----------------------------------------------------------------------------


async def test_who_knows_one_node_of_the_dht_finds_its_gossip_peers(domain: Domain) -> None:
    first = Member(domain, "first")
    async with alive(first):
        known = address_text(first.dht)
        second = Member(domain, "second", bootstrap=[known], peers=[first.gossip.address])
        async with alive(second):
            await until(lambda: bool(first.peer_names and first.rendezvous.published_until))
            await until(lambda: bool(second.rendezvous.published_until))
            third = Member(domain, "third", bootstrap=[known])
            async with alive(third):
                wanted = {first.key.public, second.key.public}
                await until(lambda: third.peer_names == wanted, within_s=20)
                item = grant_item(domain, "sensor")
                first.store.take([item])
                await first.gossip.push([item])
                await until(lambda: len(third.store.items) == 1)
                # All three have too few peers and look; any of them may have been first.
                assert sum(one.rendezvous.found for one in (first, second, third)) >= 1


async def test_who_lost_its_only_static_peer_finds_others(domain: Domain) -> None:
    first = Member(domain, "first", meets=False)
    async with alive(first), AsyncExitStack() as later:
        known = address_text(first.dht)
        gone = Member(domain, "gone", bootstrap=[known], meets=False)
        third = Member(domain, "third", bootstrap=[known])
        async with alive(gone):
            third.gossip.add_peer(gone.gossip.address)
            await later.enter_async_context(alive(third))
            await until(lambda: third.peer_names == {gone.key.public})
        await until(lambda: not third.peer_names)
        # Only now does anything say where the first one's gossip is.
        published = asyncio.create_task(first.rendezvous.run())
        await until(lambda: third.peer_names == {first.key.public}, within_s=20)
        published.cancel()
        await asyncio.gather(published, return_exceptions=True)


async def test_a_node_that_only_dials_publishes_nothing_and_finds_the_others(
    domain: Domain,
) -> None:
    first = Member(domain, "first")
    async with alive(first):
        inside = Member(domain, "inside", bootstrap=[address_text(first.dht)], listens=False)
        async with alive(inside):
            await until(lambda: inside.peer_names == {first.key.public}, within_s=20)
            assert inside.rendezvous.published_until == 0


async def test_a_hostile_record_costs_a_look_and_brings_nobody_in(domain: Domain) -> None:
    """An admitted node may say anything about itself; nobody can say anything about another."""
    first, second = Member(domain, "first"), Member(domain, "second")
    hostile = make_key("hostile")
    silent = socket.create_server(("127.0.0.1", 0))
    clock = SystemClock()
    with silent:
        at = f"127.0.0.1:{silent.getsockname()[1]}"
        lies = [
            make_rendezvous(
                hostile, domain=domain.domain, addresses=[at], now_us=clock.now_us() - 3
            ),
            _odd_record(domain, b"\x80", clock, 2),
            _odd_record(domain, b"\xff\x00", clock, 1),
            make_rendezvous(
                hostile,
                domain=domain.domain,
                addresses=[at, first_address := "0.0.0.0:1", "[ff02::fb]:5353"],
                now_us=clock.now_us(),
            ),
        ]
        assert first_address == "0.0.0.0:1"
        async with alive(first):
            second = Member(domain, "second", bootstrap=[address_text(first.dht)])
            second.admission.learn_grants([domain.admit(hostile.public).encoded])
            async with alive(second):
                await until(lambda: second.peer_names == {first.key.public}, within_s=20)
                for lie in lies:
                    await first.dht.put(lie)
                    await asyncio.sleep(0.15)
                    await second.rendezvous.look()
                assert second.rendezvous.refused >= 2, "each time it looks"
                assert second.gossip._views.candidates == [at]
                assert second.peer_names == {first.key.public}


def _odd_record(domain: Domain, content: bytes, clock: SystemClock, back_us: int) -> Any:
    hostile = make_key("hostile")
    return make_record(
        hostile,
        salt=rendezvous_salt(domain.domain, hostile.public),
        seq=clock.now_us() - back_us,
        content=content,
        expires_at=clock.now() + 3_000,
    )


async def test_what_is_found_is_not_dialled_on_loopback_by_whoever_is_reached_elsewhere(
    domain: Domain,
) -> None:
    node = GossipNode(
        key=make_key("node"),
        admission=PathAdmission(domain),
        store=MemoryStore(domain),
        clock=SystemClock(),
        entropy=SystemEntropy(),
        settings=GossipSettings(
            host="0.0.0.0",  # noqa: S104 - never opened
            advertise="192.0.2.1:8184",
        ),
    )
    refused = ["127.0.0.1:8181", "localhost:1", "192.0.2.1:8184", "0.0.0.0:1", "nowhere", ""]
    assert not any(map(node.suggest, refused))
    assert node.suggest("192.0.2.2:8184")
    assert not node.suggest("192.0.2.2:8184"), "nothing new"


# --- whole daemons --------------------------------------------------------------------------


class Relay:
    """Carries datagrams to one node from a port of its own, and no streams."""

    def __init__(self, target: int) -> None:
        self._target = ("127.0.0.1", target)
        self.port = free_port()
        self._front = socket.socket(type=socket.SOCK_DGRAM)
        self._front.bind(("127.0.0.1", self.port))
        self._backs: dict[Any, socket.socket] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for one in (self._front, *self._backs.values()):
            one.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            ready, _, _ = select.select([self._front, *self._backs.values()], [], [], 0.1)
            for one in ready:
                with contextlib.suppress(OSError):
                    self._carry(one)

    def _carry(self, one: socket.socket) -> None:
        data, source = one.recvfrom(2_048)
        if one is self._front:
            if source not in self._backs:
                self._backs[source] = socket.socket(type=socket.SOCK_DGRAM)
                self._backs[source].bind(("127.0.0.1", 0))
            self._backs[source].sendto(data, self._target)
            return
        client = next(where for where, back in self._backs.items() if back is one)
        self._front.sendto(data, client)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path, mosquitto=None, plugin=None) as stage:
        yield stage


def found_domain(stage: Stage, names: tuple[str, ...]) -> tuple[Site, dict[str, str]]:
    first = stage.add_site(names[0], with_mosquitto=False)
    passphrase = f"--passphrase-file={stage.passphrase}"
    stage.authd("init", *stage.setup_arguments(first), passphrase, site=first)
    tickets = {
        name: stage.authd("invite", f"--name={name}", site=first)["ticket"] for name in names[1:]
    }
    stage.start_daemon(first)
    return first, tickets


def join(stage: Stage, name: str, ticket: str, *, peers: list[str] | None, more: str = "") -> Site:
    site = stage.add_site(name, with_mosquitto=False)
    stage.authd("join", "-", *stage.setup_arguments(site), site=site, stdin=f"{ticket}\n")
    if peers is not None:
        path = site.state / "node.json"
        node = json.loads(path.read_text("utf-8"))
        node["peers"] = peers
        path.write_text(json.dumps(node), "utf-8")
    if more:
        path = site.state / "authd.toml"
        path.write_text(path.read_text("utf-8").replace("mdns = false", more), "utf-8")
    stage.start_daemon(site)
    return site


def test_a_daemon_whose_ticket_leads_to_the_dht_alone_gets_gossip_peers(stage: Stage) -> None:
    first, tickets = found_domain(stage, ("first", "second", "third"))
    second = join(stage, "second", tickets["second"], peers=None)
    stage.await_status(second, lambda one: len(one["peers"]) == 1, what="second joined")
    stage.await_status(
        second, lambda one: one["discovery"]["rendezvous_for_s"] > 3_000, what="second is published"
    )
    with Relay(first.peer_port) as relay:
        third = join(stage, "third", tickets["third"], peers=[f"127.0.0.1:{relay.port}"])
        status = stage.await_status(third, lambda one: len(one["peers"]) == 2, what="both found")
        sites = [stage.authd("status", site=one) for one in (first, second, third)]
        assert sum(one["discovery"]["rendezvous_found"] for one in sites) >= 1
        assert status["discovery"]["near"] == 2
        assert status["discovery"]["lan"] is None
    text = third.log().read_text("utf-8")
    assert "Traceback" not in text


# --- on the link ----------------------------------------------------------------------------


class Found:
    """Keeps what was suggested."""

    def __init__(self) -> None:
        self.addresses: list[str] = []

    def __call__(self, address: str, key: PublicKey | None) -> bool:
        assert key is None, "the link vouches for nobody"
        self.addresses.append(address)
        return True


def lan(domain: DomainId, port: int, found: Found) -> LanDiscovery:
    return LanDiscovery(
        domain=domain,
        host="127.0.0.1",
        port=lambda: port,
        suggest=found,
        entropy=SystemEntropy(),
    )


@asynccontextmanager
async def on_the_link(*nodes: LanDiscovery) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(node.run()) for node in nodes]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


HOME, GUESTS = DomainId(bytes(16)), DomainId(bytes([1]) * 16)


async def test_nodes_of_one_domain_find_each_other_on_the_link_and_no_others() -> None:
    found = [Found() for _ in range(3)]
    nodes = [lan(HOME, 1_001, found[0]), lan(HOME, 1_002, found[1]), lan(GUESTS, 1_003, found[2])]
    async with on_the_link(*nodes):
        await until(lambda: bool(found[0].addresses and found[1].addresses))
        await asyncio.sleep(1.5)
    assert [one.addresses for one in found] == [["127.0.0.1:1002"], ["127.0.0.1:1001"], []]


async def test_junk_on_the_link_is_harmless_and_bounded() -> None:
    found = Found()
    node = lan(HOME, 1_001, found)
    async with on_the_link(node):
        await asyncio.sleep(0.3)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attacker:
            attacker.setsockopt(
                socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1")
            )
            for number in range(400):
                for data in (bytes(12), b"\xff" * 600, b"\x00\x00\x84\x00" + b"\x00\xff" * 4, b""):
                    attacker.sendto(data, ("224.0.0.251", 5353))
                attacker.sendto(_announcement(f"junk-{number}"), ("224.0.0.251", 5353))
                if number % 20 == 0:
                    await asyncio.sleep(0)
        await asyncio.sleep(0.5)
        assert node._waiting.qsize() <= MAX_WAITING
        async with liar("192.0.2.9", 0, tag="00000000"), liar("127.0.0.7", 7, tag=domain_tag(HOME)):
            await until(lambda: found.addresses == ["127.0.0.7:7"], within_s=25)
    assert node.dropped > 0
    assert not node.problem


def _announcement(name: str) -> bytes:
    """Say that there is an instance of which nothing more is ever said (RFC 1035 section 4.1)."""

    def labels(*parts: str) -> bytes:
        return b"".join(bytes([len(part)]) + part.encode() for part in parts) + b"\x00"

    service = labels("_authd", "_tcp", "local")
    instance = labels(name, "_authd", "_tcp", "local")
    head = bytes.fromhex("00008400000000010000 0000")
    return head + service + bytes.fromhex("000c000100001194") + len(instance).to_bytes(2) + instance


@asynccontextmanager
async def liar(address: str, port: int, *, tag: str) -> AsyncIterator[None]:
    """Announce what somebody likes to."""
    multicast = AsyncZeroconf(interfaces=["127.0.0.1"], ip_version=IPVersion.V4Only)
    try:
        name = f"liar-{port}"
        info = AsyncServiceInfo(
            SERVICE,
            f"{name}.{SERVICE}",
            port=port,
            properties={"v": "1", "d": tag},
            parsed_addresses=[address],
            server=f"{name}.local.",
        )
        await (await multicast.async_register_service(info, cooperating_responders=True))
        yield
    finally:
        await multicast.async_close()


def test_a_daemon_without_any_address_finds_its_domain_on_the_link(stage: Stage) -> None:
    first, tickets = found_domain(stage, ("first", "second"))
    stage.authd("status", site=first)
    assert first.daemon is not None
    first.daemon.stop()
    path = first.state / "authd.toml"
    path.write_text(path.read_text("utf-8").replace("mdns = false", "mdns = true"), "utf-8")
    stage.start_daemon(first)
    second = join(stage, "second", tickets["second"], peers=[], more="mdns = true")
    status = stage.await_status(second, lambda one: len(one["peers"]) == 1, what="found")
    # Whoever was first to dial told the other in the stream.
    assert status["discovery"]["lan"] + stage.authd("status", site=first)["discovery"]["lan"] >= 1
    assert status["discovery"]["near"] == 1
    assert "Traceback" not in second.log().read_text("utf-8")


def test_the_name_of_the_service_keeps_the_rules() -> None:
    label = SERVICE.split(".")[0].removeprefix("_")
    assert len(label) <= 15
    assert label.replace("-", "").isalnum()
    assert len(domain_tag(HOME)) == 8
    assert domain_tag(HOME) != domain_tag(GUESTS)


def test_only_the_address_that_gossip_listens_on_is_announced() -> None:
    assert own_addresses("127.0.0.1") == ["127.0.0.1"]
    assert not any(one.startswith("127.") for one in own_addresses("0.0.0.0"))  # noqa: S104 - listed
