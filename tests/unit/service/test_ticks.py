"""What a tick looks at, and that it forgets nothing."""

from pathlib import Path

import pytest

from tests.unit.service.scenes import DEVICE, site_with_device


async def test_a_tick_looks_at_sessions_only_when_something_of_one_ends(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    sessions, tick = site.service.sessions, site.service.enforcement.tick
    assert (await site.connect(DEVICE)).allowed
    for _ in range(400):
        site.clock.advance(1)
        site.service.authority.beat()
        tick()
        ends = [one.due_at for one in sessions.all()]
        assert ends
        assert sessions.due_at <= min(ends)
    assert sessions.due_at > site.clock.now(), "the next ticks have nothing to do"


async def test_a_tick_that_fails_looks_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = site_with_device(tmp_path, grace_s=0)
    assert (await site.connect(DEVICE)).allowed
    site.clock.advance(100)

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("an event log that fails")

    with monkeypatch.context() as patched:
        patched.setattr(site.service.enforcement, "_emit_cut", broken)
        patched.setattr(site.service.sessions, "_drop", broken)
        with pytest.raises(RuntimeError):
            site.service.enforcement.tick()
    site.service.enforcement.tick()
    assert site.service.sessions.all() == []
