"""The plugin, built here, inside a real Mosquitto, against a stand-in for the daemon.

`AUTHD_MOSQUITTO` names another broker than Debian's, `AUTHD_PLUGIN_SOURCES` another copy of the
plugin's sources; `CPPFLAGS` reaches its compiler, so that `-I` can choose other headers.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from authd.demo.stage import free_port
from tests.plugin.fake_authd import FakeAuthd, key_id
from tests.plugin.mqtt import V311, Device, Will

# Elsewhere for mutants (mutants.py).
SOURCES = Path(
    os.environ.get("AUTHD_PLUGIN_SOURCES", Path(__file__).parents[2] / "plugins" / "mosquitto")
)
MOSQUITTO = os.environ.get("AUTHD_MOSQUITTO", "/usr/sbin/mosquitto")
WAIT_S = 15.0


def _version() -> tuple[int, ...]:
    """Ask the broker which one it is; its help ends with an error code."""
    done = subprocess.run([MOSQUITTO, "-h"], capture_output=True, text=True, check=False)
    return tuple(int(part) for part in done.stdout.split()[2].split("."))


VERSION = _version()


def tell(figure: str) -> None:
    """Say what was measured; `pytest -rP` or `-s` shows it."""
    sys.stdout.write(f"{figure}\n")


@dataclass(kw_only=True)
class Broker:
    """A running Mosquitto and the clients that tests opened to it."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    devices: list[Device] = field(default_factory=list)

    def device(
        self,
        client_id: str,
        *,
        key: str | None = None,
        password: str | None = None,
        protocol: int = V311,
        clean: bool = True,
        will: Will | None = None,
    ) -> Device:
        """Make a client; it is not connected yet."""
        device = Device(
            self.port,
            client_id=client_id,
            key=key or key_id(),
            password=password,
            protocol=type(V311)(protocol),
            clean=clean,
            will=will,
        )
        self.devices.append(device)
        return device

    def online(self, client_id: str, **options: object) -> Device:
        """Make a client that is connected."""
        device = self.device(client_id, **options)  # type: ignore[arg-type]  # passed through
        assert device.connect() == 0
        return device

    def wait_log(self, text: str, times: int = 1) -> None:
        """Wait for a line of the broker's log, or for several."""
        until = time.monotonic() + WAIT_S
        while self.log.read_text().count(text) < times:
            assert time.monotonic() < until, f"`{text}` is not in the log"
            time.sleep(0.02)

    def stop(self) -> int:
        """Stop the broker; its exit code."""
        for device in self.devices:
            device.close()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_S)


def write_config(folder: Path, *, port: int, plugin: Path, options: str, extra: str) -> Path:
    """Write a `mosquitto.conf` for one listener."""
    config = folder / "mosquitto.conf"
    config.write_text(
        f"{extra}\nuser root\ncheck_retain_source true\nlistener {port} 127.0.0.1\nlog_type all\n"
        f"log_dest file {folder}/log\nplugin {plugin}\n{options}\n",
    )
    return config


def wait_port(process: subprocess.Popen[bytes], port: int) -> None:
    """Wait until somebody listens."""
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        assert process.poll() is None, "the broker ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise AssertionError("nobody listens")


@pytest.fixture(scope="session")
def plugin() -> Path:
    """Build the plugin."""
    subprocess.run(["/usr/bin/make", "-s", "-C", str(SOURCES)], check=True)
    return SOURCES / "authd_mosquitto.so"


@pytest.fixture
def socket_path() -> Iterator[Path]:
    """A path short enough for a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="authd-") as folder:
        yield Path(folder) / "broker.sock"


@pytest.fixture
def fake(socket_path: Path) -> Iterator[FakeAuthd]:
    """The stand-in, listening."""
    with FakeAuthd(path=socket_path) as running:
        yield running


StartBroker = Callable[..., Broker]


@pytest.fixture
def start_broker(plugin: Path, socket_path: Path, tmp_path: Path) -> Iterator[StartBroker]:
    """Start brokers with more options than usual; all are stopped at the end."""
    running: list[Broker] = []

    def start(
        *,
        options: str = "plugin_opt_authd_rate 1000",
        extra: str = "",
        under: tuple[str, ...] = (),
        loaded: Path = plugin,
    ) -> Broker:
        port = free_port()
        config = write_config(
            tmp_path,
            port=port,
            plugin=loaded,
            options=f"plugin_opt_authd_broker hall\n"
            f"plugin_opt_authd_socket {socket_path}\n{options}",
            extra=extra,
        )
        process = subprocess.Popen([*under, MOSQUITTO, "-c", str(config)])
        broker = Broker(process=process, port=port, log=tmp_path / "log")
        running.append(broker)
        wait_port(process, port)
        return broker

    yield start
    codes = [broker.stop() for broker in running if broker.process.poll() is None]
    assert codes == [0] * len(codes)


@pytest.fixture
def broker(fake: FakeAuthd, start_broker: StartBroker) -> Broker:
    """A broker whose plugin has applied its first snapshot."""
    started = start_broker()
    started.wait_log("event stream open")
    return started
