"""Telling the daemon what became of sessions: in order, in batches, and again until it listens."""

import asyncio
import secrets
from typing import Final

import structlog

from authd.embedded.consult import MAX_REPORTS, MAX_REPORTS_BYTES, DeciderClient, Report
from authd.errors import NoResponseError

_log = structlog.get_logger(__name__)

# Full jitter between these: a daemon that restarts is not met by all brokers at once.
RETRY_MIN_S: Final = 0.1
RETRY_MAX_S: Final = 2.0
# What is lost beyond this shows in lists of sessions only: leases and cuts do not depend on it.
MAX_QUEUED: Final = 10_000
_random: Final = secrets.SystemRandom()


async def pause() -> None:
    """Wait before asking again."""
    await asyncio.sleep(_random.uniform(RETRY_MIN_S, RETRY_MAX_S))


class Reports:
    """A queue that never makes anybody wait, and the task that empties it."""

    def __init__(self, decider: DeciderClient) -> None:
        """Send to ``decider``."""
        self._decider = decider
        self._queue: asyncio.Queue[Report] = asyncio.Queue(MAX_QUEUED)

    def put(self, report: Report) -> None:
        """Queue a report; dropped when the queue is full."""
        try:
            self._queue.put_nowait(report)
        except asyncio.QueueFull:
            _log.warning("report_dropped", limit=MAX_QUEUED)

    async def run(self) -> None:
        """Send until cancelled."""
        following: Report | None = None
        while True:
            batch, following = self._fill(following or await self._queue.get())
            await self._send(batch)

    def _fill(self, first: Report) -> tuple[list[Report], Report | None]:
        """Collect what fits into one request, and what was taken for it but did not fit."""
        batch, room = [first], MAX_REPORTS_BYTES - first.size_bytes
        while len(batch) < MAX_REPORTS and not self._queue.empty():
            report = self._queue.get_nowait()
            room -= report.size_bytes
            if room < 0:
                return batch, report
            batch.append(report)
        return batch, None

    async def _send(self, batch: list[Report]) -> None:
        while True:
            try:
                await self._decider.report(batch)
            except NoResponseError as error:
                _log.info("reports_not_taken", detail=str(error))
                await pause()
            else:
                return
