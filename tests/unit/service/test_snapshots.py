"""Snapshots in parts: what happens between two of them, and what attaching writes."""

import json
import random
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from authd.core.identity import key_id_text
from authd.errors import StoreError
from authd.service.events import Part, Preparing, Slice
from authd.service.ports import SessionEvent, SessionReport
from tests.unit.service.scenes import DEVICE, OTHER, TEMP, revoke
from tests.world import START, Domain, Site, make_key, scope

FIRST, SECOND = "1" * 16, "2" * 16
KEYS = [make_key(f"device {number}") for number in range(12)]
IDS = [key_id_text(key.public) for key in KEYS]


@pytest.fixture(autouse=True)
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_LOOKED_AT", "_DESCRIBED", "_ENCODED"):
        monkeypatch.setattr(f"authd.service.snapshots.{name}", 1)


async def crowded(directory: Path, *, clean: bool = True, broker: str = "m") -> Site:
    site = Site(directory, Domain())
    site.learn(*(site.domain.grant(key.public, TEMP) for key in (*KEYS, OTHER)))
    for key in KEYS:
        assert (await site.connect(key, broker=broker, clean=clean, boot=FIRST)).allowed
    return site


class Model:
    """What an enforcement point makes of a stream: client ids with session id and rights."""

    def __init__(self, stream: AsyncGenerator[Part, None]) -> None:
        self.stream = stream
        self.number = 0
        self.listed: list[dict[str, Any]] = []
        self.held: dict[str, tuple[str, str]] = {}
        self.seen: list[object] = []
        self.complete = False

    async def step(self) -> Part:
        part = await anext(self.stream)
        match part:
            case SessionEvent(kind="snapshot"):
                self.number = part.number
            case SessionEvent():
                assert part.number == self.number + 1, "no gap"
                self.number = part.number
                self._apply(part.kind, part.body)
            case Slice(member="sessions"):
                self._list(part)
            case Slice():
                self.seen += part.entries
                self.complete = part.last
        return part

    async def until_begun(self) -> None:
        while not isinstance(await self.step(), Slice):
            continue

    async def until_complete(self) -> None:
        while not self.complete:
            await self.step()

    async def until_even(self, log_number: int) -> None:
        await self.until_complete()
        while self.number < log_number:
            await self.step()

    def _list(self, part: Slice) -> None:
        for entry in part.entries:
            assert isinstance(entry, dict)
            self.listed.append(entry)
            self.held[entry["client_id"]] = (entry["session"], json.dumps(entry["rights"]))

    def _apply(self, kind: str, body: dict[str, Any]) -> None:
        for client_id, (session, _) in list(self.held.items()):
            if kind == "cut" and body["session"] == session:
                del self.held[client_id]
            if kind == "set" and body["session"] == session:
                self.held[client_id] = (session, json.dumps(body["rights"]))


def attach(site: Site, boot: str = FIRST, broker: str = "m") -> Model:
    return Model(site.service.enforcement.attach(broker, boot=boot))


def said(site: Site, broker: str = "m") -> dict[str, tuple[str, str]]:
    """Return what is true, as a model has it."""
    enforcement = site.service.enforcement
    described = [
        enforcement.describe(broker, one.client_id) or {}
        for one in site.service.sessions.on(broker)
    ]
    return {
        str(one["client_id"]): (str(one["session"]), json.dumps(one["rights"])) for one in described
    }


# --- between two parts --------------------------------------------------------------------------


async def test_a_snapshot_comes_in_parts_and_is_complete(tmp_path: Path) -> None:
    site = await crowded(tmp_path)
    model = attach(site)
    await model.until_complete()
    assert [one["client_id"] for one in model.listed] == IDS
    assert model.held == said(site)
    assert len(model.seen) == len(KEYS)


async def test_what_is_cut_meanwhile_is_not_listed_and_told_of_afterwards(tmp_path: Path) -> None:
    site = await crowded(tmp_path)
    model = attach(site)
    await model.until_begun()
    await model.step()
    revoke(site, KEYS[0].public)
    revoke(site, KEYS[-1].public)
    await model.until_complete()
    assert [one["client_id"] for one in model.listed] == IDS[:-1], "the first had been described"
    await model.until_even(site.service.sessions.events["m"].number)
    assert model.held.keys() == set(IDS[1:-1])


async def test_what_begins_meanwhile_is_newer_than_the_snapshot(tmp_path: Path) -> None:
    site = await crowded(tmp_path)
    model = attach(site)
    await model.until_begun()
    assert (await site.connect(OTHER, boot=FIRST)).allowed
    described = site.service.enforcement.describe("m", key_id_text(OTHER.public))
    assert described is not None
    again = await site.connect(KEYS[-1], boot=FIRST)
    await model.until_complete()
    assert described["n"] == model.number, "not smaller: the snapshot does not know it"
    assert [one["client_id"] for one in model.listed] == IDS[:-1]
    assert again.session not in {one["session"] for one in model.listed}


async def test_rights_are_told_as_they_are_when_their_turn_comes(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    lamp = site.domain.grant(DEVICE.public, scope(pub="site/lamp"), issued_at=START - 5)
    site.learn(site.domain.grant(DEVICE.public, TEMP), lamp)
    assert (await site.connect(DEVICE, broker="e", boot=FIRST)).allowed
    model = attach(site, broker="e")
    await model.until_begun()
    revoke(site, lamp.statement_id)
    await model.until_complete()
    (entry,) = model.listed
    assert entry["rights"] == [{"filter": "site/temp", "actions": 1}]
    await model.until_even(site.service.sessions.events["e"].number)
    assert model.held == said(site, "e")


async def test_leases_are_counted_from_the_beginning_of_the_snapshot(tmp_path: Path) -> None:
    site = await crowded(tmp_path)
    model = attach(site)
    await model.until_begun()
    site.clock.advance(7)
    await model.until_complete()
    assert len({one["lease_ms"] for one in model.listed}) == 1
    fresh = attach(site, SECOND)
    await fresh.until_complete()
    assert fresh.listed[0]["lease_ms"] == model.listed[0]["lease_ms"] - 7_000


async def test_a_snapshot_that_is_replaced_is_never_completed(tmp_path: Path) -> None:
    site = await crowded(tmp_path)
    older, newer = attach(site), attach(site)
    await older.until_begun()
    await newer.until_complete()
    with pytest.raises(StopAsyncIteration):
        await older.until_complete()
    assert site.service.sessions.events["m"].listening == 1


async def test_one_that_is_replaced_before_it_began_ends_nobody(tmp_path: Path) -> None:
    site = await crowded(tmp_path, clean=False)
    older, newer = attach(site, SECOND), attach(site, SECOND)
    assert isinstance(await older.step(), Preparing)
    await newer.until_complete()
    with pytest.raises(StopAsyncIteration):
        await older.step()
    revoke(site, KEYS[0].public)
    assert isinstance(await newer.step(), SessionEvent)


async def test_too_many_changes_meanwhile_end_the_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authd.service.events.MAX_QUEUED_EVENTS", 5)
    site = await crowded(tmp_path)
    model = attach(site)
    await model.until_begun()
    for key in KEYS[:6]:
        revoke(site, key.public)
    with pytest.raises(StopAsyncIteration):
        await model.until_complete()
    assert site.service.sessions.events["m"].listening == 0


async def test_sessions_that_end_before_the_snapshot_fill_no_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authd.service.events.MAX_QUEUED_EVENTS", 5)
    site = Site(tmp_path, Domain())
    for key in KEYS:
        path = [site.domain.grant(key.public, TEMP)]
        assert (await site.connect(key, path=path, boot=FIRST)).allowed
    model = attach(site, SECOND)
    await model.until_complete()
    assert model.listed == []
    assert site.service.sessions.all() == []


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_happens_between_the_parts_both_sides_agree_in_the_end(
    tmp_path: Path, seed: int
) -> None:
    drawn = random.Random(seed)
    site = await crowded(tmp_path, clean=False, broker="e")
    model = attach(site, SECOND, broker="e")
    answered: dict[str, tuple[int, str]] = {}
    grants = {}
    while not model.complete:
        await model.step()
        key = drawn.choice(KEYS)
        client_id = key_id_text(key.public)
        match drawn.randrange(6):
            case 0:
                revoke(site, key.public)
            case 1:
                grants[key] = site.domain.grant(
                    key.public, scope(pub="site/more"), issued_at=START - 1 - seed
                )
                site.learn(grants[key])
            case 2 if key in grants:
                revoke(site, grants.pop(key).statement_id)
            case 3:
                decision = await site.connect(key, broker="e", boot=SECOND, clean=False)
                described = site.service.enforcement.describe("e", client_id)
                if decision.allowed and described is not None:
                    answered[client_id] = (
                        int(str(described["n"])),
                        json.dumps(described["rights"]),
                    )
            case _:
                continue
    sessions = site.service.sessions
    snapshot_number = model.number
    # As a plugin does it: an answer that is no older than the snapshot stands beside it.
    for client_id, (number, rights) in answered.items():
        session = sessions.get("e", client_id)
        if number >= snapshot_number and session is not None:
            model.held[client_id] = (session.session_id, rights)
    await model.until_even(sessions.events["e"].number)
    true = said(site, "e")
    assert model.held.keys() >= true.keys()
    assert {name: model.held[name] for name in true} == true
    assert all(name in answered for name in model.held.keys() - true.keys())


# --- what attaching writes ----------------------------------------------------------------------


def written(site: Site) -> int:
    return site.store._fast.total_changes


async def test_attaching_saves_only_the_sessions_that_were_live(tmp_path: Path) -> None:
    site = await crowded(tmp_path, clean=False)
    before = written(site)
    await attach(site, SECOND).until_complete()
    first = written(site)
    assert first > before
    assert not any(one.live for one in site.store.load_sessions())
    for boot in (SECOND, FIRST, SECOND):
        await attach(site, boot).until_complete()
    assert written(site) == first, "all of them were away already"


async def test_what_is_known_is_not_saved_again(tmp_path: Path) -> None:
    site = await crowded(tmp_path, clean=False)
    session = site.service.sessions.get("m", IDS[0])
    assert session is not None
    before = written(site)
    site.service.sessions.come_back(session, boot=FIRST, durable=True)
    assert written(site) == before
    for change in ({"boot": SECOND, "durable": True}, {"boot": SECOND, "durable": False}):
        site.service.sessions.come_back(session, **change)  # type: ignore[arg-type]  # as named
        (stored,) = [one for one in site.store.load_sessions() if one.client_id == IDS[0]]
        assert {"boot": stored.boot, "durable": stored.durable} == change
    assert written(site) > before


async def test_what_could_not_be_saved_is_saved_by_the_next_who_attaches(tmp_path: Path) -> None:
    site = await crowded(tmp_path, clean=False)
    site.store._fast.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreError):
        await attach(site, SECOND).until_complete()
    assert site.service.sessions.events["m"].listening == 0
    site.store._fast.execute("PRAGMA query_only = OFF")
    model = attach(site, SECOND)
    await model.until_complete()
    assert len(model.listed) == len(KEYS)
    assert not any(one.live for one in site.store.load_sessions())


async def test_a_client_that_came_back_while_nothing_could_be_saved_is_saved_later(
    tmp_path: Path,
) -> None:
    site = await crowded(tmp_path, clean=False)
    session = site.service.sessions.get("m", IDS[0])
    assert session is not None
    site.service.sessions.leave(session)
    site.store._fast.execute("PRAGMA query_only = ON")
    report = SessionReport(client_id=IDS[0], session_id=session.session_id, what="online")
    with pytest.raises(StoreError):
        site.service.enforcement.report("m", report)
    site.store._fast.execute("PRAGMA query_only = OFF")
    site.service.enforcement.report("m", report)
    assert all(one.live for one in site.store.load_sessions())


async def test_a_session_that_another_took_the_place_of_is_left_alone(tmp_path: Path) -> None:
    site = await crowded(tmp_path)
    model = attach(site, SECOND)
    assert isinstance(await model.step(), Preparing)
    decision = await site.connect(KEYS[-1], boot=SECOND)
    await model.until_complete()
    session = site.service.sessions.get("m", IDS[-1])
    assert session is not None
    assert (session.session_id, session.live, session.kept_until) == (decision.session, True, None)
    stored = {one.client_id: one.session_id for one in site.store.load_sessions()}
    assert stored[IDS[-1]] == decision.session
    assert "offline" not in model.listed[-1]
    assert all(one["offline"] for one in model.listed[:-1])
