"""Twelve real daemons; a fifth of them is killed as each revocation goes out."""

import subprocess
import sys

import pytest


@pytest.mark.timeout(400)
def test_no_session_and_no_revocation_is_lost_when_daemons_are_killed() -> None:
    command = [sys.executable, "-m", "tests.fleet", "--daemons=12", "--rounds=2", "--kill=0.2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=380, check=False)
    assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-2_000:]
    assert "0 lost" in done.stdout
