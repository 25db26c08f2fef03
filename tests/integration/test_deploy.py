"""What lies in deploy/ works as it is, but for ports and paths of this test."""

import configparser
import os
import socket
from pathlib import Path

from authd.cli.commands import up
from authd.demo.stage import Process, Site, Stage, can_connect, find_plugin, wait_until
from tests.integration.test_mosquitto import client_of, new_device
from tests.stages import lone_site

DEPLOY = Path(__file__).parents[2] / "deploy"


def test_the_mosquitto_configuration_admits_a_device(stage: Stage) -> None:
    site = lone_site(stage, mosquitto=True)
    text = (DEPLOY / "mosquitto.conf").read_text("utf-8")
    changed = {
        "listener 1883": f"listener {site.mqtt_port} 127.0.0.1",
        "/usr/lib/authd-mqtt/authd_mosquitto.so": str(find_plugin()),
        "/run/authd-mqtt/broker.sock": str(site.run_dir / "broker.sock"),
    }
    for before, after in changed.items():
        assert before in text
        text = text.replace(before, after)
    if os.geteuid() == 0:
        text += "\nuser root\n"
    path = stage.directory / "mosquitto.conf"
    path.write_text(text, "utf-8")
    site.broker = Process(
        name="mosquitto",
        arguments=["/usr/sbin/mosquitto", "-c", str(path)],
        log=stage.directory / "mosquitto.log",
    )
    site.broker.start()
    wait_until(lambda: can_connect(site.mqtt_port), timeout_s=10, what="mosquitto listens")
    stage.await_status(site, _attached, what="the plugin attaches")
    pump = new_device(stage, site, "pump", "--pub=site/pump")
    with client_of(site, pump) as client:
        assert client.accepted == 1


def _attached(status: dict[str, list[dict[str, bool]]]) -> bool:
    return any(one["attached"] for one in status["brokers"])


def test_the_systemd_unit_starts_the_daemon_and_waits_for_its_word() -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]  # keys keep their case
    unit.read(DEPLOY / "authd-mqtt.service")
    service = dict(unit["Service"])
    assert service["Type"] == "notify"
    assert service["ExecStart"].split()[1:2] == [up.up.__name__]
    assert "WatchdogSec" in service
    assert service["StateDirectory"] == "authd-mqtt"
    assert service["RuntimeDirectory"] == "authd-mqtt"


def test_ready_is_told_to_systemd(stage: Stage, tmp_path: Path) -> None:
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    channel.bind(str(tmp_path / "notify"))
    channel.settimeout(10)
    os.environ["NOTIFY_SOCKET"] = str(tmp_path / "notify")
    try:
        site: Site = lone_site(stage)
    finally:
        del os.environ["NOTIFY_SOCKET"]
    assert channel.recv(64) == b"READY=1"
    assert site.daemon is not None
    site.daemon.stop()
    assert channel.recv(64) == b"STOPPING=1"
    channel.close()
