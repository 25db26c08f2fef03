"""Orders to end sessions on brokers without an event stream: tried, retried, reported, bounded."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from authd.core.identity import PublicKey
from authd.evictors.takeover import TakeoverEvictor
from authd.service.evictions import Evictions
from authd.service.sessions import Cut
from tests.unit.service.scenes import DEVICE
from tests.world import Domain, FakeEntropy, Site

# Nothing takes that long: it is hung.
_HUNG_S = 20.0


class Scripted:
    """An evictor that answers as it is told; `hang` never answers."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.tries = 0

    async def evict(
        self, *, client_ids: Iterable[str], key: PublicKey, reason: str
    ) -> dict[str, str]:
        self.tries += 1
        answer = self.answers.pop(0) if self.answers else "hang"
        if answer == "hang":
            await asyncio.Event().wait()
        return dict.fromkeys(client_ids, answer)


def order(site: Site, broker: str, client_id: str) -> Cut:
    cut = site.service.sessions.note_cut(
        broker=broker,
        client_id=client_id,
        key=DEVICE.public,
        reason="revoked",
    )
    site.service.evictions.order(
        broker=broker,
        client_id=client_id,
        key=DEVICE.public,
        reason="revoked",
    )
    return cut


async def run_until(site: Site, evictors: dict[str, Scripted], is_done: Callable[[], bool]) -> None:
    """Carry out orders until something is so, however slow this host is; then stop."""
    running = asyncio.create_task(site.service.evictions.run(lambda: dict(evictors)))
    async with asyncio.timeout(_HUNG_S):
        while not is_done():
            await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.fixture(autouse=True)
def _retry_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authd.service.evictions._RETRY_S", 0.0)


async def test_a37_a_refused_kick_is_tried_again_and_the_outcome_reported(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    cut = order(site, "g", "pump")
    evictor = Scripted("failed", "failed", "taken_over")
    await run_until(site, {"g": evictor}, lambda: cut.outcome != "sent")
    assert (cut.outcome, evictor.tries) == ("taken_over", 3)


async def test_a37_a_kick_that_never_works_is_reported_as_failed(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    cut = order(site, "g", "pump")
    evictor = Scripted(*["failed"] * 10)
    await run_until(site, {"g": evictor}, lambda: cut.outcome != "sent")
    assert (cut.outcome, evictor.tries) == ("failed", 5)


async def test_a53_a_broker_that_does_not_answer_delays_no_other(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    stuck = [order(site, "g", f"stuck-{number}") for number in range(40)]
    other = order(site, "m", "pump")
    evictors = {"g": Scripted(), "m": Scripted("taken_over")}
    await run_until(site, evictors, lambda: other.outcome != "sent")
    assert other.outcome == "taken_over"
    assert {one.outcome for one in stuck} == {"sent"}


async def test_orders_for_a_broker_without_an_evictor_are_left_to_its_event_stream(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, Domain())
    cut = order(site, "e", "pump")
    queue = site.service.evictions._queues["e"]
    await run_until(site, {"g": Scripted("taken_over")}, queue.empty)
    assert cut.outcome == "sent"


async def test_orders_that_come_while_it_runs_are_carried_out(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    cuts: list[Cut] = []
    asyncio.get_running_loop().call_later(0.05, lambda: cuts.append(order(site, "g", "late")))

    def is_done() -> bool:
        return any(one.outcome != "sent" for one in cuts)

    await run_until(site, {"g": Scripted("taken_over")}, is_done)
    assert [one.outcome for one in cuts] == ["taken_over"]


async def test_a_full_queue_is_reported(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("authd.service.evictions._MAX_QUEUED", 2)
    site = Site(tmp_path, Domain())
    cuts = [order(site, "g", f"pump-{number}") for number in range(3)]
    assert [one.outcome for one in cuts] == ["sent", "sent", "overloaded"]


async def test_a_takeover_of_a_broker_that_is_down_fails_without_raising(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    evictions = Evictions(
        clock=site.clock,
        entropy=FakeEntropy(),
        sessions=site.service.sessions,
    )
    evictor = TakeoverEvictor(
        address="127.0.0.1:1",
        secret=lambda client_id, key: evictions.issue("g", client_id, key),
    )
    answer = await evictor.evict(client_ids=["pump"], key=DEVICE.public, reason="revoked")
    assert answer == {"pump": "failed"}


def test_a54_secrets_are_not_part_of_what_is_printed(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    secret = site.service.evictions.issue("g", "pump", DEVICE.public)
    assert secret not in repr(site.service.evictions._secrets)
    entry = site.service.brokers.get("g")
    assert entry is not None
    assert entry.secret not in repr(entry)
