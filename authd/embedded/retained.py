"""Who published what this broker retains, so that the daemon can say what a client left behind."""

from typing import Final, TypeAlias

# As in the contract: what one report names. A longer topic is only counted.
MAX_TOPICS: Final = 32
MAX_TOPIC_BYTES: Final = 256

Owner: TypeAlias = tuple[str, str]
"""Client id and key id."""


class RetainedTopics:
    """Topic → who published the message that is retained there.

    It is bounded by its user, who notes no more topics than there are retained messages.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._owners: dict[str, Owner] = {}
        self._topics: dict[Owner, dict[str, None]] = {}

    def note(self, topic: str, owner: Owner) -> None:
        """Note whose message is retained now; it is the owner's newest."""
        self.forget(topic)
        self._owners[topic] = owner
        self._topics.setdefault(owner, {})[topic] = None

    def forget(self, topic: str) -> None:
        """Note that nothing is retained there, or nothing that a client published."""
        owner = self._owners.pop(topic, None)
        if owner is not None:
            topics = self._topics[owner]
            del topics[topic]
            if not topics:
                del self._topics[owner]

    def of(self, owner: Owner) -> tuple[tuple[str, ...], int]:
        """Return the newest topics of an owner, newest last, and how many more there are."""
        topics = self._topics.get(owner, {})
        short = [topic for topic in topics if len(topic.encode()) <= MAX_TOPIC_BYTES]
        named = tuple(short[-MAX_TOPICS:])
        return named, len(topics) - len(named)
