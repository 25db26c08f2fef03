"""Rows of starting: the help page, and a daemon with ten thousand grants."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from authd.core.claims import Kind
from authd.core.grants import KeySubject, sign_grant
from authd.core.identity import SigningKey
from authd.core.topics import Action, make_scope
from authd.demo.stage import Site, Stage
from authd.service.ports import StoredStatement
from authd.store.keystore import AUTHORITY, Keystore
from authd.store.sqlite import SqliteStore
from tests.bench.measure import Row, cpu_seconds_of, in_turns, resident_bytes
from tests.stages import lone_site

_ROUNDS: Final = 15
_STARTS: Final = 5
_GRANTS: Final = 10_000
_SCOPE: Final = make_scope({"site/+/state": Action.PUB, "site/cmd/#": Action.SUB})


def start_rows(*, full: bool) -> list[Row]:
    """Measure all of them; ``full`` takes ten times the grants."""
    grants = _GRANTS * (10 if full else 1)
    return [_help(), *_daemon(grants)]


# --- the help page --------------------------------------------------------------------------------


def _help() -> Row:
    empty_s, help_s = in_turns(
        _start_of(sys.executable, "-c", "pass"),
        _start_of(str(Path(sys.executable).parent / "authd"), "--help"),
        rounds=_ROUNDS,
    )
    return Row(
        what="authd --help / empty Python",
        value=help_s / empty_s,
        target=5,
        at_least=False,
        note=f"{help_s * 1e3:.0f} ms / {empty_s * 1e3:.0f} ms of CPU",
    )


def _start_of(*command: str) -> Callable[[], float]:
    """Return a measure: CPU seconds of a process from its start to its end."""

    def measure() -> float:
        before = _children_s()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        return _children_s() - before

    return measure


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# --- the daemon -----------------------------------------------------------------------------------


def _daemon(grants: int) -> list[Row]:
    resident: dict[str, int] = {}
    with (
        tempfile.TemporaryDirectory(prefix="authd-bench-") as directory,
        Stage(Path(directory), mosquitto=None, plugin=None) as stage,
    ):
        empty = lone_site(stage, "A", start=False)
        full = lone_site(stage, "B", start=False)
        _fill(full.state, grants)
        empty_s, full_s = in_turns(
            _ready_after(empty, resident), _ready_after(full, resident), rounds=_STARTS
        )
    return [
        Row(
            what=f"authd up: CPU seconds until ready with {grants} grants",
            value=full_s,
            target=1.5,
            at_least=False,
            note=f"{full_s / empty_s:.2f} times a start without grants ({empty_s:.2f} s)",
        ),
        Row(
            what="authd up: resident bytes for each stored grant",
            value=(resident["B"] - resident["A"]) / grants,
            target=600,
            at_least=False,
            note=f"{resident['A'] >> 20} MiB without grants; everything the daemon keeps of them",
        ),
    ]


def _fill(state: Path, grants: int) -> None:
    issuer, now = Keystore(state).load(AUTHORITY), int(time.time())
    signed = (
        sign_grant(
            issuer,
            subject=KeySubject(SigningKey.from_seed(number.to_bytes(32, "big")).public),
            scope=_SCOPE,
            issued_at=now - 10,
            expires_at=now + 90 * 86_400,
        )
        for number in range(grants)
    )
    rows = [
        StoredStatement(
            kind=Kind.GRANT,
            statement_id=one.statement_id,
            data=one.encoded,
            source="local",
            received_at=now,
        )
        for one in signed
    ]
    with SqliteStore(state / "authd.db") as store:
        store.save_statements(rows, durable=True)


def _ready_after(site: Site, resident: dict[str, int]) -> Callable[[], float]:
    """Return a measure: CPU seconds until a daemon says it is ready; then it is stopped.

    On a host with nothing else to do these are the seconds one waits.
    """
    environment = {"AUTHD_STATE": str(site.state), "AUTHD_RUN_DIR": str(site.run_dir)}

    def measure() -> float:
        with (
            site.log().open("ab") as log,
            subprocess.Popen(
                [sys.executable, "-m", "authd", "up", "--json"],
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **environment},
            ) as daemon,
        ):
            assert daemon.stdout is not None
            assert json.loads(_first_object(daemon.stdout.readline))["ready"]
            took_s = cpu_seconds_of(daemon.pid)
            resident[site.name] = resident_bytes(daemon.pid)
            daemon.terminate()
        return took_s

    return measure


def _first_object(readline: Callable[[], bytes]) -> str:
    text = ""
    while not text.endswith("}\n"):
        line = readline().decode()
        if not line:
            raise RuntimeError("the daemon ended before it was ready")
        text += line
    return text
