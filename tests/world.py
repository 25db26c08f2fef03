"""A small world for tests: domains, sites and a network, all real but for clock and transport."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from authd.core.claims import Kind
from authd.core.decision import ConnectRequest, Decision
from authd.core.grants import ClientIdRule, Form, Grant, KeySubject, sign_grant
from authd.core.identity import DomainId, PublicKey, SigningKey, key_id, key_id_text
from authd.core.policy import DEFAULT_GRACE_S, DomainPolicy, GuardedPrefix, Policy
from authd.core.proofs import Audience, make_pop
from authd.core.records import Record, newest, record_target
from authd.core.roots import Root
from authd.core.topics import Action, Scope, make_scope
from authd.errors import NoPeersError, NotFoundError
from authd.service.admission import NodeAdmission
from authd.service.assembly import Ingredients, Service, assemble
from authd.service.brokers import BrokerEntry
from authd.service.desk import GossipDesk
from authd.service.heartbeats import Restored
from authd.service.issuing import first_root, next_root
from authd.service.ports import Item, NetworkStats, SessionReport
from authd.store.sqlite import SqliteStore

START = 1_800_000_000
DAY = 86_400


class FakeClock:
    """Time that moves when told to."""

    def __init__(self, now: int = START) -> None:
        self.time = float(now)
        self.behind = 0

    def now(self) -> int:
        return int(self.time)

    def now_us(self) -> int:
        return int(self.time * 1_000_000)

    def monotonic(self) -> float:
        return self.time

    def behind_s(self) -> int:
        return self.behind

    def advance(self, seconds: float) -> None:
        self.time += seconds


class FakeEntropy:
    """Bytes that are the same in every run."""

    def __init__(self, seed: str = "entropy") -> None:
        self._seed = seed.encode()
        self._count = 0

    def token(self, count: int) -> bytes:
        self._count += 1
        digest = hashlib.sha512(self._seed + self._count.to_bytes(8, "big")).digest()
        return digest[:count]


def make_key(name: str) -> SigningKey:
    return SigningKey.from_seed(hashlib.sha256(name.encode()).digest())


def scope(**filters: str) -> Scope:
    """``scope(pub="a/#", sub="b")``; several filters are separated by blanks."""
    bits = {"pub": Action.PUB, "sub": Action.SUB}
    entries: dict[str, Action] = {}
    for action, names in filters.items():
        for name in names.split():
            entries[name] = entries.get(name, Action(0)) | bits[action]
    return make_scope(entries)


class Ether:
    """A network of records and peers in memory; it can be down."""

    def __init__(self) -> None:
        self.down = False
        self.records: dict[bytes, Record] = {}
        self.sites: list[Site] = []

    async def put(self, record: Record) -> int:
        if self.down:
            raise NoPeersError("the network is down")
        held = self.records.get(record.target)
        self.records[record.target] = newest(held, record)
        return 1

    async def get(self, publisher: PublicKey, salt: bytes) -> Record:
        if self.down:
            raise NoPeersError("the network is down")
        try:
            return self.records[record_target(publisher, salt)]
        except KeyError:
            raise NotFoundError("no such record") from None

    def neighbours(self) -> list[str]:
        return []

    def stats(self) -> NetworkStats:
        return NetworkStats(peers=len(self.sites), records=len(self.records))


@dataclass
class SiteGossip:
    """One site's end of the ether: what it pushes reaches the others, and goes on from there."""

    ether: Ether
    site: "Site"

    async def push(self, items: Iterable[Item]) -> int:
        items = list(items)
        if self.ether.down:
            return 0
        for other in self.ether.sites:
            if other is not self.site:
                await GossipDesk(other.service.authority).receive(items, peer="test")
        return len(self.ether.sites) - 1

    def peers(self) -> list[str]:
        return [] if self.ether.down else [one.name for one in self.ether.sites]


@dataclass
class Domain:
    """Keys and roots of one domain."""

    name: str = "home"
    heartbeat_names: tuple[str, ...] = ("hb-1",)
    roots: list[Root] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.root_key = make_key(f"{self.name}-root")
        self.authority = make_key(f"{self.name}-authority")
        self.publisher = make_key(f"{self.name}-publisher")
        first = first_root(
            self.root_key,
            authority=self.authority.public,
            heartbeat=self.heartbeat(self.heartbeat_names[0]).public,
            publisher=self.publisher.public,
            now=START - DAY,
        )
        self.roots.append(first)
        if len(self.heartbeat_names) > 1:
            keys = tuple(self.heartbeat(name).public for name in self.heartbeat_names)
            self.roots.append(next_root(first, [self.root_key], heartbeat_keys=keys))

    def heartbeat(self, name: str) -> SigningKey:
        return make_key(f"{self.name}-{name}")

    @property
    def id(self) -> DomainId:
        return self.roots[0].domain

    def grant(
        self,
        to: PublicKey,
        rights: Scope,
        *,
        by: SigningKey | None = None,
        issued_at: int = START - 10,
        expires_at: int = START + 30 * DAY,
        depth: int = 0,
        client_id: ClientIdRule | None = None,
        forms: Iterable[Form] = (),
        audiences: Iterable[str] = (),
        replaces: PublicKey | None = None,
    ) -> Grant:
        return sign_grant(
            by or self.authority,
            subject=KeySubject(to),
            scope=rights,
            issued_at=issued_at,
            expires_at=expires_at,
            depth=depth,
            client_id=client_id,
            forms=forms,
            audiences=audiences,
            replaces=replaces,
        )


class Site:
    """One daemon's service over a real store, with brokers `m` (Mosquitto) and `e` (embedded)."""

    def __init__(
        self,
        directory: Path,
        domain: Domain,
        *,
        name: str = "A",
        heartbeat: str | None = "hb-1",
        clock: FakeClock | None = None,
        ether: Ether | None = None,
        grace_s: int = DEFAULT_GRACE_S,
        guarded: tuple[GuardedPrefix, ...] = (),
        replicate: bool = True,
        not_before: int = 0,
        domains: dict[DomainId, DomainPolicy] | None = None,
    ) -> None:
        self.name = name
        self.domain = domain
        self.clock = clock or FakeClock()
        self.directory = directory
        self.ether = ether
        self._heartbeat = heartbeat
        self._replicate = replicate
        self._not_before = not_before
        own = domain.roots[0].domain
        self.policy = Policy(
            own=own,
            domains={own: DomainPolicy(grace_s=grace_s), **(domains or {})},
            guarded=guarded,
        )
        self.audience = Audience(own, "broker:1883")
        self.observed: list[tuple[ConnectRequest, Decision]] = []
        self._counter = 0
        self.open()
        self.service.authority.submit(Item(Kind.ROOT, root.encoded) for root in domain.roots)
        self.service.authority.beat()

    def open(self, *, restored: Restored | None = None) -> None:
        """Start, or start again over the same store."""
        self.store = SqliteStore(self.directory / f"{self.name}.db")
        key = self.domain.heartbeat(self._heartbeat) if self._heartbeat else None
        self.service: Service = assemble(
            Ingredients(
                store=self.store,
                clock=self.clock,
                entropy=FakeEntropy(self.name),
                own=self.domain.roots[0].domain,
                policy=self.policy,
                brokers=(
                    self._entry("m", "mosquitto", "broker:1883"),
                    self._entry("e", "embedded", "broker:1884"),
                    self._entry("g", "go-auth", "broker:1885"),
                ),
                heartbeat_key=key,
                replicate=self._replicate,
                not_before=self._not_before,
                observer=lambda request, decision, _: self.observed.append((request, decision)),
                identity=lambda: {"node": self.name},
                restored=restored,
            ),
        )
        if self.ether is not None:
            if self not in self.ether.sites:
                self.ether.sites.append(self)
            self.service.attachment.attach(self.ether, SiteGossip(self.ether, self))

    def close(self) -> None:
        """Stop, as if killed: nothing is said to anybody."""
        self.store.__exit__(None, None, None)

    def _entry(self, name: str, kind: str, endpoint: str) -> BrokerEntry:
        audience = Audience(self.domain.roots[0].domain, endpoint)
        return BrokerEntry(name=name, kind=kind, audiences=(audience,), secret="s" * 22)

    def admission(self, node: SigningKey) -> NodeAdmission:
        """Return what the network edges of a node with this key ask."""
        authority = self.service.authority
        return NodeAdmission(authority=authority, clock=self.clock, node=node.public)

    def learn(self, *statements: Grant) -> None:
        self.service.authority.submit(Item(Kind.GRANT, one.encoded) for one in statements)

    async def beat(self) -> None:
        """Sign and push a head if one is due."""
        items = self.service.authority.beat()
        await self.service.attachment.push(items)

    # --- connecting -----------------------------------------------------------------------

    def pop(
        self,
        key: SigningKey,
        *,
        client_id: str | None = None,
        endpoint: str = "broker:1883",
        time: int | None = None,
        hint: SigningKey | None = None,
        path: Iterable[Grant] = (),
    ) -> str:
        self._counter += 1
        return make_pop(
            key,
            audience=Audience(self.audience.domain, endpoint),
            client_id=client_id or key_id_text(key.public),
            time=self.clock.now() if time is None else time,
            nonce=self._counter.to_bytes(8, "big"),
            issuer_hint=key_id(hint.public) if hint else None,
            path=path,
        )

    async def connect(
        self,
        key: SigningKey,
        *,
        broker: str = "m",
        client_id: str | None = None,
        username: str | None = None,
        password: str | None = None,
        clean: bool = True,
        boot: str = "0" * 16,
        hint: SigningKey | None = None,
        path: Iterable[Grant] = (),
        began: bool = True,
    ) -> Decision:
        endpoint = {"m": "broker:1883", "e": "broker:1884", "g": "broker:1885"}.get(broker, "x:1")
        chosen = client_id or key_id_text(key.public)
        secret = password
        if secret is None:
            secret = self.pop(key, client_id=chosen, endpoint=endpoint, hint=hint, path=path)
        decision = await self.service.decider.connect(
            ConnectRequest(
                broker=broker,
                client_id=chosen,
                username=key_id_text(key.public) if username is None else username,
                password=secret,
                boot=boot,
                clean=clean,
            ),
        )
        if decision.allowed and began:
            self.service.enforcement.report(
                broker, SessionReport(client_id=chosen, session_id=decision.session, what="online")
            )
        return decision
