"""Every verified root, by id: what the next version of each domain must follow, and how soon."""

from authd.core import limits
from authd.core.identity import DomainId, StatementId
from authd.core.roots import Root, parse_root, verify_root
from authd.core.trust import TrustState
from authd.errors import EquivocationError
from authd.service.quotas import Bucket


class RootChain:
    """The roots a daemon has verified, and those it refuses for ever."""

    def __init__(self) -> None:
        """Start empty."""
        self._roots: dict[StatementId, Root] = {}
        self._rivals: set[StatementId] = set()
        self._contested: set[tuple[DomainId, int]] = set()
        self._paces: dict[DomainId, Bucket] = {}

    def is_known(self, data: bytes) -> bool:
        """Say whether this root was added or refused before.

        Raises:
            AuthdError: It is malformed.
        """
        statement_id = parse_root(data).statement_id
        return statement_id in self._roots or statement_id in self._rivals

    def is_spare(self, data: bytes, state: TrustState) -> bool:
        """Say whether a root is one more rival of a version that has one already.

        Two valid roots of one version prove that too many keys are in the wrong hands; whoever has
        them can sign such roots without end, and a third proves nothing more.

        Args:
            data: Untrusted.
            state: The roots in force.

        Raises:
            AuthdError: It is malformed.
        """
        claims = parse_root(data).claims
        before = self._roots.get(claims.previous) if claims.previous is not None else None
        if before is None or (before.domain, claims.version) not in self._contested:
            return False
        return claims.version <= state.roots[before.domain].version

    def is_too_soon(self, data: bytes, state: TrustState, *, own: DomainId, now: float) -> bool:
        """Say whether a domain, other than the own one, had too many roots taken of late.

        Only what follows the root in force is paced: a former quorum cannot keep it waiting. It
        costs no signature, and is charged for nothing that does not verify.

        Args:
            data: Untrusted.
            state: The roots in force.
            own: The own domain.
            now: Monotonic seconds.

        Raises:
            AuthdError: It is malformed.
        """
        before = parse_root(data).claims.previous
        held = self._roots.get(before) if before is not None else None
        # A domain has one first root, which is its id.
        if held is None or held.domain == own or held != state.roots.get(held.domain):
            return False
        return self._pace(held.domain, now).level(now=now) < 1

    def charge(self, root: Root, *, now: float) -> None:
        """Charge a root that was verified, and came from the network, to its domain."""
        self._pace(root.domain, now).take()

    def _pace(self, domain: DomainId, now: float) -> Bucket:
        # Only domains come here whose root was taken: policy and quotas bound how many there are.
        if domain not in self._paces:
            self._paces[domain] = Bucket(
                rate_per_s=limits.ROOTS_PER_S, burst=limits.ROOT_BURST, now=now
            )
        return self._paces[domain]

    def verify(self, data: bytes, *, now: int | None = None) -> Root | None:
        """Verify a root against the version before it; None if that one is not known here.

        Args:
            data: Untrusted.
            now: Seconds since the Unix epoch; None for one that was verified when it was stored.

        Raises:
            AuthdError: It is malformed, or not signed by enough keys.
        """
        before = parse_root(data).claims.previous
        if before is not None and before not in self._roots:
            return None
        return verify_root(data, previous=self._roots[before] if before else None, now=now)

    def add(self, root: Root) -> None:
        """Let later versions follow this one."""
        self._roots[root.statement_id] = root

    def refuse_rival(self, root: Root, state: TrustState) -> None:
        """Refuse a root that is not newer than the one in force, for ever.

        Raises:
            EquivocationError: It is such a one.
        """
        held = state.roots.get(root.domain)
        if held is None or held.version < root.version:
            return
        self._rivals.add(root.statement_id)
        self._contested.add((root.domain, root.version))
        raise EquivocationError(
            f"two valid roots of version {root.version}: the one held stays in force",
        )
