"""Whatever goes wrong in a handler denies, and is logged without secrets."""

import asyncio
import contextlib
import json
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from aiohttp import web
from structlog.testing import capture_logs

from authd.core.decision import ConnectRequest, Decision
from authd.errors import ConfigError, ReasonCode
from authd.http_api.bodies import STATUS, status_of
from authd.http_api.go_auth import GoAuth
from authd.http_api.server import Health, HttpServers, group_uids, make_app, only_uids, peer_uid
from authd.observe import Observations
from tests.unit.http_api.conftest import DEVICE_ID, Client, Serve
from tests.world import Site

SECRET = "s" * 22


class Broken:
    """A decision point with a bug."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def __getattr__(self, name: str) -> object:
        return getattr(self._site.service.decider, name)

    async def connect(self, request: ConnectRequest) -> Decision:
        raise RuntimeError("a bug")


@pytest.fixture
def _structlog() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("_structlog")
async def test_a45_a54_a_bug_denies_with_503_and_logs_no_secret(site: Site, serve: Serve) -> None:
    client = await serve(
        GoAuth(
            decisions=Broken(site),  # type: ignore[arg-type]  # the rest is handed on
            brokers=site.service.brokers,
            observe=Observations().message,
        ),
    )
    body = {"username": DEVICE_ID, "password": "hunter2hunter2", "clientid": DEVICE_ID}
    with capture_logs() as logs:
        async with client.post(f"/b/g.{SECRET}/go-auth/user", json=body) as response:
            assert response.status == 503
            answer = await response.json()
    assert answer == {"ok": False, "reason": "internal", "error": "internal error"}
    assert [one["event"] for one in logs] == ["http handler failed"]
    said = repr(logs)
    assert SECRET not in said
    assert "hunter2" not in said
    assert "/b/{place}/" in said


def test_no_reason_but_ok_is_2xx() -> None:
    for reason in ReasonCode:
        assert (200 <= status_of(reason) < 300) is (reason is ReasonCode.OK)
        assert not 300 <= status_of(reason) < 400
        if reason.temporary:
            assert status_of(reason) == 503
    assert set(STATUS) <= set(ReasonCode)


# --- health -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("problems", "status"), [([], 200), (["no news"], 503)])
async def test_livez_readyz_and_metrics(serve: Serve, problems: list[str], status: int) -> None:
    observations = Observations()
    client = await serve(
        Health(ready=lambda: {"problems": problems}, metrics=observations.exposition),
    )
    async with client.get("/livez") as response:
        assert response.status == 200
    async with client.get("/readyz") as response:
        assert (response.status, await response.json()) == (status, {"problems": problems})
    async with client.get("/metrics") as response:
        assert response.content_type == "text/plain"
        assert b"authd_connect_seconds_count 0.0" in await response.read()


# --- the servers ------------------------------------------------------------------------------


class Echo:
    """Says who asks."""

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get("/who", self.who)

    async def who(self, request: web.Request) -> web.Response:
        return web.json_response({"uid": peer_uid(request)})


def servers(
    directory: Path, *, allowed: frozenset[int] | None = None, port: int = 0
) -> HttpServers:
    guard = only_uids(lambda: group_uids("") if allowed is None else allowed)
    return HttpServers(
        broker_app=make_app([Echo()]),
        broker_address=f"127.0.0.1:{port}",
        plugin_app=make_app([Echo()], guard),
        plugin_socket=directory / "broker.sock",
        broker_group="no-such-group",
        admin_app=make_app([Echo()], guard),
        admin_socket=directory / "admin.sock",
    )


async def get(path: Path) -> tuple[bytes, dict[str, object]]:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"GET /who HTTP/1.1\r\nHost: authd\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.split(b"\r\n")[0], json.loads(body)


async def test_a47_sockets_have_their_modes_and_know_their_peer(tmp_path: Path) -> None:
    async with servers(tmp_path):
        modes = {
            name: (tmp_path / name).stat().st_mode & 0o777 for name in ("broker.sock", "admin.sock")
        }
        assert modes == {"broker.sock": 0o660, "admin.sock": 0o600}
        status, body = await get(tmp_path / "admin.sock")
        assert (status, body) == (b"HTTP/1.1 200 OK", {"uid": os.geteuid()})


async def test_a47_a_user_who_is_not_listed_may_not_use_a_socket(tmp_path: Path) -> None:
    async with servers(tmp_path, allowed=frozenset({4_000_000})):
        for name in ("broker.sock", "admin.sock"):
            status, body = await get(tmp_path / name)
            assert status == b"HTTP/1.1 403 Forbidden"
            assert body["ok"] is False


async def test_a47_over_tcp_nobody_has_a_uid(serve: Serve) -> None:
    client = await serve(Echo(), only_uids(lambda: group_uids("")))
    async with client.get("/who") as response:
        assert response.status == 403


async def test_a_socket_left_behind_is_replaced_and_a_living_one_is_not(tmp_path: Path) -> None:
    async with servers(tmp_path):
        with pytest.raises(ConfigError, match="another authd is running"):
            async with servers(tmp_path):
                raise AssertionError("two daemons on one socket")
        assert (await get(tmp_path / "admin.sock"))[0] == b"HTTP/1.1 200 OK"
    (tmp_path / "admin.sock").unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "admin.sock"))
    async with servers(tmp_path):
        assert (await get(tmp_path / "admin.sock"))[0] == b"HTTP/1.1 200 OK"


async def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(ConfigError, match="cannot listen on"):
        async with servers(missing):
            raise AssertionError("listens in a directory that is not there")
    listener = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    with pytest.raises(ConfigError, match=r"listen\.http"):
        async with servers(tmp_path, port=port):
            raise AssertionError("two servers on one port")
    listener.close()
    await listener.wait_closed()


@pytest.mark.parametrize(
    "request_text",
    [
        "POST /b/old.{secret}/go-auth/us\x01er HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /b/old.{secret}/go-auth/user HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
        "POST /b/old.{secret}/user HTTP/9.9\r\n\r\n",
    ],
)
async def test_a54_a_malformed_request_is_refused_and_its_line_not_logged(
    tmp_path: Path,
    request_text: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    secret = "z" * 22
    with caplog.at_level(logging.DEBUG):
        async with servers(tmp_path):
            reader, writer = await asyncio.open_unix_connection(tmp_path / "admin.sock")
            writer.write(request_text.format(secret=secret).encode("latin-1"))
            with contextlib.suppress(ConnectionError):
                assert not (await reader.readline()).startswith(b"HTTP/1.1 2")
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
    assert secret not in caplog.text
    assert secret not in "".join(capfd.readouterr())


def test_a_group_that_does_not_exist_lets_nobody_else_in() -> None:
    assert group_uids("no-such-group") == {0, os.geteuid()}
    assert group_uids("root") >= {0, os.geteuid()}


async def test_the_client_of_a_go_auth_entry_never_sees_a_redirect(go_auth: Client) -> None:
    async with go_auth.get(f"/b/g.{SECRET}/go-auth/user/", allow_redirects=False) as response:
        assert response.status == 400
