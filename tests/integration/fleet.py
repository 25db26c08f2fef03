"""Clients of every kind as processes of their own, as a host would run them."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from authd.demo.stage import Process, Site, wait_until

DOC: Final = Path(__file__).parents[2] / "docs" / "clients.md"
PACKAGE: Final = Path(__file__).parents[1] / "e2e" / "clients"
PATIENCE_S: Final = 20.0
_INSTALL_S: Final = 180.0


def programs(language: str) -> list[str]:
    """Return the programs of a language that stand in docs/clients.md, in order."""
    return re.findall(rf"```{language}\n(.*?)```", DOC.read_text("utf-8"), re.DOTALL)


def find_program(name: str) -> str:
    """Find a program; one that is missing is a failure."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/local/bin:/usr/bin")
    assert found is not None, f"{name} is not installed: run `.ci/system-packages`"
    return found


def install_node_clients(directory: Path) -> None:
    """Install what package-lock.json names, and write the page's programs beside it."""
    directory.mkdir()
    for name in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copy(PACKAGE / name, directory / name)
    subprocess.run(
        [find_program("npm"), "ci", "--ignore-scripts", "--prefer-offline", "--no-progress"],
        cwd=directory,
        check=True,
        capture_output=True,
        timeout=_INSTALL_S,
    )
    library, client = programs("js")
    (directory / "authd.mjs").write_text(library, "utf-8")
    (directory / "pump.mjs").write_text(client, "utf-8")


@dataclass(kw_only=True)
class Member:
    """One client.

    Attributes:
        name: What the operator calls it.
        client_id: As the broker sees it.
        topic: What it publishes to; empty for one that subscribes.
        process: The client; its log holds what it received.
        helper: What it needs beside it.
    """

    name: str
    client_id: str
    process: Process
    topic: str = ""
    helper: Process | None = None

    @property
    def said(self) -> str:
        """What it has printed so far."""
        return self.process.log.read_text("utf-8") if self.process.log.exists() else ""

    def start(self) -> None:
        if self.helper is not None:
            log = self.helper.log
            self.helper.start()
            wait_until(
                lambda: log.exists() and "clients that connect" in log.read_text("utf-8"),
                timeout_s=PATIENCE_S,
                what=f"the helper of {self.name} listens",
            )
        self.process.start()

    def stop(self) -> None:
        for one in (self.process, self.helper):
            if one is not None:
                one.stop()


def python_client(name: str, source: str, directory: Path) -> list[str]:
    """Write a program down and return how to run it."""
    path = directory / f"{name}.py"
    path.write_text(source, "utf-8")
    return [sys.executable, "-u", str(path)]


def mosquitto_sub(port: int, client_id: str, topic_filter: str, *more: str) -> list[str]:
    """Return a command that prints each message's topic and payload; an empty id is sent so."""
    at = ["-h", "127.0.0.1", "-p", str(port), "-t", topic_filter, "-k", "5", "-v"]
    who = ["-i", client_id] if client_id else []
    return [find_program("stdbuf"), "-oL", find_program("mosquitto_sub"), *at, *who, *more]


def add_audience(site: Site, endpoint: str) -> None:
    """Let Mosquitto's entry go by one more name."""
    path = site.state / "authd.toml"
    text = path.read_text("utf-8")
    changed = re.sub(r"(?m)^audiences = \[", f'audiences = ["{endpoint}", ', text, count=1)
    assert changed != text
    path.write_text(changed, "utf-8")
