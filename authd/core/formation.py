"""Formation: which links count now, and what a chain of them is.

A *link* is a grant or a root entry. A *chain* is links from a root entry down to a key. Formation
drops links that do not count at a moment: expired, not yet valid, revoked, signed by a root key of
a domain on the chain, or in or beyond a domain that is not usable. What is left is a graph; the
search for paths (`core.paths`) and the count of disjoint ones (`core.disjoint`) walk it.
"""

from dataclasses import dataclass, field
from typing import TypeAlias

from authd.core import limits
from authd.core.encoding import encode_base64url
from authd.core.grants import DomainSubject, Grant, Subject
from authd.core.identity import DomainId, PublicKey, key_id_text
from authd.core.policy import Policy
from authd.core.roots import Authority, Root, lives_too_long
from authd.core.topics import Scope
from authd.core.trust import Freshness, TrustState
from authd.errors import ReasonCode


@dataclass(frozen=True, slots=True)
class Entry:
    """A root entry on a chain."""

    root: Root
    authority: Authority


Link: TypeAlias = Grant | Entry
Chain: TypeAlias = tuple[Link, ...]
"""Links, root side first."""


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


@dataclass(slots=True, kw_only=True)
class Formation:
    """What one evaluation looks at, and why links did not count."""

    state: TrustState
    policy: Policy
    freshness: Freshness
    now: int
    failures: dict[Failure, None] = field(default_factory=dict)

    def fail(self, reason: ReasonCode, detail: str) -> None:
        """Note why something does not count."""
        self.failures[Failure(reason, detail)] = None

    # --- one link -------------------------------------------------------------------------

    def counts(self, grant: Grant, subject: Subject) -> bool:
        """Say whether a grant to a subject counts now, whatever is above it."""
        issuer = name_of(grant.issuer)
        revoked = self.state.grant_revocation(grant) or self.state.self_revocation(grant.issuer)
        if grant.subject != subject:
            # Keys, TLS keys and domains are filed under 16 bytes alike, and an issuer may write any
            # 16 bytes for a domain: a grant to a "domain" of a key's id is no grant to that key.
            self.fail(ReasonCode.UNTRUSTED, f"a grant by {issuer} names another kind of subject")
        elif grant.issuer in self.state.fallen:
            # Nothing else needs asking: whoever stands on a key's branch does so by its grants.
            self.fail(
                ReasonCode.REVOKED,
                f"all below {issuer} is taken for revoked: it overflowed its quota",
            )
        elif isinstance(subject, DomainSubject) and subject.domain in self.state.fallen:
            self.fail(
                ReasonCode.REVOKED,
                f"all below domain `{encode_base64url(subject.domain)}` is taken for revoked: it"
                " overflowed its quota",
            )
        elif grant.depth and self.state.is_pushed_out(grant):
            self.fail(ReasonCode.UNTRUSTED, f"a grant by {issuer} is pushed out by newer ones")
        elif revoked is not None:
            self.fail(ReasonCode.REVOKED, f"a grant by {issuer} is revoked{why(revoked.reason)}")
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

    def entry_counts(self, root: Root, authority: Authority) -> bool:
        """Say whether a root entry counts now, and its domain is usable."""
        name = encode_base64url(root.domain)
        expires_at = min(root.expires_at, authority.expires_at)
        if expires_at <= self.now:
            self.fail(
                ReasonCode.EXPIRED,
                f"authority {name_of(authority.key)} of domain `{name}` expired"
                f" {self.now - expires_at} s ago",
            )
            return False
        if lives_too_long(root, now=self.now):
            self.fail(
                ReasonCode.LIMIT_EXCEEDED,
                f"the root of domain `{name}` ends {root.expires_at - self.now} s ahead, later than"
                " any root may",
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

    # --- a chain --------------------------------------------------------------------------

    def fits(self, chain: Chain) -> bool:
        """Say whether every depth of a chain, or of its lower end, allows what is below."""
        grants_after = 0
        for link in reversed(chain):
            depth = link.depth if isinstance(link, Grant) else link.authority.depth
            if depth < grants_after:
                giver = link.issuer if isinstance(link, Grant) else link.authority.key
                self.fail(
                    ReasonCode.DEPTH_EXCEEDED,
                    f"{grants_after} grants stand below one by {name_of(giver)} that allows"
                    f" {depth}",
                )
                return False
            grants_after += isinstance(link, Grant)
        if grants_after > limits.MAX_PATH_GRANTS:
            self.fail(ReasonCode.DEPTH_EXCEEDED, f"more than {limits.MAX_PATH_GRANTS} grants")
            return False
        return True

    def _signed_by_root_key(self, entries: list[Entry], grants: tuple[Grant, ...]) -> bool:
        # Only domains on the path are asked: any domain may *list* any key as its root key, and
        # must not be able to void the grants of others by that.
        for entry in entries:
            root_keys = self.state.root_keys_of(entry.root.domain)
            for grant in grants:
                if grant.issuer in root_keys:
                    self.fail(
                        ReasonCode.UNTRUSTED,
                        f"{name_of(grant.issuer)} is a root key: those sign only roots",
                    )
                    return True
        return False

    def _revoked_by_revoker(self, chain: Chain, key: PublicKey) -> bool:
        for place, link in enumerate(chain):
            if not isinstance(link, Entry):
                continue
            for below in keys_of(chain[place:], key):
                revoked = self.state.revoker_revocation(below, link.authority)
                if revoked is not None:
                    self.fail(
                        ReasonCode.REVOKED,
                        f"key {name_of(below)} is revoked by {name_of(revoked.issuer)}"
                        f"{why(revoked.reason)}",
                    )
                    return True
        return False

    def path_of(self, chain: Chain, key: PublicKey, scope: Scope) -> Path | None:
        """Turn a chain that begins at a listed domain into a path; None if it is none.

        Args:
            chain: Its links count and fit one by one.
            key: Where it ends.
            scope: What every link of it allows.
        """
        entries = [link for link in chain if isinstance(link, Entry)]
        grants = tuple(link for link in chain if isinstance(link, Grant))
        hops = self.policy.domains[entries[0].root.domain].hops
        if len(entries) - 1 > hops:
            self.fail(ReasonCode.UNTRUSTED, f"a path crosses more than {hops} domain ids")
            return None
        if self._signed_by_root_key(entries, grants) or self._revoked_by_revoker(chain, key):
            return None
        if not scope:
            self.fail(
                ReasonCode.NOT_GRANTED,
                f"the grants from {name_of(entries[0].authority.key)} down to {name_of(key)} have"
                " no right in common",
            )
            return None
        return Path(
            domains=tuple(entry.root.domain for entry in entries),
            grants=grants,
            keys=keys_of(chain, key),
            scope=scope,
            expires_at=min(map(_expires_at, chain)),
            depth=_depth_left(chain),
        )


def why(reason: str) -> str:
    """Write the reason of a revocation behind a sentence."""
    return f" ({reason})" if reason else ""


def name_of(key: PublicKey) -> str:
    """Write a key for a message."""
    return f"`{key_id_text(key)}`"


def scope_of(link: Link) -> Scope:
    """Return what a link allows."""
    return link.scope if isinstance(link, Grant) else link.authority.scope


def start_of(chain: Chain) -> Entry:
    """Return the entry that a complete chain begins with."""
    return next(link for link in chain if isinstance(link, Entry))


def keys_of(chain: Chain, key: PublicKey) -> tuple[PublicKey, ...]:
    """Return every key of a chain to ``key``, root side first."""
    issuers = [link.issuer for link in chain if isinstance(link, Grant)]
    return (*issuers, key)


def _expires_at(link: Link) -> int:
    if isinstance(link, Grant):
        return link.expires_at
    return min(link.root.expires_at, link.authority.expires_at)


def _depth_left(chain: Chain) -> int:
    left = limits.MAX_DEPTH
    grants_after = 0
    for link in reversed(chain):
        depth = link.depth if isinstance(link, Grant) else link.authority.depth
        left = min(left, depth - grants_after)
        grants_after += isinstance(link, Grant)
    return left
