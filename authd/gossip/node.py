"""A node of the gossip network: accepts and dials streams, keeps the views, pushes and repairs."""

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import structlog

from authd.core.addresses import (
    is_address,
    is_loopback_address,
    is_worth_dialling,
    join_address,
)
from authd.core.claims import Kind
from authd.core.identity import PublicKey, SigningKey, StatementId, key_id_text
from authd.errors import AuthdError, ConfigError, VerificationError
from authd.gossip.handshake import HANDSHAKE_S, RUN_BYTES, Introducer, Introduction
from authd.gossip.herald import Herald
from authd.gossip.lobby import Hush, Lobby
from authd.gossip.messages import (
    MAX_SAMPLES,
    Peers,
    Sample,
    id_of,
    sign_sample,
    verify_sample,
)
from authd.gossip.peer import WRITE_S, Peer
from authd.gossip.transport import GrpcTransport, Link, Transport
from authd.gossip.views import MAX_ACCEPTED, Views
from authd.gossip.wire import encode_frame
from authd.service.ports import Admission, Clock, Entropy, GossipStore, Item

REPAIR_S: Final = 30.0
_REPAIR_PEERS: Final = 2
_GAP_CHECK_S: Final = 3.0
_LONGEST_WAIT_S: Final = 5.0
# A stream that ends sooner was turned away, and counts as a failure to connect.
_SHORTEST_STREAM_S: Final = HANDSHAKE_S
# Others verify each new one of ours; it is good for a day.
_OWN_SAMPLE_S: Final = 3_600
_INCOMING: Final = "incoming"
_log = structlog.get_logger("authd.gossip")


def chance(entropy: Entropy) -> float:
    """Draw from [0, 1)."""
    return int.from_bytes(entropy.token(4), "big") / 2**32


@dataclass(frozen=True, slots=True, kw_only=True)
class GossipSettings:
    """Where a node listens, and whom it tries.

    Attributes:
        host: Address to listen on.
        port: TCP port; 0 lets the system choose, None only dials.
        advertise: ``host:port`` told to others; empty: what is bound, if that is one address.
        peers: ``host:port`` of nodes that are always tried, as the operator said.
        remembered: The same, of nodes that were met before the last stop.
        places: Streams held at most; more than are dialled for.
        repair_s: Seconds between repairs on live streams.

    Raises:
        ConfigError: What is advertised is not of that form.
    """

    host: str = "127.0.0.1"
    port: int | None = 0
    advertise: str = ""
    peers: tuple[str, ...] = ()
    remembered: tuple[str, ...] = ()
    places: int = MAX_ACCEPTED
    repair_s: float = REPAIR_S

    def __post_init__(self) -> None:
        """Check what others are to be told."""
        if self.advertise and not is_address(self.advertise):
            raise ConfigError(f"`{self.advertise}` is not `host:port`")


class GossipNode:
    """`Gossip` over gRPC streams; ``async with`` it and keep `run` running."""

    def __init__(
        self,
        *,
        key: SigningKey,
        admission: Admission,
        store: GossipStore,
        clock: Clock,
        entropy: Entropy,
        settings: GossipSettings,
        transport: Transport | None = None,
    ) -> None:
        """Prepare; the port opens on entry.

        Args:
            key: The node key, which is no issuer's.
            admission: Who may be a peer.
            store: Verifies, keeps and hands out statements.
            clock: Time.
            entropy: Nonces and jitter.
            settings: Where it listens, and whom it tries.
            transport: How frames travel; gRPC if None.

        Raises:
            ConfigError: A peer's address is not of that form.
        """
        self._key = key
        self._admission = admission
        self._store = store
        self._clock = clock
        self._entropy = entropy
        self._host, self._port = settings.host, settings.port
        self._advertise = settings.advertise
        self._places = settings.places
        self._repair_s = settings.repair_s
        self._views = Views(own_key=key.public, now=clock.monotonic())
        self._introducer = Introducer(
            key=key, run=entropy.token(RUN_BYTES), entropy=entropy, admission=admission
        )
        self._transport = transport or GrpcTransport()
        self._herald = Herald(
            key=key,
            transport=self._transport,
            views=self._views,
            store=store,
            admission=admission,
            clock=clock,
            entropy=entropy,
            took_in=self._took_in,
        )
        self._peers: dict[PublicKey, Peer] = {}
        self._own: Sample | None = None
        self._changed = asyncio.Event()
        self._stack = AsyncExitStack()
        self._lobby = Lobby()
        self._refusals = Hush(now=clock.monotonic())
        self._comings = Hush(now=clock.monotonic(), per_s=5.0, burst=200.0, of_a_speaker=20.0)
        for address in settings.peers:
            self.add_peer(address)
        for address in settings.remembered:
            self.add_peer(address, configured=False)

    # --- life -----------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._port is not None:
            server = self._transport.listening(
                self._host, self._port, serve=self._accept, hinted=self._herald.hinted
            )
            self._port = await self._stack.enter_async_context(server)
            if not self._advertise:
                self._advertise = _advertised(self._host, self._port)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for peer in list(self._peers.values()):
            peer.close("this daemon stops")
        await self._stack.aclose()

    async def run(self) -> None:
        """Dial, repair and keep the streams; returns only when cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_dialling(group), name="gossip-dial")
            group.create_task(self._keep_repairing(), name="gossip-repair")
            group.create_task(self._keep_checking(), name="gossip-check")
            group.create_task(self._herald.run(), name="gossip-herald")

    @property
    def address(self) -> str:
        """What others are told to dial, ``host:port``; empty for a node that only dials."""
        return self._advertise

    @property
    def port(self) -> int | None:
        """The bound TCP port; None for a node that only dials."""
        return self._port

    @property
    def active(self) -> frozenset[PublicKey]:
        """The keys of the nodes with a live stream."""
        return self._views.active

    @property
    def near(self) -> frozenset[PublicKey]:
        """Those of them that the own domain admits by itself, or the operator configured."""
        return self._views.near

    @property
    def turned_away(self) -> int:
        """How many streams were refused before they had a place."""
        return self._refusals.total

    def add_peer(self, address: str, *, configured: bool = True) -> None:
        """Always try one more ``host:port``; near whoever answers there, if ``configured``.

        Raises:
            ConfigError: Not of that form.
        """
        if not is_address(address):
            raise ConfigError(f"`{address}` is not `host:port`")
        self._views.add_static(address, configured=configured)
        self._changed.set()

    def suggest(self, address: str, key: PublicKey | None = None) -> bool:
        """Take in a hint from outside gossip where a node may listen; return whether it is news.

        Args:
            address: Untrusted. One that cannot be another host's is left out: this node's own,
                loopback if this node is not itself known by a loopback address.
            key: Who is said to be there, if that was said.
        """
        if not self._is_worth_dialling(address):
            return False
        near = key is not None and self._admission.is_own(key)
        news = self._views.suggest(address, key, near=near, chance=chance(self._entropy))
        if news:
            self._changed.set()
        return news

    def _is_worth_dialling(self, address: str) -> bool:
        own = self._advertise or join_address(self._host, self._port or 1)
        on_loopback = is_loopback_address(own) or is_loopback_address(f"{self._host}:1")
        return address != self._advertise and is_worth_dialling(address, on_loopback=on_loopback)

    def drop(self, node_key: PublicKey) -> None:
        """End the stream of a node whose admission ended, and forget where it is."""
        self._views.forget(node_key)
        peer = self._peers.get(node_key)
        if peer is not None:
            peer.close("no longer admitted")

    # --- Gossip ---------------------------------------------------------------------------

    async def push(self, items: Iterable[Item]) -> int:
        """Send statements to the active peers; return how many peers they were handed to."""
        listed = list(items)
        if not listed:
            return 0
        pushed = sum(peer.push(listed) for peer in list(self._peers.values()))
        ids = [id_of(item) for item in listed if item.kind is not Kind.HEARTBEAT]
        self._herald.on_news(ids)
        return pushed + await self._herald.publish(ids)

    def peers(self) -> list[str]:
        """Return the peers with a live stream: ``node id@address``."""
        return [
            f"{key_id_text(key)}@{sample.address if sample else peer.address}"
            for key, peer in self._peers.items()
            for sample in [self._views.sample(key)]
        ]

    def known_addresses(self) -> list[str]:
        """Return where other nodes listen, ``host:port``: what to dial after a restart."""
        return self._views.addresses()

    # --- streams --------------------------------------------------------------------------

    async def _accept(self, link: Link, host: str) -> None:
        try:
            async with self._lobby.seat(host):
                introduction = await self._introducer.introduce(link, we_dialled=False)
        except AuthdError as error:
            if self._refusals.may_say(host, now=self._clock.monotonic()):
                _log.info(
                    "gossip.refused",
                    host=host,
                    reason=error.reason,
                    detail=str(error),
                    left_out=self._refusals.left_out(),
                )
            return
        await self._converse(link, introduction, _INCOMING)

    async def _dial(self, address: str) -> None:
        began_at = self._clock.monotonic()
        try:
            async with self._transport.dialled(address) as link:
                introduction = await self._introducer.introduce(link, we_dialled=True)
                self._views.on_identified(address, introduction.key)
                await self._converse(link, introduction, address)
        except AuthdError as error:
            _log.debug("gossip.dial_failed", peer=address, reason=error.reason, detail=str(error))
        finally:
            now, spread = self._clock.monotonic(), chance(self._entropy)
            lasted = now - began_at > _SHORTEST_STREAM_S
            self._views.on_dial_end(address, worked=lasted, now=now, chance=spread)
            self._changed.set()

    async def _converse(self, link: Link, introduction: Introduction, address: str) -> None:
        if not self._has_place(introduction):
            await self._send_elsewhere(link, introduction)
            return
        link.keep()
        peer = Peer(
            link=link,
            introduction=introduction,
            address=address,
            store=self._store,
            clock=self._clock,
            spread=self._spread,
            learn=self._learn,
        )
        self._enter(peer)
        try:
            reason = await peer.run()
            if peer.is_useless:
                self._views.shun(peer.key, now=self._clock.monotonic())
            self._say("gossip.stream_ended", peer, detail=reason)
        except Exception:  # noqa: BLE001 - the one net of this edge: no peer ends the daemon
            _log.exception("gossip.stream_failed", peer=peer.name)
        finally:
            self._leave(peer)

    async def _send_elsewhere(self, link: Link, introduction: Introduction) -> None:
        """Tell a node for which there is no place where others are."""
        if introduction.we_dialled or introduction.key in self._peers:
            return
        others = self._views.samples(
            but=introduction.key, count=MAX_SAMPLES, chance=chance(self._entropy)
        )
        with suppress(AuthdError, TimeoutError):
            async with asyncio.timeout(WRITE_S):
                await link.write(encode_frame(Peers(tuple(others))))

    def _has_place(self, introduction: Introduction) -> bool:
        """Say whether a new stream gets a place; of two to one node both ends keep the same.

        A stream from another run of the peer's daemon, or opened by the same end as the old one,
        means that the old one is dead there. Else the one that the smaller key dialled stays.
        """
        held = self._peers.get(introduction.key)
        if self._views.is_shunned(introduction.key, now=self._clock.monotonic()):
            return False
        if held is None:
            # Whoever is new gets a place even where all are taken, or a full circle would never
            # let anybody in; whoever left a moment ago does not push others out by coming again.
            now = self._clock.monotonic()
            return len(self._peers) < self._places or self._views.is_new(introduction.key, now=now)
        before = held.introduction
        if before.run != introduction.run or before.we_dialled == introduction.we_dialled:
            return True
        return introduction.we_dialled == (self._key.public < introduction.key)

    def _enter(self, peer: Peer) -> None:
        held = self._peers.get(peer.key)
        if held is not None:
            held.close("replaced by a newer stream")
        near = self._admission.is_own(peer.key)
        if held is None and len(self._peers) >= self._places and self._views.active:
            gone = self._views.to_displace(near=near, chance=chance(self._entropy))
            self._peers[gone].close("its place is given to a newcomer")
        self._peers[peer.key] = peer
        self._views.on_up(peer.key, near=near)
        self._say("gossip.stream_opened", peer)
        own = self._own_sample()
        others = self._views.samples(
            but=peer.key, count=MAX_SAMPLES - 1, chance=chance(self._entropy)
        )
        peer.offer(Peers((*own, *others)))
        if peer.introduction.we_dialled:
            peer.begin_repair()
        else:
            peer.push(self._store.heartbeats())

    def _say(self, event: str, peer: Peer, **more: str) -> None:
        if self._comings.may_say(peer.name, now=self._clock.monotonic()):
            _log.info(event, peer=peer.name, left_out=self._comings.left_out(), **more)

    def _leave(self, peer: Peer) -> None:
        if self._peers.get(peer.key) is peer:
            del self._peers[peer.key]
            now = self._clock.monotonic()
            self._views.on_down(peer.key, now=now, silent=peer.fell_silent)
            self._changed.set()

    def _own_sample(self) -> tuple[Sample, ...]:
        if not self._advertise:
            return ()
        now = self._clock.now()
        if self._own is None or now - self._own.issued_at > _OWN_SAMPLE_S:
            self._own = sign_sample(self._key, address=self._advertise, issued_at=now)
        return (self._own,)

    # --- what peers bring -----------------------------------------------------------------

    def _spread(self, items: Iterable[Item], source: PublicKey | None) -> None:
        listed = list(items)
        for key, peer in list(self._peers.items()):
            if key != source:
                peer.push(listed)
        self._herald.on_news(id_of(one) for one in listed if one.kind is not Kind.HEARTBEAT)

    async def _took_in(self, new: set[StatementId]) -> None:
        held = map(self._store.statement, sorted(new))
        self._spread([item for item in held if item is not None], None)

    def _learn(self, samples: Iterable[Sample], source: PublicKey) -> None:
        for sample in filter(self._views.is_news, samples):
            if not self._is_worth_dialling(sample.address):
                continue
            try:
                verified = verify_sample(sample, now=self._clock.now())
            except VerificationError:
                continue
            near = self._admission.is_own(sample.key)
            if not self._views.learn(verified, near=near, chance=chance(self._entropy)):
                continue
            self._changed.set()
            if sample.key == source:
                # The others learn where a new peer is; they do not tell it on in their turn.
                for key, peer in list(self._peers.items()):
                    if key != source:
                        peer.offer(Peers((verified,)))

    # --- loops ----------------------------------------------------------------------------

    async def _keep_dialling(self, group: asyncio.TaskGroup) -> None:
        while True:
            self._changed.clear()
            now = self._clock.monotonic()
            for address in self._views.to_dial(now=now):
                group.create_task(self._dial(address), name=f"gossip-dial-{address}")
            due_at = self._views.next_dial_at()
            wait_s = _LONGEST_WAIT_S if due_at is None else due_at - now
            try:
                async with asyncio.timeout(min(_LONGEST_WAIT_S, max(0.05, wait_s))):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _keep_repairing(self) -> None:
        while True:
            await asyncio.sleep(self._repair_s * (0.5 + chance(self._entropy)))
            peers = list(self._peers.values())
            start = int(chance(self._entropy) * len(peers))
            for peer in (peers[start:] + peers[:start])[:_REPAIR_PEERS]:
                peer.begin_repair()
                others = self._views.samples(
                    but=peer.key, count=MAX_SAMPLES - 1, chance=chance(self._entropy)
                )
                peer.offer(Peers((*self._own_sample(), *others)))

    async def _keep_checking(self) -> None:
        while True:
            await asyncio.sleep(_GAP_CHECK_S)
            for peer in list(self._peers.values()):
                if not self._admission.admits(peer.key):
                    self.drop(peer.key)
                else:
                    peer.check_use()
                    peer.ask_for_gaps()


def _advertised(host: str, port: int) -> str:
    anywhere = host in {"", "0.0.0.0", "::"}  # noqa: S104 - compared with, not bound
    address = join_address(host, port)
    return address if not anywhere and is_address(address) else ""
