"""What the gossip edge asks of the service, in its own words (`GossipStore`)."""

from collections.abc import Iterable

from authd.core.claims import Kind
from authd.core.identity import DomainId, PublicKey, StatementId
from authd.errors import StoreError
from authd.service.authority import Authority
from authd.service.ports import Item


class GossipDesk:
    """Implements `GossipStore` over the authority."""

    def __init__(self, authority: Authority) -> None:
        """Wire the parts."""
        self._authority = authority

    async def receive(self, items: Iterable[Item], *, peer: str) -> list[StatementId]:  # noqa: ARG002 - the edge keeps count of its peers
        """Verify, persist and apply; return the ids that were new.

        What cannot be kept is not taken, and comes again by repair; the peer is not to blame.
        """
        try:
            return self._authority.receive(items, source="gossip")
        except StoreError:
            return []

    def held(self) -> dict[StatementId, Kind]:
        """Return every statement that travels by gossip, heartbeats left out."""
        return self._authority.held()

    def statement(self, statement_id: StatementId) -> Item | None:
        """Return one statement to send."""
        return self._authority.statement(statement_id)

    def heartbeats(self) -> list[Item]:
        """Return the newest heartbeat of each key."""
        return self._authority.heartbeats.newest_items()

    def chain_ids(
        self,
        domain: DomainId,
        key: PublicKey,
        epoch: int,
        start: int,
        end: int,
    ) -> list[StatementId] | None:
        """Return entries ``[start, end)`` of a heartbeat key's list, if known here."""
        return self._authority.heartbeats.chain_ids(domain, key, epoch, start, end)

    def gaps(self) -> list[tuple[DomainId, PublicKey, int, int, int]]:
        """Return ``(domain, key, epoch, start, end)`` of the list entries that are missing."""
        return self._authority.heartbeats.gaps()

    def fill(
        self,
        domain: DomainId,
        key: PublicKey,
        epoch: int,
        start: int,
        ids: list[StatementId],
    ) -> None:
        """Take in entries of a list that a peer sent for a gap."""
        self._authority.fill(domain, key, epoch, start, ids)
