"""Publishing: statements to the peers at once, records into the DHT until nodes have them."""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from authd.core.identity import StatementId
from authd.core.records import Record, encode_record, verify_record
from authd.errors import AuthdError, NetworkError
from authd.service.authority import Authority
from authd.service.batch import Change
from authd.service.issuing import Bundle
from authd.service.ports import Clock, Gossip, Item, RecordNetwork

_RETRY_S: Final = 5.0
_MAX_RETRY_S: Final = 300.0
_WANTED_COPIES: Final = 1


class RecordStore(Protocol):
    """Where records of our own survive."""

    def load_records(self) -> list[tuple[bytes, bool]]:
        """Return records, encoded, and whether each is our own."""
        ...

    def save_record(self, target: bytes, data: bytes, *, expires_at: int, own: bool) -> None:
        """Save a record in the place of an older one of its target."""
        ...


class Publisher:
    """Brings bundles to the network and keeps trying."""

    def __init__(
        self,
        *,
        authority: Authority,
        gossip: Gossip,
        network: RecordNetwork,
        store: RecordStore,
        clock: Clock,
        announce: Callable[[], list[Item]] = list,
    ) -> None:
        """Wire the parts; ``announce`` returns the announcements of brokers that are due."""
        self._announce = announce
        self._authority = authority
        self._gossip = gossip
        self._network = network
        self._store = store
        self._clock = clock
        self._unpublished: dict[bytes, Record] = {}
        self._wake = asyncio.Event()
        self._beat = asyncio.Event()
        authority.subscribe(self._on_change)

    def _on_change(self, change: Change) -> None:
        if change.revocations or change.roots:
            # A new head goes out at once: until it does, the revocation is only pending.
            self._beat.set()

    @property
    def unpublished(self) -> int:
        """How many records no other node has acknowledged yet."""
        return len(self._unpublished)

    def load(self) -> None:
        """Queue the records of our own for publishing; expired ones are left out.

        Raises:
            StoreError: The store cannot be read.
        """
        for data, own in self._store.load_records():
            if own:
                self._queue(data)

    def _queue(self, data: bytes) -> bool:
        try:
            record = verify_record(data, now=self._clock.now())
        except AuthdError:
            return False
        self._unpublished[record.target] = record
        self._wake.set()
        return True

    async def submit(self, bundle: Bundle) -> list[StatementId]:
        """Take in a bundle of the local operator: verify, persist, apply, publish.

        Raises:
            AuthdError: Something in it cannot be taken; nothing was applied.
        """
        records = [verify_record(data, now=self._clock.now()) for data in bundle.records]
        accepted = self._authority.submit(bundle.statements)
        for record in records:
            self._store.save_record(
                record.target,
                encode_record(record),
                expires_at=record.expires_at,
                own=True,
            )
            self._unpublished[record.target] = record
        self._wake.set()
        await self._gossip.push(self._to_push(accepted))
        return accepted

    def _to_push(self, accepted: list[StatementId]) -> list[Item]:
        held = self._authority.held()
        pushed: list[Item] = []
        for statement_id in accepted:
            item = self._authority.statement(statement_id)
            if item is None or statement_id not in held:
                continue
            revoke = self._authority.state.revocations.get(statement_id)
            pushed += [item] if revoke is None else self._authority.with_evidence(revoke)
        return pushed

    async def run(self) -> None:
        """Put records until each is acknowledged; tries grow apart while the network is away."""
        retry_s = _RETRY_S
        while True:
            try:
                await asyncio.wait_for(self._wake.wait(), timeout=retry_s)
                retry_s = _RETRY_S
            except TimeoutError:
                retry_s = min(2 * retry_s, _MAX_RETRY_S) if self._unpublished else _RETRY_S
            self._wake.clear()
            for target, record in list(self._unpublished.items()):
                if await self._put(record):
                    self._unpublished.pop(target, None)

    async def _put(self, record: Record) -> bool:
        try:
            return await self._network.put(record) >= _WANTED_COPIES
        except NetworkError:
            return False

    async def run_heartbeats(self) -> None:
        """Sign and push what is due: heads, at once after a revocation too, and announcements."""
        while True:
            items = [*self._authority.beat(), *self._announce()]
            if items:
                await self._gossip.push(items)
            self._beat.clear()
            try:
                await asyncio.wait_for(self._beat.wait(), timeout=1.0)
            except TimeoutError:
                continue
