"""A small world for tests of the core: named keys, domains, and graphs written as text.

``world.grants("X -> gate -> lamp")`` makes the grants of a path: ``X`` is the authority of the
world's own domain, every other name is a key. Keys follow from their names, so that a failure shows
the same bytes in every run.
"""

import hashlib
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from authd.core import limits
from authd.core.decision import Decision, decide_connect
from authd.core.grants import Form, Grant, KeySubject, sign_grant
from authd.core.identity import DomainId, PublicKey, SigningKey, key_id_text
from authd.core.paths import Evaluation, find_paths
from authd.core.policy import FULL_SCOPE, DomainPolicy, Policy
from authd.core.proofs import Audience, VerifiedProof
from authd.core.roots import Authority, Root, RootClaims, sign_root
from authd.core.statements import Revoke, sign_revoke
from authd.core.topics import Action, Scope, make_scope
from authd.core.trust import TrustState

NOW: Final = 1_800_000_000
DAY: Final = 86_400
BOTH: Final = Action.PUB | Action.SUB
OWN: Final = "own"
ENDPOINT: Final = "broker.example:1883"


def key(name: str) -> SigningKey:
    """Return the key of a name, the same in every run."""
    return SigningKey.from_seed(hashlib.sha256(b"authd test key " + name.encode()).digest())


def scope(*filters: str, actions: Action = BOTH) -> Scope:
    """Return a scope of filters with the same actions."""
    return make_scope(dict.fromkeys(filters, actions))


ALL: Final = scope("#")


def authority(name: str, **changes: Any) -> Authority:
    """Return a root entry for a named key, with every right."""
    entry = Authority(
        key=key(name).public,
        scope=FULL_SCOPE,
        depth=limits.MAX_DEPTH,
        expires_at=NOW + 1_000 * DAY,
    )
    return replace(entry, **changes)


def root_claims(*authorities: Authority, domain: str = OWN, **changes: Any) -> RootClaims:
    """Return the claims of version 1: one root key, one heartbeat key."""
    claims = RootClaims(
        version=1,
        previous=None,
        root_keys=(key(f"{domain} root").public,),
        threshold=1,
        authorities=authorities,
        heartbeat_keys=(key(f"{domain} beat").public,),
        publisher=key(f"{domain} publisher").public,
        next_publisher=key(f"{domain} publisher").public,
        expires_at=NOW + 1_000 * DAY,
    )
    return replace(claims, **changes)


def make_root(*authorities: Authority, domain: str = OWN, **changes: Any) -> Root:
    """Sign version 1 of a domain's root."""
    claims = root_claims(*authorities, domain=domain, **changes)
    return sign_root(claims, previous=None, keys=(key(f"{domain} root"),))


def make_grant(issuer: str, subject: str, given: Scope = ALL, **options: Any) -> Grant:
    """Sign a grant between named keys; by default for every topic, for a day, depth 0."""
    options = {"issued_at": NOW - 10, "expires_at": NOW + DAY, **options}
    return sign_grant(
        key(issuer),
        subject=options.pop("to", KeySubject(key(subject).public)),
        scope=given,
        **options,
    )


def make_revoke(issuer: str, target: str | Grant, **options: Any) -> Revoke:
    """Sign a revocation of a named key or of a grant."""
    named = target.statement_id if isinstance(target, Grant) else key(target).public
    return sign_revoke(key(issuer), target=named, issued_at=NOW, **options)


@dataclass(kw_only=True)
class World:
    """What a daemon knows, with its policy; ``X`` is the authority of its own domain."""

    state: TrustState = field(default_factory=TrustState)
    root: Root = field(default_factory=lambda: make_root(authority("X")))
    domains: dict[DomainId, DomainPolicy] = field(default_factory=dict)
    freshness: dict[DomainId, int] = field(default_factory=dict)
    guarded: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        self.add_root(self.root)
        self.domains.setdefault(self.root.domain, DomainPolicy())

    @property
    def policy(self) -> Policy:
        return Policy(own=self.root.domain, domains=self.domains, guarded=self.guarded)

    @property
    def audience(self) -> Audience:
        return Audience(self.root.domain, ENDPOINT)

    def add_root(self, root: Root, *, listed: DomainPolicy | None = None) -> Root:
        self.state = self.state.apply_root(root)
        self.freshness.setdefault(root.domain, NOW + 60)
        if listed is not None:
            self.domains[root.domain] = listed
        return root

    def add(self, *statements: Grant | Revoke) -> None:
        grants = [one for one in statements if isinstance(one, Grant)]
        revocations = [one for one in statements if isinstance(one, Revoke)]
        self.state = self.state.apply_grants(grants).apply_revocations(revocations)

    def grant(self, issuer: str, subject: str, given: Scope = ALL, **options: Any) -> Grant:
        grant = make_grant(issuer, subject, given, **options)
        self.add(grant)
        return grant

    def grants(self, graph: str, given: Scope = ALL) -> list[Grant]:
        """Make the grants of a path ``X -> a -> b``; each allows just enough below it."""
        names = graph.split(" -> ")
        return [
            self.grant(issuer, subject, given, depth=len(names) - place - 2)
            for place, (issuer, subject) in enumerate(itertools.pairwise(names))
        ]

    def revoke(self, issuer: str, target: str | Grant, **options: Any) -> Revoke:
        revoke = make_revoke(issuer, target, **options)
        self.add(revoke)
        return revoke

    def paths_to(self, name: str, *, now: int = NOW) -> Evaluation:
        return find_paths(
            self.state,
            key(name).public,
            policy=self.policy,
            freshness=self.freshness,
            now=now,
        )

    def reach(self, name: str, *, now: int = NOW) -> set[tuple[str, str]]:
        """Return the rights of a named key, whatever the proof, as pairs of filter and action."""
        return {
            (entry.topic_filter, action.name or "")
            for path in self.paths_to(name, now=now).paths
            for entry in path.scope
            for action in Action
            if action in entry.actions
        }

    def proof(self, name: str, **changes: Any) -> VerifiedProof:
        """Return a proof for a named key, under its key id as client id."""
        public = key(name).public
        proof = VerifiedProof(
            key=public,
            form=Form.POP,
            client_id=key_id_text(public),
            audience=self.audience,
            time=NOW,
            nonce=bytes(8),
        )
        return replace(proof, **changes)

    def connect(self, name: str, *, now: int = NOW, **changes: Any) -> Decision:
        """Decide a CONNECT of a named key."""
        return decide_connect(
            self.paths_to(name, now=now),
            self.proof(name, **changes),
            policy=self.policy,
            freshness=self.freshness,
            now=now,
        )


def flipped(data: bytes, bit: int) -> bytes:
    """Return the bytes with one bit changed."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << (bit % 8)
    return bytes(changed)


def id_of(name: str) -> str:
    """Return the key id of a named key."""
    return key_id_text(key(name).public)


def publics(names: Iterable[str]) -> tuple[PublicKey, ...]:
    """Return the public keys of names."""
    return tuple(key(name).public for name in names)
