"""The numbered events of each broker, and who listens to them.

A stream begins with a snapshot. To describe a hundred thousand sessions takes seconds, so it is
made slice by slice: whoever reads a stream may let others work between any two of its parts. The
snapshot's number is drawn, and what is to be in it is listed, at its beginning. From then on
every change is an event that waits behind it: a session is described as it is when its slice is
made, left out if it has ended, and what changes later, or comes, has a greater number.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Protocol

from authd.service.ports import SessionEvent

# An enforcement point that is this far behind must start anew from a snapshot.
MAX_QUEUED_EVENTS: Final = 10_000
BEAT_S: Final = 5.0
# Members of a snapshot, in this order.
SESSIONS: Final = "sessions"
SEEN: Final = "seen"


@dataclass(frozen=True, slots=True)
class Slice:
    """Some entries of the snapshot that was begun.

    Attributes:
        member: `SESSIONS` or `SEEN`; slices of one member follow each other.
        entries: For its list.
        last: Whether the snapshot ends with it.
    """

    member: str
    entries: Sequence[object]
    last: bool = False


@dataclass(frozen=True, slots=True)
class Preparing:
    """The snapshot has not begun yet."""


Part = SessionEvent | Slice | Preparing


class Source(Protocol):
    """What a snapshot is made of."""

    def prepare(self) -> Iterator[None]:
        """Do what has to be done before, a little at each step."""
        ...

    def slices(self) -> Iterator[Slice]:
        """List what is to be described at the first step, and describe some of it at each."""
        ...


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

    async def watch(self, boot: str, source: Source, *, run: str) -> AsyncGenerator[Part, None]:
        """Stream a snapshot in parts, then events; a beat after each silence; ends when replaced.

        Nothing is waited for before the snapshot is complete: whoever takes the parts says when
        others have their turn.
        """
        queue = self.listen(boot)
        try:
            for _ in source.prepare():
                yield Preparing()
                # What happens before the snapshot's number is drawn is in it.
                self._drain(queue)
                if self._listeners.get(boot) is not queue:
                    return
            # The snapshot gets a number of its own; whoever else listens sees nothing under it.
            self.emit("lease", {"leases": []})
            self._drain(queue)
            slices = source.slices()
            part: Slice | None = next(slices)
            yield SessionEvent(number=self.number, kind="snapshot", body={"run": run})
            while part is not None:
                yield part
                # Ended: replaced, or there were more changes meanwhile than are kept.
                if self._listeners.get(boot) is not queue:
                    return
                part = next(slices, None)
            while (event := await self._next(queue, run)) is not None:
                yield event
        finally:
            self.forget(boot, queue)

    @staticmethod
    def _drain(queue: "asyncio.Queue[SessionEvent | None]") -> None:
        while not queue.empty():
            queue.get_nowait()

    async def _next(
        self, queue: "asyncio.Queue[SessionEvent | None]", run: str
    ) -> SessionEvent | None:
        try:
            return await asyncio.wait_for(queue.get(), timeout=BEAT_S)
        except TimeoutError:
            return SessionEvent(number=self.number, kind="beat", body={"run": run})


async def whole(parts: AsyncGenerator[Part, None]) -> AsyncIterator[SessionEvent]:
    """Put the parts of a snapshot together into one event; nobody has a turn meanwhile."""
    snapshot: SessionEvent | None = None
    lists: dict[str, list[object]] = {}
    async with aclosing(parts):
        async for part in parts:
            match part:
                case SessionEvent(kind="snapshot"):
                    snapshot = part
                case SessionEvent():
                    yield part
                case Slice() if snapshot is not None:
                    lists.setdefault(part.member, []).extend(part.entries)
                    if part.last:
                        body = {**lists, **snapshot.body}
                        yield SessionEvent(number=snapshot.number, kind="snapshot", body=body)
                        snapshot, lists = None, {}
