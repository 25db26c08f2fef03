"""What the tests of the service do again and again."""

from collections.abc import Iterable
from pathlib import Path

from authd.core.claims import Kind
from authd.core.decision import Decision, Operation
from authd.core.grants import Grant
from authd.core.identity import SigningKey, StatementId, key_id_text
from authd.core.roots import Root
from authd.core.statements import Heartbeat, Revoke, sign_heartbeat, sign_revoke
from authd.service.ports import Item
from tests.world import START, Domain, FakeClock, Site, make_key, scope

DEVICE = make_key("device")
OTHER = make_key("other")
GATEWAY = make_key("gateway")
SENSOR = make_key("sensor")
TEMP = scope(pub="site/temp")
DEVICE_ID = key_id_text(DEVICE.public)

_KINDS = {Grant: Kind.GRANT, Revoke: Kind.REVOKE, Root: Kind.ROOT, Heartbeat: Kind.HEARTBEAT}


def item(statement: Grant | Revoke | Root | Heartbeat) -> Item:
    return Item(_KINDS[type(statement)], statement.encoded)


def gossip(
    site: Site, *statements: Grant | Revoke | Root | Heartbeat, source: str = "gossip"
) -> list[StatementId]:
    return site.service.authority.receive(map(item, statements), source=source)


def revoke(
    site: Site,
    target: bytes,
    *,
    by: SigningKey | None = None,
    with_grant: Grant | None = None,
    reason: str = "",
) -> Revoke:
    """Sign a revocation and hand it in as a peer would."""
    signed = sign_revoke(
        by or site.domain.authority,
        target=target,
        issued_at=site.clock.now(),
        revoker_grant=with_grant,
        reason=reason,
    )
    gossip(site, signed)
    return signed


def head(
    domain: Domain,
    name: str,
    *,
    at: int,
    count: int = 0,
    digest: bytes = bytes(32),
    recent: Iterable[StatementId] = (),
    version: int | None = None,
    epoch: int = START - 100,
    life_s: int = 60,
) -> Heartbeat:
    return sign_heartbeat(
        domain.heartbeat(name),
        domain=domain.id,
        root_version=domain.roots[-1].version if version is None else version,
        epoch=epoch,
        count=count,
        head=digest,
        recent=tuple(recent),
        issued_at=at,
        life_s=life_s,
    )


def site_with_device(directory: Path, **options: object) -> Site:
    site = Site(directory, Domain(), **options)  # type: ignore[arg-type]  # handed on as they are
    site.learn(site.domain.grant(DEVICE.public, TEMP))
    return site


def can_publish(
    site: Site, key: SigningKey, topic: str, *, broker: str = "m", client_id: str | None = None
) -> Decision:
    return site.service.decider.authorize(
        broker=broker,
        client_id=client_id or key_id_text(key.public),
        operation=Operation.PUBLISH,
        topic=topic,
    )


def pass_time(site: Site, seconds: int) -> None:
    """Let time pass as the daemon's tasks would: a head when due, a tick each second."""
    for _ in range(seconds):
        site.clock.advance(1)
        site.service.authority.beat()
        site.service.enforcement.tick()


def same_clock(*sites: Site) -> FakeClock:
    clock = sites[0].clock
    assert all(one.clock is clock for one in sites)
    return clock
