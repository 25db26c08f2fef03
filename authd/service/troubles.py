"""Heartbeat keys whose heads cannot be taken: since when, and whether they begin lists too fast."""

from collections.abc import Iterable

from authd.core import limits
from authd.core.identity import key_id_text
from authd.service.ports import Clock
from authd.service.quotas import Bucket
from authd.service.remembered import Signer


class Troubles:
    """What is amiss with each key's heads."""

    def __init__(self, clock: Clock) -> None:
        """Start with nothing amiss."""
        self._clock = clock
        self._refused: dict[Signer, float] = {}
        self._gaps: dict[Signer, float] = {}
        self._begun: dict[Signer, Bucket] = {}

    def refuse(self, of: Signer) -> None:
        """Note that a head is newer than what is known, and cannot be taken."""
        self._refused.setdefault(of, self._clock.monotonic())

    def accept(self, of: Signer) -> None:
        """Note that a head was taken."""
        self._refused.pop(of, None)

    def note_gap(self, of: Signer, *, missing: bool) -> None:
        """Note whether entries of a key's list are missing."""
        if missing:
            self._gaps.setdefault(of, self._clock.monotonic())
        else:
            self._gaps.pop(of, None)

    def waits_for_entries(self, of: Signer) -> bool:
        """Say whether entries are missing, and have not been for so long that nobody has them."""
        since = self._gaps.get(of)
        return since is not None and self._clock.monotonic() - since < limits.KEY_AMISS_S

    def may_begin(self, of: Signer) -> bool:
        """Charge a new list to its key; False if it has begun too many, and this one must wait."""
        now = self._clock.monotonic()
        if of not in self._begun:
            self._begun[of] = Bucket(
                rate_per_s=limits.NEW_LISTS_PER_S, burst=limits.NEW_LISTS_BURST, now=now
            )
        bucket = self._begun[of]
        if bucket.level(now=now) < 1:
            return False
        bucket.take()
        return True

    def sentences(self, keys: Iterable[Signer]) -> list[str]:
        """Return what the operator is to be told of keys that are of interest."""
        before = self._clock.monotonic() - limits.KEY_AMISS_S
        return [
            f"heads of heartbeat key `{key_id_text(of[1])}` are not taken: its newest list does not"
            " go on from the last one known here, or it begins too many; if that lasts, put another"
            " heartbeat key in its place, by a new root"
            for of in keys
            if self._refused.get(of, before + 1) <= before
        ]
