"""The network of one daemon: DHT, gossip and discovery at one port, attached to the service."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from authd.config import Settings
from authd.core.identity import PublicKey, SigningKey
from authd.dht.node import DhtNode
from authd.discovery.rendezvous import Members, Rendezvous
from authd.gossip.node import GossipNode, GossipSettings
from authd.service.admission import NodeAdmission
from authd.service.assembly import Service
from authd.service.authority import Change
from authd.service.desk import GossipDesk
from authd.service.ports import Clock, Entropy
from authd.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from authd.discovery.mdns import LanDiscovery

# Enough to find the network again after a restart.
_MAX_REMEMBERED_PEERS: Final = 64


@dataclass(frozen=True, slots=True)
class _Parts:
    dht: DhtNode
    gossip: GossipNode
    rendezvous: Rendezvous
    lan: "LanDiscovery | None"


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
        self._parts: _Parts | None = None

    def want(self) -> None:
        """Let `run` open the port: this daemon has invited or joined somebody."""
        self._wanted.set()

    def remember_peers(self) -> None:
        """Keep the addresses of peers for the next start.

        Raises:
            StoreError: The store cannot be written.
        """
        if self._parts is None:
            return
        known = [*self._parts.dht.neighbours(), *self._parts.gossip.known_addresses()]
        peers = list(dict.fromkeys(known))[:_MAX_REMEMBERED_PEERS]
        if peers:
            self._store.set_meta("peers", json.dumps(peers))

    def discovery(self) -> dict[str, object]:
        """Say how other daemons are found, for status and metrics; empty while the port is closed.

        Returns:
            ``address`` others are told to dial, or empty; ``rendezvous_for_s``, how long the record
            that says so is good for; ``rendezvous_found``, records of others found so far; ``lan``,
            daemons found on the link or None if that is off; ``lan_problem``; ``near`` of the peers
            are of the own domain or configured; ``turned_away``, strangers refused.
        """
        if self._parts is None:
            return {}
        gossip, rendezvous, lan = self._parts.gossip, self._parts.rendezvous, self._parts.lan
        return {
            "address": gossip.address,
            "rendezvous_for_s": max(0, rendezvous.published_until - self._clock.now()),
            "rendezvous_found": rendezvous.found,
            "lan": lan.found if lan else None,
            "lan_problem": lan.problem if lan else "",
            "near": len(gossip.near),
            "turned_away": gossip.turned_away,
        }

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
            self._open(settings(), peers()) as parts,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(parts.dht.run(), name="dht")
            group.create_task(parts.gossip.run(), name="gossip")
            group.create_task(parts.rendezvous.run(), name="rendezvous")
            if parts.lan is not None:
                group.create_task(parts.lan.run(), name="mdns")

    @asynccontextmanager
    async def _open(
        self,
        settings: Settings,
        ticket_peers: list[str],
    ) -> AsyncIterator[_Parts]:
        authority, attachment = self._service.authority, self._service.attachment
        host, _, port = settings.peer.rpartition(":")
        known = json.loads(self._store.meta("peers") or "[]")
        peers = list(dict.fromkeys([*settings.static_peers, *ticket_peers]))
        admission = NodeAdmission(authority=authority, clock=self._clock, node=self._key.public)
        async with (
            DhtNode(
                key=self._key,
                admission=admission,
                clock=self._clock,
                entropy=self._entropy,
                host=host.strip("[]"),
                port=int(port),
                bootstrap=list(dict.fromkeys([*peers, *known])),
                store=self._store,
            ) as dht,
            GossipNode(
                key=self._key,
                admission=admission,
                store=GossipDesk(authority),
                clock=self._clock,
                entropy=self._entropy,
                settings=GossipSettings(
                    host=host.strip("[]"),
                    port=int(port),
                    peers=tuple(peers),
                    remembered=tuple(known),
                    advertise=settings.advertise,
                    places=settings.places,
                ),
            ) as gossip,
        ):
            authority.subscribe(lambda change: _follow(change, admission, dht, gossip))
            attachment.attach(dht, gossip)
            self._parts = _Parts(
                dht,
                gossip,
                self._rendezvous(admission, dht, gossip),
                self._lan(host, gossip) if settings.mdns else None,
            )
            try:
                yield self._parts
            finally:
                self._parts = None
                attachment.detach()

    def _rendezvous(self, admission: NodeAdmission, dht: DhtNode, gossip: GossipNode) -> Rendezvous:
        authority = self._service.authority
        return Rendezvous(
            key=self._key,
            domain=authority.policy.own,
            address=lambda: gossip.address,
            network=dht,
            members=Members(state=lambda: authority.state, own=self._key.public),
            admits=admission.is_own,
            connected=lambda: gossip.active,
            suggest=gossip.suggest,
            clock=self._clock,
            entropy=self._entropy,
        )

    def _lan(self, host: str, gossip: GossipNode) -> "LanDiscovery":
        # The library is of no use to a daemon that shows itself to nobody.
        from authd.discovery.mdns import LanDiscovery  # noqa: PLC0415 - see above

        return LanDiscovery(
            domain=self._service.authority.policy.own,
            host=host.strip("[]"),
            port=lambda: gossip.port,
            suggest=gossip.suggest,
            entropy=self._entropy,
        )


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
