"""Real Mosquitto with the plugin beside a real daemon. Nothing here is optional."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from authd.demo.stage import Site, Stage, find_mosquitto, find_plugin
from tests.stages import lone_site

PLUGIN = Path(__file__).parents[2] / "plugins" / "mosquitto"


@pytest.fixture(scope="session")
def plugin() -> Path:
    subprocess.run(["/usr/bin/make", "-s", "-C", str(PLUGIN)], check=True, timeout=120)
    built = find_plugin()
    assert built is not None, "the plugin was not built"
    return built


@pytest.fixture
def stage(tmp_path: Path, plugin: Path) -> Iterator[Stage]:
    mosquitto = find_mosquitto()
    assert mosquitto is not None, "mosquitto is not installed: run `.ci/system-packages`"
    with Stage(tmp_path, mosquitto=mosquitto, plugin=plugin) as stage:
        yield stage


@pytest.fixture
def site(stage: Stage) -> Site:
    """A daemon with a Mosquitto beside it."""
    site = lone_site(stage, mosquitto=True)
    stage.start_broker(site)
    return site
