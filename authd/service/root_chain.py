"""Every verified root, by id: what the next version of each domain must follow."""

from authd.core.identity import StatementId
from authd.core.roots import Root, parse_root, verify_root
from authd.core.trust import TrustState
from authd.errors import EquivocationError


class RootChain:
    """The roots a daemon has verified, and those it refuses for ever."""

    def __init__(self) -> None:
        """Start empty."""
        self._roots: dict[StatementId, Root] = {}
        self._rivals: set[StatementId] = set()

    def is_known(self, data: bytes) -> bool:
        """Say whether this root was added or refused before.

        Raises:
            AuthdError: It is malformed.
        """
        statement_id = parse_root(data).statement_id
        return statement_id in self._roots or statement_id in self._rivals

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
        raise EquivocationError(
            f"two valid roots of version {root.version}: the one held stays in force",
        )
