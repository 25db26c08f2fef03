"""Until when each domain is fresh, and what of that goes on under a new root."""

from collections.abc import Mapping

from authd.core import limits
from authd.core.identity import DomainId
from authd.core.revocations import DomainView
from authd.service.ports import Clock


class Freshness:
    """What the views of domains say about the time."""

    def __init__(self, clock: Clock) -> None:
        """Begin with no domain that ever was fresh."""
        self._clock = clock
        # Until when each domain was fresh under the root before its newest.
        self._before: dict[DomainId, int] = {}
        self._known: dict[DomainId, tuple[DomainView, int]] = {}

    def carry_over(self, domain: DomainId, view: DomainView) -> None:
        """Note until when a domain is fresh, because its root is about to be replaced."""
        self._before[domain] = max(view.fresh_until(), self._before.get(domain, 0))

    def forget(self, domain: DomainId) -> None:
        """Let nothing go on: one of the domain's keys has lied."""
        self._before.pop(domain, None)

    def of(self, domains: Mapping[DomainId, DomainView]) -> dict[DomainId, int]:
        """Return until when each domain is, or was last, fresh; domains that never were are out.

        A host whose clock was set back cannot tell how old a head is: nothing is fresh there.
        """
        found: dict[DomainId, int] = {}
        if self._clock.behind_s() > limits.HEARTBEAT_AHEAD_S:
            return found
        for domain, view in domains.items():
            # The keys of a new root have yet to sign for it: what was fresh goes on, no longer.
            until = max(self._until(domain, view), self._before.get(domain, 0))
            if until:
                found[domain] = until
        return found

    def _until(self, domain: DomainId, view: DomainView) -> int:
        # A view never changes, it is replaced: asked for twice a decision, computed once a view.
        known = self._known.get(domain)
        if known is None or known[0] is not view:
            self._known[domain] = known = (view, view.fresh_until())
        return known[1]
