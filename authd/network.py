"""The network of one daemon: DHT and gossip behind one port, attached to the service."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from authd.config import Settings
from authd.core.identity import PublicKey, SigningKey
from authd.dht.node import DhtNode
from authd.gossip.node import GossipNode
from authd.service.admission import NodeAdmission
from authd.service.assembly import Service
from authd.service.authority import Change
from authd.service.desk import GossipDesk
from authd.service.ports import Clock, Entropy
from authd.store.sqlite import SqliteStore

# Enough to find the network again after a restart.
_MAX_REMEMBERED_PEERS: Final = 64


class Network:
    """Opens the peer port when it is wanted, and keeps it open."""

    def __init__(
        self,
        *,
        service: Service,
        store: SqliteStore,
        clock: Clock,
        entropy: Entropy,
        key: SigningKey,
    ) -> None:
        """Wire the parts; nothing is opened yet.

        Args:
            service: Is attached to the network, and told what comes from it.
            store: Keeps records, and peers over a restart.
            clock: The time.
            entropy: Nonces and jitter.
            key: This daemon's node key.
        """
        self._service = service
        self._store = store
        self._clock = clock
        self._entropy = entropy
        self._key = key
        self._wanted = asyncio.Event()
        self._known_peers: Callable[[], list[str]] = list

    def want(self) -> None:
        """Let `run` open the port: this daemon has invited or joined somebody."""
        self._wanted.set()

    def remember_peers(self) -> None:
        """Keep the addresses of peers for the next start.

        Raises:
            StoreError: The store cannot be written.
        """
        peers = list(dict.fromkeys(self._known_peers()))[:_MAX_REMEMBERED_PEERS]
        if peers:
            self._store.set_meta("peers", json.dumps(peers))

    async def run(self, settings: Callable[[], Settings], peers: Callable[[], list[str]]) -> None:
        """Wait until the port is wanted, then keep it open until cancelled.

        Args:
            settings: The configuration in force when the port is opened.
            peers: Addresses from the ticket.

        Raises:
            ConfigError: The port cannot be opened.
        """
        await self._wanted.wait()
        async with (
            self._open(settings(), peers()) as (dht, gossip),
            asyncio.TaskGroup() as group,
        ):
            group.create_task(dht.run(), name="dht")
            group.create_task(gossip.run(), name="gossip")

    @asynccontextmanager
    async def _open(
        self,
        settings: Settings,
        ticket_peers: list[str],
    ) -> AsyncIterator[tuple[DhtNode, GossipNode]]:
        authority, attachment = self._service.authority, self._service.attachment
        host, _, port = settings.peer.rpartition(":")
        known = json.loads(self._store.meta("peers") or "[]")
        peers = list(dict.fromkeys([*settings.static_peers, *ticket_peers, *known]))
        admission = NodeAdmission(authority=authority, clock=self._clock, node=self._key.public)
        async with (
            DhtNode(
                key=self._key,
                admission=admission,
                clock=self._clock,
                entropy=self._entropy,
                host=host.strip("[]"),
                port=int(port),
                bootstrap=peers,
                store=self._store,
            ) as dht,
            GossipNode(
                key=self._key,
                admission=admission,
                store=GossipDesk(authority),
                clock=self._clock,
                entropy=self._entropy,
                host=host.strip("[]"),
                port=int(port),
                peers=peers,
                advertise=settings.advertise,
            ) as gossip,
        ):
            authority.subscribe(lambda change: _follow(change, admission, dht, gossip))
            attachment.attach(dht, gossip)
            self._known_peers = lambda: [*dht.neighbours(), *gossip.known_addresses()]
            try:
                yield dht, gossip
            finally:
                self._known_peers = list
                attachment.detach()


def _follow(
    change: Change,
    admission: NodeAdmission,
    dht: DhtNode,
    gossip: GossipNode,
) -> None:
    """Let the network edges act on a change: revoked nodes go, absences are asked for anew."""
    if change.grants:
        dht.forget_misses()
    for revoke in change.revocations:
        if not revoke.is_key:
            continue
        key = PublicKey(revoke.target)
        if not admission.admits(key):
            dht.drop(key)
            gossip.drop(key)
