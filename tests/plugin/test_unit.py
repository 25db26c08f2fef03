"""The plugin's parts that need no broker, tested in C, plain and under the sanitizers."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.plugin.conftest import SOURCES


@pytest.mark.parametrize("target", ["check", "asan"])
@pytest.mark.timeout(180)
def test_the_parts_that_need_no_broker_hold_their_claims(target: str) -> None:
    done = subprocess.run(
        ["/usr/bin/make", "-s", "-C", str(SOURCES), target],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = re.search(r"(\d+) checked, 0 failed", done.stdout)
    assert summary is not None
    assert int(summary[1]) > 8000


def test_the_exported_names_are_the_three_entry_points(plugin: Path) -> None:
    listed = subprocess.run(
        ["/usr/bin/nm", "-D", "--defined-only", str(plugin)],
        check=True,
        capture_output=True,
        text=True,
    )
    names = {line.split()[-1] for line in listed.stdout.splitlines()}
    assert names == {
        "mosquitto_plugin_version",
        "mosquitto_plugin_init",
        "mosquitto_plugin_cleanup",
    }
