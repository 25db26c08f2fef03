"""The records a node holds: newest only, bounded, each to its end of life.

A record leaves at the earlier of its own end of life, which its publisher signed, and a time to
live of this holder, which is renewed only while the node is among those that should hold it.
"""

import heapq
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from authd.core.identity import PublicKey
from authd.core.records import Record, encode_record, newest, verify_record
from authd.dht.messages import Verdict
from authd.errors import (
    EquivocationError,
    FormatError,
    LimitError,
    StaleRecordError,
    VerificationError,
)

# A day's republishing may fail once before copies begin to vanish.
TIME_TO_LIVE_S: Final = 2 * 86_400
MAX_REPUBLISH_S: Final = 86_400
# Heartbeat records live a minute; nothing is republished more often than this.
MIN_REPUBLISH_S: Final = 15
# About 1.5 kB each in memory.
MAX_RECORDS: Final = 100_000
# One issuer with 20 000 devices; the rest of the shelf stays free for others.
MAX_RECORDS_PER_PUBLISHER: Final = 20_000
# Evidence is for people: a few pieces are as good as many.
_MAX_EVIDENCE: Final = 16


class RecordStore(Protocol):
    """Where records outlive the process."""

    def save_record(self, target: bytes, data: bytes, *, expires_at: int, own: bool) -> None:
        """Keep an encoded record in the place of any older one of its target.

        Raises:
            StoreError: The store cannot be written.
        """
        ...

    def delete_records(self, *, expired_at: int) -> None:
        """Forget records whose end of life has come.

        Raises:
            StoreError: The store cannot be written.
        """
        ...

    def load_records(self) -> Iterable[tuple[bytes, bool]]:
        """Return every encoded record kept, and whether it is our own to publish.

        Raises:
            StoreError: The store cannot be read.
        """
        ...


@dataclass(slots=True)
class _Held:
    record: Record
    own: bool
    keep_until: int = 0
    due_at: int = 0


class Shelf:
    """Verified records by target."""

    def __init__(
        self,
        *,
        store: RecordStore | None = None,
        max_records: int = MAX_RECORDS,
        max_per_publisher: int = MAX_RECORDS_PER_PUBLISHER,
    ) -> None:
        """Start empty; call `load` for what ``store`` has kept."""
        self._store = store
        self._max_records = max_records
        self._max_per_publisher = max_per_publisher
        self._held: dict[bytes, _Held] = {}
        self._per_publisher: Counter[PublicKey] = Counter()
        self._schedule: list[tuple[int, bytes]] = []
        self.equivocations: list[tuple[Record, Record]] = []

    def __len__(self) -> int:
        return len(self._held)

    def load(self, *, now: int, chance: float) -> None:
        """Take in what the store has kept and is still alive.

        Raises:
            StoreError: The store cannot be read or written.
        """
        if self._store is None:
            return
        self._store.delete_records(expired_at=now)
        for data, own in self._store.load_records():
            try:
                record = verify_record(data, now=now)
            except (FormatError, LimitError, VerificationError):
                continue
            self._place(_Held(record, own), now=now, chance=chance)

    def take(self, record: Record, *, now: int, chance: float, own: bool = False) -> Verdict:
        """Take in a verified record.

        Args:
            record: Verified by `authd.core.records.verify_record`.
            now: Seconds since the Unix epoch.
            chance: From [0, 1): spreads the time of republishing.
            own: This node publishes it: it stays to its end of life and no quota applies.

        Raises:
            StoreError: It could not be made durable, and was not taken.
        """
        held = self._held.get(record.target) if self.get(record.target, now=now) else None
        try:
            chosen = newest(held.record if held else None, record)
        except StaleRecordError:
            return Verdict.STALE
        except EquivocationError:
            self._note_equivocation(held, record)
            return Verdict.STALE
        if held and held.record == chosen and held.own >= own:
            return Verdict.ACCEPTED
        if not held and not own and not self._has_room(record.publisher):
            return Verdict.QUOTA
        placed = _Held(record, own or (held is not None and held.own))
        if self._store is not None:
            self._store.save_record(
                record.target,
                encode_record(record),
                expires_at=record.expires_at,
                own=placed.own,
            )
        self._place(placed, now=now, chance=chance)
        return Verdict.ACCEPTED

    def get(self, target: bytes, *, now: int) -> Record | None:
        """Return the record of a target if it is alive."""
        held = self._held.get(target)
        if held is None:
            return None
        if held.keep_until <= now:
            self._drop(target)
            return None
        return held.record

    def is_own(self, target: bytes) -> bool:
        """Say whether this node publishes the record of a target."""
        held = self._held.get(target)
        return held is not None and held.own

    def forget_expired(self, *, now: int) -> None:
        """Delete from the store what has died; memory lets go of it by itself.

        Raises:
            StoreError: The store cannot be written.
        """
        if self._store is not None:
            self._store.delete_records(expired_at=now)

    def records(self, *, now: int) -> list[Record]:
        """Return every live record."""
        return [one.record for one in self._held.values() if one.keep_until > now]

    def due(self, *, now: int, most: int) -> list[Record]:
        """Return up to ``most`` records whose time to be republished has come; drop dead ones.

        Each is to be handed to `renew` or `postpone` afterwards.
        """
        records: list[Record] = []
        while self._schedule and self._schedule[0][0] <= now and len(records) < most:
            due_at, target = heapq.heappop(self._schedule)
            held = self._held.get(target)
            if held is None or held.due_at != due_at:
                continue
            if held.keep_until <= now:
                self._drop(target)
            else:
                records.append(held.record)
        return records

    def renew(self, target: bytes, *, now: int, chance: float) -> None:
        """Keep a record for another time to live: this node is among those that should hold it."""
        held = self._held.get(target)
        if held is not None:
            held.keep_until = _keep_until(held, now)
            self._plan(target, held, now=now, chance=chance)

    def postpone(self, target: bytes, *, now: int, chance: float) -> None:
        """Plan the next republishing without keeping the record longer."""
        held = self._held.get(target)
        if held is not None:
            self._plan(target, held, now=now, chance=chance)

    def _has_room(self, publisher: PublicKey) -> bool:
        return (
            len(self._held) < self._max_records
            and self._per_publisher[publisher] < self._max_per_publisher
        )

    def _place(self, held: _Held, *, now: int, chance: float) -> None:
        target = held.record.target
        if target not in self._held:
            self._per_publisher[held.record.publisher] += 1
        held.keep_until = _keep_until(held, now)
        self._held[target] = held
        self._plan(target, held, now=now, chance=chance)

    def _plan(self, target: bytes, held: _Held, *, now: int, chance: float) -> None:
        half_s = min(MAX_REPUBLISH_S, (held.keep_until - now) // 2)
        # From 80 to 100 % of it: holders of one record must not all wake at once.
        held.due_at = now + max(MIN_REPUBLISH_S, int(half_s * (0.8 + 0.2 * chance)))
        heapq.heappush(self._schedule, (held.due_at, target))

    def _drop(self, target: bytes) -> None:
        held = self._held.pop(target)
        self._per_publisher[held.record.publisher] -= 1
        if not self._per_publisher[held.record.publisher]:
            del self._per_publisher[held.record.publisher]

    def _note_equivocation(self, held: _Held | None, offered: Record) -> None:
        if held is not None and len(self.equivocations) < _MAX_EVIDENCE:
            self.equivocations.append((held.record, offered))


def _keep_until(held: _Held, now: int) -> int:
    end = held.record.expires_at
    return end if held.own else min(end, now + TIME_TO_LIVE_S)
