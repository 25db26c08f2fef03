"""Lookup as a state machine without input or output.

``start``, ``on_answer``, ``on_failure`` and ``on_timer`` return the contacts to ask now; when
``done`` becomes true the result is final. There are no rounds: as soon as one contact answers,
fails or grows late, the next nearest is asked.

::

    NEW ──ask──► ASKED ──late──► LATE (asked a second time, no longer counted in alpha)
                   │               │
                   ├──answer───────┴──► ANSWERED
                   └──error, late ────► FAILED      (a later answer still counts)

A read ends when three nodes have shown the record, or one has and the three nearest have answered,
or, without any record, when the eight nearest have answered; then it listens for one more round
trip to what is under way and takes the newest. A write ends when the k nearest have answered.
"""

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from kademlia.node import Node

from authd.core.records import Record, newest
from authd.dht.table import Contact
from authd.errors import EquivocationError, StaleRecordError

ALPHA: Final = 6
REPLICAS: Final = 20
WANTED_ANSWERS: Final = 3
# An absence is believed only when this many of the nearest say so: joiners may lack the record.
ABSENT_ANSWERS: Final = 8
MAX_REQUESTS: Final = 60
MIN_TIMEOUT_S: Final = 0.05
MAX_TIMEOUT_S: Final = 1.0
_TIMEOUT_RTTS: Final = 4


class _Stage(enum.Enum):
    NEW = enum.auto()
    ASKED = enum.auto()
    LATE = enum.auto()
    ANSWERED = enum.auto()
    FAILED = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One node's verified answer.

    Attributes:
        contact: Who answered.
        token: For storing there.
        seq: Of the record it holds; -1 for none.
        record: The record, verified, if it showed one.
        nodes: Whom it named.
    """

    contact: Contact
    token: bytes = b""
    seq: int = -1
    record: Record | None = None
    nodes: tuple[Contact, ...] = ()


@dataclass(slots=True)
class _Candidate:
    contact: Contact
    distance: int
    stage: _Stage = _Stage.NEW
    asked_at: float = 0.0
    due_at: float = 0.0
    finding: Finding | None = None


def timeout_s(srtt_s: float) -> float:
    """Compute how long to wait for an answer: 4 x SRTT within 50 ms and 1 s."""
    return min(MAX_TIMEOUT_S, max(MIN_TIMEOUT_S, _TIMEOUT_RTTS * srtt_s))


class Lookup:
    """One lookup of a record (``reading``) or of the nodes that should hold it."""

    def __init__(
        self,
        *,
        target: bytes,
        own_id: bytes,
        reading: bool,
        contacts: Iterable[Contact],
        srtt_s: Callable[[bytes], float],
        dead: frozenset[bytes] = frozenset(),
    ) -> None:
        """Prepare.

        Args:
            target: 20 bytes.
            own_id: Never asked.
            reading: End early when the record is found.
            contacts: Where to begin.
            srtt_s: Smoothed round-trip time to expect of a node, seconds.
            dead: Nodes that did not answer others lately; not asked.
        """
        self._target = Node(target)
        self._reading = reading
        self._srtt_s = srtt_s
        self._ignored = dead | {own_id}
        self._candidates: dict[bytes, _Candidate] = {}
        self._order: list[_Candidate] = []
        self._requests = 0
        self._listen_until: float | None = None
        self._last_rtt_s = MIN_TIMEOUT_S
        self.done = False
        self._learn(contacts)

    # --- events -----------------------------------------------------------------------------

    def start(self, now: float) -> list[Contact]:
        """Begin; ``now`` is monotonic seconds here and below."""
        return self._next(now)

    def on_answer(self, finding: Finding, now: float) -> list[Contact]:
        """Take in a verified answer."""
        candidate = self._candidates.get(finding.contact.node_id)
        if candidate is None or self.done:
            return []
        candidate.contact = finding.contact
        candidate.stage = _Stage.ANSWERED
        candidate.finding = finding
        self._last_rtt_s = max(0.0, now - candidate.asked_at)
        self._learn(finding.nodes)
        return self._next(now)

    def on_failure(self, node_id: bytes, now: float) -> list[Contact]:
        """Take in that a node refused, or answered with something that does not hold."""
        candidate = self._candidates.get(node_id)
        if candidate is not None and candidate.stage is not _Stage.ANSWERED:
            candidate.stage = _Stage.FAILED
        return self._next(now)

    def on_timer(self, now: float) -> list[Contact]:
        """Take in that time has passed."""
        again: list[Contact] = []
        for candidate in self._waiting():
            if candidate.due_at > now:
                continue
            if candidate.stage is _Stage.LATE or self._requests >= MAX_REQUESTS:
                candidate.stage = _Stage.FAILED
            else:
                again.append(self._ask(candidate, now, stage=_Stage.LATE))
        return again + self._next(now)

    def wakes_at(self) -> float | None:
        """Say when `on_timer` is due; None when nothing is waited for."""
        due = [candidate.due_at for candidate in self._waiting()]
        if self._listen_until is not None:
            due.append(self._listen_until)
        return min(due, default=None)

    # --- results ----------------------------------------------------------------------------

    def findings(self) -> list[Finding]:
        """Return every answer, nearest node first."""
        return [one.finding for one in self._order if one.finding is not None]

    def failed(self) -> list[bytes]:
        """Return the ids of nodes that were asked and did not answer well."""
        return [one.contact.node_id for one in self._order if one.stage is _Stage.FAILED]

    def newest_record(self) -> Record | None:
        """Return the newest record that was shown.

        Of two with one seq, which only a dishonest publisher signs, the first in order of
        distance is taken, so that all readers choose alike.
        """
        held: Record | None = None
        for finding in self.findings():
            if finding.record is None:
                continue
            try:
                held = newest(held, finding.record)
            except (StaleRecordError, EquivocationError):
                continue
        return held

    # --- inside -----------------------------------------------------------------------------

    def _learn(self, contacts: Iterable[Contact]) -> None:
        for contact in contacts:
            if contact.node_id in self._ignored or contact.node_id in self._candidates:
                continue
            distance = self._target.distance_to(Node(contact.node_id))
            candidate = _Candidate(contact, distance)
            self._candidates[contact.node_id] = candidate
            self._order.append(candidate)
        self._order.sort(key=lambda one: one.distance)

    def _waiting(self) -> list[_Candidate]:
        return [one for one in self._order if one.stage in {_Stage.ASKED, _Stage.LATE}]

    def _ask(self, candidate: _Candidate, now: float, *, stage: _Stage) -> Contact:
        candidate.stage = stage
        candidate.asked_at = now
        candidate.due_at = now + timeout_s(self._srtt_s(candidate.contact.node_id))
        self._requests += 1
        return candidate.contact

    def _next(self, now: float) -> list[Contact]:
        if self.done or self._settle(now):
            return []
        asked: list[Contact] = []
        under_way = sum(one.stage is _Stage.ASKED for one in self._order)
        for candidate in self._near():
            if under_way >= ALPHA or self._requests >= MAX_REQUESTS:
                break
            if candidate.stage is _Stage.NEW:
                asked.append(self._ask(candidate, now, stage=_Stage.ASKED))
                under_way += 1
        if not asked and not self._waiting():
            self.done = True
        return asked

    def _near(self) -> list[_Candidate]:
        alive = [one for one in self._order if one.stage is not _Stage.FAILED]
        return alive[:REPLICAS]

    def _settle(self, now: float) -> bool:
        if self._listen_until is None and self._is_enough():
            self._listen_until = now + self._last_rtt_s if self._reading else now
        if self._listen_until is not None:
            self.done = now >= self._listen_until or not self._waiting()
            return True
        return False

    def _is_enough(self) -> bool:
        if not self._reading:
            return self._have_answered(REPLICAS)
        shown = sum(one.finding is not None and one.finding.seq >= 0 for one in self._order)
        if shown:
            return shown >= WANTED_ANSWERS or self._have_answered(WANTED_ANSWERS)
        return self._have_answered(ABSENT_ANSWERS)

    def _have_answered(self, count: int) -> bool:
        near = self._near()
        return len(near) >= count and all(one.stage is _Stage.ANSWERED for one in near[:count])
