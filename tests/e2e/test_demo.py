"""`authd demo --json` is the whole path; every step must hold."""

import json
import subprocess
import sys

import pytest


@pytest.mark.timeout(240)
def test_every_step_of_the_demonstration_holds() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "authd", "demo", "--json"],
        capture_output=True,
        text=True,
        timeout=220,
        check=False,
    )
    told = json.loads(done.stdout)
    broken = [step for step in told["steps"] if not step["ok"]]
    assert not broken, broken
    assert done.returncode == 0
    assert told["brokers"] == ["mosquitto", "mosquitto", "embedded"]
    assert len(told["steps"]) > 50
    assert len(told["revoke_to_cut_s"]) == 6
    assert max(told["revoke_to_cut_s"]) < 60, "cut, not just run out with its lease"
