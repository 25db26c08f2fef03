"""Who waits at the door: places for strangers, few for each host, and lines in the log about them.

Whoever is not admitted yet may cost a little and no more. Each host (an IPv4 address, an IPv6 /64)
has a few places; where all are taken, the host that holds most of them loses its oldest, so that
one that floods only drives out itself.
"""

import asyncio
import ipaddress
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from authd.errors import LimitError, NoResponseError
from authd.gossip.views import Allowance

PLACES: Final = 48
# Several daemons behind one address translation arrive at once after a break of their line.
PLACES_OF_A_HOST: Final = 16
_PREFIX_BYTES: Final = 8
_MAX_SPEAKERS: Final = 1_024


def host_key(host: str) -> str:
    """Return what counts as one host: the IPv4 address, or the IPv6 /64 (RFC 4291 §2.5.1)."""
    try:
        number = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(number, ipaddress.IPv4Address):
        return str(number)
    if number.ipv4_mapped is not None:
        return str(number.ipv4_mapped)
    return number.packed[:_PREFIX_BYTES].hex()


class Lobby:
    """A bounded number of places for those who have not shown who they are."""

    def __init__(self, *, places: int = PLACES, of_a_host: int = PLACES_OF_A_HOST) -> None:
        """Offer ``places`` in all and ``of_a_host`` to each host."""
        self._places = places
        self._of_a_host = of_a_host
        self._seats: list[tuple[str, asyncio.Timeout]] = []
        self.refused = 0

    def __len__(self) -> int:
        return len(self._seats)

    @asynccontextmanager
    async def seat(self, host: str) -> AsyncIterator[None]:
        """Hold a place while the context lasts.

        Raises:
            LimitError: This host has taken all of its places.
            NoResponseError: The place was given to another host.
        """
        key = host_key(host)
        count = Counter(one for one, _ in self._seats)
        if count[key] >= self._of_a_host:
            self.refused += 1
            raise LimitError("too many introductions at once from one host")
        if len(self._seats) >= self._places:
            self.refused += 1
            self._free_one(count)
        try:
            async with asyncio.timeout(None) as patience:
                seat = (key, patience)
                self._seats.append(seat)
                try:
                    yield
                finally:
                    if seat in self._seats:
                        self._seats.remove(seat)
        except TimeoutError as error:
            raise NoResponseError("its place was given to another host") from error

    def _free_one(self, count: Counter[str]) -> None:
        greediest, _ = count.most_common(1)[0]
        oldest = next(one for one in self._seats if one[0] == greediest)
        self._seats.remove(oldest)
        oldest[1].reschedule(asyncio.get_running_loop().time())


class Hush:
    """Says which lines are written to the log: a few of each speaker, some in all.

    What an outsider can cause must not fill a disk; what is left out is counted.
    """

    def __init__(
        self,
        *,
        now: float,
        per_s: float = 1.0,
        burst: float = 20.0,
        of_a_speaker: float = 5.0,
        speaker_per_s: float = 0.1,
    ) -> None:
        """Allow ``burst`` lines at once and ``per_s`` in the long run, fewer of one speaker."""
        self._all = Allowance(rate_per_s=per_s, burst=burst, now=now)
        self._burst = of_a_speaker
        self._rate_per_s = speaker_per_s
        self._speakers: OrderedDict[str, Allowance] = OrderedDict()
        self._left_out = 0
        self.total = 0

    def may_say(self, speaker: str, *, now: float) -> bool:
        """Charge a line to a speaker and to all; ``now`` is monotonic seconds."""
        self.total += 1
        allowance = self._speakers.pop(speaker, None)
        if allowance is None:
            allowance = Allowance(rate_per_s=self._rate_per_s, burst=self._burst, now=now)
        self._speakers[speaker] = allowance
        if len(self._speakers) > _MAX_SPEAKERS:
            self._speakers.popitem(last=False)
        allowed = allowance.take(now=now) and self._all.take(now=now)
        self._left_out += not allowed
        return allowed

    def left_out(self) -> int:
        """Return how many lines were left out since this was asked last."""
        count, self._left_out = self._left_out, 0
        return count
