"""A small real domain, and DHT nodes of it on loopback."""

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from authd.clock import SystemClock, SystemEntropy
from authd.core.grants import Grant, KeySubject, sign_grant, verify_grant
from authd.core.identity import DomainId, PublicKey, SigningKey
from authd.core.paths import find_paths
from authd.core.policy import DomainPolicy, Policy
from authd.core.records import Record, RecordKind, make_record, record_salt
from authd.core.roots import Authority, Root, RootClaims, sign_root
from authd.core.statements import Revoke
from authd.core.topics import POWER_NODE, POWER_REVOKE, Action, has_power, make_scope
from authd.core.trust import TrustState
from authd.dht.node import DhtNode
from authd.errors import AuthdError

NODE_SCOPE = make_scope({POWER_NODE: Action.PUB})
YEAR_S = 365 * 86_400


def make_key(name: str) -> SigningKey:
    return SigningKey.from_seed(hashlib.sha256(name.encode()).digest())


@dataclass(frozen=True)
class Domain:
    """A root with one authority, which admits nodes."""

    now: int
    root: Root
    authority: SigningKey
    heartbeat: SigningKey

    @classmethod
    def make(cls, name: str = "home", *, now: int | None = None) -> "Domain":
        at = SystemClock().now() if now is None else now
        root_key, authority = make_key(f"{name} root"), make_key(f"{name} authority")
        heartbeat = make_key(f"{name} heartbeat")
        claims = RootClaims(
            version=1,
            previous=None,
            root_keys=(root_key.public,),
            threshold=1,
            authorities=(
                Authority(
                    key=authority.public,
                    scope=make_scope(
                        {"#": Action.PUB, POWER_NODE: Action.PUB, POWER_REVOKE: Action.PUB}
                    ),
                    depth=4,
                    expires_at=at + YEAR_S,
                ),
            ),
            heartbeat_keys=(heartbeat.public,),
            publisher=authority.public,
            next_publisher=authority.public,
            expires_at=at + YEAR_S,
        )
        root = sign_root(claims, previous=None, keys=(root_key,))
        return cls(now=at, root=root, authority=authority, heartbeat=heartbeat)

    @property
    def domain(self) -> DomainId:
        return self.root.domain

    def admit(self, key: PublicKey) -> Grant:
        return sign_grant(
            self.authority,
            subject=KeySubject(key),
            scope=NODE_SCOPE,
            issued_at=self.now,
            expires_at=self.now + YEAR_S,
        )


def long_grant(domain: Domain, key: PublicKey, number: int) -> Grant:
    """Make a grant near the largest size there is, which admits nobody."""
    return sign_grant(
        domain.authority,
        subject=KeySubject(key),
        scope=make_scope({f"{number}/{'x' * 190}/{part}": Action.PUB for part in range(2)}),
        issued_at=domain.now,
        expires_at=domain.now + YEAR_S,
    )


@dataclass
class PathAdmission:
    """Admission as the service has it: a path from a listed root that names ``$authd/node``."""

    domain: Domain
    own: list[Grant] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.state = TrustState().apply_root(self.domain.root)

    def admits(self, node: PublicKey) -> bool:
        domain = self.domain.domain
        found = find_paths(
            self.state,
            node,
            policy=Policy(own=domain, domains={domain: DomainPolicy()}),
            freshness={domain: self.domain.now + YEAR_S},
            now=self.domain.now,
        )
        return any(has_power(path.scope, POWER_NODE) for path in found.paths)

    def is_own(self, node: PublicKey) -> bool:
        return self.admits(node)

    def admission_grants(self) -> list[bytes]:
        return [grant.encoded for grant in self.own]

    def learn_grants(self, grants: Iterable[bytes]) -> None:
        for data in grants:
            try:
                self.state = self.state.apply_grant(verify_grant(data))
            except AuthdError:
                continue

    def learn_revocation(self, revoke: Revoke) -> None:
        self.state = self.state.apply_revocations([revoke])


def make_node(
    domain: Domain,
    name: str,
    *,
    bootstrap: Iterable[str] = (),
    admitted: bool = True,
    reachable: bool = True,
    host: str = "127.0.0.1",
) -> DhtNode:
    key = make_key(name)
    own = [domain.admit(key.public)] if admitted else []
    return DhtNode(
        key=key,
        admission=PathAdmission(domain, own),
        clock=SystemClock(),
        entropy=SystemEntropy(),
        host=host,
        bootstrap=bootstrap,
        reachable=reachable,
    )


def address_text(node: DhtNode) -> str:
    host, port = node.address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@asynccontextmanager
async def running(*nodes: DhtNode) -> AsyncIterator[None]:
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


@asynccontextmanager
async def network(domain: Domain, count: int) -> AsyncIterator[list[DhtNode]]:
    """Run ``count`` nodes of which all but the first know only the first."""
    first = make_node(domain, "node 0")
    async with running(first):
        known = address_text(first)
        others = [make_node(domain, f"node {i}", bootstrap=[known]) for i in range(1, count)]
        async with running(*others):
            nodes = [first, *others]
            async with asyncio.timeout(50):
                await _all_know_all(nodes)
            yield nodes


async def _all_know_all(nodes: list[DhtNode]) -> None:
    """Wait; on a busy host, where answers came too late, let nodes look around once more."""
    for turn in itertools.count(1):
        lonely = [node for node in nodes if node.stats().peers < len(nodes) - 1]
        if not lonely:
            return
        await asyncio.sleep(0.05)
        if turn % 40 == 0:
            for node in lonely:
                await node._upkeep._refresh()


def make_test_record(
    name: str = "issuer",
    *,
    about: bytes = b"subject",
    content: bytes = b"content",
    age_s: int = 0,
    life_s: int = 3_600,
) -> Record:
    key = make_key(name)
    clock = SystemClock()
    return make_record(
        key,
        salt=record_salt(RecordKind.GRANTS, key.public, about),
        seq=clock.now_us() - age_s * 1_000_000,
        content=content,
        expires_at=clock.now() + life_s,
    )
