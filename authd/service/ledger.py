"""Statements as they are kept and handed on: on disk first, then by id in memory."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TypeAlias

from authd.core.claims import Kind
from authd.core.identity import StatementId
from authd.core.roots import Root
from authd.core.statements import Statement, kind_of
from authd.errors import StoreError
from authd.service.ports import Clock, Item, StatementStore, StoredStatement

Taken: TypeAlias = tuple[Root | Statement, bytes]
"""A verified statement and the bytes that it was verified from."""


class Ledger:
    """What was taken in, where it came from, and what of it travels by gossip."""

    def __init__(self, *, store: StatementStore, clock: Clock) -> None:
        """Wire the parts; nothing is read yet."""
        self._store = store
        self._clock = clock
        # A million grants have one kind and one source: said once a shelf, not once a grant.
        self._shelves: dict[tuple[Kind, str], dict[StatementId, bytes]] = {}
        self._gone: list[StatementId] = []
        self.travelling: dict[StatementId, Kind] = {}

    def __contains__(self, statement_id: StatementId) -> bool:
        """Say whether a statement was taken in."""
        return any(statement_id in shelf for shelf in self._shelves.values())

    def load(self) -> Iterator[StoredStatement]:
        """Return everything on disk, what others rest on first, as it is read.

        Raises:
            StoreError: The store cannot be read.
        """
        return self._store.each_statement()

    def save(self, taken: Iterable[Taken], source: str, *, durable: bool = False) -> None:
        """Put statements on disk, all or nothing.

        Args:
            taken: Which.
            source: Where they came from.
            durable: Even a power cut must not undo it; so it is for roots and revocations anyway.

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
        durable = durable or any(one.kind in (Kind.REVOKE, Kind.ROOT) for one in stored)
        self._store.save_statements(stored, durable=durable)
        if self._gone:
            saved = {one.statement_id for one in stored}
            self._gone = [one for one in self._gone if one not in saved]

    def forget(self, replaced: Iterable[StatementId]) -> None:
        """Take statements off the disk that others have replaced; later, if it cannot be written.

        What is still there after a restart is replaced again.
        """
        self._gone += replaced
        if self._gone:
            with suppress(StoreError):
                self._store.delete_statements(self._gone)
                self._gone = []

    def enter(self, statement: Root | Statement, source: str) -> None:
        """Note a statement that counts now; all but grants travel in any case."""
        kind = kind_of(statement)
        shelf = self._shelves.setdefault((kind, source), {})
        shelf[statement.statement_id] = statement.encoded
        if kind is not Kind.GRANT:
            self.travelling[statement.statement_id] = kind

    def drop(self, statement_ids: Iterable[StatementId]) -> None:
        """Let go of statements, on disk too."""
        ids = list(statement_ids)
        for one in ids:
            self.travelling.pop(one, None)
            for shelf in self._shelves.values():
                shelf.pop(one, None)
        if ids:
            self.forget(ids)

    def item(self, statement_id: StatementId) -> Item | None:
        """Return one statement to send."""
        for (kind, _), shelf in self._shelves.items():
            if statement_id in shelf:
                return Item(kind, shelf[statement_id])
        return None

    def source(self, statement_id: StatementId) -> str:
        """Return where a statement came from first; empty if it was not taken in."""
        for (_, source), shelf in self._shelves.items():
            if statement_id in shelf:
                return source
        return ""
