"""Heartbeats at one daemon: taking in heads, proving them, and freshness.

What concerns the list that this daemon signs itself is in `authd.service.own_list`.
"""

from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Final

from authd.core import limits
from authd.core.claims import Kind
from authd.core.identity import DomainId, PublicKey, SigningKey, StatementId, key_id_text
from authd.core.quotas import Branches
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
from authd.core.statements import Heartbeat
from authd.core.trust import TrustState
from authd.errors import EquivocationError, LimitError, StaleRecordError, StoreError
from authd.service.ends import Endings
from authd.service.freshness import Freshness
from authd.service.own_list import BEAT_S, RESTORE_WAIT_S, OwnList, Restored, Scene
from authd.service.ports import Clock, Item, StatementStore
from authd.service.remembered import Remembered, Signer, signer_of
from authd.service.troubles import Troubles
from authd.service.wanted import Wanted

__all__ = ["BEAT_S", "RESTORE_WAIT_S", "Heartbeats", "Restored"]

_AHEAD: Final = "heads of the own domain are dated ahead of this host's clock"
_ASTRAY: Final = "what it signed last does not go on from what the copy holds"


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
        self.own: OwnList | None = None
        if key is not None:
            self.own = OwnList(
                store=store, clock=clock, domain=own_domain, key=key, restored=restored
            )
        self._loaded = False
        self.endings = Endings(clock)
        self._troubles = Troubles(clock)
        # What was found to be named by no list, and is forgotten bit by bit.
        self._unneeded: dict[StatementId, None] = {}
        self._alarms: list[str] = []
        self.domains: dict[DomainId, DomainView] = {}
        self._received_at: dict[StatementId, int] = {}
        self._freshness = Freshness(clock)
        self._replaced: list[StatementId] = []
        self._remembered = Remembered()
        self._proofs: list[Heartbeat] = []
        self._state = TrustState()
        self.branches = Branches(self._state, ())
        self._wanted = Wanted(own_domain)

    # --- roots ----------------------------------------------------------------------------

    def adopt_root(self, root: Root) -> None:
        """Follow a domain to its next root."""
        view = self.domains.get(root.domain)
        if view is not None:
            self._freshness.carry_over(root.domain, view)
        view = DomainView(root=root) if view is None else view.with_root(root)
        for key in view.keys:
            if key not in view.views:
                view = view.with_view(key, self._load_view(root.domain, key))
        self.domains[root.domain] = view
        self._wanted.keep_only(root.domain, view.keys)
        self._unneeded.clear()
        self.wake()

    def _load_view(self, domain: DomainId, key: PublicKey) -> KeyView:
        epoch, ids = self._store.load_chain(domain, key)
        closed = frozenset(self._store.load_closed(domain, key))
        return KeyView(chain=Chain(epoch=epoch).append(ids), closed_ids=closed)

    def adopt(self, state: TrustState) -> None:
        """Prove what can be proven with everything the store holds."""
        for domain, view in self.domains.items():
            for key in view.keys:
                self._wanted.note((domain, key), view.view(key).chain.ids, state)
        self._prove_all(state)
        self._loaded = True

    # --- heads ----------------------------------------------------------------------------

    def observe(self, heartbeat: Heartbeat, *, received_at: int) -> bool:
        """Take in a verified head; False if nobody here waits for it.

        Raises:
            LimitError: Signed too far ahead.
            StaleRecordError: Not newer than the one held.
            EquivocationError: Its key signed two lists; it no longer counts. `take_proofs`.
            StoreError: The list cannot be written; nothing was taken in.
        """
        domain = self.domains.get(heartbeat.domain)
        if domain is None or heartbeat.issuer not in domain.keys:
            return False
        view = domain.view(heartbeat.issuer)
        if view.equivocated:
            return False
        self._compare(view, heartbeat)
        changed = self._observe(view, heartbeat)
        if changed is None:
            return False
        changed = self._with_closed(changed)
        self._set_view(heartbeat.domain, heartbeat.issuer, changed)
        self._replace(view, changed)
        self._received_at[heartbeat.statement_id] = received_at
        return True

    def _observe(self, view: KeyView, heartbeat: Heartbeat) -> KeyView | None:
        """Return the view with a head in it; None if it begins a list and has to wait."""
        signer = heartbeat.domain, heartbeat.issuer
        try:
            changed = observe(view, heartbeat, now=self._clock.now())
        except LimitError:
            self._refuse(heartbeat, _AHEAD)
            raise
        except StaleRecordError:
            if heartbeat.epoch <= view.chain.epoch:
                self._hear(heartbeat)
            else:
                self._troubles.refuse(signer)
                self._refuse(heartbeat, _ASTRAY, of_others=False)
            raise
        begun = view.end is not None and changed.chain.epoch != view.chain.epoch
        if begun and self._loaded and not self._troubles.may_begin(signer):
            # Everybody has to fetch it. It is told again, and taken later.
            self._troubles.refuse(signer)
            self._refuse(heartbeat, _ASTRAY, of_others=False)
            return None
        self._troubles.accept(signer)
        self._hear(heartbeat)
        return changed

    def _hear(self, heartbeat: Heartbeat) -> None:
        if self._loaded and self.own is not None and heartbeat.domain == self._own_domain:
            self.own.hear()

    def _refuse(self, heartbeat: Heartbeat, why: str, *, of_others: bool = True) -> None:
        if self.own is None or heartbeat.domain != self._own_domain:
            return
        if of_others or heartbeat.issuer == self.own.public:
            self.own.refuse(heartbeat, why)

    def _with_closed(self, view: KeyView) -> KeyView:
        """Find the heads that the newest list goes on from, if a restart has parted them."""
        if view.closed_heads or view.newest is None or view.newest.previous is None:
            return view
        return replace(view, closed_heads=self._remembered.closed_before(view.newest))

    def _replace(self, before: KeyView, after: KeyView) -> None:
        """Let go of heads that are of no more use; the last of closed lists are."""
        kept = {after.newest, *after.closed_heads}
        for one in (before.newest, *before.closed_heads):
            if one is not None and one not in kept:
                self._replaced.append(one.statement_id)
                self._received_at.pop(one.statement_id, None)

    def _compare(self, view: KeyView, heartbeat: Heartbeat) -> None:
        """Compare a head, however old, with the others of its key.

        Raises:
            EquivocationError: It and one of them cannot both be.
        """
        held = (view.newest, *view.closed_heads)
        if not self._remembered.contradicts(heartbeat, held):
            return
        self._set_view(heartbeat.domain, heartbeat.issuer, mark_equivocation(view))
        self._freshness.forget(heartbeat.domain)
        proof = self._rivals(signer_of(heartbeat))
        kept = {one.statement_id for one in proof}
        self._replaced = [one for one in self._replaced if one not in kept]
        # What is read from the disk is there.
        self._proofs += proof if self._loaded else ()
        raise EquivocationError(
            f"heartbeat key `{key_id_text(heartbeat.issuer)}` signed two lists that contradict each"
            " other (it is stolen, or was brought back from too old a copy): it no longer counts",
        )

    def _rivals(self, signer: Signer) -> tuple[Heartbeat, ...]:
        """Return the two heads that prove that a key lied; none if it has not."""
        return self._remembered.evidence.get(signer, ())

    def take_proofs(self) -> list[Heartbeat]:
        """Return the heads that prove a lie since the last call; they are to be put on disk."""
        proofs, self._proofs = self._proofs, []
        return proofs

    def keep_proofs(self, proofs: Iterable[Heartbeat]) -> None:
        """Give back what could not be put on disk."""
        self._proofs += proofs

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
        if self.own is not None:
            self.own.add(new)
        self._wanted.hold(new)
        self._prove_all(state)

    def lacks(self, revocation: StatementId) -> bool:
        """Say whether a list names a revocation that is not held."""
        return self._wanted.lacks(revocation)

    def take_listed(self, revocation: StatementId) -> bool:
        """Say whether a list needs a revocation here, and charge it to that list."""
        return self._wanted.take(revocation)

    def _set_view(self, domain: DomainId, key: PublicKey, view: KeyView) -> None:
        before = self.domains[domain].view(key)
        known = len(before.chain.ids) if before.chain.epoch == view.chain.epoch else 0
        if before.chain.epoch != view.chain.epoch:
            self._wanted.close((domain, key))
            self._unneeded.clear()
            if before.closed_ids:
                # What the one before it named is enough to hold the key to.
                self._forget(domain, key, before.chain.epoch, view.chain.epoch)
        if len(view.chain.ids) > known:
            # On disk first: what memory knows and the disk does not would leave a hole in the list.
            added = view.chain.ids[known:]
            self._store.append_chain(domain, key, view.chain.epoch, known, added)
            self._wanted.note((domain, key), added, self._state)
            for one in added:
                self._unneeded.pop(one, None)
        self._troubles.note_gap((domain, key), missing=gap(view) is not None)
        self.domains[domain] = self.domains[domain].with_view(key, view)

    def _prove_all(self, state: TrustState) -> None:
        self._state = state
        for domain, domain_view in list(self.domains.items()):
            for key in domain_view.keys:
                view = domain_view.view(key)
                if view.newest is None or view.newest == view.proven:
                    continue
                proven = prove(
                    view,
                    holds=state.revocations.__contains__,
                    received_at=self._received_at.get(view.newest.statement_id, 0),
                    needed=self._is_needed,
                )
                self._set_view(domain, key, proven)
                if proven.equivocated and not view.equivocated:
                    self._accuse(domain, key)
                elif view.closed_ids and not proven.closed_ids:
                    self._forget(domain, key, 0, proven.chain.epoch)

    def _is_needed(self, revocation: StatementId, at: int) -> bool:
        """Say whether a revocation is held and known to be needed at a time."""
        revoke = self._state.revocations.get(revocation)
        return revoke is not None and self.endings.is_needed(revoke, at)

    def _accuse(self, domain: DomainId, key: PublicKey) -> None:
        self._freshness.forget(domain)
        self._alarms.append(
            f"heartbeat key `{key_id_text(key)}` began a list without revocations that have not"
            " ended: it no longer counts",
        )

    def _forget(self, domain: DomainId, key: PublicKey, first: int, before: int) -> None:
        with suppress(StoreError):
            # It is done again when the list is proven after a restart.
            self._store.forget_chains(domain, key, first=first, before=before)

    # --- what is needed no more -----------------------------------------------------------

    def take_alarms(self) -> list[str]:
        """Return what the operator is to be told since the last call."""
        alarms, self._alarms = self._alarms, []
        return alarms

    def problems(self) -> list[str]:
        """Return what is amiss now, and may be over in a moment."""
        own = [self.own.problem] if self.own is not None and self.own.problem else []
        every = ((domain, key) for domain, view in self.domains.items() for key in view.keys)
        return [*own, *self._troubles.sentences(every)]

    def spent(self, state: TrustState) -> frozenset[StatementId]:
        """Return the revocations that need be on no list: the grants they name have ended."""
        return self.endings.spent(state, self.branches)

    def unneeded(self, state: TrustState, *, most: int) -> list[StatementId]:
        """Return revocations that can be dropped: they are needed no more and no list names them.

        Only while the own domain is fresh: then other lists are known, and the clock is right. All
        lists are looked through once the last of what was found before is returned.
        """
        own = self.domains.get(self._own_domain)
        if own is None or not self._is_fresh():
            return []
        if any(self._troubles.waits_for_entries((self._own_domain, key)) for key in own.keys):
            return []
        settled = self.endings.settled(state, self.branches)
        self._unneeded = self._unneeded or dict.fromkeys(self._unnamed(settled))
        found: list[StatementId] = []
        while self._unneeded and len(found) < most:
            one, _ = self._unneeded.popitem()
            found += [one] if one in settled and one in state.revocations else []
        return found

    def _unnamed(self, revocations: frozenset[StatementId]) -> list[StatementId]:
        """Return those of some revocations that no list names.

        What a list that was closed names is needed until the next is proven, or for ever if that
        one leaves out too much: it is what the key is accused by after a restart.
        """
        if not revocations:
            return []
        views = [domain.view(key) for domain in self.domains.values() for key in domain.keys]
        lists = [view.chain.ids for view in views if not view.equivocated]
        closed = [view.closed_ids for view in views]
        return sorted(revocations.difference(*lists, *closed))

    def drop(self, revocations: Collection[StatementId]) -> None:
        """Let go of revocations that are no longer held."""
        self.endings.drop(revocations)
        self._wanted.drop(revocations)
        if self.own is not None:
            self.own.drop(revocations)

    def ended(self, view: KeyView) -> int:
        """Count the entries of a list that are needed no more."""
        spent = self.spent(self._state)
        return len(spent.intersection(view.chain.ids)) if spent else 0

    def own_figures(self) -> tuple[int, int]:
        """Return how long the own list is, and how many of its entries are needed no more."""
        scene = self.scene(self._state)
        if self.own is None or scene is None:
            return 0, 0
        return len(scene.view.chain.ids), self.own.ended(scene.view, scene.spent)

    def _is_fresh(self) -> bool:
        return self.freshness().get(self._own_domain, 0) > self._clock.now()

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
        if self.own is not None:
            self.own.wake()

    @property
    def waits_for_peers(self) -> bool:
        """Whether no head of the own key is signed because the store is an old copy."""
        return self.own is not None and self.own.waits_for_peers

    def scene(self, state: TrustState) -> Scene | None:
        """Return what the next own head rests on; None if the root does not list the own key."""
        domain = self.domains.get(self._own_domain)
        if self.own is None or domain is None or self.own.public not in domain.root.heartbeat_keys:
            return None
        return Scene(
            root=domain.root,
            view=domain.view(self.own.public),
            state=state,
            branches=self.branches,
            spent=self.spent(state),
            settled=self.endings.settled(state, self.branches),
            fresh=self._is_fresh(),
        )

    def sign_own(self, state: TrustState) -> Heartbeat | None:
        """Sign a head over every revocation held, if one is due or there is something new.

        Returns:
            The head, already observed and proven here; None if it is not due or this daemon's
            key is not one of the domain's.

        Raises:
            EquivocationError: Another head of the own key contradicts it: somebody else signs.
            StoreError: It cannot be put on disk; nothing was signed.
        """
        scene = self.scene(state)
        if self.own is None:
            return None
        if scene is None:
            self.own.rest()
            return None
        signed = self.own.sign(scene)
        if signed is None:
            return None
        self._replace(scene.view, signed.view)
        domain = self.domains[self._own_domain]
        self.domains[self._own_domain] = domain.with_view(self.own.public, signed.view)
        for one in signed.added:
            self._unneeded.pop(one, None)
        self.observe(signed.heartbeat, received_at=self._clock.now())
        self._prove_all(state)
        self.own.settle()
        return signed.heartbeat

    # --- what is told ---------------------------------------------------------------------

    def freshness(self) -> dict[DomainId, int]:
        """Return until when each domain is, or was last, fresh; domains that never were are out.

        A host whose clock was set back cannot tell how old a head is: nothing is fresh there.
        """
        return self._freshness.of(self.domains)

    def own_items(self) -> list[Item]:
        """Return the newest head of the own key, to be pushed.

        The first of a list goes behind the last of the list before.
        """
        domain = self.domains.get(self._own_domain)
        if domain is None or self.own is None:
            return []
        view = domain.view(self.own.public)
        ends = (view.closed if self.own.take_begun() else None, view.newest)
        heads = self._rivals((self._own_domain, self.own.public)) or ends
        return [Item(Kind.HEARTBEAT, head.encoded) for head in heads if head is not None]

    def newest_items(self) -> list[Item]:
        """Return the newest head of each key, behind the last heads of the lists before it.

        Of a key that lied the two heads that prove it are returned: whoever has neither, or only
        one, is to know.
        """
        heads: list[Heartbeat | None] = []
        for domain in self.domains.values():
            for key in domain.keys:
                view = domain.view(key)
                told = view.closed_heads[-limits.MAX_TOLD_HEADS :]
                heads += self._rivals((domain.root.domain, key)) or (*told, view.newest)
        return [Item(Kind.HEARTBEAT, head.encoded) for head in heads if head is not None]
