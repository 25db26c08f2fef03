"""The routing table: buckets of the `kademlia` library, under our own rules of admission.

The library's `RoutingTable` holds and splits the `KBucket`s. What differs from it: a contact gets
in only through `admit`, which the caller uses after a verified answer; `nearest` is exact; a
contact leaves after some unanswered requests in a row, not after one; ids are filed and sought by
the same rule; and nothing here starts a task or sends anything.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from kademlia.node import Node
from kademlia.routing import KBucket, RoutingTable

from authd.core.identity import PublicKey
from authd.dht.messages import Address

BUCKET_SIZE: Final = 20
# One lost datagram is common, three requests of two tries each are not.
MAX_STRIKES: Final = 3
# RFC 6298 §2: the weight of a new measurement.
_RTT_WEIGHT: Final = 1 / 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """A node that may be asked; ``key`` is None until it has answered."""

    node_id: bytes
    address: Address
    key: PublicKey | None = None


class _Entry(Node):  # type: ignore[misc]  # the library ships no types
    """The library's node with what is known of the contact."""

    def __init__(self, contact: Contact, *, rtt_s: float, seen_at: float) -> None:
        super().__init__(contact.node_id, *contact.address)
        self.contact = contact
        self.srtt_s = rtt_s
        self.seen_at = seen_at
        self.strikes = 0


class Table:
    """Contacts that have answered and are admitted."""

    def __init__(self, *, own_id: bytes, bucket_size: int = BUCKET_SIZE) -> None:
        """Start empty; ``own_id`` decides which buckets are split."""
        self._own = Node(own_id)
        self._table = RoutingTable(None, bucket_size, self._own)

    def __len__(self) -> int:
        return sum(len(bucket) for bucket in self._table.buckets)

    def __contains__(self, node_id: bytes) -> bool:
        return self.get(node_id) is not None

    def admit(self, contact: Contact, *, rtt_s: float, now: float) -> bool:
        """File a contact after an answer; return whether it is new and stands in a bucket.

        A known node's address changes only once the old one has stopped answering: an answer
        relayed through somebody else's address must not redirect traffic to it.

        Args:
            contact: With its key; it has answered, and its admission was checked.
            rtt_s: How long the answer took.
            now: Monotonic seconds.
        """
        if contact.node_id == self._own.id:
            return False
        known = self._find(contact.node_id)
        if known is not None and known.contact.address != contact.address:
            if not known.strikes:
                return False
            self.remove(contact.node_id)
            known = None
        if known is not None:
            known.srtt_s += _RTT_WEIGHT * (rtt_s - known.srtt_s)
            known.seen_at, known.strikes = now, 0
            return False
        return self._add(_Entry(contact, rtt_s=rtt_s, seen_at=now))

    def strike(self, node_id: bytes) -> bool:
        """Count an unanswered request; return whether the contact was evicted for it."""
        entry = self._find(node_id)
        if entry is None:
            return False
        entry.strikes += 1
        if entry.strikes < MAX_STRIKES:
            return False
        self.remove(node_id)
        return True

    def remove(self, node_id: bytes) -> None:
        """Take a contact out; one that waited for a place in its bucket moves up."""
        node = Node(node_id)
        self._bucket_of(node)[1].remove_node(node)

    def get(self, node_id: bytes) -> Contact | None:
        """Find a contact that stands in a bucket."""
        entry = self._bucket_of(Node(node_id))[1][node_id]
        return None if entry is None else entry.contact

    def srtt_s(self, node_id: bytes) -> float | None:
        """Return the smoothed round-trip time of a contact in seconds; None if unknown."""
        entry = self._find(node_id)
        return None if entry is None else entry.srtt_s

    def nearest(
        self,
        target: bytes,
        *,
        count: int,
        exclude: frozenset[bytes] = frozenset(),
    ) -> list[Contact]:
        """Return the ``count`` contacts nearest to ``target``, nearest first; exact."""
        wanted = Node(target)
        entries = [entry for entry in self._entries() if entry.id not in exclude]
        entries.sort(key=wanted.distance_to)
        return [entry.contact for entry in entries[:count]]

    def contacts(self) -> list[Contact]:
        """Return every contact that stands in a bucket."""
        return [entry.contact for entry in self._entries()]

    def silent(self, *, since: float, count: int) -> list[Contact]:
        """Return up to ``count`` contacts not heard of after ``since``, longest silent first."""
        entries = [entry for entry in self._entries() if entry.seen_at < since]
        entries.sort(key=lambda entry: entry.seen_at)
        return [entry.contact for entry in entries[:count]]

    def _entries(self) -> Iterator[_Entry]:
        return itertools.chain.from_iterable(b.get_nodes() for b in self._table.buckets)

    def _find(self, node_id: bytes) -> _Entry | None:
        _, bucket = self._bucket_of(Node(node_id))
        entry: _Entry | None = bucket[node_id] or bucket.replacement_nodes.get(node_id)
        return entry

    def _bucket_of(self, node: Node) -> tuple[int, KBucket]:
        # Both ends of a bucket's range belong to it, as its `split` files them.
        buckets = enumerate(self._table.buckets)
        return next((i, bucket) for i, bucket in buckets if bucket.has_in_range(node))

    def _add(self, entry: _Entry) -> bool:
        while True:
            index, bucket = self._bucket_of(entry)
            if bucket.add_node(entry):
                return True
            # Split if the bucket holds our own place, or to the depth of five bits a step
            # (Kademlia, Maymounkov and Mazieres 2002, §4.2). What is full otherwise keeps the
            # newcomer in its list of replacements.
            if not bucket.has_in_range(self._own) and bucket.depth() % 5 == 0:
                return False
            bucket.replacement_nodes.pop(entry.id, None)
            self._table.split_bucket(index)
