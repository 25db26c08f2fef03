"""The curl transcripts of docs/go-auth.md, run against a real daemon."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from authd.demo.stage import Stage, wait_until
from authd.device import DeviceKey
from tests.stages import go_auth_base, lone_site

DOC = Path(__file__).parents[2] / "docs" / "go-auth.md"


def transcripts() -> list[tuple[str, str]]:
    """Return each command with the output the page promises."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", DOC.read_text("utf-8"), re.DOTALL):
        for part in block.split("$ curl ")[1:]:
            command, _, output = part.partition("\n")
            found.append((f"curl {command}", output.strip("\n")))
    return found


class Shell:
    """Runs the page's commands with the variables it names."""

    def __init__(self, stage: Stage) -> None:
        site = lone_site(stage)
        stale = lone_site(stage, "B", start=False)
        for one in (site, stale):
            device = ["device", "new", f"d{one.name}", "--pub=site/temp", "--sub=site/cmd/#"]
            stage.authd(*device, site=one)
        # A daemon that holds no heartbeat key of its domain, and no news from one that does.
        (stale.state / "keys" / "heartbeat.key").unlink()
        stage.start_daemon(stale)
        self.keys = {
            one.name: (DeviceKey.load(stage.directory / f"d{one.name}.key"), one)
            for one in (site, stale)
        }
        self.used = ""
        self._environment = {
            "PATH": os.environ["PATH"],
            "BASE": go_auth_base(site),
            "STALE_BASE": go_auth_base(stale),
        }
        wait_until(lambda: self._known(stage, site), timeout_s=10, what="the outbox is drained")

    def _known(self, stage: Stage, site: object) -> bool:
        status = stage.authd("status", site=self.keys["A"][1])
        return bool(status["grants"] >= 2)

    def run(self, command: str) -> str:
        fresh: dict[str, str] = {}
        for name, (prefix, used) in {"A": ("", True), "B": ("STALE_", False)}.items():
            key, site = self.keys[name]
            password = key.password(site.other_endpoint)
            fresh |= {f"{prefix}USER": key.username, f"{prefix}PASSWORD": password}
            if used and "$PASSWORD" in command:
                self._next_used = password
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            env={**self._environment, **fresh, "USED": self.used},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        if "$PASSWORD" in command:
            self.used = self._next_used
        return done.stdout


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    with Stage(tmp_path_factory.mktemp("stage"), mosquitto=None, plugin=None) as stage:
        yield Shell(stage)


def test_every_transcript_is_what_a_real_daemon_answers(shell: Shell) -> None:
    pages = transcripts()
    assert len(pages) == 17
    for command, expected in pages:
        answered = shell.run(command)
        assert _normal(answered) == _normal(expected), command


def _normal(text: str) -> str:
    body, _, status = str(text).rpartition(" ")
    if body.startswith("{"):
        return json.dumps(json.loads(body), sort_keys=True) + " " + status
    return text
