"""The web of trust as an immutable value, and what it knows of a key's grants and revocations.

`TrustState` holds verified statements and nothing else; `apply` returns a new state and never
changes the old one. The result does not depend on the order in which statements arrive:
revocations add up until what they name has ended, of the grants from one issuer to one subject the
newest four count, and a root is only ever replaced by its verified successor.

Which revocation counts for what:

- a *grant id* by that grant's issuer: that grant;
- a *key* by the key itself: everything that rests on the key, everywhere;
- a *key* by an issuer: every grant from that issuer to the key, past and future;
- a *key* by a revoker: every path on which the revoker's authority stands first, or directly after
  a domain id. A revoker is an authority whose root entry names ``$authd/revoke`` literally, or a
  key with a literal grant of it from such an authority. Only the authority's revocation of that
  very grant takes the power back.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from immutables import Map

from authd.core import limits
from authd.core.grants import Grant, HeldGrant, KeySubject, Subject, recall_grant
from authd.core.identity import DomainId, KeyId, PublicKey, StatementId, key_id
from authd.core.roots import Authority, Root
from authd.core.statements import Revoke
from authd.core.topics import POWER_REVOKE, has_power
from authd.errors import EquivocationError, StaleRecordError

Freshness: TypeAlias = Mapping[DomainId, int]
"""Until when each domain is fresh, seconds since the Unix epoch; absent means never."""


def subject_id(subject: Subject) -> bytes:
    """Return the 16 bytes a subject is filed under: key id or domain id."""
    return key_id(subject.key) if isinstance(subject, KeySubject) else subject.domain


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustState:
    """Every verified root, grant and revocation that counts.

    Attributes:
        roots: Newest root by domain.
        root_keys: By domain, every key that was ever a root key of it here; a grant signed by one
            is void on paths of that domain.
        root_entries: By domain, every key that was ever an authority of it here.
        grants: By subject id, in the order (issuer, newest first); as bytes, parsed when asked for.
        delegates: By issuer, the ids of the subjects that hold a grant of depth from it.
        revocations: By statement id.
        by_target: Revocations by what they name: 16 bytes a grant, 32 a key.
        issued: By issuer, how many grants are held.
        charges: By the key they are charged to (`charged_key`), how many revocations are held.
        deputed: By a revoker's grant that was not taken back: the authority, the revoker, and how
            many revocations of the one are charged to the other.
        fallen: Keys and domains whose branch overflowed a quota (`core.quotas`): nothing that
            stands on them counts.
        flooded: Those of them that hold too many revocations.
    """

    roots: Map[DomainId, Root] = field(default_factory=Map)
    root_keys: Map[DomainId, frozenset[PublicKey]] = field(default_factory=Map)
    root_entries: Map[DomainId, frozenset[PublicKey]] = field(default_factory=Map)
    grants: Map[bytes, tuple[HeldGrant, ...]] = field(default_factory=Map)
    delegates: Map[PublicKey, tuple[bytes, ...]] = field(default_factory=Map)
    revocations: Map[StatementId, Revoke] = field(default_factory=Map)
    by_target: Map[bytes, tuple[Revoke, ...]] = field(default_factory=Map)
    issued: Map[PublicKey, int] = field(default_factory=Map)
    charges: Map[PublicKey, int] = field(default_factory=Map)
    deputed: Map[StatementId, tuple[PublicKey, PublicKey, int]] = field(default_factory=Map)
    fallen: frozenset[bytes] = frozenset()
    flooded: frozenset[bytes] = frozenset()

    def apply_grant(self, grant: Grant) -> "TrustState":
        """Return the state with a grant in it."""
        return self.apply_grants([grant])

    def apply_grants(self, grants: Iterable[Grant]) -> "TrustState":
        """Return the state with grants in it; of one issuer and subject the newest four stay.

        The newest of depth stays too, though it counts no more: it says who vouched for whom, and
        what was signed on the strength of it stays charged.
        """
        return self.take_grants(grants)[0]

    def take_grants(self, grants: Iterable[Grant]) -> tuple["TrustState", tuple[Grant, ...]]:
        """Do as `apply_grants`, and return too what newer ones have pushed out."""
        changes, any_new = _GrantChanges(self), False
        for grant in grants:  # perhaps a million that are read as they are asked for
            changes.add(grant)
            any_new = True
        if not any_new:
            return self, ()
        return changes.finish(), tuple(changes.gone)

    def has_newer(self, grant: Grant) -> bool:
        """Say whether a grant would not count: as many newer ones are held as may."""
        held = self.grants_between(grant.issuer, subject_id(grant.subject))
        return all(one.statement_id != grant.statement_id for one in _newest(list(held), grant))

    def is_pushed_out(self, grant: Grant) -> bool:
        """Say whether a grant that is held counts no more: as many newer ones are as may."""
        held = self.grants_between(grant.issuer, subject_id(grant.subject))
        return grant in held[limits.MAX_GRANTS_PER_PAIR :]

    def without_ended(
        self,
        subjects: Iterable[bytes],
        *,
        before: int,
        keep: Callable[[Grant], bool] = lambda _: False,
    ) -> tuple["TrustState", tuple[Grant, ...]]:
        """Return the state without the grants to ``subjects`` that ended before a time, and those.

        Args:
            subjects: Key ids and domain ids.
            before: Seconds since the Unix epoch.
            keep: Says which of them stay all the same.
        """
        changes = _GrantChanges(self)
        for subject in subjects:
            changes.drop_ended(subject, lambda one: one.expires_at < before and not keep(one))
        return changes.finish(), tuple(changes.gone)

    def apply_revocations(self, revocations: Iterable[Revoke]) -> "TrustState":
        """Return the state with revocations in it."""
        new = [one for one in revocations if one.statement_id not in self.revocations]
        if not new:
            return self
        changes = _RevocationChanges(self)
        for revoke in new:
            changes.add(revoke)
        return changes.finish()

    def without_revocations(self, ids: Iterable[StatementId]) -> "TrustState":
        """Return the state without revocations that are needed no more (`core.endings`).

        One of a key, or one that a revoker signed, stays whatever is asked.
        """
        changes = _RevocationChanges(self)
        for one in ids:
            changes.drop(one)
        return changes.finish()

    def with_fallen(
        self, fallen: frozenset[bytes], flooded: frozenset[bytes] | None = None
    ) -> "TrustState":
        """Return the state with other branches treated as revoked whole.

        Args:
            fallen: All of them.
            flooded: Those that hold too many revocations; all if it is not said.
        """
        flooded = fallen if flooded is None else flooded
        if (fallen, flooded) == (self.fallen, self.flooded):
            return self
        return replace(self, fallen=fallen, flooded=flooded)

    def apply_root(self, root: Root) -> "TrustState":
        """Return the state with a root in the place of its predecessor.

        Raises:
            StaleRecordError: Not newer than the one held.
            EquivocationError: Another root of the same version, also signed by enough keys; the
                one held stays and the operator must be told.
        """
        held = self.roots.get(root.domain)
        if held is not None and root.version <= held.version:
            if root.version == held.version and root.statement_id != held.statement_id:
                raise EquivocationError(f"two valid roots of version {root.version}")
            raise StaleRecordError(f"root version {root.version} where {held.version} is held")
        root_keys = self.root_keys_of(root.domain) | set(root.root_keys)
        entries = self.root_entries.get(root.domain, frozenset()) | {
            one.key for one in root.authorities
        }
        return replace(
            self,
            roots=self.roots.set(root.domain, root),
            root_keys=self.root_keys.set(root.domain, root_keys),
            root_entries=self.root_entries.set(root.domain, entries),
        )

    def root_keys_of(self, domain: DomainId) -> frozenset[PublicKey]:
        """Return every key that was ever a root key of a domain here."""
        return self.root_keys.get(domain, frozenset())

    def grants_to(self, subject: bytes) -> tuple[Grant, ...]:
        """Return the grants held for a key id or domain id, whether they count or not."""
        return tuple(map(recall_grant, self.grants.get(subject, ())))

    def grants_between(self, issuer: PublicKey, subject: bytes) -> tuple[Grant, ...]:
        """Return the grants of one issuer to a key id or domain id, without a walk over others."""
        held = self.grants.get(subject, ())
        start, end = _span(held, issuer)
        return tuple(map(recall_grant, held[start:end]))

    def delegates_of(self, issuer: PublicKey) -> tuple[bytes, ...]:
        """Return the ids of the subjects that hold a grant of depth from an issuer, ascending."""
        return self.delegates.get(issuer, ())

    def key_of(self, wanted: KeyId) -> PublicKey | None:
        """Return the key with this id if some grant names it; never a TLS key's digest."""
        for held in self.grants.get(wanted, ()):
            grant = recall_grant(held)
            # Exactly this class: nothing may ever be verified with a digest.
            if type(grant.subject) is KeySubject:
                return grant.subject.key
        return None

    def authorities_with(self, key: PublicKey) -> Iterable[tuple[Root, Authority]]:
        """Find the root entries of a key, in the order of domain ids."""
        for domain in sorted(self.roots):
            root = self.roots[domain]
            authority = root.authority(key)
            if authority is not None:
                yield root, authority

    def domains_with(self, key: PublicKey) -> Iterable[DomainId]:
        """Find the domains that a key is, or ever was, an authority of here, ascending."""
        return (domain for domain in sorted(self.roots) if key in self.root_entries[domain])

    def holds_grant(self, grant: Grant) -> bool:
        """Say whether exactly this grant is held."""
        return any(
            held.statement_id == grant.statement_id
            for held in self.grants_between(grant.issuer, subject_id(grant.subject))
        )

    # --- what revocations say ------------------------------------------------------------

    def self_revocation(self, key: PublicKey) -> Revoke | None:
        """Find the key's revocation of itself."""
        return next((one for one in self.by_target.get(key, ()) if one.issuer == key), None)

    def grant_revocation(self, grant: Grant) -> Revoke | None:
        """Find a revocation of a grant by its issuer, by id or by the subject's key."""
        found = self.by_target.get(grant.statement_id, ())
        if isinstance(grant.subject, KeySubject):
            found += self.by_target.get(grant.subject.key, ())
        return next((one for one in found if one.issuer == grant.issuer), None)

    def revoker_revocation(self, key: PublicKey, authority: Authority) -> Revoke | None:
        """Find a revocation of a key by a revoker of the authority."""
        if not has_power(authority.scope, POWER_REVOKE):
            return None
        return next(
            (one for one in self.by_target.get(key, ()) if self._is_revoker(one, authority)),
            None,
        )

    def _is_revoker(self, revoke: Revoke, authority: Authority) -> bool:
        if revoke.issuer == authority.key:
            return True
        grant = revoke.revoker_grant
        if grant is None or grant.issuer != authority.key:
            return False
        return has_power(grant.scope, POWER_REVOKE) and not self._is_taken_back(grant)

    def _is_taken_back(self, grant: Grant) -> bool:
        held = self.by_target.get(grant.statement_id, ())
        return any(one.issuer == grant.issuer for one in held)

    def charged_key(self, revoke: Revoke) -> PublicKey | None:
        """Return whom a revocation is charged to; None for a key's revocation of itself.

        A revoker acts for the authority that named it, so that authority answers for it, until it
        takes that back.
        """
        if revoke.target == revoke.issuer:
            return None
        grant = _power_of(revoke)
        if grant is not None and not self._is_taken_back(grant):
            return grant.issuer
        return revoke.issuer


def _power_of(revoke: Revoke) -> Grant | None:
    """Return the grant that makes a signer a revoker, whether it was taken back or not."""
    grant = revoke.revoker_grant
    return grant if grant is not None and has_power(grant.scope, POWER_REVOKE) else None


class _RevocationChanges:
    """Changes to the revocations of a state, put together before a new state is made of them."""

    def __init__(self, state: TrustState) -> None:
        self._state = state
        self._by_id = state.revocations.mutate()
        self._by_target = state.by_target.mutate()
        self._charges = state.charges.mutate()
        self._deputed = state.deputed.mutate()

    def add(self, revoke: Revoke) -> None:
        if revoke.statement_id in self._by_id:
            return
        self._by_id[revoke.statement_id] = revoke
        held = self._by_target.get(revoke.target, ())
        place = bisect_left(held, revoke.statement_id, key=_id_of)
        self._by_target[revoke.target] = (*held[:place], revoke, *held[place:])
        self._charge(revoke)
        self._take_back(revoke)

    def drop(self, statement_id: StatementId) -> None:
        revoke = self._by_id.get(statement_id)
        if revoke is None or revoke.is_key or revoke.revoker_grant is not None:
            return
        del self._by_id[statement_id]
        left = tuple(one for one in self._by_target[revoke.target] if one != revoke)
        if left:
            self._by_target[revoke.target] = left
        else:
            del self._by_target[revoke.target]
        self._count(revoke.issuer, -1)
        if not self._charges[revoke.issuer]:
            # Nobody answers for it any more.
            del self._charges[revoke.issuer]

    def _charge(self, revoke: Revoke) -> None:
        grant = _power_of(revoke)
        if revoke.target == revoke.issuer:
            return
        if grant is None or self._is_taken_back(grant):
            self._count(revoke.issuer, 1)
            return
        self._count(grant.issuer, 1)
        known = self._deputed.get(grant.statement_id)
        count = known[2] if known else 0
        self._deputed[grant.statement_id] = grant.issuer, revoke.issuer, count + 1

    def _is_taken_back(self, grant: Grant) -> bool:
        held = self._by_target.get(grant.statement_id, ())
        return any(one.issuer == grant.issuer for one in held)

    def _take_back(self, revoke: Revoke) -> None:
        """Let a revoker answer for what it signed, if this takes back its grant."""
        grant_id = StatementId(revoke.target)
        found = self._deputed.get(grant_id)
        if found is None or revoke.issuer != found[0]:
            return
        authority, revoker, count = found
        del self._deputed[grant_id]
        self._count(authority, -count)
        self._count(revoker, count)

    def _count(self, key: PublicKey, count: int) -> None:
        # Taking back leads to nothing never: an authority that does so is charged for that.
        self._charges[key] = self._charges.get(key, 0) + count

    def finish(self) -> TrustState:
        return replace(
            self._state,
            revocations=self._by_id.finish(),
            by_target=self._by_target.finish(),
            charges=self._charges.finish(),
            deputed=self._deputed.finish(),
        )


class _GrantChanges:
    """Changes to the grants of a state, put together before a new state is made of them."""

    def __init__(self, state: TrustState) -> None:
        self._state = state
        self._grants = state.grants.mutate()
        self._issued = state.issued.mutate()
        # Made anew only if it changes: others tell by its identity whether it did.
        self._delegates: dict[PublicKey, tuple[bytes, ...]] = {}
        self.gone: list[Grant] = []

    def add(self, grant: Grant) -> None:
        subject = subject_id(grant.subject)
        held = self._grants.get(subject, ())
        start, end = _span(held, grant.issuer)
        before = [recall_grant(one) for one in held[start:end]]
        after = _newest(before, grant)
        if len(before) >= limits.MAX_GRANTS_PER_PAIR and after is not before:
            self.gone += [one for one in (*before, grant) if one not in after]
        self._grants[subject] = (*held[:start], *map(_held, after), *held[end:])
        self._note(grant.issuer, subject, before, after)

    def drop_ended(self, subject: bytes, is_over: Callable[[Grant], bool]) -> None:
        grants = [recall_grant(one) for one in self._grants.get(subject, ())]
        over = [one for one in grants if is_over(one)]
        if not over:
            return
        kept = [one for one in grants if one not in over]
        self.gone += over
        if kept:
            self._grants[subject] = tuple(map(_held, kept))
        else:
            del self._grants[subject]
        for issuer in dict.fromkeys(one.issuer for one in grants):
            pair = [[one for one in some if one.issuer == issuer] for some in (grants, kept)]
            self._note(issuer, subject, *pair)

    def _note(
        self, issuer: PublicKey, subject: bytes, before: list[Grant], after: list[Grant]
    ) -> None:
        count = self._issued.get(issuer, 0) + len(after) - len(before)
        if count:
            self._issued[issuer] = count
        else:
            self._issued.pop(issuer, None)
        if _delegate(before) != _delegate(after):
            known = self._delegates.get(issuer, self._state.delegates.get(issuer, ()))
            kept = {*known, subject} if _delegate(after) else {*known} - {subject}
            self._delegates[issuer] = tuple(sorted(kept))

    def finish(self) -> TrustState:
        state = self._state
        delegates = state.delegates
        for issuer, subjects in self._delegates.items():
            # Only grants that the state held before are ever dropped to the last.
            kept = delegates.set(issuer, subjects) if subjects else delegates.delete(issuer)
            delegates = kept
        return replace(
            state,
            grants=self._grants.finish(),
            delegates=delegates,
            issued=self._issued.finish(),
        )


def _span(held: tuple[HeldGrant, ...], issuer: PublicKey) -> tuple[int, int]:
    """Find the grants of one issuer by halving: thousands may have granted to a key."""
    start = bisect_left(held, issuer, key=_issuer_of)
    return start, bisect_right(held, issuer, lo=start, key=_issuer_of)


def _id_of(revoke: Revoke) -> StatementId:
    return revoke.statement_id


def _issuer_of(held: HeldGrant) -> PublicKey:
    return recall_grant(held).issuer


def _held(grant: Grant) -> HeldGrant:
    return HeldGrant(grant.encoded)


def _newest(held: list[Grant], grant: Grant) -> list[Grant]:
    """Add to the grants of one issuer to one subject; the first bytes of a statement stay."""
    if any(one.statement_id == grant.statement_id for one in held):
        return held
    ordered = sorted((*held, grant), key=_grant_order)
    newest = ordered[: limits.MAX_GRANTS_PER_PAIR]
    if not _delegate(newest):
        newest += [one for one in ordered[len(newest) :] if one.depth][:1]
    return newest


def _delegate(grants: list[Grant]) -> bool:
    return any(grant.depth for grant in grants)


def _grant_order(grant: Grant) -> tuple[int, StatementId]:
    return -grant.issued_at, grant.statement_id
