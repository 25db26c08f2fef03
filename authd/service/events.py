"""The numbered events of each broker, and who listens to them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

from authd.service.ports import SessionEvent

# An enforcement point that is this far behind must start anew from a snapshot.
MAX_QUEUED_EVENTS: Final = 10_000
BEAT_S: Final = 5.0


class EventLog:
    """The numbered events of one broker and who listens to them."""

    def __init__(self) -> None:
        """Start at number 0."""
        self.number = 0
        self._listeners: dict[str, asyncio.Queue[SessionEvent | None]] = {}

    def emit(self, kind: str, body: dict[str, object]) -> None:
        """Number an event and hand it to every listener; one that is too slow is ended."""
        self.number += 1
        event = SessionEvent(number=self.number, kind=kind, body=body)
        for boot, queue in list(self._listeners.items()):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self.end(boot)

    def listen(self, boot: str) -> "asyncio.Queue[SessionEvent | None]":
        """Return a new queue of events; an older one of the same boot is ended."""
        self.end(boot)
        queue: asyncio.Queue[SessionEvent | None] = asyncio.Queue(MAX_QUEUED_EVENTS + 1)
        self._listeners[boot] = queue
        return queue

    def end(self, boot: str) -> None:
        """End the stream of a boot."""
        queue = self._listeners.pop(boot, None)
        if queue is None:
            return
        while queue.full():
            queue.get_nowait()
        queue.put_nowait(None)

    def forget(self, boot: str, queue: "asyncio.Queue[SessionEvent | None]") -> None:
        """Forget a listener that left by itself."""
        if self._listeners.get(boot) is queue:
            del self._listeners[boot]

    @property
    def listening(self) -> int:
        """How many streams are live."""
        return len(self._listeners)

    async def watch(
        self,
        boot: str,
        snapshot: Callable[[], dict[str, object]],
        *,
        run: str,
    ) -> AsyncIterator[SessionEvent]:
        """Stream events after a snapshot; a beat after each silence of 5 s; ends when replaced."""
        # The snapshot gets a number of its own; whoever else listens sees nothing under it.
        self.emit("lease", {"leases": []})
        queue = self.listen(boot)
        try:
            yield SessionEvent(number=self.number, kind="snapshot", body={**snapshot(), "run": run})
            while True:
                try:
                    event = await asyncio.wait_for(queue.get(), timeout=BEAT_S)
                except TimeoutError:
                    event = SessionEvent(number=self.number, kind="beat", body={"run": run})
                if event is None:
                    return
                yield event
        finally:
            self.forget(boot, queue)
