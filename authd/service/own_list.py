"""The own heartbeat list: what goes on it, when a head is due, and when the list is begun anew."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Final

import structlog

from authd.core import limits
from authd.core.claims import Kind
from authd.core.endings import is_full, is_turn, is_worth_closing
from authd.core.identity import DomainId, PublicKey, SigningKey, StatementId
from authd.core.quotas import Branches, to_list
from authd.core.revocations import Chain, KeyView, close, order
from authd.core.roots import Root
from authd.core.statements import Heartbeat, ListEnd, sign_heartbeat
from authd.core.trust import TrustState
from authd.errors import StoreError
from authd.service.ports import Clock, StatementStore, StoredStatement

# Half of what others tolerate, so that their clocks may be off by the other half.
_MOST_AHEAD_S: Final = limits.HEARTBEAT_AHEAD_S // 2
BEAT_S: Final = limits.HEARTBEAT_LIFE_S // 3
"""A head is signed every third of its life, so that two may get lost."""


RESTORE_WAIT_S: Final = 30.0
"""How long a restored daemon listens for its own newest head after a peer has told it any.

Every stream begins with all heads that the other end knows; this is long enough for several.
"""
_log = structlog.get_logger("authd.heartbeats")


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
class Scene:
    """What the next head rests on.

    Attributes:
        root: Of the own domain, which lists the own key.
        view: What is known of the own key.
        state: What is held.
        branches: Of that state.
        spent: Revocations that are needed no more by this host's clock.
        settled: Those of them for which that is certain enough to be forgotten.
        fresh: Whether the own domain is fresh by a clock that can be relied on.
    """

    root: Root
    view: KeyView
    state: TrustState
    branches: Branches
    spent: frozenset[StatementId]
    settled: frozenset[StatementId]
    fresh: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A head that is on disk.

    Attributes:
        heartbeat: The head.
        view: What was known of the own key, with the list that the head is of.
        added: What was not on its list before, or all of a new one.
    """

    heartbeat: Heartbeat
    view: KeyView
    added: tuple[StatementId, ...]


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


class OwnList:
    """The list that this daemon's heartbeat key signs."""

    def __init__(
        self,
        *,
        store: StatementStore,
        clock: Clock,
        domain: DomainId,
        key: SigningKey,
        restored: Restored | None,
    ) -> None:
        """Wire the parts; see `authd.service.heartbeats.Heartbeats`."""
        self._store = store
        self._clock = clock
        self._domain = domain
        self._key = key
        self._restored = restored
        self._heard_at: float | None = None
        # The newest head of the own key that could not be taken, and what a restored daemon says.
        self._unmet: Heartbeat | None = None
        self._doubt = ""
        self._checked: tuple[tuple[object, ...], tuple[StatementId, ...]] | None = None
        self._unlisted: _Unlisted | None = None
        self._newer: set[StatementId] = set()
        self._left_out = frozenset[StatementId]()
        self._counted: tuple[object, object, int] | None = None
        self._signed_at = 0
        self._dirty = False
        self._begun = False
        self._is_full = False
        self._is_partial = False

    @property
    def public(self) -> PublicKey:
        """The key that signs."""
        return self._key.public

    @property
    def waits_for_peers(self) -> bool:
        """Whether no head is signed because the store is an old copy."""
        return self._restored is not None

    @property
    def problem(self) -> str:
        """Why no head is signed, if the operator can do something about it; empty if nothing."""
        if self._restored is not None and (self._heard_at is None or self._unmet is not None):
            return self._doubt
        if self._is_full:
            return "the own list of revocations is full: this key signs no heartbeat"
        if self._is_partial:
            return (
                "the own list is not known whole here: this key signs no heartbeat until peers tell"
            )
        return ""

    def hear(self) -> None:
        """Note that a peer has told a head of the own domain that counts, or is known."""
        if self._heard_at is None:
            self._heard_at = self._clock.monotonic()

    def refuse(self, heartbeat: Heartbeat, why: str) -> None:
        """Note a head of the own domain that may be newer than what is known, and was not taken.

        A restored daemon listens anew: its clock is behind, or the copy is too old.
        """
        self._heard_at = None
        self._doubt = f"brought back from a copy, this key signs no heartbeat: {why}"
        newer = self._unmet is None or order(heartbeat) > order(self._unmet)
        if heartbeat.issuer == self.public and newer:
            self._unmet = heartbeat

    def rest(self) -> None:
        """Note that the root does not list the own key: nothing is to be signed."""
        self._is_full = self._is_partial = False

    def wake(self) -> None:
        """Let the next `sign` sign, whatever the time since the last head."""
        self._dirty = True

    def add(self, revocations: Collection[StatementId]) -> None:
        """Note revocations that are new."""
        self._newer.update(revocations)

    def take_begun(self) -> bool:
        """Say whether the list was begun since the last call."""
        begun, self._begun = self._begun, False
        return begun

    # --- heads ----------------------------------------------------------------------------

    def sign(self, scene: Scene) -> Signed | None:
        """Sign a head over every revocation held, if one is due or there is something new.

        Returns:
            What was signed and put on disk; None if nothing is due, or may be.

        Raises:
            StoreError: It cannot be put on disk; nothing was signed.
        """
        now, view = self._clock.now(), scene.view
        missing = self.missing(scene)
        if self._restored is not None and not self._may_begin(self._restored, view):
            return None
        # Peers know more of the own list: one that left that out would be another list.
        self._is_partial = view.newest != view.proven and not view.equivocated
        if view.equivocated or self._is_partial or self._is_ahead(view, now):
            return None
        closes = self._closes(scene, len(missing), now)
        begins = closes or self._restored is not None or not view.chain.epoch
        if not (begins or self._dirty or missing or now - self._signed_at >= BEAT_S):
            return None
        ids = self._gather(scene, closes=closes) if begins else missing
        chain = Chain(epoch=max(now, view.chain.epoch + 1)) if begins else view.chain
        if is_full(listed=len(chain.ids), missing=len(ids)):
            # A head that leaves out what is known would say that it is not.
            self._is_full = True
            return None
        self._is_full = False
        return self._sign(scene, chain.append(ids), ids, begins=begins, now=now)

    def settle(self) -> None:
        """Note that the list is known here as it was signed: a restored daemon is one no more."""
        if self._restored is not None:
            self._restored.done()
            self._restored = None

    def _may_begin(self, restored: Restored, view: KeyView) -> bool:
        """Say whether a restored daemon may begin its new list: it knows how the old one ended.

        Everything on the old list must be held, because it goes on the new one.
        """
        if view.newest != view.proven:
            return False
        if self._unmet and view.newest and order(view.newest) >= order(self._unmet):
            self._unmet = None
        if restored.alone:
            return True
        if self._heard_at is None or self._unmet is not None:
            return False
        return self._clock.monotonic() - self._heard_at >= RESTORE_WAIT_S

    def _is_ahead(self, view: KeyView, now: int) -> bool:
        """Say whether heads were signed so fast that the next would be dated too far ahead.

        Times rise by a second from head to head, and nobody counts one that is 5 s ahead. What is
        new goes into the next head, a second later.
        """
        return view.newest is not None and view.newest.issued_at >= now + _MOST_AHEAD_S

    # --- a new list -----------------------------------------------------------------------

    def _closes(self, scene: Scene, missing: int, now: int) -> bool:
        """Say whether the list is to be begun anew without what is needed no more.

        Only while the own domain is fresh: then most keys go by about the same time as this host.
        A host of which that is not known may still do so if its list is full: nobody counts its
        head before the time that it is dated, and by then what has ended here has ended there.
        """
        view, keys = scene.view, scene.root.heartbeat_keys
        if self._restored is not None or view.newest != view.proven or not scene.settled:
            return False
        listed = len(view.chain.ids)
        if not is_full(listed=listed, missing=missing):
            turn = is_turn(keys.index(self.public), of=len(keys), now=now)
            if not turn or not scene.fresh:
                return False
        return is_worth_closing(
            listed=listed,
            ended=self.ended(view, scene.settled),
            missing=missing,
            age_s=now - view.chain.epoch,
        )

    def ended(self, view: KeyView, spent: frozenset[StatementId]) -> int:
        """Count the entries of the list that are needed no more."""
        if not spent:
            return 0
        ids, known = view.chain.ids, self._counted
        if known is None or known[0] is not ids or known[1] is not spent:
            self._counted = known = (ids, spent, len(spent.intersection(ids)))
        return known[2]

    def _gather(self, scene: Scene, *, closes: bool) -> tuple[StatementId, ...]:
        """Return what a new list names: all that the old one does and is needed, then all else."""
        kept = scene.view.chain.ids
        if closes:
            kept = tuple(one for one in kept if one not in scene.settled)
        known = frozenset(kept) | scene.spent
        more = to_list(
            sorted(one for one in scene.state.revocations if one not in known),
            listed=kept,
            state=scene.state,
            branches=scene.branches,
        )
        return (*kept, *more)

    # --- what goes on it ------------------------------------------------------------------

    def missing(self, scene: Scene) -> tuple[StatementId, ...]:
        """Return the revocations that are not on the list yet; asked every second."""
        view, state = scene.view, scene.state
        asked = (state.revocations, view.chain, scene.spent, state.flooded, scene.branches)
        checked = self._checked
        if checked is None or any(a is not b for a, b in zip(checked[0], asked, strict=True)):
            unlisted = self._find_unlisted(view.chain, state) - scene.spent
            # What was left out stays out until it is another question who stands where.
            same = checked is not None and all(
                a is b for a, b in zip(checked[0][3:], asked[3:], strict=True)
            )
            left_out = self._left_out if same else frozenset[StatementId]()
            missing = to_list(
                sorted(unlisted - left_out),
                listed=view.chain.ids,
                state=state,
                branches=scene.branches,
            )
            self._left_out = frozenset(unlisted.difference(missing))
            self._checked = checked = (asked, missing)
        return checked[1]

    def drop(self, revocations: Collection[StatementId]) -> None:
        """Note revocations that are no longer held, and that no list names."""
        before = self._unlisted
        if before is not None:
            ids = before.ids.difference(revocations)
            gone = len(before.ids) - len(ids)
            self._unlisted = replace(before, ids=ids, held=before.held - gone)

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

    # --- signing --------------------------------------------------------------------------

    def _sign(
        self,
        scene: Scene,
        chain: Chain,
        added: tuple[StatementId, ...],
        *,
        begins: bool,
        now: int,
    ) -> Signed:
        view = scene.view
        newest_at = view.newest.issued_at if view.newest else 0
        heartbeat = sign_heartbeat(
            self._key,
            domain=self._domain,
            root_version=scene.root.version,
            epoch=chain.epoch,
            count=len(chain.ids),
            head=chain.head,
            recent=chain.ids[-limits.MAX_RECENT_IDS :],
            issued_at=max(now, newest_at + 1),
            previous=_list_before(view, begins=begins),
        )
        self._keep(heartbeat, chain, added, begins=begins)
        self._signed_at, self._dirty = now, False
        if not begins:
            return Signed(heartbeat=heartbeat, view=replace(view, chain=chain), added=added)
        if view.chain.epoch:
            _log.info(
                "a new list of heartbeats is begun",
                entries_before=len(view.chain.ids),
                entries=len(chain.ids),
            )
        self._begun = True
        return Signed(heartbeat=heartbeat, view=close(view, chain), added=added)

    def _keep(
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
                self._domain,
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


def _list_before(view: KeyView, *, begins: bool) -> ListEnd | None:
    """Return how the list before ended; every head names it, for whoever missed some."""
    if begins:
        return view.end
    return view.newest.previous if view.newest else None
