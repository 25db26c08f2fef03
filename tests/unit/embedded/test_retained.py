"""Whose message is retained where, and reports that stay within what the daemon takes."""

import asyncio
from typing import cast

from authd.embedded.consult import MAX_REPORTS, MAX_REPORTS_BYTES, DeciderClient, Report, What
from authd.embedded.reports import Reports
from authd.embedded.retained import MAX_TOPICS, RetainedTopics

MINE, THEIRS = ("c", "k"), ("c", "another key")


def test_a_topic_belongs_to_whoever_published_there_last() -> None:
    kept = RetainedTopics()
    kept.note("a", MINE)
    kept.note("b", MINE)
    kept.note("a", THEIRS)
    assert (kept.of(MINE), kept.of(THEIRS)) == ((("b",), 0), (("a",), 0))
    kept.note("b", THEIRS)
    assert kept.of(MINE) == ((), 0)


def test_what_is_cleared_is_forgotten() -> None:
    kept = RetainedTopics()
    kept.note("a", MINE)
    kept.forget("a")
    kept.forget("a")
    assert kept.of(MINE) == ((), 0)
    assert not kept._owners
    assert not kept._topics


def test_the_newest_are_named_and_the_others_counted() -> None:
    kept = RetainedTopics()
    for number in range(MAX_TOPICS + 3):
        kept.note(f"t/{number}", MINE)
    kept.note("t/0", MINE)
    kept.note("é" * 129, MINE)
    named, more = kept.of(MINE)
    assert (len(named), named[-1], more) == (MAX_TOPICS, "t/0", 4)


class Takes:
    """Stands in for the channel to the daemon: takes every batch."""

    def __init__(self) -> None:
        self.batches: list[list[Report]] = []

    async def report(self, batch: list[Report]) -> None:
        self.batches.append(batch)


async def sent(*reports: Report) -> list[list[Report]]:
    taker = Takes()
    queue = Reports(cast("DeciderClient", taker))
    for report in reports:
        queue.put(report)
    running = asyncio.create_task(queue.run())
    async with asyncio.timeout(5):
        while sum(map(len, taker.batches)) < len(reports):
            await asyncio.sleep(0)
    running.cancel()
    return taker.batches


def report(number: int, topics: int = 0, client_id: str = "c") -> Report:
    retained = tuple(f"{number}/{place}".ljust(256, "x") for place in range(topics))
    return Report(session_id=str(number), client_id=client_id, what=What.OFFLINE, retained=retained)


async def test_reports_go_in_order_in_requests_that_the_daemon_takes() -> None:
    reports = [report(number, topics=MAX_TOPICS) for number in range(20)]
    reports += [report(number, client_id="é" * 64) for number in range(20, 1_300)]
    batches = await sent(*reports)
    assert [one for batch in batches for one in batch] == reports
    assert all(sum(one.size_bytes for one in batch) <= MAX_REPORTS_BYTES for batch in batches)
    assert max(map(len, batches)) <= MAX_REPORTS
    assert [len(batch) for batch in batches[:2]] == [7, 7]


async def test_small_reports_fill_a_request() -> None:
    batches = await sent(*(report(number) for number in range(MAX_REPORTS + 1)))
    assert [len(batch) for batch in batches] == [MAX_REPORTS, 1]
