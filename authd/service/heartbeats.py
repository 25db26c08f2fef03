"""Heartbeats at one daemon: taking in heads, proving them, signing its own, and freshness."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from authd.core import limits
from authd.core.claims import Kind
from authd.core.identity import DomainId, PublicKey, SigningKey, StatementId, key_id_text
from authd.core.quotas import Branches, to_list
from authd.core.revocations import (
    Chain,
    DomainView,
    Gap,
    KeyView,
    fill,
    gap,
    mark_equivocation,
    observe,
    prove,
)
from authd.core.roots import Root
from authd.core.statements import Heartbeat, sign_heartbeat
from authd.core.trust import TrustState
from authd.errors import EquivocationError, StaleRecordError, StoreError
from authd.service.ports import Clock, Item, StatementStore, StoredStatement

_List: TypeAlias = tuple[DomainId, PublicKey]
"""The list of a heartbeat key of a domain."""
_REMEMBERED_HEADS: Final = 64
# Half of what others tolerate, so that their clocks may be off by the other half.
_MOST_AHEAD_S: Final = limits.HEARTBEAT_AHEAD_S // 2
BEAT_S: Final = limits.HEARTBEAT_LIFE_S // 3
"""A head is signed every third of its life, so that two may get lost."""


RESTORE_WAIT_S: Final = 30.0
"""How long a restored daemon listens for its own newest head after a peer has told it any.

Every stream begins with all heads that the other end knows; this is long enough for several.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """The store is an old copy: the own list may have gone on after it was made.

    Attributes:
        alone: No other daemon can know more: nobody need be waited for.
        done: Called when the new list and its head are on disk.
    """

    alone: bool
    done: Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unlisted:
    """What was held and not on the own list when last looked at.

    Attributes:
        ids: Of those.
        epoch: Of the list.
        listed: How long the list was.
        held: How many revocations were held in all.
    """

    ids: set[StatementId]
    epoch: int
    listed: int
    held: int


class Heartbeats:
    """The heartbeat chains of every domain known here."""

    def __init__(
        self,
        *,
        store: StatementStore,
        clock: Clock,
        own_domain: DomainId,
        key: SigningKey | None,
        restored: Restored | None = None,
    ) -> None:
        """Wire the parts.

        Args:
            store: Where the order of chains survives.
            clock: The time.
            own_domain: The domain ``key`` signs for.
            key: This daemon's heartbeat key; it signs only while the root lists it.
            restored: The store was brought back from a backup: the own list is never gone on with.
        """
        self._store = store
        self._clock = clock
        self._own_domain = own_domain
        self._key = key
        self._restored = restored
        self._heard_at: float | None = None
        self._loaded = False
        self._begun = False
        self.domains: dict[DomainId, DomainView] = {}
        self._received_at: dict[StatementId, int] = {}
        # Until when each domain was fresh under the root before its newest.
        self._fresh_before: dict[DomainId, int] = {}
        self._fresh: dict[DomainId, tuple[DomainView, int]] = {}
        self._replaced: list[StatementId] = []
        # The newest heads of each key by epoch and length: two that differ prove that it lied.
        self._seen: dict[PublicKey, OrderedDict[tuple[int, int], Heartbeat]] = {}
        self._evidence: dict[PublicKey, tuple[Heartbeat, Heartbeat]] = {}
        self._checked: tuple[tuple[object, ...], tuple[StatementId, ...]] | None = None
        self._unlisted: _Unlisted | None = None
        self._newer: set[StatementId] = set()
        self._left_out = frozenset[StatementId]()
        self._signed_at = 0
        self._state = TrustState()
        self._dirty = False
        self.branches = Branches(self._state, ())
        # What each list names and is not held, and what lists made this daemon hold beyond quotas.
        self._lacking: dict[_List, set[StatementId]] = {}
        self._listed: dict[object, set[StatementId]] = {}

    # --- roots ----------------------------------------------------------------------------

    def adopt_root(self, root: Root) -> None:
        """Follow a domain to its next root."""
        view = self.domains.get(root.domain)
        if view is not None:
            until = max(view.fresh_until(), self._fresh_before.get(root.domain, 0))
            self._fresh_before[root.domain] = until
        view = DomainView(root=root) if view is None else view.with_root(root)
        for key in view.keys:
            if key not in view.views:
                view = view.with_view(key, self._load_view(root.domain, key))
        self.domains[root.domain] = view
        for one in [one for one in self._lacking if one[0] == root.domain]:
            if one[1] not in view.keys:
                del self._lacking[one]
        self._dirty = True

    def _load_view(self, domain: DomainId, key: PublicKey) -> KeyView:
        epoch, ids = self._store.load_chain(domain, key)
        return KeyView(chain=Chain(epoch=epoch).append(ids))

    def adopt(self, state: TrustState) -> None:
        """Prove what can be proven with everything the store holds."""
        for domain, view in self.domains.items():
            for key in view.keys:
                self._note_lacking((domain, key), view.view(key).chain.ids, state)
        self._prove_all(state)
        self._loaded = True

    # --- heads ----------------------------------------------------------------------------

    def observe(self, heartbeat: Heartbeat, *, received_at: int) -> bool:
        """Take in a verified head; False if nobody here waits for it.

        Raises:
            LimitError: Signed too far ahead.
            StaleRecordError: Not newer than the one held.
            EquivocationError: Its key signed two lists; it no longer counts.
            StoreError: The list cannot be written; nothing was taken in.
        """
        domain = self.domains.get(heartbeat.domain)
        if domain is None or heartbeat.issuer not in domain.keys:
            return False
        if self._loaded and self._heard_at is None and heartbeat.domain == self._own_domain:
            self._heard_at = self._clock.monotonic()
        view = domain.view(heartbeat.issuer)
        if view.equivocated:
            return False
        self._compare(view, heartbeat)
        changed = observe(view, heartbeat, now=self._clock.now())
        changed = self._with_closed(changed)
        self._set_view(heartbeat.domain, heartbeat.issuer, changed)
        self._replace(view, changed)
        self._received_at[heartbeat.statement_id] = received_at
        return True

    def _with_closed(self, view: KeyView) -> KeyView:
        """Find the head that the newest list goes on from, if a restart has parted them."""
        before = view.newest.previous_head if view.newest else None
        if view.closed is not None or before is None or view.newest is None:
            return view
        seen = self._seen.get(view.newest.issuer, OrderedDict())
        found = next((one for one in seen.values() if one.head == before), None)
        return replace(view, closed=found)

    def _replace(self, before: KeyView, after: KeyView) -> None:
        """Let go of heads that are of no more use; the last of a closed list is."""
        for one in (before.newest, before.closed):
            if one is not None and one not in {after.newest, after.closed}:
                self._replaced.append(one.statement_id)
                self._received_at.pop(one.statement_id, None)

    def _compare(self, view: KeyView, heartbeat: Heartbeat) -> None:
        """Compare a head, however old, with the others of its length.

        Raises:
            EquivocationError: They differ.
        """
        seen = self._seen.setdefault(heartbeat.issuer, OrderedDict())
        rival = seen.setdefault((heartbeat.epoch, heartbeat.count), heartbeat)
        while len(seen) > _REMEMBERED_HEADS:
            seen.popitem(last=False)
        if rival.head == heartbeat.head:
            return
        self._evidence[heartbeat.issuer] = (rival, heartbeat)
        self._set_view(heartbeat.domain, heartbeat.issuer, mark_equivocation(view))
        self._fresh_before.pop(heartbeat.domain, None)
        raise EquivocationError(
            f"heartbeat key `{key_id_text(heartbeat.issuer)}` signed two lists of one length:"
            " it no longer counts",
        )

    def take_replaced(self) -> list[StatementId]:
        """Return the heads that newer ones have replaced since the last call."""
        replaced, self._replaced = self._replaced, []
        return replaced

    def advance(self, state: TrustState, new: Collection[StatementId] = ()) -> None:
        """Look again at heads that may be proven now.

        Args:
            state: What is held.
            new: Revocations that are new in it.
        """
        if self._key is not None:
            self._newer.update(new)
        for lacking in self._lacking.values():
            lacking.difference_update(new)
        self._prove_all(state)

    def lacks(self, revocation: StatementId) -> bool:
        """Say whether a list names a revocation that is not held."""
        return any(revocation in lacking for lacking in self._lacking.values())

    def take_listed(self, revocation: StatementId) -> bool:
        """Say whether a list needs a revocation here, and charge it to that list.

        Whoever holds a heartbeat key could name revocations without end; beyond
        ``limits.MAX_LISTED_SURPLUS`` its list cannot be proven, and it alone counts no more. Other
        domains have as much together: they may have any number of keys.
        """
        for domain, key in [one for one, ids in self._lacking.items() if revocation in ids]:
            account = (domain, key) if domain == self._own_domain else domain
            taken = self._listed.setdefault(account, set())
            if revocation in taken or len(taken) < limits.MAX_LISTED_SURPLUS:
                taken.add(revocation)
                return True
        return False

    def _note_lacking(self, of: _List, ids: Iterable[StatementId], state: TrustState) -> None:
        lacking = {one for one in ids if one not in state.revocations}
        if lacking:
            self._lacking.setdefault(of, set()).update(lacking)

    def _set_view(self, domain: DomainId, key: PublicKey, view: KeyView) -> None:
        before = self.domains[domain].view(key)
        known = len(before.chain.ids) if before.chain.epoch == view.chain.epoch else 0
        if before.chain.epoch != view.chain.epoch:
            # Nobody needs what only a list that was closed names.
            self._lacking.pop((domain, key), None)
        if len(view.chain.ids) > known:
            # On disk first: what memory knows and the disk does not would leave a hole in the list.
            added = view.chain.ids[known:]
            self._store.append_chain(domain, key, view.chain.epoch, known, added)
            self._note_lacking((domain, key), added, self._state)
        self.domains[domain] = self.domains[domain].with_view(key, view)

    def _prove_all(self, state: TrustState) -> None:
        self._state = state
        for domain, domain_view in list(self.domains.items()):
            for key in domain_view.keys:
                view = domain_view.view(key)
                if view.newest is None or view.newest == view.proven:
                    continue
                received_at = self._received_at.get(view.newest.statement_id, 0)
                proven = prove(view, holds=state.revocations.__contains__, received_at=received_at)
                self._set_view(domain, key, proven)

    # --- lists ----------------------------------------------------------------------------

    def gaps(self) -> list[tuple[DomainId, PublicKey, int, int, int]]:
        """Return ``(domain, key, epoch, start, end)`` of the list entries that are missing."""
        found = []
        for domain, domain_view in self.domains.items():
            for key in domain_view.keys:
                missing = gap(domain_view.view(key))
                if missing:
                    found.append((domain, key, missing.epoch, missing.start, missing.end))
        return found

    def chain_ids(
        self,
        domain: DomainId,
        key: PublicKey,
        epoch: int,
        start: int,
        end: int,
    ) -> list[StatementId] | None:
        """Return entries ``[start, end)`` of a key's list; None if they are not known here."""
        domain_view = self.domains.get(domain)
        if domain_view is None:
            return None
        chain = domain_view.view(key).chain
        if chain.epoch != epoch or not 0 <= start <= end <= len(chain.ids):
            return None
        return list(chain.ids[start:end])

    def fill(
        self,
        domain: DomainId,
        key: PublicKey,
        epoch: int,
        start: int,
        ids: Iterable[StatementId],
    ) -> None:
        """Take in entries that a peer sent; they count only if they lead to a signed head."""
        domain_view = self.domains.get(domain)
        if domain_view is None or key not in domain_view.keys:
            return
        entries = tuple(ids)
        missing = Gap(key, epoch, start, start + len(entries))
        self._set_view(domain, key, fill(domain_view.view(key), missing, entries))
        self._prove_all(self._state)

    # --- our own --------------------------------------------------------------------------

    def wake(self) -> None:
        """Let the next `sign_own` sign, whatever the time since the last head."""
        self._dirty = True

    def sign_own(self, state: TrustState) -> Heartbeat | None:
        """Sign a head over every revocation held, if one is due or there is something new.

        Returns:
            The head, already observed and proven here; None if it is not due or this daemon's
            key is not one of the domain's.
        """
        domain = self.domains.get(self._own_domain)
        if self._key is None or domain is None:
            return None
        if self._key.public not in domain.root.heartbeat_keys:
            return None
        now = self._clock.now()
        view = domain.view(self._key.public)
        missing = self._missing(view, state)
        due = self._dirty or missing or now - self._signed_at >= BEAT_S
        if self._restored is not None and not self._may_begin(self._restored, view):
            return None
        if not due or view.equivocated or self._is_ahead(view, now):
            return None
        return self._sign(domain, view, missing, now=now, state=state)

    def _may_begin(self, restored: Restored, view: KeyView) -> bool:
        """Say whether a restored daemon may begin its new list: it knows how the old one ended.

        Everything on the old list must be held, because it goes on the new one.
        """
        if view.newest != view.proven:
            return False
        waited = self._heard_at is not None and (
            self._clock.monotonic() - self._heard_at >= RESTORE_WAIT_S
        )
        return restored.alone or waited

    @property
    def waits_for_peers(self) -> bool:
        """Whether no head of the own key is signed because the store is an old copy."""
        return self._restored is not None

    def _is_ahead(self, view: KeyView, now: int) -> bool:
        """Say whether heads were signed so fast that the next would be dated too far ahead.

        Times rise by a second from head to head, and nobody counts one that is 5 s ahead. What is
        new goes into the next head, a second later.
        """
        return view.newest is not None and view.newest.issued_at >= now + _MOST_AHEAD_S

    def _missing(self, view: KeyView, state: TrustState) -> tuple[StatementId, ...]:
        """Return the revocations that are not on the own list yet; asked every second."""
        asked = (state.revocations, view.chain, state.flooded, self.branches)
        checked = self._checked
        if checked is None or any(a is not b for a, b in zip(checked[0], asked, strict=True)):
            unlisted = self._find_unlisted(view.chain, state)
            # What was left out stays out until it is another question who stands where.
            same = checked is not None and all(
                a is b for a, b in zip(checked[0][2:], asked[2:], strict=True)
            )
            left_out = self._left_out if same else frozenset[StatementId]()
            missing = to_list(
                sorted(unlisted - left_out),
                listed=view.chain.ids,
                state=state,
                branches=self.branches,
            )
            self._left_out = frozenset(unlisted.difference(missing))
            self._checked = checked = (asked, missing)
        return checked[1]

    def _find_unlisted(self, chain: Chain, state: TrustState) -> set[StatementId]:
        """Return what is held and not on the own list, without a walk through all that is."""
        before, held = self._unlisted, len(state.revocations)
        follows = (
            before is not None
            and self._restored is None
            and before.epoch == chain.epoch
            and before.listed <= len(chain.ids)
            # Nothing on the list was, or is, still to come.
            and before.held - len(before.ids) == before.listed
            and before.held + len(self._newer) == held
        )
        if before is None or not follows:
            known = frozenset(chain.ids)
            ids = {one for one in state.revocations if one not in known}
        else:
            ids = before.ids.union(self._newer).difference(chain.ids[before.listed :])
        self._newer.clear()
        self._unlisted = _Unlisted(ids=ids, epoch=chain.epoch, listed=len(chain.ids), held=held)
        return ids

    def _sign(
        self,
        domain: DomainView,
        view: KeyView,
        missing: tuple[StatementId, ...],
        *,
        now: int,
        state: TrustState,
    ) -> Heartbeat:
        key = self._key
        if key is None:
            raise StaleRecordError("this daemon has no heartbeat key")
        begins = self._restored is not None or not view.chain.epoch
        chain = Chain(epoch=max(now, view.chain.epoch + 1)) if begins else view.chain
        if begins:
            # Nothing of the old list stays as it was: all that is held goes on the new one.
            missing = to_list(
                sorted(state.revocations), listed=(), state=state, branches=self.branches
            )
        chain = chain.append(missing)
        newest_at = view.newest.issued_at if view.newest else 0
        heartbeat = sign_heartbeat(
            key,
            domain=self._own_domain,
            root_version=domain.root.version,
            epoch=chain.epoch,
            count=len(chain.ids),
            head=chain.head,
            recent=chain.ids[-limits.MAX_RECENT_IDS :],
            issued_at=max(now, newest_at + 1),
            previous_head=_head_before(view, begins=begins),
        )
        self._keep_own(heartbeat, chain, missing, begins=begins)
        changed = (
            replace(view, chain=chain, closed=view.newest) if begins else replace(view, chain=chain)
        )
        self._replace(view, changed)
        self.domains[self._own_domain] = domain.with_view(key.public, changed)
        self.observe(heartbeat, received_at=now)
        self._prove_all(state)
        self._signed_at, self._dirty = now, False
        self._begun |= begins
        if self._restored is not None:
            self._restored.done()
            self._restored = None
        return heartbeat

    def _keep_own(
        self,
        heartbeat: Heartbeat,
        chain: Chain,
        added: tuple[StatementId, ...],
        *,
        begins: bool,
    ) -> None:
        """Put list and head on disk, both or neither, before the head leaves this host."""
        try:
            self._store.append_chain(
                self._own_domain,
                heartbeat.issuer,
                chain.epoch,
                len(chain.ids) - len(added),
                added,
                head=StoredStatement(
                    kind=Kind.HEARTBEAT,
                    statement_id=heartbeat.statement_id,
                    data=heartbeat.encoded,
                    source="local",
                    received_at=self._clock.now(),
                ),
            )
        except StoreError:
            # A head that adds nothing need not survive: others may be told that nothing is new
            # though the disk is full, or a full disk would make the domain stale.
            if added or begins:
                raise

    # --- freshness ------------------------------------------------------------------------

    def freshness(self) -> dict[DomainId, int]:
        """Return until when each domain is, or was last, fresh; domains that never were are out.

        A host whose clock was set back cannot tell how old a head is: nothing is fresh there.
        """
        found: dict[DomainId, int] = {}
        if self._clock.behind_s() > limits.HEARTBEAT_AHEAD_S:
            return found
        for domain, view in self.domains.items():
            # The keys of a new root have yet to sign for it: what was fresh goes on, no longer.
            until = max(self._fresh_until(domain, view), self._fresh_before.get(domain, 0))
            if until:
                found[domain] = until
        return found

    def _fresh_until(self, domain: DomainId, view: DomainView) -> int:
        # A view never changes, it is replaced: asked for twice a decision, computed once a view.
        known = self._fresh.get(domain)
        if known is None or known[0] is not view:
            self._fresh[domain] = known = (view, view.fresh_until())
        return known[1]

    def own_items(self) -> list[Item]:
        """Return the newest head of the own key, to be pushed.

        The first of a list goes behind the last of the list before.
        """
        domain = self.domains.get(self._own_domain)
        if domain is None or self._key is None:
            return []
        view = domain.view(self._key.public)
        heads = (view.closed if self._begun else None, view.newest)
        self._begun = False
        return [Item(Kind.HEARTBEAT, head.encoded) for head in heads if head is not None]

    def newest_items(self) -> list[Item]:
        """Return the newest head of each key, behind the last head of the list before it.

        Of a key that signed two lists of one length both are returned: whoever has neither, or
        only one, is to know.
        """
        heads: list[Heartbeat | None] = []
        for domain in self.domains.values():
            for key in domain.keys:
                view = domain.view(key)
                heads += self._evidence.get(key, (view.closed, view.newest))
        return [Item(Kind.HEARTBEAT, head.encoded) for head in heads if head is not None]


def _head_before(view: KeyView, *, begins: bool) -> bytes | None:
    """Return the last head of the list before; every head names it, for whoever missed some."""
    if begins:
        return view.last_head
    return view.newest.previous_head if view.newest else None
