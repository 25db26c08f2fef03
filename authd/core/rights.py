"""Compiled rights: what one key may do under the conditions of one CONNECT, and until when."""

import enum
from dataclasses import dataclass, replace

from authd.core.formation import Path
from authd.core.identity import DomainId, PublicKey, StatementId
from authd.core.policy import Policy
from authd.core.topics import Action, name_levels, overlaps, reaches, request_levels
from authd.core.trust import Freshness


class Operation(enum.StrEnum):
    """What a client wants to do with a topic."""

    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"
    RECEIVE = "receive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """One entry of compiled rights.

    Attributes:
        topic_filter: What it is about.
        actions: What may be done.
        expires_at: The earliest end of its path; seconds since the Unix epoch.
        domains: The domains its path starts in and crosses.
        path: Index into `Rights.paths`.
        proof: Indexes of all paths it rests on, where a guarded prefix asks for several; empty
            otherwise.
    """

    topic_filter: str
    actions: Action
    expires_at: int
    domains: tuple[DomainId, ...]
    path: int
    proof: tuple[int, ...] = ()

    def ends_at(self, *, policy: Policy, freshness: Freshness) -> int:
        """Say until when it may be used without further news."""
        fresh_until = min(freshness.get(domain, 0) for domain in self.domains)
        if not fresh_until:
            return 0
        return min(
            self.expires_at,
            fresh_until + policy.grace_s(self.domains, self.topic_filter),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Withheld:
    """A right that was granted and does not count: it reaches into a guarded prefix.

    Attributes:
        topic_filter: What was granted.
        guard: The prefix.
        k: How many disjoint paths it asks for.
        found: How many there are.
    """

    topic_filter: str
    guard: str
    k: int
    found: int

    def __str__(self) -> str:
        """Say it in a sentence."""
        return (
            f"`{self.topic_filter}` reaches into `{self.guard}`, which asks for {self.k} paths that"
            f" share no key; found: {self.found}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """Compiled rights of one key under the conditions of one CONNECT, and what they rest on.

    INVARIANT: a plain look through ``entries`` decides: whatever reaches into a guarded prefix and
    was not proven with its k is not among them, so that enforcement points need no other rule.
    """

    entries: tuple[Right, ...] = ()
    paths: tuple[Path, ...] = ()
    withheld: tuple[Withheld, ...] = ()

    @property
    def keys(self) -> frozenset[PublicKey]:
        """Every key they rest on."""
        return frozenset(key for path in self.paths for key in path.keys)

    @property
    def grants(self) -> frozenset[StatementId]:
        """Every grant they rest on."""
        return frozenset(grant.statement_id for path in self.paths for grant in path.grants)

    def find(self, operation: Operation, topic: str) -> Right | None:
        """Find an entry that allows an operation."""
        subscribes = operation is Operation.SUBSCRIBE
        levels = request_levels(topic) if subscribes else name_levels(topic)
        needed = int(Action.PUB if operation is Operation.PUBLISH else Action.SUB)
        for entry in self.entries:
            if int(entry.actions) & needed and reaches(entry.topic_filter, levels):
                return entry
        return None

    def why_not(self, topic: str) -> str:
        """Return what to add to "not granted": the guarded prefix in the way; or nothing."""
        reaching = (one for one in self.withheld if overlaps(one.guard, topic))
        return next((f"; {one}" for one in reaching), "")

    def without_ended(self, *, policy: Policy, freshness: Freshness, now: int) -> "Rights":
        """Return what is left when entries that have ended go."""
        entries = tuple(
            entry
            for entry in self.entries
            if entry.ends_at(policy=policy, freshness=freshness) > now
        )
        return replace(self, entries=entries)

    def lease_until(self, *, policy: Policy, freshness: Freshness) -> int:
        """Say when the first entry ends; 0 without entries."""
        ends = [entry.ends_at(policy=policy, freshness=freshness) for entry in self.entries]
        return min(ends, default=0)
