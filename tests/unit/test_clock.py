"""The clock runs forward only, and says how far the host's clock is behind."""

import time

import pytest

from authd.clock import SystemClock, SystemEntropy


class Host:
    """A host whose two clocks move when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall_s = 1_000_000.0
        self.up_s = 50.0
        monkeypatch.setattr(time, "time_ns", lambda: int(self.wall_s * 1e9))
        monkeypatch.setattr(time, "monotonic_ns", lambda: int(self.up_s * 1e9))

    def pass_time(self, seconds: float) -> None:
        self.wall_s += seconds
        self.up_s += seconds


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(monkeypatch)


def test_a_right_clock_is_followed(host: Host) -> None:
    clock = SystemClock(floor=900_000)
    assert (clock.now(), clock.behind_s()) == (1_000_000, 0)
    host.pass_time(10)
    assert clock.now() == 1_000_010
    assert clock.now_us() == 1_000_010 * 1_000_000


def test_a_clock_set_back_goes_on_at_its_pace_and_is_reported(host: Host) -> None:
    clock = SystemClock()
    assert clock.now() == 1_000_000
    host.wall_s -= 3_600
    assert (clock.now(), clock.behind_s()) == (1_000_000, 3_600)
    host.pass_time(100)
    assert (clock.now(), clock.behind_s()) == (1_000_100, 3_600)
    host.wall_s += 3_600
    assert (clock.now(), clock.behind_s()) == (1_000_100, 0)


def test_after_a_restart_time_is_never_below_what_was_persisted(host: Host) -> None:
    clock = SystemClock(floor=1_000_500)
    assert (clock.now(), clock.behind_s()) == (1_000_500, 500)
    host.pass_time(20)
    assert clock.now() == 1_000_520
    host.wall_s += 600
    assert (clock.now(), clock.behind_s()) == (1_000_620, 0)


def test_a_clock_set_forward_is_followed_and_never_followed_back(host: Host) -> None:
    clock = SystemClock()
    host.wall_s += 1_000
    assert clock.now() == 1_001_000
    host.wall_s -= 1_000
    assert (clock.now(), clock.behind_s()) == (1_001_000, 1_000)


def test_the_monotonic_clock_and_the_random_source_are_the_hosts() -> None:
    clock = SystemClock()
    first = clock.monotonic()
    assert clock.monotonic() >= first
    tokens = {SystemEntropy().token(16) for _ in range(10)}
    assert len(tokens) == 10
    assert {len(one) for one in tokens} == {16}
