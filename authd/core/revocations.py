"""Heartbeat chains and freshness: how a daemon knows that it knows every revocation.

Each heartbeat key keeps an append-only list of the revocations it has accepted for its domain and
signs the head of that list, h_n = SHA-256(h_{n-1} ‖ revocation id) with h_0 = 32 zero bytes. A head
counts at a daemon only once the daemon *holds* every entry up to n and has recomputed h_n, so
"fresh" implies "complete". A domain is fresh while more than half of the heartbeat keys of its
newest root have live heads so proven; the denominator never shrinks.

A list can be closed: the key goes on with a new one, in a higher epoch and under the last head of
the old one. `authd.core.endings` says what it may leave out.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from authd.core import limits
from authd.core.identity import PublicKey, StatementId
from authd.core.roots import Root
from authd.core.statements import Heartbeat, ListEnd
from authd.errors import EquivocationError, LimitError, StaleRecordError

EMPTY_HEAD: Final = bytes(32)


def extend_head(head: bytes, ids: Iterable[StatementId]) -> bytes:
    """Compute the head after appending ``ids``."""
    for revocation_id in ids:
        head = hashlib.sha256(head + revocation_id).digest()
    return head


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """One heartbeat key's list as far as its order is known here, in one epoch."""

    epoch: int
    ids: tuple[StatementId, ...] = ()
    head: bytes = EMPTY_HEAD

    @property
    def end(self) -> ListEnd:
        """How it ends as far as it is known."""
        return ListEnd(self.epoch, len(self.ids), self.head)

    def append(self, ids: Iterable[StatementId]) -> "Chain":
        """Return the chain with ``ids`` at its end.

        Raises:
            LimitError: More than ``limits.MAX_CHAIN_ENTRIES``.
        """
        added = tuple(ids)
        if len(self.ids) + len(added) > limits.MAX_CHAIN_ENTRIES:
            raise LimitError("heartbeat chain: too many entries, a new epoch is needed")
        return replace(self, ids=self.ids + added, head=extend_head(self.head, added))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyView:
    """What a daemon knows about one heartbeat key of a domain.

    Attributes:
        chain: The part of its list whose order is known.
        newest: The newest head by (epoch, count, time), proven or not.
        proven: The newest head whose whole list is held here.
        live_until: Until when ``proven`` is live at most; seconds since the Unix epoch.
        equivocated: It signed two heads that cannot both be; it no longer counts.
        signed_version: The highest root version a head of it named.
        closed_heads: The last heads of the lists before this one, the oldest first: another list
            that began in their place contradicts them, and whoever is behind needs them to follow.
        closed_ids: What the last list that was proven named, until the one that goes on from it is.
    """

    chain: Chain = field(default_factory=lambda: Chain(epoch=0))
    newest: Heartbeat | None = None
    proven: Heartbeat | None = None
    live_until: int = 0
    equivocated: bool = False
    signed_version: int = 0
    closed_heads: tuple[Heartbeat, ...] = ()
    closed_ids: frozenset[StatementId] = frozenset()

    @property
    def closed(self) -> Heartbeat | None:
        """The last head of the list before this one."""
        return self.closed_heads[-1] if self.closed_heads else None

    @property
    def end(self) -> ListEnd | None:
        """How the newest list known ends; None if nothing is known of the key."""
        if self.newest is not None:
            return self.newest.end
        return self.chain.end if self.chain.epoch else None


@dataclass(frozen=True, slots=True)
class Gap:
    """Entries ``[start, end)`` of a key's list that are needed to prove its newest head."""

    key: PublicKey
    epoch: int
    start: int
    end: int


def observe(view: KeyView, heartbeat: Heartbeat, *, now: int) -> KeyView:
    """Take in a verified head; whether it is proven is for `prove` to say.

    Args:
        view: What was known.
        heartbeat: Verified; of this key and domain.
        now: Seconds since the Unix epoch.

    Raises:
        LimitError: Signed more than 5 s ahead of ``now``: not counted.
        StaleRecordError: Not newer than the newest, or of a new list that does not name the head
            of the one before.
        EquivocationError: It and the newest `contradict`; mark the key with `mark_equivocation`.
    """
    if heartbeat.issued_at > now + limits.HEARTBEAT_AHEAD_S:
        raise LimitError(
            f"heartbeat: signed {heartbeat.issued_at - now} s ahead of this host's clock",
        )
    newest = view.newest
    if newest is not None:
        if contradict(newest, heartbeat):
            raise EquivocationError("heartbeat: two lists of one key")
        if order(heartbeat) <= order(newest):
            raise StaleRecordError("heartbeat: not newer than the one held")
    if heartbeat.epoch != view.chain.epoch:
        _check_epoch(view, heartbeat)
        kept = view.closed_ids or frozenset(view.chain.ids)
        view = close(view, Chain(epoch=heartbeat.epoch))
        view = replace(view, closed_ids=kept)
    return replace(
        view,
        chain=_extend_by_recent(view.chain, heartbeat),
        newest=heartbeat,
        signed_version=max(view.signed_version, heartbeat.root_version),
    )


def close(view: KeyView, chain: Chain) -> KeyView:
    """Return the view with a new list in the place of the one that was."""
    heads = (*view.closed_heads, view.newest) if view.newest else view.closed_heads
    return replace(view, chain=chain, closed_heads=heads[-limits.MAX_CLOSED_HEADS :])


def _check_epoch(view: KeyView, heartbeat: Heartbeat) -> None:
    if view.end is None:
        return
    if heartbeat.epoch < view.chain.epoch:
        raise StaleRecordError("heartbeat: of a list that was closed")
    if heartbeat.previous != view.end:
        # Otherwise a thief of the key could begin a list that leaves out what the old one holds.
        raise StaleRecordError("heartbeat: a new list that does not name the end of the old one")


def contradict(one: Heartbeat, other: Heartbeat) -> bool:
    """Say whether two heads cannot both be of one key that keeps one list after the other.

    Within an epoch the ids that the later one names have to lead from the earlier one to it, if
    they are enough. A head that names no list before it contradicts none of another epoch: a key
    that lost all it knew is no use to those who know more, but it has not lied.

    Args:
        one: A head.
        other: Another of the same key.
    """
    earlier, later = sorted((one, other), key=order)
    before = later.previous
    if earlier.epoch == later.epoch:
        forked = before != earlier.previous and None not in (before, earlier.previous)
        new = later.count - earlier.count
        if forked or new > len(later.recent):
            return forked
        return extend_head(earlier.head, later.recent[len(later.recent) - new :]) != later.head
    if before is None:
        return False
    if earlier.epoch != before.epoch:
        return earlier.epoch > before.epoch and earlier.previous is not None
    return earlier.count > before.count or (
        earlier.count == before.count and earlier.head != before.head
    )


def mark_equivocation(view: KeyView) -> KeyView:
    """Return the view of a key that proved itself dishonest: it never counts again."""
    return replace(view, equivocated=True, proven=None, live_until=0)


def order(heartbeat: Heartbeat) -> tuple[int, int, int]:
    """Return what heads of one key are newer by: epoch, length and time."""
    return heartbeat.epoch, heartbeat.count, heartbeat.issued_at


def _extend_by_recent(chain: Chain, heartbeat: Heartbeat) -> Chain:
    missing = heartbeat.count - len(chain.ids)
    if not 0 < missing <= len(heartbeat.recent):
        return chain
    extended = chain.append(heartbeat.recent[-missing:])
    return extended if extended.head == heartbeat.head else chain


def gap(view: KeyView) -> Gap | None:
    """Name the entries whose order is still unknown; None if nothing is missing."""
    newest = view.newest
    if newest is None or view.equivocated or len(view.chain.ids) >= newest.count:
        return None
    return Gap(newest.issuer, newest.epoch, len(view.chain.ids), newest.count)


def fill(view: KeyView, found: Gap, ids: tuple[StatementId, ...]) -> KeyView:
    """Take in entries that a peer sent for a gap; they count once they lead to a signed head.

    Returns:
        The extended view, or the same one if the entries do not lead to the newest head.
    """
    newest = view.newest
    fits = (
        newest is not None
        and found == gap(view)
        and len(ids) == found.end - found.start
        and extend_head(view.chain.head, ids) == newest.head
    )
    return replace(view, chain=view.chain.append(ids)) if fits else view


def prove(
    view: KeyView,
    *,
    holds: Callable[[StatementId], bool],
    received_at: int,
    needed: Callable[[StatementId, int], bool] = lambda _one, _at: False,
) -> KeyView:
    """Count the newest head if its whole list is known, held, and hashes to it.

    A new list that leaves out what the one before named, and what was still needed when its head
    was signed, is a lie: the key never counts again.

    Args:
        view: What is known.
        holds: Says whether a revocation is held (verified and persisted).
        received_at: When the newest head was first received, on the clock that never runs back.
        needed: Says whether a revocation is known to be needed at a time, seconds since the Unix
            epoch; what it is about may not be known here.
    """
    newest = view.newest
    if newest is None or view.equivocated or view.proven == newest:
        return view
    if len(view.chain.ids) != newest.count or view.chain.head != newest.head:
        return view
    already = view.proven.count if view.proven and view.proven.epoch == newest.epoch else 0
    if not all(holds(revocation_id) for revocation_id in view.chain.ids[already:]):
        return view
    if view.closed_ids:
        left_out = view.closed_ids.difference(view.chain.ids)
        if any(needed(one, newest.issued_at) for one in left_out):
            return mark_equivocation(view)
    live_until = min(newest.expires_at, received_at + limits.HEARTBEAT_LIFE_S)
    return replace(
        view,
        proven=newest,
        live_until=max(view.live_until, live_until),
        closed_ids=frozenset(),
    )


@dataclass(frozen=True, slots=True)
class HandOver:
    """Heartbeat keys of one root version that have yet to sign for the next."""

    version: int
    keys: tuple[PublicKey, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainView:
    """Every heartbeat key of a domain, seen from one daemon.

    Attributes:
        root: The newest root.
        pending: Hand-overs that may be incomplete, the oldest first: roots can arrive faster than
            their keys sign, and none of them may be skipped.
        views: By heartbeat key, also keys of the pending versions.
    """

    root: Root
    pending: tuple[HandOver, ...] = ()
    views: dict[PublicKey, KeyView] = field(default_factory=dict)

    def view(self, key: PublicKey) -> KeyView:
        """Return what is known about a key."""
        return self.views.get(key, KeyView())

    def with_view(self, key: PublicKey, view: KeyView) -> "DomainView":
        """Return the domain with one key's view replaced; a hand-over that is over stays over."""
        changed = replace(self, views={**self.views, key: view})
        pending = tuple(one for one in self.pending if not changed._is_over(one))  # noqa: SLF001 - of its own kind
        return replace(changed, pending=pending)

    def with_root(self, root: Root) -> "DomainView":
        """Return the domain under its next root; one with ``reset`` waits for no hand-over."""
        handing = HandOver(root.version, self.root.heartbeat_keys)
        return replace(self, root=root, pending=() if root.reset else (*self.pending, handing))

    @property
    def keys(self) -> tuple[PublicKey, ...]:
        """Every key whose heads are of interest: of this root and of those that hand over."""
        before = [key for one in reversed(self.pending) for key in one.keys]
        return tuple(dict.fromkeys([*self.root.heartbeat_keys, *before]))

    @property
    def handed_over(self) -> bool:
        """Whether more than half of each former version's keys signed a head naming its next.

        Until then a partition that has not heard of the new root could still be counted fresh by
        the old keys while the new ones accept revocations of their own.
        """
        return all(map(self._is_over, self.pending))

    def _is_over(self, one: HandOver) -> bool:
        views = [self.view(key) for key in one.keys]
        signed = [view for view in views if view.signed_version >= one.version]
        # A key that signed two lists counts for nothing, here as elsewhere.
        return 2 * sum(not view.equivocated for view in signed) > len(views)

    def fresh_until(self) -> int:
        """Say until when more than half of the keys have live, proven heads; 0 for never."""
        if not self.handed_over:
            return 0
        ends = sorted(
            (self._live_until(key) for key in self.root.heartbeat_keys),
            reverse=True,
        )
        return ends[len(ends) // 2]

    def _live_until(self, key: PublicKey) -> int:
        view = self.view(key)
        counts = view.proven is not None and view.proven.root_version == self.root.version
        return view.live_until if counts else 0

    def in_force(self, revocation_id: StatementId) -> bool:
        """Say whether more than half of the keys have signed a head that contains a revocation."""
        containing = sum(revocation_id in self._proven_ids(key) for key in self.root.heartbeat_keys)
        return 2 * containing > len(self.root.heartbeat_keys)

    def _proven_ids(self, key: PublicKey) -> tuple[StatementId, ...]:
        view = self.view(key)
        if view.proven is None or view.proven.epoch != view.chain.epoch:
            return ()
        return view.chain.ids[: view.proven.count]
