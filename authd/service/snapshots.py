"""What a run of a broker is told when it attaches: its sessions, and the nonces used at it.

In steps of about 3 ms, so that decisions need not wait for a snapshot of a hundred thousand
sessions. See `authd.service.events` for what keeps it consistent with what happens meanwhile.
"""

from collections.abc import Callable, Iterator
from typing import Final

from authd.core.encoding import encode_base64url
from authd.service.events import SEEN, SESSIONS, Slice
from authd.service.ports import Clock
from authd.service.sessions import Session, Sessions

_LOOKED_AT: Final = 64
# Of sessions and their rights.
_DESCRIBED: Final = 400
_ENCODED: Final = 2_000


class Snapshot:
    """Implements `authd.service.events.Source`."""

    def __init__(
        self,
        *,
        broker: str,
        boot: str,
        sessions: Sessions,
        clock: Clock,
        goes_on: Callable[[Session], bool],
        describe: Callable[[Session, int], dict[str, object]],
        seen: Callable[[], list[bytes]],
    ) -> None:
        """Keep what it is made of.

        Args:
            broker: Name of the entry.
            boot: The run that attaches.
            sessions: The table.
            clock: What leases are counted by.
            goes_on: Says whether a session goes on in this run, and ends it if it does not.
            describe: Writes a session down, with what is left of its lease at a moment.
            seen: Returns the nonces that may not come again.
        """
        self._broker = broker
        self._boot = boot
        self._sessions = sessions
        self._clock = clock
        self._goes_on = goes_on
        self._describe = describe
        self._seen = seen

    def prepare(self) -> Iterator[None]:
        """End the sessions of earlier runs that cannot go on, before anything is told.

        Raises:
            StoreError: The store cannot be written.
        """
        others = [one for one in self._sessions.on(self._broker) if one.boot != self._boot]
        for start in range(0, len(others), _LOOKED_AT):
            for session in others[start : start + _LOOKED_AT]:
                self._is_listed(session)
            yield

    def slices(self) -> Iterator[Slice]:
        """Describe the sessions that are there at the first step, then name what was seen.

        The plugin counts leases from when the first byte came to it, so they are counted from the
        first step here. What was seen comes last: the later, the more is known.

        Raises:
            StoreError: The store cannot be read or written.
        """
        listed, now = self._sessions.on(self._broker), self._clock.now()
        yield Slice(SESSIONS, [])
        entries, work = list[object](), 0
        for session in listed:
            if self._is_listed(session):
                away = {"offline": True} if session.boot != self._boot else {}
                entries.append({**self._describe(session, now), **away})
            work += 1 + len(session.rights.entries)
            if work >= _DESCRIBED:
                yield Slice(SESSIONS, entries)
                entries, work = [], 0
        yield Slice(SESSIONS, entries)
        yield from self._seen_slices()

    def _seen_slices(self) -> Iterator[Slice]:
        seen = self._seen()
        for start in range(0, len(seen), _ENCODED):
            yield Slice(SEEN, [encode_base64url(one) for one in seen[start : start + _ENCODED]])
        yield Slice(SEEN, [], last=True)

    def _is_listed(self, session: Session) -> bool:
        """Say whether a session is there still, and goes on; it may have ended since."""
        current = self._sessions.get(self._broker, session.client_id) is session
        return current and self._goes_on(session)
