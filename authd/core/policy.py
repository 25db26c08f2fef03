"""Local policy: which domains this daemon listens to, and how stale their news may get."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from authd.core.identity import DomainId
from authd.core.topics import (
    POWER_ADMIN,
    POWER_NODE,
    POWER_REVOKE,
    Action,
    Scope,
    make_scope,
    overlaps,
)

DEFAULT_GRACE_S: Final = 3_600
ALL_ACTIONS: Final = Action.PUB | Action.SUB | Action.SERVE
FULL_SCOPE: Final = make_scope(
    {
        "#": ALL_ACTIONS,
        # No wildcard reaches a first level that begins with `$`; `$CONTROL` is left out on purpose.
        "$SYS/#": Action.SUB,
        POWER_ADMIN: Action.PUB,
        POWER_NODE: Action.PUB,
        POWER_REVOKE: Action.PUB,
    },
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainPolicy:
    """What a domain may start paths for here.

    Attributes:
        scope: What its authorities may give at most.
        grace_s: How long it stays usable after its last fresh moment; 0 is strict.
        hops: Domain ids a path from it may cross.
    """

    scope: Scope = FULL_SCOPE
    grace_s: int = DEFAULT_GRACE_S
    hops: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardedPrefix:
    """A topic prefix with a stricter rule of its own.

    Attributes:
        topic_filter: ``prefix/#``.
        grace_s: As in `DomainPolicy`.
        k: How many paths that share no key and no crossed domain must give a right below it.
    """

    topic_filter: str
    grace_s: int
    k: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Everything local that decides, as one value.

    Attributes:
        own: The domain of this daemon and its brokers.
        domains: Every domain that may start a path, the own one included.
        guarded: Stricter prefixes.
    """

    own: DomainId
    domains: Mapping[DomainId, DomainPolicy]
    guarded: tuple[GuardedPrefix, ...] = ()
    _unlisted: DomainPolicy = field(default_factory=DomainPolicy)

    def domain(self, domain: DomainId) -> DomainPolicy:
        """Return a domain's policy; one that is only crossed has the default grace."""
        return self.domains.get(domain, self._unlisted)

    def grace_s(self, domains: tuple[DomainId, ...], topic_filter: str) -> int:
        """Return the smallest grace of the domains and of the prefixes a filter overlaps."""
        graces = [self.domain(domain).grace_s for domain in domains]
        graces += [
            guard.grace_s for guard in self.guarded if overlaps(guard.topic_filter, topic_filter)
        ]
        return min(graces)

    def guards_of(self, topic_filter: str) -> tuple[GuardedPrefix, ...]:
        """Return the prefixes a filter reaches into that ask for more than one path."""
        return tuple(
            guard
            for guard in self.guarded
            if guard.k > 1 and overlaps(guard.topic_filter, topic_filter)
        )
