"""The network as the service sees it before, while and after it is attached.

A daemon that never invited or joined anyone keeps its peer port closed. The service works all the
same: there is nobody to push to and nobody to ask.
"""

from collections.abc import Iterable

from authd.core.identity import PublicKey
from authd.core.records import Record
from authd.errors import NoPeersError
from authd.service.ports import Gossip, Item, NetworkStats, RecordNetwork


class Attachment:
    """Implements `RecordNetwork` and `Gossip` by whatever is attached."""

    def __init__(self) -> None:
        """Start detached."""
        self._records: RecordNetwork | None = None
        self._gossip: Gossip | None = None

    def attach(self, records: RecordNetwork, gossip: Gossip) -> None:
        """Use these from now on."""
        self._records, self._gossip = records, gossip

    def detach(self) -> None:
        """Be alone again."""
        self._records, self._gossip = None, None

    async def put(self, record: Record) -> int:
        """Store a record.

        Raises:
            NoPeersError: Detached, or nobody to ask.
            RejectedError: Nobody took it.
        """
        return await self._engine().put(record)

    async def get(self, publisher: PublicKey, salt: bytes) -> Record:
        """Find the newest record.

        Raises:
            NoPeersError: Detached, or nobody to ask.
            NoResponseError: Nobody answered in time.
            NotFoundError: There is no such record.
        """
        return await self._engine().get(publisher, salt)

    def _engine(self) -> RecordNetwork:
        if self._records is None:
            raise NoPeersError("this daemon is not attached to a network")
        return self._records

    def neighbours(self) -> list[str]:
        """Return the addresses of known nodes."""
        return self._records.neighbours() if self._records else []

    def stats(self) -> NetworkStats:
        """Return figures of the DHT engine."""
        return self._records.stats() if self._records else NetworkStats(peers=0, records=0)

    async def push(self, items: Iterable[Item]) -> int:
        """Send statements to the active peers; return how many there were."""
        return await self._gossip.push(items) if self._gossip else 0

    def peers(self) -> list[str]:
        """Return the peers with a live stream."""
        return self._gossip.peers() if self._gossip else []
