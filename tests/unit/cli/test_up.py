"""What ``up`` does when a part cannot start: it says so once, tries again, and tells the truth."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import structlog

from authd.demo.stage import Site, Stage, wait_until
from authd.errors import ConfigError, NoPeersError
from authd.store.keystore import Keystore
from authd.supervisor import Supervisor, Trouble
from tests.stages import lone_site
from tests.unit.cli.conftest import Run


@pytest.fixture
def lone(tmp_path: Path) -> Iterator[tuple[Stage, Site]]:
    """A daemon that was not started."""
    with Stage(tmp_path / "stage", mosquitto=None, plugin=None) as stage:
        yield stage, lone_site(stage, start=False)


# --- parts that fail --------------------------------------------------------------------------


class Part:
    """Fails with each error in turn, then stays up until cancelled."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = iter(errors)
        self.starts: list[float] = []
        self.up = asyncio.Event()

    async def run(self) -> None:
        self.starts.append(asyncio.get_running_loop().time())
        for error in self._errors:
            raise error
        self.up.set()
        await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def supervised(
    supervisor: Supervisor, task: Callable[[], Awaitable[None]]
) -> AsyncIterator[None]:
    running = asyncio.create_task(supervisor.run("part", task))
    try:
        yield
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def test_a_part_that_is_down_is_said_once_and_tried_ever_more_seldom() -> None:
    supervisor = Supervisor(pause_s=0.02, steady_s=60)
    part = Part(*[ConfigError("the port is taken")] * 4)
    with structlog.testing.capture_logs() as events:
        async with supervised(supervisor, part.run), asyncio.timeout(5):
            await part.up.wait()
            assert supervisor.troubles == {"part": Trouble("ConfigError", "the port is taken")}
    assert events == [
        {
            "event": "a part is down and is tried again",
            "log_level": "error",
            "part": "part",
            "error": "the port is taken",
        },
    ]
    pauses = [after - before for before, after in zip(part.starts, part.starts[1:], strict=False)]
    assert pauses[0] >= 0.015
    assert pauses[3] >= 0.15


async def test_another_reason_is_said_and_a_defect_with_its_traceback() -> None:
    supervisor = Supervisor(pause_s=0.001, steady_s=60)
    group = ExceptionGroup("several", [NoPeersError("nobody"), ConfigError("x")])
    part = Part(ConfigError("the port is taken"), group, KeyError("secret"))
    with structlog.testing.capture_logs() as events:
        async with supervised(supervisor, part.run), asyncio.timeout(5):
            await part.up.wait()
    assert [one.get("error") for one in events] == ["the port is taken", "nobody", None]
    assert isinstance(events[2]["exc_info"], KeyError)
    assert supervisor.troubles["part"].sentence == "internal error: KeyError"


async def test_a_part_that_stays_up_is_no_longer_reported() -> None:
    supervisor = Supervisor(pause_s=0.001, steady_s=0.05)
    part = Part(ConfigError("the port is taken"))
    with structlog.testing.capture_logs() as events:
        async with supervised(supervisor, part.run), asyncio.timeout(5):
            while "part" not in supervisor.troubles:
                await asyncio.sleep(0)
            while supervisor.troubles:
                await asyncio.sleep(0.01)
    assert events[-1]["event"] == "a part is up again"


# --- ports that are taken ---------------------------------------------------------------------


def test_a_peer_port_that_is_taken_is_reported_and_no_ticket_names_it(
    run: Run, lone: tuple[Stage, Site]
) -> None:
    stage, site = lone
    with socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", site.peer_port))
        stage.start_daemon(site)
        assert run("status", site=site).json["degraded"] == {}
        refused = run("invite", site=site)
        assert refused.code == 2
        why = f"cannot bind UDP `127.0.0.1:{site.peer_port}` (listen.peer): address already in use"
        assert refused.json["error"] == f"no ticket: nobody could reach this daemon: {why}"
        assert run("invite", site=site).code == 2
        shown = run("status", site=site, as_json=False)
        assert f"DEGRADED  network is down and is tried again: {why}" in shown.out.splitlines()
        assert Keystore(site.state).subjects() == []
    wait_until(lambda: run("invite", site=site).code == 0, timeout_s=40, what="a ticket")
    said = site.log().read_text("utf-8")
    assert "Traceback" not in said
    events = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert [one["error"] for one in events if one.get("part") == "network"][:1] == [why]
    assert said.count("is tried again") == 1


Up = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def up(lone: tuple[Stage, Site]) -> Up:
    """Start the daemon where it is expected to refuse."""
    _, site = lone
    places = {"AUTHD_STATE": str(site.state), "AUTHD_RUN_DIR": str(site.run_dir)}

    def start(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "authd", "up", *arguments],
            env={**os.environ, **places},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    return start


@pytest.mark.parametrize(
    ("part", "key", "holder"),
    [
        ("http_port", "listen.http", "perhaps by another authd"),
        ("grpc_port", "listen.grpc", "perhaps by another authd"),
        ("mqtt_port", "embedded.port", "perhaps by another broker: then leave out `--broker`"),
    ],
)
def test_a_port_that_is_taken_is_one_sentence_with_address_and_setting(
    lone: tuple[Stage, Site], up: Up, part: str, key: str, holder: str
) -> None:
    address = f"127.0.0.1:{getattr(lone[1], part)}"
    with socket.create_server(("127.0.0.1", getattr(lone[1], part))):
        refused = up("--broker")
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert [one for one in refused.stderr.splitlines() if not one.startswith('{"group"')] == [
        f"authd: cannot listen on `{address}` ({key}): address already in use, {holder}",
    ]


def test_a_start_that_was_refused_is_no_unclean_stop_and_hides_none(
    lone: tuple[Stage, Site], up: Up
) -> None:
    stage, site = lone
    for part in (site.http_port, site.grpc_port, site.mqtt_port):
        with socket.create_server(("127.0.0.1", part)):
            assert "not clean" not in up("--broker").stderr
    stage.start_daemon(site)
    assert "not clean" not in site.log().read_text("utf-8")
    assert site.daemon is not None
    site.daemon.stop(signal.SIGKILL)
    with socket.create_server(("127.0.0.1", site.mqtt_port)):
        for _ in range(2):
            assert "not clean" in up("--broker").stderr
    stage.start_daemon(site)
    assert "not clean" in site.log().read_text("utf-8")
