"""Quotas at one daemon: speed, room, what is forgotten, and what is asked for again."""

from pathlib import Path

import pytest

from authd.core import limits
from authd.core.claims import Kind
from authd.core.identity import SigningKey, StatementId, key_id, key_id_text
from authd.core.policy import DomainPolicy
from authd.core.quotas import to_list
from authd.core.statements import Revoke, sign_broker, sign_heartbeat, sign_revoke
from authd.core.topics import POWER_REVOKE
from authd.errors import LimitError, ReasonCode
from authd.service.ends import Ends
from authd.service.issuing import power_scope
from authd.service.quotas import DECLINED_FOR_S, MAX_DECLINED, Declined
from tests.unit.service.scenes import (
    DEVICE,
    GATEWAY,
    OTHER,
    SENSOR,
    TEMP,
    can_publish,
    gossip,
    head,
    item,
    revoke,
)
from tests.unit.service.test_heartbeats import digest
from tests.world import DAY, START, Domain, FakeClock, Site, make_key, scope

ALL = scope(pub="site/#")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REVOCATIONS_PER_BRANCH", (40, 4, 3, 2))
    monkeypatch.setattr(limits, "GRANTS_PER_BRANCH", (40, 4, 3, 2))
    monkeypatch.setattr(limits, "ISSUER_BURST", 5.0)
    monkeypatch.setattr(limits, "ISSUER_STATEMENTS_PER_S", 1.0)


def with_gateway(directory: Path, *, heartbeat: str | None = "hb-1") -> Site:
    site = Site(directory, Domain(), heartbeat=heartbeat)
    site.learn(
        site.domain.grant(GATEWAY.public, ALL, depth=2),
        site.domain.grant(DEVICE.public, TEMP),
    )
    return site


def flood(count: int, by: SigningKey = GATEWAY, start: int = 0) -> list[Revoke]:
    return [
        sign_revoke(by, target=bytes([n]) * 16, issued_at=START)
        for n in range(start, start + count)
    ]


def held(site: Site, statements: list[Revoke]) -> int:
    return sum(one.statement_id in site.service.authority.state.revocations for one in statements)


# --- speed ------------------------------------------------------------------------------------


def test_an_issuer_that_speaks_too_fast_is_heard_later_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ISSUER_BURST", 5.0)
    monkeypatch.setattr(limits, "ISSUER_STATEMENTS_PER_S", 1.0)
    site = with_gateway(tmp_path)
    some = flood(8)
    gossip(site, *some)
    assert held(site, some) == 5
    assert site.service.authority.quotas.limited == 3
    assert not set(site.service.authority.held()) >= {one.statement_id for one in some}
    revoke(site, SENSOR.public)
    assert len(site.service.authority.state.revocations) == 6, "others are heard"
    site.clock.advance(3)
    gossip(site, *some)
    assert held(site, some) == 8


def test_one_issuer_leaves_those_above_and_beside_it_their_voice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ISSUER_BURST", 5.0)
    monkeypatch.setattr(limits, "ISSUER_STATEMENTS_PER_S", 0.001)
    site = with_gateway(tmp_path)
    site.learn(
        site.domain.grant(SENSOR.public, ALL, by=GATEWAY, depth=1),
        site.domain.grant(OTHER.public, ALL, depth=1),
    )
    gossip(site, *flood(9, by=SENSOR))
    assert len(site.service.authority.state.revocations) == 5
    for by, count in ((GATEWAY, 5), (OTHER, 5), (site.domain.authority, 5)):
        some = flood(9, by=by)
        gossip(site, *some)
        assert held(site, some) == count


def test_what_a_branch_says_in_all_is_bounded_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ISSUER_BURST", 5.0)
    monkeypatch.setattr(limits, "ISSUER_STATEMENTS_PER_S", 0.001)
    site = with_gateway(tmp_path)
    subs = [make_key(f"sub {n}") for n in range(4)]
    site.learn(*(site.domain.grant(one.public, ALL, by=GATEWAY, depth=1) for one in subs))
    for one in subs:
        gossip(site, *flood(3, by=one))
    assert len(site.service.authority.state.revocations) == 5


def test_a_key_without_depth_speaks_at_the_charge_of_whoever_admitted_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ENTRY_BURST", 1.0)
    monkeypatch.setattr(limits, "ENTRY_STATEMENTS_PER_S", 0.001)
    site = with_gateway(tmp_path)
    own = sign_revoke(DEVICE, target=DEVICE.public, issued_at=START)
    other = sign_revoke(DEVICE, target=DEVICE.public, issued_at=START + 1)
    gossip(site, own, other)
    assert held(site, [own, other]) == 1
    assert site.service.authority.quotas.limited == 1
    stranger = sign_broker(
        make_key("stranger"),
        domain=site.domain.id,
        broker_id="x",
        endpoints=("h:1",),
        prefixes=("a/#",),
        issued_at=START,
        expires_at=START + 60,
    )
    quotas, state = site.service.authority.quotas, site.service.authority.state
    assert quotas.may_speak(stranger, state), "it has a voice of its own"
    assert quotas.has_room(stranger, state)


# --- room -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small")
def test_grants_beyond_the_quota_are_not_kept_and_not_asked_for_again(tmp_path: Path) -> None:
    site = with_gateway(tmp_path)
    authority = site.service.authority
    grants = [site.domain.grant(make_key(f"s{n}").public, TEMP, by=GATEWAY) for n in range(6)]
    for one in grants:
        gossip(site, one)
        site.clock.advance(1)
    assert authority.state.issued[GATEWAY.public] == 4
    assert authority.quotas.surplus == 2
    assert {one.statement_id for one in grants} <= set(authority.held())
    assert authority.statement(grants[5].statement_id) is None
    with pytest.raises(LimitError, match="no room"):
        site.learn(site.domain.grant(make_key("more").public, TEMP, by=GATEWAY))
    site.learn(site.domain.grant(make_key("elsewhere").public, TEMP))
    sub = site.domain.grant(SENSOR.public, ALL, by=GATEWAY, depth=1)
    gossip(site, sub)
    assert authority.state.holds_grant(sub), "who stands above whom is known to everybody alike"


@pytest.mark.usefixtures("small")
async def test_an_overflowing_branch_is_revoked_whole_its_sessions_are_cut_and_all_are_told(
    tmp_path: Path,
) -> None:
    site = with_gateway(tmp_path)
    authority = site.service.authority
    site.learn(site.domain.grant(SENSOR.public, TEMP, by=GATEWAY))
    assert (await site.connect(SENSOR)).allowed
    assert (await site.connect(DEVICE)).allowed
    gossip(site, *flood(2))
    assert authority.alarms == []
    gossip(site, *flood(4))
    assert can_publish(site, SENSOR, "site/temp").allowed
    warning = (
        f"the branch of `{key_id_text(GATEWAY.public)}` holds 4 revocations of 4: with more it is"
        " treated as revoked whole"
    )
    assert authority.alarms == [warning]
    gossip(site, *flood(1, start=4))
    assert authority.state.fallen == {GATEWAY.public}
    assert not can_publish(site, SENSOR, "site/temp").allowed
    assert can_publish(site, DEVICE, "site/temp").allowed
    assert (await site.connect(SENSOR)).reason is ReasonCode.REVOKED
    assert ["overflowed its quota" in one for one in authority.alarms] == [True]
    assert site.service.operator.status()["quotas"] == {
        "fallen": [key_id_text(GATEWAY.public)],
        "too_fast": 0,
        "no_room": 0,
    }
    site.clock.advance(60)
    more = flood(1, start=9)
    gossip(site, *more)
    assert held(site, more) == 0
    assert more[0].statement_id in authority.held()
    with pytest.raises(LimitError):
        authority.submit([item(more[0])])
    sub = site.domain.grant(OTHER.public, ALL, by=GATEWAY, depth=1)
    gossip(site, sub)
    assert not authority.state.holds_grant(sub)
    site.close()
    site.open()
    assert site.service.authority.state.fallen == {GATEWAY.public}
    assert site.service.authority.alarms


@pytest.mark.usefixtures("small")
def test_what_a_heartbeat_list_names_is_taken_beyond_every_quota(tmp_path: Path) -> None:
    site = with_gateway(tmp_path, heartbeat=None)
    authority = site.service.authority
    gossip(site, *flood(5))
    assert authority.state.fallen
    site.clock.advance(1)
    listed = [*flood(3, start=9), *flood(1, by=OTHER, start=30)]
    ids = [one.statement_id for one in listed]
    gossip(site, head(site.domain, "hb-1", at=START, count=4, digest=digest(*ids), recent=ids))
    assert not authority.heartbeats.freshness()
    gossip(site, *listed)
    assert held(site, listed) == 4
    assert authority.heartbeats.freshness()[site.domain.id] > START


@pytest.mark.usefixtures("small")
def test_a_list_without_end_is_not_followed_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_LISTED_SURPLUS", 2)
    site = with_gateway(tmp_path, heartbeat=None)
    gossip(site, *flood(5))
    listed = flood(4, start=9)
    ids = [one.statement_id for one in listed]
    gossip(site, head(site.domain, "hb-1", at=START, count=4, digest=digest(*ids), recent=ids))
    gossip(site, *listed)
    assert held(site, listed) == 2
    assert not site.service.authority.heartbeats.freshness()


@pytest.mark.usefixtures("small")
def test_the_own_list_leaves_the_surplus_out_and_signs_no_more_often_for_it(
    tmp_path: Path,
) -> None:
    site = with_gateway(tmp_path)
    authority = site.service.authority
    monkey = flood(5)
    gossip(site, *monkey)
    authority.quotas.has_room = lambda *_: True  # type: ignore[method-assign]  # another list had it
    site.clock.advance(60)
    gossip(site, *flood(3, start=9))
    assert len(authority.state.revocations) == 8
    site.clock.advance(2)
    authority.beat()
    view = authority.heartbeats.domains[site.domain.id].view(site.domain.heartbeat("hb-1").public)
    assert view.newest is not None
    assert view.newest.count == 5
    site.clock.advance(2)
    assert authority.beat() == []


# --- forgetting -------------------------------------------------------------------------------


def test_a_grant_that_newer_ones_pushed_out_leaves_memory_and_disk(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    grants = [site.domain.grant(DEVICE.public, TEMP, issued_at=START - 50 + n) for n in range(9)]
    for one in grants:
        gossip(site, one)
    assert gossip(site, grants[0]) == [], "and is not taken again"
    kept = [one.statement_id for one in site.store.load_statements() if one.kind is Kind.GRANT]
    assert kept == [one.statement_id for one in grants[5:]]
    assert set(site.service.authority.held()) >= {one.statement_id for one in grants}
    assert [site.service.authority.source(one.statement_id) for one in grants[4:6]] == [
        "",
        "gossip",
    ]


def test_a_grant_that_ended_a_month_ago_is_forgotten_and_makes_room(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    short = site.domain.grant(DEVICE.public, TEMP, expires_at=START + DAY)
    long = site.domain.grant(OTHER.public, TEMP, expires_at=START + 90 * DAY)
    site.learn(short, long)
    authority = site.service.authority
    for day in range(40):
        site.clock.time = START + day * DAY
        authority.forget_ended(now=site.clock.now())
        assert authority.state.holds_grant(short) is (day < 32), day
    assert authority.state.holds_grant(long)
    assert gossip(site, short) == []
    assert authority.quotas.surplus == 1
    ids = [one.statement_id for one in site.store.load_statements()]
    assert short.statement_id not in ids
    assert long.statement_id in ids


def test_days_are_taken_a_few_at_a_time() -> None:
    domain, ends = Domain(), Ends()
    keys = [make_key(str(n)).public for n in range(5)]
    for key in keys:
        ends.add(domain.grant(key, TEMP, expires_at=START + DAY))
    assert ends.take(START, 3) == []
    assert list(ends.until(START)) == []
    assert len(list(ends.until(START + DAY))) == 5
    assert [len(ends.take(START + 3 * DAY, 3)) for _ in range(3)] == [3, 2, 0]


def test_declined_ids_are_bounded_and_forgotten_after_an_hour() -> None:
    clock = FakeClock()
    declined = Declined(clock=clock)
    for number in range(MAX_DECLINED + 5):
        declined.add(StatementId(number.to_bytes(16, "big")), Kind.GRANT)
    assert len(declined.ids()) == MAX_DECLINED
    clock.advance(DECLINED_FOR_S)
    assert declined.ids() == {}


def test_what_newer_ones_pushed_out_is_not_remembered_by_its_day() -> None:
    domain, ends = Domain(), Ends()
    grants = [domain.grant(make_key(str(n)).public, TEMP) for n in range(3)]
    for one in (*grants, grants[1]):
        ends.add(one)
    ends.remove(grants[0])
    ends.remove(grants[0])
    left = sorted(key_id(make_key(str(n)).public) for n in (1, 1, 2))
    assert sorted(ends.until(START + 40 * DAY)) == left
    for one in (grants[1], grants[2], grants[1]):
        ends.remove(one)
    assert ends._days == {}


# --- nobody is silenced by others -------------------------------------------------------------


def with_unasked(directory: Path) -> Site:
    """Let a hostile gateway vouch, unasked, for one that an authority vouches for."""
    site = with_gateway(directory)
    site.learn(
        site.domain.grant(OTHER.public, ALL, depth=2),
        site.domain.grant(SENSOR.public, ALL, by=OTHER, depth=1),
    )
    gossip(
        site,
        site.domain.grant(OTHER.public, ALL, by=GATEWAY, depth=1),
        site.domain.grant(SENSOR.public, ALL, by=GATEWAY, depth=1),
    )
    site.clock.advance(60)
    return site


@pytest.mark.usefixtures("small")
async def test_a_fallen_gateway_keeps_nobody_from_revoking_by_vouching_for_them(
    tmp_path: Path,
) -> None:
    site = with_unasked(tmp_path)
    authority = site.service.authority
    keys = [make_key(f"lamp {n}") for n in range(2)]
    site.learn(
        site.domain.grant(keys[0].public, TEMP, by=OTHER),
        site.domain.grant(keys[1].public, TEMP, by=SENSOR),
    )
    assert [(await site.connect(one)).allowed for one in keys] == [True, True]
    gossip(site, *flood(5))
    assert authority.state.fallen == {GATEWAY.public}
    site.clock.advance(60)
    words = [
        sign_revoke(by, target=key.public, issued_at=START)
        for by, key in zip((OTHER, SENSOR), keys, strict=True)
    ]
    gossip(site, *words)
    assert held(site, words) == 2
    assert site.service.sessions.all() == []
    authority.beat()
    view = authority.heartbeats.domains[site.domain.id].view(site.domain.heartbeat("hb-1").public)
    assert {one.statement_id for one in words} <= set(view.chain.ids)
    more = site.domain.grant(make_key("sub").public, ALL, by=SENSOR, depth=1)
    gossip(site, more)
    assert authority.state.holds_grant(more)


@pytest.mark.usefixtures("small")
def test_a_full_gateway_leaves_room_to_those_it_vouched_for(tmp_path: Path) -> None:
    site = with_unasked(tmp_path)
    site.clock.advance(60)
    for number in range(6):
        gossip(site, site.domain.grant(make_key(f"g{number}").public, TEMP, by=GATEWAY))
        site.clock.advance(2)
    assert site.service.authority.quotas.surplus
    lamp = site.domain.grant(make_key("lamp").public, TEMP, by=SENSOR)
    gossip(site, lamp)
    assert site.service.authority.state.holds_grant(lamp)


def test_a_gateway_out_of_breath_takes_no_others_breath(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = with_unasked(tmp_path)
    monkeypatch.setattr(limits, "ISSUER_BURST", 5.0)
    monkeypatch.setattr(limits, "ISSUER_STATEMENTS_PER_S", 0.001)
    child = make_key("child")
    site.learn(site.domain.grant(child.public, ALL, by=GATEWAY, depth=1))
    gossip(site, *flood(9, by=child))
    words = flood(3, by=SENSOR, start=20)
    gossip(site, *words)
    assert held(site, words) == 3


def test_a_revoker_has_its_own_voice_and_leaves_its_authority_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ISSUER_BURST", 5.0)
    monkeypatch.setattr(limits, "ISSUER_STATEMENTS_PER_S", 0.001)
    site = with_gateway(tmp_path)
    power = site.domain.grant(OTHER.public, power_scope(POWER_REVOKE))
    site.learn(power)
    some = [
        sign_revoke(OTHER, target=bytes([n]) * 16, issued_at=START, revoker_grant=power)
        for n in range(9)
    ]
    gossip(site, *some)
    assert held(site, some) == 5
    own = flood(3, by=site.domain.authority, start=20)
    gossip(site, *own)
    assert held(site, own) == 3


# --- fallen for good --------------------------------------------------------------------------


@pytest.mark.usefixtures("small")
async def test_a_fallen_branch_does_not_stand_again_when_what_filled_it_ended_long_ago(
    tmp_path: Path,
) -> None:
    site = with_gateway(tmp_path)
    authority = site.service.authority
    subs = [make_key(f"sub {n}") for n in range(3)]
    short = [
        site.domain.grant(one.public, ALL, by=GATEWAY, depth=1, expires_at=START + DAY)
        for one in subs
    ]
    quiet = site.domain.grant(OTHER.public, ALL, depth=1, expires_at=START + DAY)
    lamp = site.domain.grant(SENSOR.public, TEMP, by=GATEWAY, expires_at=START + 300 * DAY)
    gateway = site.domain.grant(GATEWAY.public, ALL, depth=3, expires_at=START + 300 * DAY)
    site.learn(*short, quiet, lamp, gateway)
    for number, one in enumerate(subs):
        gossip(site, *flood(2, by=one, start=10 * number))
        site.clock.advance(60)
    assert authority.state.fallen == {GATEWAY.public}
    site.clock.time = START + 40 * DAY
    while authority.forget_ended(now=site.clock.now()):
        pass
    assert authority.state.fallen == {GATEWAY.public}
    assert not authority.state.holds_grant(quiet)
    site.close()
    site.open()
    assert site.service.authority.state.fallen == {GATEWAY.public}

    # Whoever comes later is told why.
    late = Site(tmp_path, site.domain, name="late", clock=site.clock, heartbeat=None)
    late.learn(gateway)
    authority = site.service.authority
    authority.beat()
    revocations = list(authority.state.revocations.values())
    heads = authority.heartbeats.newest_items()
    late.service.authority.receive(heads, source="gossip")
    gossip(late, *revocations)
    gossip(late, *short)
    assert late.service.authority.state.fallen == {GATEWAY.public}


def test_the_grant_of_a_key_that_revoked_itself_keeps_its_room(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    short = site.domain.grant(DEVICE.public, TEMP, expires_at=START + DAY)
    other = site.domain.grant(OTHER.public, TEMP, expires_at=START + DAY)
    site.learn(short, other)
    revoke(site, DEVICE.public, by=DEVICE)
    revoke(site, OTHER.public)
    site.clock.time = START + 40 * DAY
    site.service.authority.forget_ended(now=site.clock.now())
    state = site.service.authority.state
    assert (state.holds_grant(short), state.holds_grant(other)) == (True, False)
    assert state.issued[site.domain.authority.public] == 1


# --- lists ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small")
def test_what_was_declined_is_asked_for_as_soon_as_a_list_names_it(tmp_path: Path) -> None:
    site = with_gateway(tmp_path, heartbeat=None)
    authority = site.service.authority
    gossip(site, *flood(5))
    site.clock.advance(60)
    more = flood(2, start=9)
    gossip(site, *more)
    ids = [one.statement_id for one in more]
    assert set(ids) <= set(authority.held())
    gossip(
        site, head(site.domain, "hb-1", at=START, count=1, digest=digest(ids[0]), recent=ids[:1])
    )
    assert ids[0] not in authority.held(), "without it the domain would be stale for an hour"
    assert ids[1] in authority.held()
    gossip(site, more[0])
    assert authority.heartbeats.freshness()[site.domain.id] > START


@pytest.mark.usefixtures("small")
def test_a_hostile_list_does_not_use_up_what_an_honest_one_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_LISTED_SURPLUS", 2)
    domain = Domain(heartbeat_names=("hb-1", "hb-2", "hb-3"))
    site = Site(tmp_path, domain, heartbeat=None)
    site.learn(domain.grant(GATEWAY.public, ALL, depth=2))
    gossip(site, *flood(5))
    site.clock.advance(60)
    junk, honest = flood(2, by=OTHER, start=50), flood(2, start=9)
    both = [one.statement_id for one in (*junk, *honest)]
    ids = both[2:]
    at = site.clock.now()
    gossip(site, head(domain, "hb-1", at=at, count=2, digest=digest(*ids), recent=ids))
    gossip(site, head(domain, "hb-2", at=at, count=4, digest=digest(*both), recent=both))
    gossip(site, *junk)
    gossip(site, *honest)
    assert held(site, honest) == 2
    # The same again costs nothing: a full disk may have made it necessary.
    beats = site.service.authority.heartbeats
    assert all(len(taken) <= 2 for taken in beats._wanted._listed.values())


def test_what_only_a_closed_list_named_is_wanted_no_more(tmp_path: Path) -> None:
    site = with_gateway(tmp_path, heartbeat=None)
    beats = site.service.authority.heartbeats
    before, last = None, None
    for number in range(3):
        one = StatementId(bytes([number]) * 16)
        epoch = START - 100 + number
        signed = sign_heartbeat(
            site.domain.heartbeat("hb-1"),
            domain=site.domain.id,
            root_version=1,
            epoch=epoch,
            count=1,
            head=digest(one),
            recent=(one,),
            issued_at=START - 3 + number,
            previous=before,
        )
        gossip(site, signed)
        assert beats.lacks(one)
        assert last is None or not beats.lacks(last)
        before, last = signed.end, one


def test_another_domain_has_one_budget_however_many_keys_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_LISTED_SURPLUS", 2)
    other = Domain("other", heartbeat_names=("hb-1", "hb-2", "hb-3"))
    site = Site(tmp_path, Domain(), domains={other.id: DomainPolicy()})
    gossip(site, *other.roots)
    junk = flood(6, by=OTHER)
    for number, name in enumerate(other.heartbeat_names):
        ids = [one.statement_id for one in junk[2 * number : 2 * number + 2]]
        gossip(site, head(other, name, at=START, count=2, digest=digest(*ids), recent=ids))
    gossip(site, *junk)
    assert held(site, junk) == 2


@pytest.mark.usefixtures("small")
def test_what_goes_on_the_list_is_what_a_walk_through_all_would_find(tmp_path: Path) -> None:
    site = with_unasked(tmp_path)
    authority, listed = site.service.authority, 0
    beats = authority.heartbeats
    beats.take_listed = lambda revocation: True  # type: ignore[method-assign]  # noqa: ARG005 - some list names it all
    signers = (GATEWAY, OTHER, SENSOR, site.domain.authority)
    for step in range(40):
        some = flood(1 + step % 3, by=signers[step % 4], start=3 * step)
        gossip(site, *some)
        view = beats.domains[site.domain.id].view(site.domain.heartbeat("hb-1").public)
        scene = beats.scene(authority.state)
        assert beats.own is not None
        assert scene is not None
        found = beats.own.missing(scene)
        known = set(view.chain.ids)
        wanted = to_list(
            sorted(one for one in authority.state.revocations if one not in known),
            listed=view.chain.ids,
            state=authority.state,
            branches=authority.quotas.branches,
        )
        assert (step, found) == (step, wanted)
        site.clock.advance(60)
        if step % 5 == 4:
            authority.beat()
            listed = len(view.chain.ids)
    assert listed
    assert len(authority.state.flooded) == 3
    assert len(authority.state.revocations) > listed + 10, "some of it is left out"
