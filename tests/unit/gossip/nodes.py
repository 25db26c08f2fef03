"""Gossip nodes on loopback with a real store in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

from authd.clock import SystemClock, SystemEntropy
from authd.core.claims import Kind
from authd.core.grants import Grant, KeySubject, sign_grant
from authd.core.identity import DomainId, PublicKey, SigningKey, StatementId
from authd.core.revocations import Chain, DomainView, Gap, fill, gap, observe, prove
from authd.core.statements import Heartbeat, Revoke, sign_heartbeat, sign_revoke, verify
from authd.core.topics import Action, make_scope
from authd.errors import AuthdError
from authd.gossip.node import GossipNode, GossipSettings
from authd.service.ports import Item
from tests.unit.dht.nodes import Domain, PathAdmission, make_key


class MemoryStore:
    """Verifies everything, keeps it in dictionaries, follows the heartbeat chains."""

    def __init__(self, domain: Domain) -> None:
        self.clock = SystemClock()
        self.items: dict[StatementId, Item] = {}
        self.beats: dict[PublicKey, Heartbeat] = {}
        self.view = DomainView(root=domain.root)
        self.bad = 0

    async def receive(self, items: Iterable[Item], *, peer: str) -> list[StatementId]:
        return self.take(items)

    def take(self, items: Iterable[Item]) -> list[StatementId]:
        new: list[StatementId] = []
        for item in items:
            try:
                statement = verify(item.kind, item.data)
                if isinstance(statement, Heartbeat):
                    self._observe(statement)
                elif statement.statement_id in self.items:
                    continue
                else:
                    self.items[statement.statement_id] = item
            except AuthdError:
                self.bad += 1
                continue
            new.append(statement.statement_id)
        for key in self.view.keys:
            self._prove(key)
        return new

    def _observe(self, beat: Heartbeat) -> None:
        now = self.clock.now()
        seen = observe(self.view.view(beat.issuer), beat, now=now)
        self.view = self.view.with_view(beat.issuer, seen)
        self.beats[beat.issuer] = beat

    def _prove(self, key: PublicKey) -> None:
        view = self.view.view(key)
        proven = prove(view, holds=self.items.__contains__, received_at=self.clock.now())
        self.view = self.view.with_view(key, proven)

    def held(self) -> dict[StatementId, Kind]:
        return {one: item.kind for one, item in self.items.items()}

    def statement(self, statement_id: StatementId) -> Item | None:
        return self.items.get(statement_id)

    def heartbeats(self) -> list[Item]:
        return [Item(Kind.HEARTBEAT, beat.encoded) for beat in self.beats.values()]

    def chain_ids(
        self, domain: DomainId, key: PublicKey, epoch: int, start: int, end: int
    ) -> list[StatementId] | None:
        chain = self.view.view(key).chain
        known = domain == self.view.root.domain and chain.epoch == epoch and len(chain.ids) >= end
        return list(chain.ids[start:end]) if known else None

    def gaps(self) -> list[tuple[DomainId, PublicKey, int, int, int]]:
        found = [gap(self.view.view(key)) for key in self.view.keys]
        domain = self.view.root.domain
        return [(domain, one.key, one.epoch, one.start, one.end) for one in found if one]

    def fill(
        self,
        domain: DomainId,
        key: PublicKey,
        epoch: int,
        start: int,
        ids: list[StatementId],
    ) -> None:
        found = Gap(key, epoch, start, start + len(ids))
        self.view = self.view.with_view(key, fill(self.view.view(key), found, tuple(ids)))
        self._prove(key)

    def beat(self, key: SigningKey) -> Item:
        """Sign a head over every revocation held, and take it in."""
        revoked = [one for one, item in self.items.items() if item.kind is Kind.REVOKE]
        chain = Chain(epoch=1).append(revoked)
        heartbeat = sign_heartbeat(
            key,
            domain=self.view.root.domain,
            root_version=1,
            epoch=1,
            count=len(chain.ids),
            head=chain.head,
            recent=chain.ids[-16:],
            issued_at=self.clock.now(),
        )
        item = Item(Kind.HEARTBEAT, heartbeat.encoded)
        view = self.view.view(key.public)
        if view.newest is None or view.newest.count < len(chain.ids):
            self._observe(heartbeat)
            seen = self.view.view(key.public)
            found = gap(seen)
            if found:
                seen = fill(seen, found, chain.ids[found.start :])
            self.view = self.view.with_view(key.public, seen)
        self._prove(key.public)
        return item

    def is_fresh(self) -> bool:
        return self.view.fresh_until() > self.clock.now()


def grant_item(domain: Domain, name: str) -> Item:
    grant = device_grant(domain, name)
    return Item(Kind.GRANT, grant.encoded)


def device_grant(domain: Domain, name: str) -> Grant:
    return sign_grant(
        domain.authority,
        subject=KeySubject(make_key(name).public),
        scope=make_scope({f"site/{name}": Action.PUB}),
        issued_at=domain.now,
        expires_at=domain.now + 86_400,
    )


def revoke_statement(domain: Domain, name: str) -> Revoke:
    return sign_revoke(domain.authority, target=make_key(name).public, issued_at=domain.now)


def revoke_item(domain: Domain, name: str) -> Item:
    return Item(Kind.REVOKE, revoke_statement(domain, name).encoded)


def make_gossip(
    domain: Domain,
    name: str,
    store: MemoryStore,
    *,
    peers: Iterable[str] = (),
    admitted: bool = True,
    port: int | None = 0,
    repair_s: float = 30.0,
) -> GossipNode:
    key = make_key(name)
    own = [domain.admit(key.public)] if admitted else []
    return GossipNode(
        key=key,
        admission=PathAdmission(domain, own),
        store=store,
        clock=SystemClock(),
        entropy=SystemEntropy(),
        settings=GossipSettings(port=port, peers=tuple(peers), repair_s=repair_s),
    )


@asynccontextmanager
async def gossiping(*nodes: GossipNode) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for node in nodes:
            await stack.enter_async_context(node)
        tasks = [asyncio.create_task(node.run(), name="run") for node in nodes]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends


async def until(condition: Callable[[], bool], *, within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.02)
