"""The scenarios at a size for every day; `make sim-large` plays them with 10 000 nodes."""

import subprocess
import sys

import pytest

from tests.simulation.scenario import parse_scenario, scenarios

RUNS = 20
NODES = 50


@pytest.mark.timeout(600)
def test_every_threshold_is_met_and_the_same_seed_gives_the_same_trace() -> None:
    command = [sys.executable, "-m", "tests.simulation", f"--nodes={NODES}", f"--runs={RUNS}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "gave the same trace" in done.stdout


def test_a_scenario_that_is_not_there_is_said() -> None:
    command = [
        sys.executable,
        "-m",
        "tests.simulation",
        "--nodes=8",
        "--runs=1",
        "--only=impossible",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "impossible" in done.stderr


def test_a_line_that_is_no_step_is_an_error() -> None:
    with pytest.raises(ValueError, match="line 4: `at noon: revoke`"):
        parse_scenario("odd", "About.\n\nuntil: 5\nat noon: revoke\n")


def test_scenarios_name_what_they_expect() -> None:
    for scenario in scenarios():
        assert scenario.expectations, scenario.name
        assert scenario.until_s > 0, scenario.name
