"""Finding the grants of a key that this daemon has not met: in the DHT, in the background.

No decision waits for the network on a broker's thread: a lookup is started, and what answers
within the call's patience counts at once; otherwise the answer is "lookup in progress" and the
next attempt finds it. A miss is remembered for 30 s, or until gossip brings news of the key.
"""

import asyncio
import enum
from collections import Counter
from collections.abc import Iterable
from typing import Final

from authd.core import limits
from authd.core.claims import Kind
from authd.core.encoding import decode
from authd.core.identity import KeyId, PublicKey, key_id
from authd.core.quotas import Branch
from authd.core.records import Record, RecordKind, record_salt, unseal
from authd.errors import AuthdError, NetworkError, NotFoundError, StoreError
from authd.service.authority import Authority
from authd.service.ports import Clock, Item, RecordNetwork

MISS_S: Final = 30.0
_MAX_LOOKUPS: Final = 64
# A gateway's worth of new devices at once; a quarter of all lookups.
_MAX_OF_A_SOURCE: Final = 16
# Of the grants of one branch below the authorities: a gateway cannot use up what others need.
_MAX_OF_A_BRANCH: Final = 32
_MAX_AUTHORITIES: Final = 8
_MAX_MISSES: Final = 10_000
_BUDGET_S: Final = 10.0


class Outcome(enum.Enum):
    """What came of asking."""

    FOUND = enum.auto()
    ABSENT = enum.auto()
    IN_PROGRESS = enum.auto()
    UNREACHABLE = enum.auto()
    OVERLOADED = enum.auto()


class Finder:
    """Lookups of grants by key id: one at a time for a key, a bounded number in all."""

    def __init__(
        self,
        *,
        authority: Authority,
        network: RecordNetwork,
        clock: Clock,
        guess_issuer: bool,
    ) -> None:
        """Wire the parts.

        Args:
            authority: Takes in what is found.
            network: Where to look.
            clock: The time.
            guess_issuer: Whether a key without an issuer hint is looked up at all: at most 8
                authorities of the own domain are tried as its issuer.
        """
        self._authority = authority
        self._network = network
        self._clock = clock
        self._guess_issuer = guess_issuer
        self._running: dict[KeyId, asyncio.Task[Outcome]] = {}
        self._asking: Counter[str] = Counter()
        self._below: Counter[Branch] = Counter()
        self._misses: dict[KeyId, tuple[float, Outcome]] = {}
        self.lookups = 0

    def forget_miss(self, wanted: KeyId) -> None:
        """Let the next attempt look again: there is news of the key."""
        self._misses.pop(wanted, None)

    async def find(
        self,
        wanted: KeyId,
        hint: KeyId | None,
        *,
        patience_s: float,
        source: str,
    ) -> Outcome:
        """Look for grants to a key id.

        Args:
            wanted: The key id.
            hint: Id of the issuer, if the proof names one.
            patience_s: How long to wait for the answer; the lookup goes on behind it.
            source: Who asks, as far as it is known: one source gets a share of the lookups, so
                that a flood of made-up keys from there does not turn others away.
        """
        missed_at, outcome = self._misses.get(wanted, (-MISS_S, Outcome.ABSENT))
        if self._clock.monotonic() - missed_at < MISS_S:
            return outcome
        issuers = list(self._issuers(hint))
        if not issuers:
            return Outcome.ABSENT
        task = self._running.get(wanted)
        if task is None:
            branch = self._branch(issuers)
            if self._is_full(source, issuers):
                return Outcome.OVERLOADED
            task = self._start(wanted, issuers, source, branch)
        done, _ = await asyncio.wait([task], timeout=patience_s)
        return task.result() if done else Outcome.IN_PROGRESS

    def _branch(self, issuers: list[PublicKey]) -> frozenset[Branch]:
        """Return whom a lookup is charged to; entries of a root are every lookup's."""
        branches = self._authority.quotas.branches
        charged = frozenset(key for one in issuers for key in branches.charged(one))
        return frozenset(key for key in charged if branches.level(key) > 0)

    def _is_full(self, source: str, issuers: list[PublicKey]) -> bool:
        branches = self._authority.quotas.branches
        full = {key for key, count in self._below.items() if count >= _MAX_OF_A_BRANCH}
        return (
            len(self._running) >= _MAX_LOOKUPS
            or self._asking[source] >= _MAX_OF_A_SOURCE
            or not any(branches.stands(one, full) for one in issuers)
        )

    def _start(
        self,
        wanted: KeyId,
        issuers: list[PublicKey],
        source: str,
        branch: frozenset[Branch],
    ) -> asyncio.Task[Outcome]:
        task = asyncio.create_task(self._look(wanted, issuers), name="lookup")
        self._running[wanted] = task
        self._asking[source] += 1
        self._below.update(branch)
        task.add_done_callback(lambda _: self._end(wanted, source, branch))
        return task

    def _end(self, wanted: KeyId, source: str, branch: frozenset[Branch]) -> None:
        self._running.pop(wanted, None)
        self._asking[source] -= 1
        if not self._asking[source]:
            del self._asking[source]
        for key in branch:
            self._below[key] -= 1
            if not self._below[key]:
                del self._below[key]

    async def close(self) -> None:
        """Give up every running lookup."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _issuers(self, hint: KeyId | None) -> Iterable[PublicKey]:
        root = self._authority.state.roots.get(self._authority.policy.own)
        authorities = [entry.key for entry in root.authorities] if root else []
        if hint is None:
            return authorities[:_MAX_AUTHORITIES] if self._guess_issuer else []
        known = [key for key in authorities if key_id(key) == hint]
        key = self._authority.state.key_of(hint)
        return known or ([key] if key else [])

    async def _look(self, wanted: KeyId, issuers: list[PublicKey]) -> Outcome:
        self.lookups += 1
        try:
            async with asyncio.timeout(_BUDGET_S):
                answers = await asyncio.gather(*(self._ask(one, wanted) for one in issuers))
        except TimeoutError:
            answers = [Outcome.UNREACHABLE]
        best = next(
            (one for one in (Outcome.FOUND, Outcome.UNREACHABLE) if one in answers),
            Outcome.ABSENT,
        )
        if best is not Outcome.FOUND:
            while len(self._misses) >= _MAX_MISSES:
                del self._misses[next(iter(self._misses))]
            # An unreachable network is asked again soon; an absent key is not.
            patience = MISS_S if best is Outcome.ABSENT else 2.0
            missed_at = self._clock.monotonic() - MISS_S + patience
            self._misses[wanted] = (missed_at, best)
        return best

    async def _ask(self, issuer: PublicKey, wanted: KeyId) -> Outcome:
        salt = record_salt(RecordKind.GRANTS, issuer, wanted)
        try:
            record = await self._network.get(issuer, salt)
            grants = open_grants_record(record, wanted)
            self._authority.receive([Item(Kind.GRANT, data) for data in grants], source="dht")
        except NotFoundError:
            return Outcome.ABSENT
        except (NetworkError, StoreError):
            return Outcome.UNREACHABLE
        except AuthdError:
            return Outcome.ABSENT
        found = self._authority.state.grants_to(wanted)
        return Outcome.FOUND if found else Outcome.ABSENT


def open_grants_record(record: Record, wanted: bytes) -> list[bytes]:
    """Unseal the grants of a record.

    Raises:
        FormatError: Sealed for another subject, or not a list of grants.
        LimitError: Too long.
    """
    content = unseal(record.content, issuer=record.publisher, subject_id=wanted)
    items = decode(content, max_bytes=limits.MAX_RECORD_VALUE_BYTES)
    if not isinstance(items, list):
        return []
    return [item for item in items if isinstance(item, bytes)][: limits.MAX_GRANTS_PER_PAIR]
