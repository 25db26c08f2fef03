"""The broker socket: strict requests, verdicts in bodies, the event stream, sync and reports."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from authd.core.challenge import make_hello, make_response, make_single
from authd.core.decision import ConnectRequest, Decision
from authd.core.encoding import encode_base64url
from authd.core.grants import Form, sign_grant, tls_subject
from authd.core.identity import key_id_text
from authd.core.statements import sign_revoke
from authd.errors import StoreError
from authd.http_api.plugin import Plugin
from authd.http_api.server import HttpServers, make_app
from tests.unit.http_api.conftest import DEVICE, DEVICE_ID, Client, Serve
from tests.unit.service.scenes import item
from tests.world import Site, make_key, scope

BOOT = "0123456789abcdef"
PLACES = ("connect", "sync", "session")


def connecting(site: Site, **change: object) -> dict[str, object]:
    return {
        "broker": "m",
        "boot": BOOT,
        "client_id": DEVICE_ID,
        "username": DEVICE_ID,
        "password": site.pop(DEVICE),
        "address": "192.0.2.7",
        "protocol": 4,
        "clean": True,
        "enforces": ["rights", "lease", "kick", "will"],
        **change,
    }


def body_of(place: str, site: Site, **change: object) -> dict[str, object]:
    if place == "connect":
        return connecting(site, **change)
    return {"broker": "m", "boot": BOOT, "clients" if place == "sync" else "events": [], **change}


async def ask(client: Client, place: str, body: object) -> tuple[int, dict[str, Any]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with client.post(f"/v1/plugin/{place}", data=data) as response:
        return response.status, await response.json()


async def test_an_allow_carries_rights_lease_number_and_run(plugin: Client, site: Site) -> None:
    status, answer = await ask(plugin, "connect", connecting(site))
    assert status == 200
    assert answer["verdict"] == "allow"
    assert answer["rights"] == [
        {"filter": "site/cmd/#", "actions": 2},
        {"filter": "site/temp", "actions": 1},
    ]
    assert (answer["key"], answer["n"], answer["will"]) == (DEVICE_ID, 0, "suppress")
    assert answer["lease_ms"] == (60 + 3_600) * 1_000
    assert answer["run"] == site.service.sessions.run


async def test_a_deny_says_why_and_whether_to_try_again(plugin: Client, site: Site) -> None:
    used = connecting(site)
    assert (await ask(plugin, "connect", used))[1]["verdict"] == "allow"
    status, answer = await ask(plugin, "connect", used)
    assert (status, answer["verdict"], answer["reason"]) == (200, "deny", "replayed")
    assert answer["temporary"] is False
    site.clock.behind = 60
    _, answer = await ask(plugin, "connect", connecting(site))
    assert (answer["reason"], answer["temporary"]) == ("stale", True)


@pytest.mark.parametrize("place", PLACES)
async def test_unknown_members_are_refused_by_name(plugin: Client, site: Site, place: str) -> None:
    status, answer = await ask(plugin, place, body_of(place, site, superuser=True))
    assert status == 400
    assert "`superuser`" in answer["error"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "boot", ["", "0" * 15, "0" * 17, "0" * 15 + "G", "ABCDEF0123456789", "0" * 16 + "\n", None, 7]
)
async def test_a_bad_boot_is_refused(plugin: Client, site: Site, place: str, boot: object) -> None:
    status, _ = await ask(plugin, place, body_of(place, site, boot=boot))
    assert status == 400
    assert site.service.sessions.all() == []


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("broker", ["e", "g", "nowhere", "", None])
async def test_a47_a_broker_entry_that_takes_no_plugin_is_refused(
    plugin: Client, site: Site, place: str, broker: object
) -> None:
    allowed = await site.connect(DEVICE, broker="g")
    events = [{"client_id": DEVICE_ID, "session": allowed.session, "what": "offline"}]
    change = {"events": events} if place == "session" else {}
    status, _ = await ask(plugin, place, body_of(place, site, broker=broker, **change))
    assert status == 400
    assert [one.broker for one in site.service.sessions.all()] == ["g"]


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("clean", 1),
        ("clean", None),
        ("enforces", "kick"),
        ("enforces", None),
        ("client_id", 5),
        ("username", None),
        ("password", []),
        ("password", "\ud800"),
        ("address", 7),
    ],
)
async def test_members_of_another_type_are_refused(
    plugin: Client, site: Site, member: str, value: object
) -> None:
    status, answer = await ask(plugin, "connect", connecting(site, **{member: value}))
    assert (status, answer["ok"]) == (400, False)


@pytest.mark.parametrize("place", PLACES)
async def test_a_body_of_more_than_64_kib_is_refused(
    plugin: Client, site: Site, place: str
) -> None:
    body = body_of(place, site) | {"broker": "m" * 70_000}
    assert (await ask(plugin, place, body))[0] == 400


@pytest.mark.parametrize("place", ["sync", "session"])
@pytest.mark.parametrize("entries", [None, {}, [1], [{}] * 501, [{"client_id": "x"}]])
async def test_entries_that_are_too_many_or_no_objects_are_refused(
    plugin: Client, site: Site, place: str, entries: object
) -> None:
    name = "clients" if place == "sync" else "events"
    assert (await ask(plugin, place, body_of(place, site, **{name: entries})))[0] == 400


async def test_sync_and_session_work_on_what_the_plugin_holds(plugin: Client, site: Site) -> None:
    _, answer = await ask(plugin, "connect", connecting(site))
    held = {"client_id": DEVICE_ID, "session": answer["session"], "key": DEVICE_ID}
    ghost = {"client_id": "ghost", "session": "x", "key": "y", "online": True}
    status, synced = await ask(plugin, "sync", body_of("sync", site, clients=[held, ghost]))
    assert (status, synced) == (200, {"drop": ["ghost"], "keep": 1})
    left = {"client_id": DEVICE_ID, "session": answer["session"], "what": "offline"}
    status, said = await ask(plugin, "session", body_of("session", site, events=[left]))
    assert (status, said) == (200, {"ok": True})
    (session,) = site.service.sessions.all()
    assert not session.live
    back = left | {"what": "readmitted", "proof": "A" * 18, "clean": False}
    status, _ = await ask(plugin, "session", body_of("session", site, events=[back]))
    assert status == 200
    assert (session.live, session.durable) == (True, True)
    status, _ = await ask(plugin, "session", body_of("session", site, events=[back | {"proof": 7}]))
    assert status == 400


async def test_a_session_that_ended_before_the_answer_is_a_temporary_deny(
    site: Site, serve: Serve
) -> None:
    class CutAtOnce:
        def __getattr__(self, name: str) -> object:
            return getattr(site.service.decider, name)

        async def connect(self, request: ConnectRequest) -> Decision:
            decision = await site.service.decider.connect(request)
            revoke = sign_revoke(DEVICE, target=DEVICE.public, issued_at=site.clock.now())
            site.service.authority.submit([item(revoke)])
            return decision

    client = await serve(
        Plugin(
            decisions=CutAtOnce(),  # type: ignore[arg-type]  # the rest is handed on
            table=site.service.enforcement,
            is_broker=lambda _: True,
        ),
    )
    _, answer = await ask(client, "connect", connecting(site))
    assert (answer["verdict"], answer["reason"], answer["temporary"]) == (
        "deny",
        "no_session",
        True,
    )


# --- what is shown beside user name and password ----------------------------------------------


def auth_data(site: Site) -> str:
    data = make_single(
        DEVICE,
        audience=site.audience,
        client_id=DEVICE_ID,
        time=site.clock.now(),
        nonce=b"a nonce!",
    )
    return encode_base64url(data)


def exchange(site: Site) -> dict[str, str]:
    client_nonce, nonce = b"the client nonce", b"the server nonce"
    response = make_response(
        DEVICE,
        b"\x03" + nonce,
        audience=site.audience,
        client_id=DEVICE_ID,
        nonce=client_nonce,
    )
    return {
        "hello": encode_base64url(make_hello(DEVICE.public, nonce=client_nonce)),
        "nonce": encode_base64url(nonce),
        "response": encode_base64url(response),
    }


async def test_auth_data_and_an_exchange_are_judged_and_a_session_goes_on(
    plugin: Client, site: Site
) -> None:
    shown = connecting(site, username="", password="", auth=auth_data(site))
    _, first = await ask(plugin, "connect", shown)
    assert first["verdict"] == "allow"
    again = connecting(site, password="", exchange=exchange(site), reauthenticates=first["session"])
    _, second = await ask(plugin, "connect", again)
    assert (second["verdict"], second["session"]) == ("allow", first["session"])


async def test_a_certificate_is_judged_by_its_digest(plugin: Client, site: Site) -> None:
    subject = tls_subject(b"a SubjectPublicKeyInfo")
    key = key_id_text(subject.key)
    site.learn(
        sign_grant(
            site.domain.authority,
            subject=subject,
            scope=scope(pub="site/temp"),
            issued_at=site.clock.now(),
            expires_at=site.clock.now() + 60,
            forms=[Form.TLS],
        ),
    )
    digest = encode_base64url(subject.key)
    shown = connecting(site, client_id=key, username="anything", password="", certificate=digest)
    _, answer = await ask(plugin, "connect", shown)
    assert (answer["verdict"], answer["key"]) == ("allow", key)


@pytest.mark.parametrize(
    "change",
    [
        {"auth": "AQ"},
        {"password": "", "auth": "AQ", "certificate": "A" * 43},
        {"password": "", "auth": "AQ", "exchange": {"hello": "", "nonce": "", "response": ""}},
        {"password": "", "auth": "A="},
        {"password": "", "auth": None},
        {"password": "", "certificate": 7},
        {"password": "", "exchange": None},
        {"password": "", "exchange": "AQ"},
        {"password": "", "exchange": {"hello": "AQ", "nonce": "AQ"}},
        {"password": "", "exchange": {"hello": "AQ", "nonce": "AQ", "response": "AQ", "x": 1}},
        {"reauthenticates": "LFjFb6wJ2No"},
        {"password": "", "certificate": "A" * 43, "reauthenticates": "LFjFb6wJ2No"},
        {"password": "", "auth": "AQ", "reauthenticates": None},
    ],
)
async def test_a_request_carries_one_credential_well_formed(
    plugin: Client, site: Site, change: dict[str, object]
) -> None:
    status, answer = await ask(plugin, "connect", connecting(site, **change))
    assert (status, answer["ok"]) == (400, False)
    assert site.service.sessions.all() == []


# --- the stream -------------------------------------------------------------------------------


async def test_the_stream_begins_with_a_snapshot_and_goes_on_with_events(
    plugin: Client, site: Site
) -> None:
    await ask(plugin, "connect", connecting(site))
    async with (
        asyncio.timeout(5),
        plugin.get(f"/v1/plugin/events?broker=m&boot={BOOT}") as response,
    ):
        assert response.content_type == "application/x-ndjson"
        snapshot = json.loads(await response.content.readline())
        assert snapshot["type"] == "snapshot"
        assert [one["client_id"] for one in snapshot["sessions"]] == [DEVICE_ID]
        revoke = sign_revoke(site.domain.authority, target=DEVICE.public, issued_at=1)
        site.service.authority.submit([item(revoke)])
        cut = json.loads(await response.content.readline())
        assert (cut["type"], cut["client_id"]) == ("cut", DEVICE_ID)
        assert cut["n"] == snapshot["n"] + 1


async def many(site: Site, count: int, *, boot: str = BOOT) -> None:
    keys = [make_key(f"one of many {number}") for number in range(count)]
    site.learn(*(site.domain.grant(key.public, scope(pub="site/temp")) for key in keys))
    for key in keys:
        assert (await site.connect(key, boot=boot, clean=False)).allowed


async def test_a_snapshot_in_many_slices_is_one_line(
    plugin: Client, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await many(site, 9)
    lines = []
    path = f"/v1/plugin/events?broker=m&boot={BOOT}"
    for size in (1, 2, 3, 9, 1_000):
        for name in ("_DESCRIBED", "_ENCODED"):
            monkeypatch.setattr(f"authd.service.snapshots.{name}", size)
        async with asyncio.timeout(5), plugin.get(path) as response:
            lines.append(json.loads(await response.content.readline()))
    numbers = [one.pop("n") for one in lines]
    assert numbers == sorted(set(numbers))
    assert len(lines[0]["sessions"]) == len(lines[0]["seen"]) == 9
    assert all(one == lines[0] for one in lines)
    assert list(lines[0]) == ["type", "run", "sessions", "seen"]


async def test_a_question_is_answered_while_a_snapshot_is_being_written(
    plugin: Client, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authd.service.snapshots._DESCRIBED", 1)
    await many(site, 150)
    path = f"/v1/plugin/events?broker=m&boot={BOOT}"
    async with asyncio.timeout(20), plugin.get(path) as response:
        begun = await response.content.readany()
        status, answer = await ask(plugin, "connect", connecting(site))
        assert (status, answer["verdict"]) == (200, "allow")
        already = begun + response.content.read_nowait()
        assert b"\n" not in already, "the snapshot has not ended yet"
        snapshot = json.loads(already + await response.content.readline())
    assert len(snapshot["sessions"]) == 150
    assert answer["n"] == snapshot["n"], "the snapshot does not know it"


async def test_signs_of_life_come_before_a_snapshot_that_takes_long(
    plugin: Client, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await many(site, 5, boot="0" * 16)
    monkeypatch.setattr("authd.service.snapshots._LOOKED_AT", 1)
    path = f"/v1/plugin/events?broker=m&boot={BOOT}"
    for silence_s, signs in ((0.0, 5), (60.0, 0)):
        monkeypatch.setattr("authd.http_api.plugin.BEAT_S", silence_s)
        async with asyncio.timeout(5), plugin.get(path) as response:
            for _ in range(signs):
                assert await response.content.readline() == b"\n"
            assert len(json.loads(await response.content.readline())["sessions"]) == 5


async def test_a_snapshot_that_cannot_be_made_is_no_line(
    plugin: Client, site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    await many(site, 5)

    def fails(*_: object, **__: object) -> list[bytes]:
        raise StoreError("cannot read `authd.db`")

    monkeypatch.setattr(site.store, "open_nonces", fails)
    path = f"/v1/plugin/events?broker=m&boot={BOOT}"
    async with asyncio.timeout(5), plugin.get(path) as response:
        cut_off = await response.content.read()
    assert cut_off.startswith(b'{"type":"snapshot"')
    assert b"\n" not in cut_off
    assert site.service.sessions.events["m"].listening == 0
    assert "cannot read `authd.db`" in capsys.readouterr().out


async def test_a_newer_stream_ends_the_older_with_its_last_line(plugin: Client, site: Site) -> None:
    path = f"/v1/plugin/events?broker=m&boot={BOOT}"
    async with asyncio.timeout(5), plugin.get(path) as first:
        assert json.loads(await first.content.readline())["type"] == "snapshot"
        async with plugin.get(path) as second:
            assert json.loads(await second.content.readline())["type"] == "snapshot"
            assert b'"cut"' not in await first.content.read(), "it ends, and does so in order"
    assert site.service.sessions.events["m"].listening <= 1


async def test_a_plugin_that_left_in_silence_is_attached_no_more(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authd.service.events.BEAT_S", 3_600.0)
    events = site.service.sessions.events["m"]
    async with served(site, tmp_path), asyncio.timeout(20):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "broker.sock")
        path = f"/v1/plugin/events?broker=m&boot={BOOT}"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: authd\r\n\r\n".encode())
        await reader.readuntil(b'"snapshot"')
        await asyncio.sleep(0.7)
        assert events.listening == 1, "silence alone is no reason"
        writer.close()
        while events.listening:
            await asyncio.sleep(0.02)


def served(site: Site, directory: Path) -> HttpServers:
    """Serve the socket as a daemon does: the server of the other tests ends handlers by itself."""
    service = site.service
    parts = Plugin(
        decisions=service.decider, table=service.enforcement, is_broker=lambda name: name == "m"
    )
    return HttpServers(
        broker_app=make_app([]),
        broker_address="127.0.0.1:0",
        plugin_app=make_app([parts]),
        plugin_socket=directory / "broker.sock",
        broker_group="",
        admin_app=make_app([]),
        admin_socket=directory / "admin.sock",
    )


@pytest.mark.parametrize(
    "query", ["", "broker=m", f"boot={BOOT}", f"broker=e&boot={BOOT}", "broker=m&boot=x"]
)
async def test_a_stream_for_what_is_no_plugin_is_refused(plugin: Client, query: str) -> None:
    async with plugin.get(f"/v1/plugin/events?{query}") as response:
        assert response.status == 400
