from pathlib import Path

import pytest

from authd.errors import ConfigError
from authd.store.places import hold_place


def test_a_state_directory_is_held_by_one_daemon_at_a_time(tmp_path: Path) -> None:
    busy = pytest.raises(ConfigError, match="another authd is running")
    with hold_place(tmp_path), busy, hold_place(tmp_path):
        pass
    with hold_place(tmp_path):
        pass


def test_a_place_that_is_not_there_cannot_be_held(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"), hold_place(tmp_path / "nowhere"):
        pass
