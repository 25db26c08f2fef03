"""What each admitted client may do, answered from memory.

An admission is what the daemon said at CONNECT, or since then on the event stream. It is an
immutable value and is replaced whole. A client without an admission may do nothing, and so may
one whose lease has ended: the clock is asked at every question. Times are seconds on a monotonic
clock, half-open: nothing may be used at its end or later.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from authd.core import topics

# amqtt has no shared subscriptions: it would treat the group as levels of a topic.
_SHARE: Final = "$share"


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """One filter and what may be done on it before ``ends_at``."""

    topic_filter: str
    publish: bool
    subscribe: bool
    ends_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """A client that the daemon allowed, as which key, and until when."""

    client_id: str
    session_id: str
    key_id: str
    rights: tuple[Right, ...]
    lease_ends_at: float
    publish_will: bool

    def may_publish(self, name: str, *, now: float) -> bool:
        """Say whether a message may be published under this topic name."""
        return any(
            right.publish and topics.matches(right.topic_filter, name)
            for right in self._rights_at(now)
        )

    def may_receive(self, name: str, *, now: float) -> bool:
        """Say whether a message under this topic name may be delivered."""
        return any(
            right.subscribe and topics.matches(right.topic_filter, name)
            for right in self._rights_at(now)
        )

    def may_subscribe(self, topic_filter: str, *, now: float) -> bool:
        """Say whether everything under this filter may be delivered; shared forms never."""
        if topic_filter.startswith(_SHARE):
            return False
        return any(
            right.subscribe and topics.covers(right.topic_filter, topic_filter)
            for right in self._rights_at(now)
        )

    def _rights_at(self, now: float) -> Iterable[Right]:
        if now >= self.lease_ends_at:
            return ()
        return (right for right in self.rights if now < right.ends_at)


class Admissions:
    """The table client id → admission, with the clock that every answer needs."""

    def __init__(self, *, monotonic: Callable[[], float]) -> None:
        """Start empty; ``monotonic`` gives seconds that never run back."""
        self._now = monotonic
        self._held: dict[str, Admission] = {}

    def get(self, client_id: str) -> Admission | None:
        """Look up a client, whether or not its lease still runs."""
        return self._held.get(client_id)

    def held(self) -> tuple[Admission, ...]:
        """List everything held."""
        return tuple(self._held.values())

    def put(self, admission: Admission) -> None:
        """Admit a client, replacing what was held for its client id."""
        self._held[admission.client_id] = admission

    def change_lease(self, session_id: str, ends_at: float) -> str | None:
        """Move the end of one session's lease; return its client id, or None if it is not held.

        A right that ended with the old lease ends with the new one; one that ends before the
        lease keeps its own end.
        """
        for held in self._held.values():
            if held.session_id == session_id:
                rights = tuple(
                    replace(right, ends_at=ends_at)
                    if right.ends_at >= held.lease_ends_at
                    else right
                    for right in held.rights
                )
                self.put(replace(held, rights=rights, lease_ends_at=ends_at))
                return held.client_id
        return None

    def drop(self, client_id: str) -> None:
        """Forget a client: from here on it may do nothing."""
        self._held.pop(client_id, None)

    def is_current(self, client_id: str) -> bool:
        """Say whether the client is admitted now."""
        return self.seconds_left(client_id) > 0

    def seconds_left(self, client_id: str) -> float:
        """Compute how long the lease still runs; 0 if it does not."""
        held = self._held.get(client_id)
        return 0.0 if held is None else max(0.0, held.lease_ends_at - self._now())

    def may_publish(self, client_id: str, name: str) -> bool:
        """Say whether the client may publish under the topic name now."""
        held = self._held.get(client_id)
        return held is not None and held.may_publish(name, now=self._now())

    def may_receive(self, client_id: str, name: str) -> bool:
        """Say whether a message under the topic name may go to the client now."""
        held = self._held.get(client_id)
        return held is not None and held.may_receive(name, now=self._now())

    def may_subscribe(self, client_id: str, topic_filter: str) -> bool:
        """Say whether the client may subscribe to the filter now."""
        held = self._held.get(client_id)
        return held is not None and held.may_subscribe(topic_filter, now=self._now())
