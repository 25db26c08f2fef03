"""A board without a clock at the built-in broker of a real daemon, which is killed in between."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from authd.demo.clients import Client
from authd.demo.stage import Site, Stage
from authd.device import DeviceKey
from tests.stages import lone_site


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path, mosquitto=None, plugin=None) as stage:
        yield stage


def connects(site: Site, device: DeviceKey, counter: int) -> bool:
    """Connect once with a counter (MQTT 3.1.1); say whether the broker let the board in."""
    password = device.counter_password(site.endpoint, counter)
    client = Client(
        site.mqtt_port,
        client_id=device.client_id,
        username=device.username,
        password=password,
    )
    with client:
        return client.accepted == 1


def test_a4_a_counter_is_taken_once_also_over_a_kill(stage: Stage) -> None:
    site = lone_site(stage)
    device_file = stage.directory / "meter.key"
    stage.authd(
        *("device", "new", "meter", "--pub=site/meter", "--counter"),
        *(f"--at={site.endpoint}", f"--out={device_file}"),
        site=site,
    )
    device = DeviceKey.load(device_file)
    assert connects(site, device, 7)
    assert not connects(site, device, 7)
    assert connects(site, device, 8)
    assert site.daemon is not None
    site.daemon.stop(signal.SIGKILL)
    stage.start_daemon(site)
    assert not connects(site, device, 8)
    assert not connects(site, device, 1)
    assert connects(site, device, 9)
