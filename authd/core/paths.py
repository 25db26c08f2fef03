"""Paths: from the root of a domain, over at most four grants, to a key.

Two stages. *Formation* drops edges that do not count now: expired, not yet valid, revoked, signed
by a root key of a domain on the path, or in or beyond a domain that is not usable. *Search* climbs
from the subject to authorities, with depth respected, in one fixed order and with counted work: a
limit leaves paths out, so it may under-grant, but it never voids what was found and never allows.

Crossing a domain id goes through one authority entry of that domain's newest root, which narrows
scope, depth and expiry like a grant but counts neither as one of the four nor for depth.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from authd.core import limits
from authd.core.encoding import encode_base64url
from authd.core.grants import DomainSubject, Grant, KeySubject, Subject
from authd.core.identity import DomainId, PublicKey, key_id, key_id_text
from authd.core.policy import Policy
from authd.core.roots import Authority, Root
from authd.core.topics import Scope, meet_scopes
from authd.core.trust import Freshness, TrustState, subject_id
from authd.errors import ReasonCode

Link: TypeAlias = "Grant | _Entry"
_Open: TypeAlias = tuple[Subject, tuple[Link, ...]]
"""Where to go on: whose grants to look at, and the chain below."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A root entry on a path."""

    root: Root
    authority: Authority


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """One proven path.

    Attributes:
        domains: The domain it starts in, then those it crosses.
        grants: Root side first; 1 to ``limits.MAX_PATH_GRANTS``.
        keys: Every key on it, root side first, the subject last.
        scope: What every link on it allows.
        expires_at: The earliest end of a link; seconds since the Unix epoch.
        depth: Further grants the subject may put below.
    """

    domains: tuple[DomainId, ...]
    grants: tuple[Grant, ...]
    keys: tuple[PublicKey, ...]
    scope: Scope
    expires_at: int
    depth: int

    @property
    def leaf(self) -> Grant:
        """The grant to the subject."""
        return self.grants[-1]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one way to the subject does not count."""

    reason: ReasonCode
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a search found.

    Attributes:
        paths: In the order they were found.
        failures: Why others do not count.
        truncated: A limit was reached: there may be more paths.
    """

    paths: tuple[Path, ...]
    failures: tuple[Failure, ...]
    truncated: bool = False

    def first_failure(self) -> Failure:
        """Choose the failure that got furthest, which is the one to mend."""
        return min(self.failures, key=lambda failure: _ORDER.index(failure.reason))


# A revocation is always told; then what is closest to a complete path comes first.
_ORDER = (
    ReasonCode.REVOKED,
    ReasonCode.STALE,
    ReasonCode.NOT_GRANTED,
    ReasonCode.DEPTH_EXCEEDED,
    ReasonCode.EXPIRED,
    ReasonCode.NOT_YET_VALID,
    ReasonCode.UNTRUSTED,
    ReasonCode.LIMIT_EXCEEDED,
    ReasonCode.UNKNOWN_KEY,
)


def find_paths(
    state: TrustState,
    key: PublicKey,
    *,
    policy: Policy,
    freshness: Freshness,
    now: int,
) -> Evaluation:
    """Find the paths on which a key's rights rest.

    Args:
        state: What is known.
        key: The subject.
        policy: Which domains may start a path, and their grace.
        freshness: Until when each domain is fresh.
        now: Seconds since the Unix epoch.
    """
    search = _Search(state=state, policy=policy, freshness=freshness, now=now)
    revoked = state.self_revocation(key)
    if revoked is not None:
        search.fail(
            ReasonCode.REVOKED, f"key `{key_id_text(key)}` revoked itself{_why(revoked.reason)}"
        )
        return search.result()
    if not state.grants_to(key_id(key)):
        search.fail(ReasonCode.UNKNOWN_KEY, f"no grant for key `{key_id_text(key)}` is known here")
        return search.result()
    for chain in search.chains(key):
        search.conclude(chain, key)
        if len(search.paths) >= limits.MAX_PATHS:
            search.truncated = True
            break
    return search.result()


def _why(reason: str) -> str:
    return f" ({reason})" if reason else ""


def _id(key: PublicKey) -> str:
    return f"`{key_id_text(key)}`"


@dataclass(slots=True, kw_only=True)
class _Search:
    """One evaluation: what it looks at, what it has found, and the work left."""

    state: TrustState
    policy: Policy
    freshness: Freshness
    now: int
    steps_left: int = limits.MAX_EVALUATION_STEPS
    truncated: bool = False
    paths: list[Path] = field(default_factory=list)
    failures: dict[Failure, None] = field(default_factory=dict)

    def fail(self, reason: ReasonCode, detail: str) -> None:
        self.failures[Failure(reason, detail)] = None

    def result(self) -> Evaluation:
        if self.truncated:
            self.fail(ReasonCode.LIMIT_EXCEEDED, "the search for paths reached its step limit")
        return Evaluation(
            paths=tuple(self.paths),
            failures=tuple(self.failures),
            truncated=self.truncated,
        )

    # --- search ---------------------------------------------------------------------------

    def chains(self, key: PublicKey) -> Iterator[tuple[Link, ...]]:
        """Yield chains of links, root side first, that lead to ``key``; shorter ones first.

        Level by level, so that a bush of grants somewhere above cannot use up the steps before the
        short paths were seen.
        """
        level: list[_Open] = [(KeySubject(key), ())]
        while level:
            above: list[_Open] = []
            for subject, below in level:
                for grant in self.state.grants_to(subject_id(subject)):
                    if self.steps_left <= 0:
                        self.truncated = True
                        return
                    self.steps_left -= 1
                    chain: tuple[Link, ...] = (grant, *below)
                    if self._counts(grant, subject) and self._joins(chain, key):
                        yield from self._from_issuer(grant.issuer, chain, above)
            level = above

    def _from_issuer(
        self,
        issuer: PublicKey,
        chain: tuple[Link, ...],
        above: list["_Open"],
    ) -> Iterator[tuple[Link, ...]]:
        """Yield the chain where it is complete; add to ``above`` where to go on."""
        found = False
        for root, authority in self.state.authorities_with(issuer):
            entry = (_Entry(root, authority), *chain)
            if not self._entry_counts(root, authority) or not self._fits(entry):
                found = True
                continue
            if root.domain in self.policy.domains:
                found = True
                yield entry
            if self.state.grants_to(root.domain):
                found = True
                above.append((DomainSubject(root.domain), entry))
        if self.state.grants_to(key_id(issuer)):
            found = True
            above.append((KeySubject(issuer), chain))
        if not found:
            self.fail(
                ReasonCode.UNTRUSTED,
                f"issuer {_id(issuer)} is not an authority of a trusted domain and holds no grant",
            )

    def _joins(self, chain: tuple[Link, ...], key: PublicKey) -> bool:
        keys = _keys_of(chain, key)
        if keys[0] in keys[1:]:
            self.fail(ReasonCode.UNTRUSTED, f"a path passes key {_id(keys[0])} twice")
            return False
        return self._fits(chain)

    def _fits(self, chain: tuple[Link, ...]) -> bool:
        grants_after = 0
        for link in reversed(chain):
            depth = link.depth if isinstance(link, Grant) else link.authority.depth
            if depth < grants_after:
                giver = link.issuer if isinstance(link, Grant) else link.authority.key
                self.fail(
                    ReasonCode.DEPTH_EXCEEDED,
                    f"{grants_after} grants stand below one by {_id(giver)} that allows {depth}",
                )
                return False
            grants_after += isinstance(link, Grant)
        if grants_after > limits.MAX_PATH_GRANTS:
            self.fail(ReasonCode.DEPTH_EXCEEDED, f"more than {limits.MAX_PATH_GRANTS} grants")
            return False
        return True

    # --- formation ------------------------------------------------------------------------

    def _counts(self, grant: Grant, subject: Subject) -> bool:
        issuer = _id(grant.issuer)
        revoked = self.state.grant_revocation(grant) or self.state.self_revocation(grant.issuer)
        if grant.subject != subject:
            # Keys and domains are filed under 16 bytes alike, and an issuer may write any 16 bytes
            # for a domain: a grant to a "domain" of a key's id is no grant to that key.
            self.fail(ReasonCode.UNTRUSTED, f"a grant by {issuer} names a key as a domain")
        elif revoked is not None:
            self.fail(ReasonCode.REVOKED, f"a grant by {issuer} is revoked{_why(revoked.reason)}")
        elif grant.issued_at > self.now + limits.MAX_ISSUED_AHEAD_S:
            self.fail(
                ReasonCode.NOT_YET_VALID,
                f"a grant by {issuer} is dated {grant.issued_at - self.now} s ahead",
            )
        elif grant.expires_at <= self.now:
            self.fail(
                ReasonCode.EXPIRED,
                f"a grant by {issuer} expired {self.now - grant.expires_at} s ago",
            )
        else:
            return True
        return False

    def _entry_counts(self, root: Root, authority: Authority) -> bool:
        name = encode_base64url(root.domain)
        expires_at = min(root.expires_at, authority.expires_at)
        if expires_at <= self.now:
            self.fail(
                ReasonCode.EXPIRED,
                f"authority {_id(authority.key)} of domain `{name}` expired"
                f" {self.now - expires_at} s ago",
            )
            return False
        fresh_until = self.freshness.get(root.domain, 0)
        if not fresh_until:
            self.fail(ReasonCode.STALE, f"domain `{name}` has not been fresh here yet")
            return False
        stale_s = self.now - fresh_until - self.policy.domain(root.domain).grace_s
        if stale_s >= 0:
            self.fail(
                ReasonCode.STALE,
                f"no complete news from domain `{name}` for {self.now - fresh_until} s,"
                f" its grace of {self.policy.domain(root.domain).grace_s} s is over",
            )
            return False
        return True

    # --- a complete chain -----------------------------------------------------------------

    def conclude(self, chain: tuple[Link, ...], key: PublicKey) -> None:
        """Turn a chain that begins at a listed domain into a path, or say why it is none."""
        entries = [link for link in chain if isinstance(link, _Entry)]
        grants = tuple(link for link in chain if isinstance(link, Grant))
        start = self.policy.domains[entries[0].root.domain]
        if len(entries) - 1 > start.hops:
            self.fail(ReasonCode.UNTRUSTED, f"a path crosses more than {start.hops} domain ids")
            return
        if self._signed_by_root_key(entries, grants) or self._revoked_by_revoker(chain, key):
            return
        scope = self._scope_of(chain, start.scope)
        if not scope:
            self.fail(
                ReasonCode.NOT_GRANTED,
                f"the grants from {_id(entries[0].authority.key)} down to {_id(key)} have no"
                " right in common",
            )
            return
        self.paths.append(
            Path(
                domains=tuple(entry.root.domain for entry in entries),
                grants=grants,
                keys=_keys_of(chain, key),
                scope=scope,
                expires_at=min(map(_expires_at, chain)),
                depth=_depth_left(chain),
            ),
        )

    def _signed_by_root_key(self, entries: list[_Entry], grants: tuple[Grant, ...]) -> bool:
        # Only domains on the path are asked: any domain may *list* any key as its root key, and
        # must not be able to void the grants of others by that.
        for entry in entries:
            root_keys = self.state.root_keys_of(entry.root.domain)
            for grant in grants:
                if grant.issuer in root_keys:
                    self.fail(
                        ReasonCode.UNTRUSTED,
                        f"{_id(grant.issuer)} is a root key: those sign only roots",
                    )
                    return True
        return False

    def _revoked_by_revoker(self, chain: tuple[Link, ...], key: PublicKey) -> bool:
        for place, link in enumerate(chain):
            if not isinstance(link, _Entry):
                continue
            for below in _keys_of(chain[place:], key):
                revoked = self.state.revoker_revocation(below, link.authority)
                if revoked is not None:
                    self.fail(
                        ReasonCode.REVOKED,
                        f"key {_id(below)} is revoked by {_id(revoked.issuer)}"
                        f"{_why(revoked.reason)}",
                    )
                    return True
        return False

    def _scope_of(self, chain: tuple[Link, ...], scope: Scope) -> Scope:
        for link in chain:
            narrower = link.scope if isinstance(link, Grant) else link.authority.scope
            scope = meet_scopes(scope, narrower)
        return scope


def _keys_of(chain: tuple[Link, ...], key: PublicKey) -> tuple[PublicKey, ...]:
    issuers = [link.issuer for link in chain if isinstance(link, Grant)]
    return (*issuers, key)


def _expires_at(link: Link) -> int:
    if isinstance(link, Grant):
        return link.expires_at
    return min(link.root.expires_at, link.authority.expires_at)


def _depth_left(chain: tuple[Link, ...]) -> int:
    left = limits.MAX_DEPTH
    grants_after = 0
    for link in reversed(chain):
        depth = link.depth if isinstance(link, Grant) else link.authority.depth
        left = min(left, depth - grants_after)
        grants_after += isinstance(link, Grant)
    return left
