"""Whole daemons begin heartbeat lists anew while revocations go on and two of them are away."""

import asyncio
import logging
from pathlib import Path

import pytest
import structlog

from authd.core import limits
from authd.core.claims import Kind
from authd.core.grants import Grant
from authd.core.identity import StatementId
from authd.core.statements import sign_revoke
from authd.service import ends, knowledge
from authd.service.issuing import Bundle
from authd.service.ports import Item
from tests.simulation.sites import Country, Place, seconds_until
from tests.simulation.virtual import run
from tests.world import make_key, scope

SITES = 5
MINUTES = 30
LIFE_S = 200


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    monkeypatch.setattr(limits, "MIN_CLOSED_ENTRIES", 4)
    monkeypatch.setattr(limits, "NEW_LIST_EVERY_S", 420)
    monkeypatch.setattr(limits, "NEW_LIST_SLOT_S", 60)
    monkeypatch.setattr(limits, "REVOCATION_KEPT_S", 40)
    monkeypatch.setattr(limits, "SPENT_FOR_S", 15)
    monkeypatch.setattr(ends, "_LOOK_EVERY_S", 20)
    monkeypatch.setattr(knowledge, "_FORGET_EVERY_S", 30.0)


async def submit(place: Place, kind: Kind, data: bytes) -> None:
    await place.site.service.publisher.submit(Bundle(statements=(Item(kind, data),), records=()))


async def brief(country: Country, place: Place, number: int) -> Grant:
    """Make a grant that ends soon; every site hears of it."""
    now = place.clock.now()
    grant = country.domain.grant(
        make_key(f"brief {number}").public,
        scope(pub="site/temp"),
        issued_at=now - 10,
        expires_at=now + LIFE_S,
    )
    await submit(place, Kind.GRANT, grant.encoded)
    return grant


async def revoke(country: Country, place: Place, target: bytes) -> StatementId:
    signed = sign_revoke(country.domain.authority, target=target, issued_at=place.clock.now())
    await submit(place, Kind.REVOKE, signed.encoded)
    return signed.statement_id


def is_fresh(country: Country, place: Place) -> bool:
    until = place.site.service.authority.heartbeats.freshness().get(country.domain.id, 0)
    return until > place.clock.now()


async def keep_forgetting(country: Country) -> None:
    while True:
        for place in country.places:
            place.site.service.authority.forget_ended(now=place.clock.now())
        await asyncio.sleep(1)


def begun(country: Country, place: Place) -> int:
    view = place.site.service.authority.heartbeats.domains[country.domain.id]
    return sum(len(view.view(key).closed_heads) for key in view.root.heartbeat_keys)


class Tale:
    """Grants and keys that are revoked, minute by minute."""

    def __init__(self, country: Country) -> None:
        self.country = country
        self.ended: list[StatementId] = []
        self.for_ever: list[StatementId] = []
        self.stale: set[int] = set()
        self.away: set[int] = set()

    async def pass_minute(self, minute: int) -> None:
        place = self.country.places[minute % 2]
        for number in range(3):
            grant = await brief(self.country, place, 10 * minute + number)
            one = await revoke(self.country, place, grant.statement_id)
            self.ended += [one] if minute < MINUTES - 15 else []
        thief = make_key(f"thief {minute}").public
        self.for_ever.append(await revoke(self.country, place, thief))
        await asyncio.sleep(60)

    async def go_on(self) -> None:
        for minute in range(MINUTES):
            if minute == 5:
                # One that holds a key, and one that does not.
                self.away |= {2, 4}
                self.country.cut_off(*self.away)
            if minute == 20:
                self.country.heal()
            if minute == 22:
                self.away.clear()
            await self.pass_minute(minute)

    async def keep_asking(self) -> None:
        while True:
            for number, place in enumerate(self.country.places):
                if number not in self.away and not is_fresh(self.country, place):
                    self.stale.add(number)
            await asyncio.sleep(1)

    def check(self, place: Place) -> None:
        authority = place.site.service.authority
        assert authority.alarms == []
        assert begun(self.country, place) >= 5
        assert set(self.for_ever) <= set(authority.state.revocations)
        assert not set(self.ended) & set(authority.state.revocations)


def test_lists_are_begun_anew_and_nothing_is_lost_or_stale(tmp_path: Path) -> None:
    async def play() -> None:
        country = Country(tmp_path, sites=SITES)
        tale = Tale(country)
        async with country.running():
            tasks = [
                asyncio.ensure_future(keep_forgetting(country)),
                asyncio.ensure_future(tale.keep_asking()),
            ]
            await tale.go_on()
            for place in country.places:
                in_force = place.in_force
                await seconds_until(
                    lambda asked=in_force: all(map(asked, tale.for_ever)),  # type: ignore[misc]  # bound here
                    at_most=60,
                )
            for task in tasks:
                task.cancel()
        assert not tale.stale, tale.stale
        for place in country.places:
            tale.check(place)

    run(play())
