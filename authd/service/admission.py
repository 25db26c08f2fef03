"""Who may be a peer: a node key with ``$authd/node`` from the own domain.

Freshness does not count here: a daemon that was cut off must be able to come back.
"""

from collections.abc import Iterable
from typing import Final

from authd.core.claims import Kind
from authd.core.identity import PublicKey
from authd.core.paths import Path, find_paths
from authd.core.topics import POWER_NODE, has_power
from authd.service.authority import Authority
from authd.service.ports import Clock, Item

_FOREVER: Final = 2**62


class NodeAdmission:
    """Implements the port `Admission` for one node."""

    def __init__(self, *, authority: Authority, clock: Clock, node: PublicKey) -> None:
        """Wire the parts; ``node`` is this daemon's own node key."""
        self._authority = authority
        self._clock = clock
        self._node = node

    def admits(self, node: PublicKey) -> bool:
        """Say whether a node key may be a peer."""
        return bool(self._admitting_paths(node))

    def is_own(self, node: PublicKey) -> bool:
        """Say whether the own domain admits a node key by itself, by way of no other domain."""
        return any(len(path.domains) == 1 for path in self._admitting_paths(node))

    def admission_grants(self) -> list[bytes]:
        """Return this node's own admission path, root side first; empty if it has none."""
        paths = self._admitting_paths(self._node)
        return [grant.encoded for grant in paths[0].grants] if paths else []

    def learn_grants(self, grants: Iterable[bytes]) -> None:
        """Take in grants that a peer shows for its admission; bad ones are left out.

        Nobody has vouched for the peer yet, so nothing it shows may wait in the buffer.
        """
        self._authority.receive([Item(Kind.GRANT, data) for data in grants], source="stapled")

    def _admitting_paths(self, node: PublicKey) -> list[Path]:
        policy, state = self._authority.policy, self._authority.state
        evaluation = find_paths(
            state,
            node,
            policy=policy,
            freshness=dict.fromkeys(state.roots, _FOREVER),
            now=self._clock.now(),
        )
        return [
            path
            for path in evaluation.paths
            if path.domains[0] == policy.own and has_power(path.scope, POWER_NODE)
        ]
