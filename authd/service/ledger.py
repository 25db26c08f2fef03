"""Statements as they are kept and handed on: on disk first, then by id in memory."""

from collections.abc import Iterable
from typing import TypeAlias

from authd.core.claims import Kind
from authd.core.identity import StatementId
from authd.core.roots import Root
from authd.core.statements import Statement, kind_of
from authd.service.ports import Clock, Item, StatementStore, StoredStatement

Taken: TypeAlias = tuple[Root | Statement, bytes]
"""A verified statement and the bytes that it was verified from."""


class Ledger:
    """What was taken in, where it came from, and what of it travels by gossip."""

    def __init__(self, *, store: StatementStore, clock: Clock) -> None:
        """Wire the parts; nothing is read yet."""
        self._store = store
        self._clock = clock
        self._items: dict[StatementId, Item] = {}
        self.travelling: dict[StatementId, Kind] = {}
        self.sources: dict[StatementId, str] = {}

    def __contains__(self, statement_id: StatementId) -> bool:
        """Say whether a statement was taken in."""
        return statement_id in self._items

    def load(self) -> list[StoredStatement]:
        """Return everything on disk, what others rest on first.

        Raises:
            StoreError: The store cannot be read.
        """
        return sorted(self._store.load_statements(), key=lambda one: one.kind)

    def save(self, taken: Iterable[Taken], source: str) -> None:
        """Put statements on disk, all or nothing.

        Raises:
            StoreError: The store cannot be written; nothing was saved.
        """
        now = self._clock.now()
        stored = [
            StoredStatement(
                kind=kind_of(statement),
                statement_id=statement.statement_id,
                data=data,
                source=source,
                received_at=now,
            )
            for statement, data in taken
        ]
        durable = any(one.kind in (Kind.REVOKE, Kind.ROOT) for one in stored)
        self._store.save_statements(stored, durable=durable)

    def forget(self, replaced: Iterable[StatementId]) -> None:
        """Take statements off the disk that others have replaced.

        Raises:
            StoreError: The store cannot be written.
        """
        superseded = list(replaced)
        if superseded:
            self._store.delete_statements(superseded)

    def enter(self, statement: Root | Statement, source: str) -> None:
        """Note a statement that counts now; all but grants travel in any case."""
        kind = kind_of(statement)
        self._items[statement.statement_id] = Item(kind, statement.encoded)
        self.sources[statement.statement_id] = source
        if kind is not Kind.GRANT:
            self.travelling[statement.statement_id] = kind

    def drop(self, statement_ids: Iterable[StatementId]) -> None:
        """Let go of statements, on disk too.

        Raises:
            StoreError: The store cannot be written.
        """
        ids = list(statement_ids)
        self.forget(ids)
        for one in ids:
            self._items.pop(one, None)
            self.travelling.pop(one, None)
            self.sources.pop(one, None)

    def item(self, statement_id: StatementId) -> Item | None:
        """Return one statement to send."""
        return self._items.get(statement_id)
