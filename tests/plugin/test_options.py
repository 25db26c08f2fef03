"""Configuration: what keeps a broker from starting, and what it says."""

import signal
import subprocess
from pathlib import Path

import pytest

from authd.demo.stage import free_port
from tests.plugin.conftest import MOSQUITTO, VERSION, StartBroker, write_config
from tests.plugin.enhanced import Client
from tests.plugin.fake_authd import Deny, FakeAuthd, key_id
from tests.plugin.mqtt import REFUSED, V5
from tests.plugin.prover import Prover

GOOD = "plugin_opt_authd_broker hall"


def start_in_vain(folder: Path, plugin: Path, *, options: str, extra: str = "") -> str:
    """Start a broker that must not start; its log."""
    config = write_config(folder, port=free_port(), plugin=plugin, options=options, extra=extra)
    done = subprocess.run([MOSQUITTO, "-c", str(config)], timeout=10, check=False)
    assert done.returncode != 0
    return (folder / "log").read_text()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("", "`plugin_opt_authd_broker` is missing: write the name of this broker's entry"),
        ("plugin_opt_authd_broker a/b", "`plugin_opt_authd_broker`: write the name of a [[broker"),
        (f"plugin_opt_authd_broker {'x' * 65}", "1 to 64 letters"),
        (f"{GOOD}\n{GOOD}", "`plugin_opt_authd_broker`: write it once"),
        (f"{GOOD}\nplugin_opt_authd_sokket /x", "`plugin_opt_authd_sokket`: it is unknown"),
        (f"{GOOD}\nplugin_opt_authd_socket run/x", "write an absolute path"),
        (f"{GOOD}\nplugin_opt_authd_socket /{'x' * 107}", "at most 107 bytes"),
        (f"{GOOD}\nplugin_opt_authd_rate 0", "1 to 10000"),
        (f"{GOOD}\nplugin_opt_authd_rate 5x", "1 to 10000"),
        (f"{GOOD}\nplugin_opt_authd_rate -1", "1 to 10000"),
        (f"{GOOD}\nplugin_opt_authd_rate 99999999999999999999", "1 to 10000"),
    ],
)
def test_bad_options_keep_the_broker_from_starting(
    tmp_path: Path,
    plugin: Path,
    options: str,
    sentence: str,
) -> None:
    assert sentence in start_in_vain(tmp_path, plugin, options=options)


def test_a50_two_instances_keep_the_broker_from_starting(tmp_path: Path, plugin: Path) -> None:
    second = f"{GOOD}\nlistener {free_port()} 127.0.0.1\nplugin {plugin}\n{GOOD}"
    log = start_in_vain(tmp_path, plugin, options=second, extra="per_listener_settings true")
    assert "the plugin is loaded twice; write `per_listener_settings false`" in log


def test_a50_without_tick_nobody_gets_in(start_broker: StartBroker, fake: FakeAuthd) -> None:
    """One listener under `per_listener_settings`: before 2.0.15 TICK never comes."""
    broker = start_broker(extra="per_listener_settings true")
    if VERSION >= (2, 0, 15):
        broker.wait_log("event stream open")
        assert broker.device("c1").connect() == 0
        return
    assert broker.device("c1").connect() is None
    assert fake.questions == []
    broker.wait_log("the broker does not call TICK; set per_listener_settings false")
    broker.process.send_signal(signal.SIGHUP)
    broker.wait_log("Reloading config")
    assert broker.device("c1").connect() is None
    assert broker.device("c2", password="").connect() is None


def test_a_broker_says_at_start_whom_it_asks(start_broker: StartBroker, fake: FakeAuthd) -> None:
    broker = start_broker()
    broker.wait_log("authd: broker `hall`, boot ")
    broker.wait_log(str(fake.path))
    broker.wait_log("event stream open, snapshot of 0 sessions")


def test_a_reload_changes_nothing(start_broker: StartBroker, fake: FakeAuthd) -> None:
    """The broker asks about everybody again, with proofs that were used long ago."""
    broker = start_broker()
    broker.wait_log("event stream open")
    device, key, prover = broker.online("c1"), key_id(), Prover()
    enhanced = Client(broker.port, "c2", prover).online()
    away = broker.online("c3", key=key, clean=False)
    away.subscribe("site/#")
    away.disconnect()
    fake.wait_report("offline", "c3")
    broker.process.send_signal(signal.SIGHUP)
    broker.wait_log("Reloading config")
    assert device.publish("site/a") == 0
    assert enhanced.publish("site/a") == 0
    assert len(fake.questions) == 3
    assert broker.online("c3", key=key, clean=False).drain() == [b"x", b"x"]
    assert fake.streams == 1
    enhanced.close()


def test_a7_a_reload_is_no_way_in(start_broker: StartBroker, fake: FakeAuthd) -> None:
    broker = start_broker()
    broker.wait_log("event stream open")
    revoked = broker.online("c1", protocol=V5)
    fake.decide = lambda _: Deny()
    for number in range(20):
        broker.process.send_signal(signal.SIGHUP)
        stranger = broker.device(f"x{number}", password="", protocol=V5)
        assert stranger.connect() == REFUSED
        assert broker.device(f"y{number}").connect() == REFUSED
    fake.cut(key=fake.session_of("c1").key)
    broker.process.send_signal(signal.SIGHUP)
    revoked.wait_end()
    fake.wait_report("kicked", "c1")
