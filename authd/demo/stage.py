"""The stage: daemons and Mosquitto brokers as processes, each with a directory of its own."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from authd.errors import LocalError, StoreError

_START_S: Final = 15.0
_STOP_S: Final = 5.0
_COMMAND_S: Final = 30.0
_POLL_S: Final = 0.05
_PORTS: Final = range(15_000, 32_768)
# Each is given away once: what was given may not be bound yet.
_UNTRIED: Final = iter(secrets.SystemRandom().sample(_PORTS, len(_PORTS)))
_MOSQUITTO: Final = ("/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto")
_PLUGIN: Final = "authd_mosquitto.so"


class StageError(LocalError):
    """Something the demonstration needs did not happen."""


def free_port() -> int:
    """Return a port on which nobody listened a moment ago, over TCP and UDP.

    It lies below the range from which a kernel takes the ports of outgoing connections (RFC 6335
    section 6, Linux: from 32768), so that none of these occupies it before it is used.

    Raises:
        StageError: None is left that this process has not tried.

    """
    for port in _UNTRIED:
        with (
            contextlib.suppress(OSError),
            socket.socket() as tcp,
            socket.socket(type=socket.SOCK_DGRAM) as udp,
        ):
            tcp.bind(("127.0.0.1", port))
            udp.bind(("127.0.0.1", port))
            return port
    raise StageError("no free port found on `127.0.0.1`")


def find_mosquitto() -> str | None:
    """Return Mosquitto's path, if it is installed."""
    return shutil.which("mosquitto") or next(
        (one for one in _MOSQUITTO if Path(one).exists()), None
    )


def find_plugin() -> Path | None:
    """Return the built plugin: from the source tree, or where packages put it."""
    here = Path(__file__).resolve().parents[2] / "plugins" / "mosquitto" / _PLUGIN
    places = [here, Path("/usr/lib/authd-mqtt") / _PLUGIN]
    return next((place for place in places if place.exists()), None)


def wait_until(condition: Callable[[], bool], *, timeout_s: float, what: str) -> float:
    """Wait for a condition; return how long it took.

    Raises:
        StageError: It did not come true in time; says what.
    """
    started = time.perf_counter()
    while not condition():
        if time.perf_counter() - started > timeout_s:
            raise StageError(f"{what}: not within {timeout_s:g} s")
        time.sleep(_POLL_S)
    return time.perf_counter() - started


@dataclass(slots=True)
class Process:
    """One child process with its log."""

    name: str
    arguments: list[str]
    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; the log is appended to."""
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(  # noqa: S603 - fixed programs, arguments of our own
                self.arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )

    def running(self) -> bool:
        """Say whether it lives."""
        return self.child is not None and self.child.poll() is None

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Stop it by its pid; kill it if it does not go."""
        if self.child is None or self.child.poll() is not None:
            return
        self.child.send_signal(number)
        try:
            self.child.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


@dataclass(slots=True, kw_only=True)
class Site:
    """A daemon, its state, and the broker beside it."""

    name: str
    directory: Path
    http_port: int
    grpc_port: int
    peer_port: int
    mqtt_port: int
    spare_port: int
    broker_kind: str
    daemon: Process | None = None
    broker: Process | None = None

    @property
    def state(self) -> Path:
        """Its state directory."""
        return self.directory / "state"

    @property
    def run_dir(self) -> Path:
        """Where its sockets are."""
        return self.directory / "run"

    @property
    def endpoint(self) -> str:
        """What clients dial."""
        return f"127.0.0.1:{self.mqtt_port}"

    @property
    def other_endpoint(self) -> str:
        """What clients of its other broker entry would dial."""
        return f"127.0.0.1:{self.spare_port}"

    def log(self) -> Path:
        """Return the daemon's log."""
        return self.directory / "daemon.log"

    def decisions(self) -> list[dict[str, Any]]:
        """Return the CONNECT decisions the daemon has logged so far."""
        decisions = []
        for line in self.log().read_text("utf-8").splitlines():
            if line.startswith("{"):
                event = json.loads(line)
                if event.get("event") == "connect":
                    decisions.append(event)
        return decisions


class Stage:
    """Everything that runs during a demonstration; an object to be used with ``with``."""

    def __init__(self, directory: Path, *, mosquitto: str | None, plugin: Path | None) -> None:
        """Use ``directory``; without Mosquitto or plugin every broker is an embedded one."""
        self.directory = directory
        self._mosquitto = mosquitto
        self._plugin = plugin
        self.sites: dict[str, Site] = {}
        self.passphrase = directory / "passphrase"

    def __enter__(self) -> Self:
        """Prepare the directory."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.passphrase.write_text("only for this demonstration\n", "utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        """Stop every process by its pid."""
        for site in self.sites.values():
            for process in (site.broker, site.daemon):
                if process is not None:
                    process.stop()

    # --- commands -------------------------------------------------------------------------

    def authd(
        self,
        *arguments: str,
        site: Site | None = None,
        stdin: str = "",
        check: bool = True,
    ) -> dict[str, Any]:
        """Run an authd command with ``--json`` and return what it printed.

        Raises:
            StageError: It failed, and ``check`` is true.
        """
        environment = dict(os.environ)
        environment.pop("AUTHD_STATE", None)
        if site is not None:
            environment |= {"AUTHD_STATE": str(site.state), "AUTHD_RUN_DIR": str(site.run_dir)}
        done = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "authd", *arguments, "--json"],
            input=stdin,
            capture_output=True,
            text=True,
            env=environment,
            cwd=self.directory,
            timeout=_COMMAND_S,
            check=False,
        )
        try:
            answer = json.loads(done.stdout)
        except ValueError as error:
            said = done.stderr.strip()[-300:]
            raise StageError(f"`authd {arguments[0]}` printed no JSON: {said}") from error
        if check and done.returncode != 0:
            raise StageError(f"`authd {' '.join(arguments[:2])}` failed: {answer.get('error')}")
        if not isinstance(answer, dict):
            raise StageError(f"`authd {arguments[0]}` printed no object")
        return answer

    # --- sites ----------------------------------------------------------------------------

    def add_site(self, name: str, *, with_mosquitto: bool) -> Site:
        """Reserve ports and a directory for a site."""
        native = with_mosquitto and self._mosquitto is not None and self._plugin is not None
        site = Site(
            name=name,
            directory=self.directory / name,
            http_port=free_port(),
            grpc_port=free_port(),
            peer_port=free_port(),
            mqtt_port=free_port(),
            spare_port=free_port(),
            broker_kind="mosquitto" if native else "embedded",
        )
        site.directory.mkdir(parents=True)
        self.sites[name] = site
        return site

    def setup_arguments(self, site: Site) -> list[str]:
        """Return the addresses of a site as options of ``init`` and ``join``."""
        native = site.broker_kind == "mosquitto"
        return [
            f"--http=127.0.0.1:{site.http_port}",
            f"--grpc=127.0.0.1:{site.grpc_port}",
            f"--peer=127.0.0.1:{site.peer_port}",
            f"--mosquitto-port={site.mqtt_port if native else site.spare_port}",
            f"--embedded-port={site.spare_port if native else site.mqtt_port}",
        ]

    def configure(self, site: Site, **values: str) -> None:
        """Change settings of the first ``authd.toml``.

        Raises:
            StoreError: A setting is not there to be changed.
        """
        path = site.state / "authd.toml"
        text = path.read_text("utf-8")
        for key, value in values.items():
            lines = [line for line in text.splitlines() if line.startswith(f"{key} = ")]
            if not lines:
                raise StoreError(f"`{path}` has no `{key}`")
            text = text.replace(lines[0], f"{key} = {value}")
        path.write_text(text, "utf-8")

    def start_daemon(self, site: Site) -> None:
        """Start a site's daemon and wait until it answers.

        Raises:
            StageError: It does not.
        """
        arguments = [sys.executable, "-m", "authd", "up"]
        if site.broker_kind == "embedded":
            arguments.append("--broker")
        site.daemon = Process(
            name=f"daemon {site.name}",
            arguments=arguments,
            log=site.log(),
            environment={"AUTHD_STATE": str(site.state), "AUTHD_RUN_DIR": str(site.run_dir)},
        )
        site.daemon.start()
        started = site.log().stat().st_size
        self._await_ready(site, started)

    def _await_ready(self, site: Site, _offset: int) -> None:
        def answers() -> bool:
            if site.daemon is None or not site.daemon.running():
                tail = site.log().read_text("utf-8")[-400:]
                raise StageError(f"daemon {site.name} ended: {tail}")
            return can_connect(site.http_port) and can_connect(site.grpc_port)

        wait_until(answers, timeout_s=_START_S, what=f"daemon {site.name} answers")
        if site.broker_kind == "embedded":
            wait_until(
                lambda: can_connect(site.mqtt_port),
                timeout_s=_START_S,
                what=f"embedded broker {site.name} listens",
            )

    def start_broker(self, site: Site) -> None:
        """Start the Mosquitto beside a site's daemon and wait until its plugin is attached.

        Raises:
            StageError: It does not start.
        """
        if site.broker_kind != "mosquitto" or self._mosquitto is None:
            return
        config = site.directory / "mosquitto.conf"
        lines = [
            f"listener {site.mqtt_port} 127.0.0.1",
            "allow_anonymous false",
            "persistence false",
            "check_retain_source true",
            "log_dest stderr",
            f"plugin {self._plugin}",
            f"plugin_opt_authd_socket {site.run_dir / 'broker.sock'}",
            "plugin_opt_authd_broker mosquitto",
        ]
        if os.geteuid() == 0:
            lines.append("user root")
        config.write_text("\n".join(lines) + "\n", "utf-8")
        site.broker = Process(
            name=f"mosquitto {site.name}",
            arguments=[self._mosquitto, "-c", str(config)],
            log=site.directory / "mosquitto.log",
        )
        site.broker.start()
        wait_until(
            lambda: can_connect(site.mqtt_port),
            timeout_s=_START_S,
            what=f"mosquitto {site.name} listens",
        )
        self.await_status(
            site,
            lambda status: any(one["attached"] for one in status["brokers"]),
            what=f"the plugin of {site.name} attaches",
        )

    def await_status(
        self,
        site: Site,
        condition: Callable[[dict[str, Any]], bool],
        *,
        what: str,
        timeout_s: float = 20.0,
    ) -> dict[str, Any]:
        """Ask a daemon for its status until a condition holds.

        Raises:
            StageError: It does not in time.
        """
        answer: dict[str, Any] = {}

        def holds() -> bool:
            answer.update(self.authd("status", site=site))
            return condition(answer)

        wait_until(holds, timeout_s=timeout_s, what=what)
        return answer


def can_connect(port: int) -> bool:
    """Say whether something listens on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
