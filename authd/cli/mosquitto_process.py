"""The process that listens on a port of this host: what it was started with and has loaded.

Read from Linux' /proc; files are only looked into, nothing is run. Without the right to look at
other users' processes, or on another host, nothing is found.
"""

import contextlib
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from authd.cli.findings import Finding, fault, fine, unknown
from authd.cli.mosquitto_config import PLUGIN_NAME

_PROC: Final = Path("/proc")
_LISTEN: Final = "0A"
_MAX_FILE_BYTES: Final = 64 * 1024 * 1024
_DELETED: Final = " (deleted)"
_ENTRY_POINTS: Final = (b"mosquitto_plugin_version", b"mosquitto_auth_plugin_version")
_BROKER_VERSION: Final = re.compile(rb"\0([12]\.[0-9]{1,3}\.[0-9]{1,3})\0")
_PLUGIN_VERSION: Final = re.compile(rb"authd_mosquitto/([0-9]+\.[0-9]+\.[0-9]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedPlugin:
    """A plugin in the broker's memory.

    Attributes:
        path: Where it was loaded from.
        replaced: That file is not there any more, or another one is.
        version: As written in the file, else the beginning of its SHA-256; empty if replaced.
    """

    path: str
    replaced: bool
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerProcess:
    """A running broker.

    Attributes:
        version: As found in its program; empty if it was not.
        config: The file it was started with, if one was named.
    """

    pid: int
    program: str
    version: str
    config: Path | None
    plugins: tuple[LoadedPlugin, ...]


def find_process(port: int) -> BrokerProcess | None:
    """Find who listens on a TCP port of this host."""
    sockets = set(_listening(port))
    for directory in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if sockets and any(_holds(one, sockets) for one in (directory / "fd").iterdir()):
                return _describe(directory)
    return None


def _listening(port: int) -> Iterator[str]:
    for table in ("net/tcp", "net/tcp6"):
        with contextlib.suppress(OSError):
            for line in (_PROC / table).read_text("ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    yield f"socket:[{fields[9]}]"


def _holds(descriptor: Path, sockets: set[str]) -> bool:
    try:
        return str(descriptor.readlink()) in sockets
    except OSError:
        return False


def _describe(directory: Path) -> BrokerProcess:
    program = (directory / "exe").readlink()
    arguments = (directory / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    found = _BROKER_VERSION.search(_read(directory / "exe"))
    config = None
    if "-c" in arguments[:-1]:
        # Relative to where the broker was started.
        config = (directory / "cwd").readlink() / arguments[arguments.index("-c") + 1]
    return BrokerProcess(
        pid=int(directory.name),
        program=program.name,
        version=found[1].decode("ascii") if found else "",
        config=config,
        plugins=tuple(_plugins(directory)),
    )


def _plugins(directory: Path) -> Iterator[LoadedPlugin]:
    maps = (directory / "maps").read_text("utf-8", "replace").splitlines()
    files = {line.split(maxsplit=5)[5] for line in maps if "/" in line}
    for name in sorted(files):
        path = name.removesuffix(_DELETED)
        if ".so" not in Path(path).name:
            continue
        replaced = name != path
        data = b"" if replaced else _read(Path(path))
        if any(entry in data for entry in _ENTRY_POINTS) or (replaced and "mosquitto" in path):
            yield LoadedPlugin(path=path, replaced=replaced, version=_version(data))


def _version(data: bytes) -> str:
    found = _PLUGIN_VERSION.search(data)
    if found:
        return found[1].decode("ascii")
    return hashlib.sha256(data).hexdigest()[:12] if data else ""


def _read(path: Path) -> bytes:
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(_MAX_FILE_BYTES)
    return b""


# --- what is to be said of it -----------------------------------------------------------------


def judge_process(process: BrokerProcess | None) -> Iterator[Finding]:
    """Say what a running broker has loaded."""
    if process is None:
        yield unknown(
            "process",
            "the broker's process was not found",
            "run the probe on the broker's host, as root",
        )
        return
    yield fine("process", f"`{process.program}` {process.version}, process {process.pid}".rstrip())
    ours = [one for one in process.plugins if PLUGIN_NAME in Path(one.path).name]
    if not ours:
        yield fault(
            "loaded",
            "authd's plugin is not in the broker's memory",
            "take the lines of `authd broker snippet mosquitto`, and restart the broker",
        )
    for one in process.plugins:
        yield _judge_loaded(one, ours=one in ours)


def _judge_loaded(plugin: LoadedPlugin, *, ours: bool) -> Finding:
    if not ours:
        return fault(
            "other_loaded",
            f"another plugin is loaded, `{plugin.path}`: what it allows is allowed",
            "load authd alone",
        )
    if plugin.replaced:
        return fault(
            "loaded",
            f"`{plugin.path}` was replaced since the broker started, which runs the old one",
            "restart the broker",
        )
    return fine("loaded", f"`{plugin.path}`, version {plugin.version}")
