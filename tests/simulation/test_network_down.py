"""Three sites, one network that goes away for ten minutes, on a virtual clock."""

from pathlib import Path

from authd.core.decision import Operation
from authd.core.identity import SigningKey, key_id_text
from authd.core.policy import GuardedPrefix
from authd.errors import ReasonCode
from tests.world import Domain, Ether, FakeClock, Site, make_key, scope

GRACE_S = 300
STRICT = GuardedPrefix(topic_filter="site/door/#", grace_s=0)


def three_sites(directory: Path) -> tuple[FakeClock, Ether, list[Site]]:
    clock, ether = FakeClock(), Ether()
    domain = Domain(heartbeat_names=("hb-1", "hb-2", "hb-3"))
    sites = [
        Site(
            directory,
            domain,
            name=name,
            heartbeat=f"hb-{place}",
            clock=clock,
            ether=ether,
            grace_s=GRACE_S,
            guarded=(STRICT,),
        )
        for place, name in enumerate(("A", "B", "C"), 1)
    ]
    return clock, ether, sites


async def pass_time(clock: FakeClock, sites: list[Site], seconds: int) -> None:
    for _ in range(seconds):
        clock.advance(1)
        for site in sites:
            await site.beat()
            site.service.enforcement.tick()


async def refused_after(
    clock: FakeClock,
    sites: list[Site],
    device: SigningKey,
    *,
    most_s: int,
) -> int:
    for second in range(most_s):
        decision = await sites[0].connect(device)
        if not decision.allowed:
            assert decision.reason is ReasonCode.STALE, decision
            assert decision.temporary
            assert "news" in decision.detail
            return second
        await pass_time(clock, sites, 1)
    return most_s


async def test_strict_prefixes_refuse_after_65_s_and_others_after_their_grace(
    tmp_path: Path,
) -> None:
    clock, ether, sites = three_sites(tmp_path)
    strict, lenient, both = make_key("strict"), make_key("lenient"), make_key("both")
    domain = sites[0].domain
    sites[0].learn(
        domain.grant(strict.public, scope(pub="site/door/1")),
        domain.grant(lenient.public, scope(pub="site/temp")),
        domain.grant(both.public, scope(pub="site/door/2 site/lamp")),
    )
    await pass_time(clock, sites, 30)
    assert (await sites[0].connect(strict)).allowed
    assert (await sites[0].connect(lenient)).allowed
    session = await sites[0].connect(both)
    assert {entry.topic_filter for entry in session.rights.entries} == {"site/door/2", "site/lamp"}

    ether.down = True
    strict_s = await refused_after(clock, sites, strict, most_s=70)
    assert 40 <= strict_s <= 65, strict_s
    # The live session keeps what is not strict, and loses what is.
    door = sites[0].service.decider.authorize(
        broker="m",
        client_id=key_id_text(both.public),
        operation=Operation.PUBLISH,
        topic="site/door/2",
    )
    lamp = sites[0].service.decider.authorize(
        broker="m",
        client_id=key_id_text(both.public),
        operation=Operation.PUBLISH,
        topic="site/lamp",
    )
    assert not door.allowed
    assert lamp.allowed
    lenient_s = strict_s + await refused_after(clock, sites, lenient, most_s=600)
    assert 40 + GRACE_S <= lenient_s <= 65 + GRACE_S, lenient_s
    assert not sites[0].service.sessions.all(), "live sessions end with their leases"

    await pass_time(clock, sites, 600 - lenient_s)
    ether.down = False
    await pass_time(clock, sites, 25)
    assert (await sites[0].connect(strict)).allowed
    assert (await sites[0].connect(lenient)).allowed


async def test_a_one_daemon_domain_is_never_stale(tmp_path: Path) -> None:
    clock = FakeClock()
    site = Site(tmp_path, Domain(), clock=clock, ether=None, grace_s=0, guarded=(STRICT,))
    device = make_key("door")
    site.learn(site.domain.grant(device.public, scope(pub="site/door/1")))
    for _ in range(60):
        assert (await site.connect(device)).allowed
        await pass_time(clock, [site], 10)
