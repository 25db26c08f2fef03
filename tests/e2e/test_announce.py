"""A broker entry with prefixes is announced once its node may serve them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from authd.demo.stage import Stage
from tests.stages import lone_site

NAMED = """
[[broker]]
name = "named"
kind = "go-auth"
audiences = ["broker.example:1883"]
prefixes = ["site/a/#"]
"""


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path, mosquitto=None, plugin=None) as stage:
        yield stage


def test_a_node_announces_what_it_may_serve_and_status_says_so(stage: Stage) -> None:
    site = lone_site(stage, start=False)
    path = site.state / "authd.toml"
    path.write_text(path.read_text("utf-8") + NAMED, "utf-8")
    stage.start_daemon(site)
    status = stage.authd("status", site=site)
    assert announced(status) == {"named": False}
    stage.authd("grant", status["node"], "--serve=site/b/#", site=site, check=False)
    assert announced(stage.authd("status", site=site)) == {"named": False}
    stage.authd("grant", status["node"], "--serve=site/#", site=site)
    stage.await_status(
        site, lambda now: announced(now) == {"named": True}, what="it is announced", timeout_s=45
    )


def announced(status: dict[str, object]) -> dict[str, bool]:
    """Return which broker entries with prefixes are announced."""
    brokers = status["brokers"]
    assert isinstance(brokers, list)
    return {one["name"]: one["announced"] for one in brokers if one["prefixes"]}
