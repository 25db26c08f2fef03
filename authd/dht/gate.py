"""Who may take part: the admission port, with verdicts remembered for some seconds.

A search for a path costs far more than a datagram, so that asking anew for each would be a way to
keep a node busy. Only admissions are remembered, never refusals, and a dropped node is forgotten
at once.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from authd.core.identity import PublicKey
from authd.service.ports import Admission

_REMEMBER_S: Final = 10.0
_MAX_REMEMBERED: Final = 4_096


class Gate:
    """Admission with a short memory."""

    def __init__(self, admission: Admission) -> None:
        """Ask ``admission`` for what is not remembered."""
        self._admission = admission
        self._admitted_until: OrderedDict[PublicKey, float] = OrderedDict()

    def admits(self, node: PublicKey, *, now: float) -> bool:
        """Say whether a node may take part; ``now`` is monotonic seconds."""
        if self._admitted_until.get(node, 0.0) > now:
            return True
        if not self._admission.admits(node):
            self._admitted_until.pop(node, None)
            return False
        self._admitted_until[node] = now + _REMEMBER_S
        if len(self._admitted_until) > _MAX_REMEMBERED:
            self._admitted_until.popitem(last=False)
        return True

    def drop(self, node: PublicKey) -> None:
        """Forget that a node was admitted."""
        self._admitted_until.pop(node, None)

    def grants(self) -> list[bytes]:
        """Return the grants this node shows."""
        return self._admission.admission_grants()

    def learn(self, grants: Iterable[bytes]) -> None:
        """Take in grants a peer shows."""
        self._admission.learn_grants(grants)
