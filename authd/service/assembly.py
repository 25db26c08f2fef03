"""The service as one value: every use case wired to the ports it is given."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from authd.core.identity import DomainId, PublicKey, SigningKey, key_id
from authd.core.policy import Policy
from authd.service.attachment import Attachment
from authd.service.authority import Authority
from authd.service.batch import Change
from authd.service.brokers import BrokerEntry, Brokers
from authd.service.decider import Decider, DeciderParts, Observer
from authd.service.enforcement import Enforcement
from authd.service.evictions import Evictions
from authd.service.finder import Finder
from authd.service.heartbeats import Heartbeats, Restored
from authd.service.neighbours import Neighbours
from authd.service.operator import Answer, Operator, OperatorParts
from authd.service.ports import Clock, Entropy, SessionStore, StatementStore
from authd.service.proving import ProofStore, Prover, ProverParts
from authd.service.publisher import Publisher, RecordStore
from authd.service.reconnects import Reconnects
from authd.service.renewal import Renewal
from authd.service.sessions import Sessions


class Store(StatementStore, ProofStore, SessionStore, RecordStore, Protocol):
    """All that survives, in one object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredients:
    """What a service is made of.

    Attributes:
        store: What survives.
        clock: The time.
        entropy: Randomness.
        own: The domain of this daemon.
        policy: Which domains count here.
        brokers: Configured broker entries.
        heartbeat_key: This daemon's heartbeat key, if it has one.
        replicate: Whether own-domain device grants travel by gossip; if not, a key without an
            issuer hint is looked up in the DHT.
        not_before: Proofs dated up to this moment are refused; 0 after a clean stop.
        observer: Told of every CONNECT decision.
        identity: What status shows of this daemon.
        node_key: Signs the announcements of broker entries with prefixes; None announces nothing.
        restored: Set if the store is a copy that a backup brought back.
        issuing_key: The domain's authority key, if this daemon holds it: it renews grants.
    """

    store: Store
    clock: Clock
    entropy: Entropy
    own: DomainId
    policy: Policy
    brokers: tuple[BrokerEntry, ...]
    heartbeat_key: SigningKey | None
    replicate: bool
    not_before: int
    observer: Observer
    identity: Callable[[], Answer]
    node_key: SigningKey | None = None
    restored: Restored | None = None
    issuing_key: SigningKey | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Everything between the store and the edges."""

    authority: Authority
    brokers: Brokers
    sessions: Sessions
    enforcement: Enforcement
    evictions: Evictions
    finder: Finder
    neighbours: Neighbours
    publisher: Publisher
    decider: Decider
    operator: Operator
    attachment: Attachment
    renewal: Renewal


def assemble(made_of: Ingredients) -> Service:
    """Wire the service and read what the store holds.

    Raises:
        StoreError: The store cannot be read or written.
    """
    clock, store = made_of.clock, made_of.store
    authority = _authority(made_of)
    attachment, brokers = Attachment(), Brokers(made_of.brokers)
    neighbours = Neighbours(authority=authority, brokers=brokers, clock=clock, key=made_of.node_key)
    sessions = Sessions(store=store, clock=clock, entropy=made_of.entropy)
    evictions = Evictions(clock=clock, entropy=made_of.entropy, sessions=sessions)
    enforcement = _enforcement(made_of, authority, neighbours, sessions, evictions)
    finder = _finder(made_of, authority, attachment)
    publisher = _publisher(made_of, authority, attachment, neighbours)
    renewal = Renewal(
        authority=authority, publisher=publisher, clock=clock, key=made_of.issuing_key
    )
    decider = Decider(
        DeciderParts(
            authority=authority,
            brokers=brokers,
            sessions=sessions,
            enforcement=enforcement,
            evictions=evictions,
            prover=_prover(made_of, authority, brokers, neighbours, finder),
            clock=clock,
            observer=made_of.observer,
        ),
    )
    operator = Operator(
        OperatorParts(
            authority=authority,
            brokers=brokers,
            neighbours=neighbours,
            decider=decider,
            publisher=publisher,
            sessions=sessions,
            gossip=attachment,
            network=attachment,
            clock=clock,
            identity=made_of.identity,
            renewal=renewal,
        ),
    )
    # A head of our own first: a one-daemon domain is fresh from its first moment on.
    authority.beat()
    enforcement.restore()
    return Service(
        authority=authority,
        brokers=brokers,
        sessions=sessions,
        enforcement=enforcement,
        evictions=evictions,
        finder=finder,
        neighbours=neighbours,
        publisher=publisher,
        decider=decider,
        operator=operator,
        attachment=attachment,
        renewal=renewal,
    )


def _authority(made_of: Ingredients) -> Authority:
    authority = Authority(
        store=made_of.store,
        clock=made_of.clock,
        policy=made_of.policy,
        heartbeats=Heartbeats(
            store=made_of.store,
            clock=made_of.clock,
            own_domain=made_of.own,
            key=made_of.heartbeat_key,
            restored=made_of.restored,
        ),
        replicate_devices=made_of.replicate,
    )
    authority.load()
    return authority


def _enforcement(
    made_of: Ingredients,
    authority: Authority,
    neighbours: Neighbours,
    sessions: Sessions,
    evictions: Evictions,
) -> Enforcement:
    brokers = neighbours.brokers
    reconnects = Reconnects(
        brokers=brokers, neighbours=neighbours, used=made_of.store, clock=made_of.clock
    )
    return Enforcement(
        authority=authority,
        brokers=brokers,
        sessions=sessions,
        evictions=evictions,
        reconnects=reconnects,
        clock=made_of.clock,
    )


def _finder(made_of: Ingredients, authority: Authority, attachment: Attachment) -> Finder:
    finder = Finder(
        authority=authority,
        network=attachment,
        clock=made_of.clock,
        guess_issuer=not made_of.replicate,
    )
    authority.subscribe(lambda change: _forget_misses(finder, change))
    return finder


def _prover(
    made_of: Ingredients,
    authority: Authority,
    brokers: Brokers,
    neighbours: Neighbours,
    finder: Finder,
) -> Prover:
    return Prover(
        ProverParts(
            authority=authority,
            brokers=brokers,
            neighbours=neighbours,
            finder=finder,
            used=made_of.store,
            clock=made_of.clock,
            not_before=made_of.not_before,
        ),
    )


def _publisher(
    made_of: Ingredients,
    authority: Authority,
    attachment: Attachment,
    neighbours: Neighbours,
) -> Publisher:
    publisher = Publisher(
        authority=authority,
        gossip=attachment,
        network=attachment,
        store=made_of.store,
        clock=made_of.clock,
        announce=neighbours.announce,
    )
    publisher.load()
    return publisher


def _forget_misses(finder: Finder, change: Change) -> None:
    for revoke in change.revocations:
        if revoke.is_key:
            finder.forget_miss(key_id(PublicKey(revoke.target)))
