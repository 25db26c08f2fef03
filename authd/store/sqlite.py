"""The SQLite store.

Write-ahead log. Nonces and sessions are committed with ``synchronous=NORMAL``: a crash of the
process loses nothing, a power cut may lose the last moments, which is why proofs dated before an
unclean restart are refused. Revocations, chains and counters go over a second connection with
``synchronous=FULL``: once acknowledged they survive a power cut.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from authd.core.claims import Kind
from authd.core.identity import DomainId, PublicKey, StatementId
from authd.errors import StoreError
from authd.service.ports import NONCE_KEPT_S, StoredSession, StoredStatement
from authd.store.schema import bring_up_to_date

RESTORED: Final = "restored"
"""Fact of a store that a backup brought back, until a new list of heartbeats is begun."""
ALONE: Final = "alone"
"""Its value if no other daemon is to be waited for."""
_PURGE_EVERY: Final = 1_000
# A writer of another process holds the lock for milliseconds; longer means something is wrong.
_BUSY_TIMEOUT_S: Final = 5.0


_READ_AT_ONCE: Final = 256
# Of the pages that were read, as much stays in memory; the first is the library's default.
_PAGES_KIB: Final = 2_000
_FEW_PAGES_KIB: Final = 128
# No row has a lower number.
_BEFORE_ALL: Final = -(2**63)


class SqliteStore:
    """All stores of the daemon in one file; an object to be used with ``with``."""

    def __init__(self, path: Path) -> None:
        """Open or create the database.

        Raises:
            StoreError: It cannot be opened, is damaged, or was made by a newer authd.
        """
        self._path = path
        try:
            # Whom devices talk to is nobody's business: WAL and index files get the same mode.
            path.touch(mode=0o600)
        except OSError as error:
            raise StoreError(f"cannot open `{path}`: {error.strerror}") from error
        with self._errors("open"):
            self._fast = self._connect("NORMAL")
            self._durable = self._connect("FULL")
            bring_up_to_date(self._durable, str(path))
        self._consumed = 0

    def _connect(self, synchronous: str) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")
        return connection

    def __enter__(self) -> Self:
        """Return the store."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close both connections."""
        self._fast.close()
        self._durable.close()

    @contextmanager
    def _errors(self, verb: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, ValueError) as error:
            # A value outside its type is damage too.
            raise StoreError(f"cannot {verb} `{self._path}`: {error}{_advice(error)}") from error

    @contextmanager
    def _transaction(self, verb: str, *, durable: bool) -> Iterator[sqlite3.Connection]:
        connection = self._durable if durable else self._fast
        with self._errors(verb):
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # A full disk ends the transaction by itself.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    # --- facts about this daemon ----------------------------------------------------------

    def meta(self, name: str) -> str | None:
        """Return a named value, or None.

        Raises:
            StoreError: The store cannot be read.
        """
        with self._errors("read"):
            row = self._fast.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, name: str, value: str) -> None:
        """Set a named value, durably.

        Raises:
            StoreError: The store cannot be written.
        """
        with self._transaction("write", durable=True) as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    # --- statements -----------------------------------------------------------------------

    def load_statements(self) -> list[StoredStatement]:
        """Return everything, in the order it was saved.

        Raises:
            StoreError: The store cannot be read.
        """
        with self._errors("read"):
            rows = self._fast.execute(
                "SELECT kind, id, data, source, received_at FROM statements ORDER BY rowid",
            )
            return [_statement(*row) for row in rows]

    def each_statement(self) -> Iterator[StoredStatement]:
        """Yield everything by kind, then in the order it was saved; others may go meanwhile.

        Raises:
            StoreError: The store cannot be read, or holds a kind that is not known.
        """
        # What is read from end to end, once, is not worth keeping.
        self._keep_pages(_FEW_PAGES_KIB)
        with self._errors("read"):
            kinds = self._fast.execute("SELECT DISTINCT kind FROM statements ORDER BY kind")
            known = [Kind(kind) for (kind,) in kinds]
        for kind in known:
            place = _BEFORE_ALL
            # A few at a time: a million need not be in memory at once.
            while some := self._page(kind, place):
                place = some[-1][0]
                yield from (one for _, one in some)
        self._keep_pages(_PAGES_KIB)

    def _keep_pages(self, kib: int) -> None:
        with self._errors("read"):
            self._fast.execute(f"PRAGMA cache_size = -{kib}")

    def _page(self, kind: Kind, after: int) -> list[tuple[int, StoredStatement]]:
        with self._errors("read"):
            rows = self._fast.execute(
                "SELECT rowid, kind, id, data, source, received_at FROM statements"
                " WHERE rowid > ? AND kind = ? ORDER BY rowid LIMIT ?",
                (after, int(kind), _READ_AT_ONCE),
            )
            return [(rowid, _statement(*row)) for rowid, *row in rows]

    def save_statements(self, statements: Iterable[StoredStatement], *, durable: bool) -> None:
        """Save all or nothing; what is there already is kept as it is.

        Raises:
            StoreError: The store cannot be written; nothing was saved.
        """
        with self._transaction("write", durable=durable) as connection:
            _insert(connection, statements)

    def delete_statements(self, statement_ids: Iterable[StatementId]) -> None:
        """Delete statements that have been superseded.

        Raises:
            StoreError: The store cannot be written.
        """
        with self._transaction("write", durable=False) as connection:
            connection.executemany(
                "DELETE FROM statements WHERE id = ?",
                [(statement_id,) for statement_id in statement_ids],
            )

    def load_chain(self, domain: DomainId, key: PublicKey) -> tuple[int, list[StatementId]]:
        """Return a heartbeat key's newest epoch and its entries in order; epoch 0 for none.

        Raises:
            StoreError: The store cannot be read.
        """
        with self._errors("read"):
            rows = self._fast.execute(
                "SELECT epoch, id FROM chains WHERE domain = ? AND key = ? ORDER BY epoch, place",
                (domain, key),
            ).fetchall()
        newest = rows[-1][0] if rows else 0
        return newest, [StatementId(one) for epoch, one in rows if epoch == newest]

    def load_closed(self, domain: DomainId, key: PublicKey) -> list[StatementId]:
        """Return what a heartbeat key's lists before its newest epoch named, as far as kept.

        Raises:
            StoreError: The store cannot be read.
        """
        with self._errors("read"):
            rows = self._fast.execute(
                "SELECT id FROM chains WHERE domain = ?1 AND key = ?2 AND epoch <"
                " (SELECT max(epoch) FROM chains WHERE domain = ?1 AND key = ?2)"
                " ORDER BY epoch, place",
                (domain, key),
            ).fetchall()
        return [StatementId(one) for (one,) in rows]

    def append_chain(
        self,
        domain: DomainId,
        key: PublicKey,
        epoch: int,
        start: int,
        ids: Iterable[StatementId],
        *,
        head: StoredStatement | None = None,
    ) -> None:
        """Append entries from index ``start`` on, durably; lists of other epochs stay.

        A ``head`` is saved with them, and the lists before go, all or nothing.

        Raises:
            StoreError: The store cannot be written; nothing was saved.
        """
        with self._transaction("write", durable=True) as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO chains VALUES (?, ?, ?, ?, ?)",
                [(domain, key, epoch, place, one) for place, one in enumerate(ids, start)],
            )
            if head is not None:
                _forget_chains(connection, domain, key, 0, epoch)
                _insert(connection, [head])

    def forget_chains(self, domain: DomainId, key: PublicKey, *, first: int, before: int) -> None:
        """Delete a heartbeat key's lists from epoch ``first`` on, up to that before ``before``.

        Raises:
            StoreError: The store cannot be written.
        """
        with self._transaction("write", durable=False) as connection:
            _forget_chains(connection, domain, key, first, before)

    def note_ends(self, ends: Iterable[tuple[StatementId, int]]) -> None:
        """Keep when grants end that may be forgotten before their revocations come again.

        Raises:
            StoreError: The store cannot be written; nothing was kept.
        """
        with self._transaction("write", durable=False) as connection:
            connection.executemany(
                "INSERT INTO ended VALUES (?, ?) ON CONFLICT (target) DO NOTHING", ends
            )

    def end_of(self, target: StatementId) -> int | None:
        """Return when a grant ends, if that was kept; seconds since the Unix epoch.

        Raises:
            StoreError: The store cannot be read.
        """
        with self._errors("read"):
            query = "SELECT until FROM ended WHERE target = ?"
            row = self._fast.execute(query, (target,)).fetchone()
        return None if row is None else int(row[0])

    # --- nonces ---------------------------------------------------------------------------

    def seen(self, replay_id: bytes) -> bool:
        """Say whether a nonce was consumed.

        Raises:
            StoreError: The store cannot be read.
        """
        with self._errors("read"):
            query = "SELECT 1 FROM nonces WHERE id = ?"
            return self._fast.execute(query, (replay_id,)).fetchone() is not None

    def consume(
        self,
        replay_id: bytes,
        *,
        expires_at: int,
        now: int,
        broker: str = "",
        session: str = "",
    ) -> bool:
        """Remember a nonce until a minute after ``expires_at``; False if somebody else used it.

        Raises:
            StoreError: The store cannot be written; the nonce was not consumed.
        """
        with self._transaction("write", durable=False) as connection:
            self._purge(connection, now)
            if _use(connection, replay_id, expires_at, broker, session):
                return True
            if not session:
                return False
            query = "SELECT 1 FROM nonces WHERE id = ? AND broker = ? AND session = ?"
            own = connection.execute(query, (replay_id, broker, session))
            return own.fetchone() is not None

    def admit(self, replay_id: bytes, session: StoredSession, *, expires_at: int, now: int) -> bool:
        """Remember a nonce and save the session that it lets in, both or neither.

        Returns:
            False if somebody else used the nonce; nothing was saved.

        Raises:
            StoreError: The store cannot be written; nothing was saved.
        """
        with self._transaction("write", durable=False) as connection:
            self._purge(connection, now)
            if not _use(connection, replay_id, expires_at, session.broker, ""):
                return False
            _save(connection, session)
            return True

    def _purge(self, connection: sqlite3.Connection, now: int) -> None:
        self._consumed += 1
        if self._consumed % _PURGE_EVERY == 0:
            connection.execute("DELETE FROM nonces WHERE expires_at < ?", (now - NONCE_KEPT_S,))

    def open_nonces(self, broker: str, *, now: int, most: int) -> list[bytes]:
        """Return the nonces of a broker that are kept, newest first.

        Raises:
            StoreError: The store cannot be read.
        """
        with self._errors("read"):
            rows = self._fast.execute(
                # What an earlier version stored is nobody's, so it is everybody's.
                "SELECT id FROM nonces WHERE expires_at >= ? AND broker IN (?, '')"
                " ORDER BY expires_at DESC LIMIT ?",
                (now - NONCE_KEPT_S, broker, most),
            ).fetchall()
        return [row[0] for row in rows]

    # --- counters -------------------------------------------------------------------------

    def last_counter(self, slot: bytes) -> int | None:
        """Return the last counter taken for a slot.

        Raises:
            StoreError: The store cannot be read.
        """
        with self._errors("read"):
            query = "SELECT last FROM counters WHERE slot = ?"
            row = self._fast.execute(query, (slot,)).fetchone()
        return None if row is None else int(row[0])

    def raise_counter(self, slot: bytes, counter: int) -> bool:
        """Keep a counter, durably, if it is higher than the last one; False if it is not.

        Raises:
            StoreError: The store cannot be written; the counter was not taken.
        """
        with self._transaction("write", durable=True) as connection:
            raised = connection.execute(
                "INSERT INTO counters (slot, last) VALUES (?, ?) ON CONFLICT (slot)"
                " DO UPDATE SET last = excluded.last WHERE excluded.last > counters.last",
                (slot, counter),
            )
            return raised.rowcount == 1

    # --- sessions -------------------------------------------------------------------------

    def load_sessions(self) -> list[StoredSession]:
        """Return every session.

        Raises:
            StoreError: The store cannot be read.
        """
        with self._errors("read"):
            rows = self._fast.execute(
                "SELECT session_id, broker, boot, client_id, username, key, form, audience_domain,"
                " audience_endpoint, durable, live, created_at FROM sessions ORDER BY rowid",
            ).fetchall()
        return [
            StoredSession(
                session_id=row[0],
                broker=row[1],
                boot=row[2],
                client_id=row[3],
                username=row[4],
                key=PublicKey(row[5]),
                form=row[6],
                audience_domain=DomainId(row[7]),
                audience_endpoint=row[8],
                durable=bool(row[9]),
                live=bool(row[10]),
                created_at=row[11],
            )
            for row in rows
        ]

    def save_session(self, session: StoredSession) -> None:
        """Save a session; one client id of a broker has at most one.

        Raises:
            StoreError: The store cannot be written.
        """
        with self._transaction("write", durable=False) as connection:
            _save(connection, session)

    def delete_session(self, broker: str, client_id: str) -> None:
        """Forget a session.

        Raises:
            StoreError: The store cannot be written.
        """
        with self._transaction("write", durable=False) as connection:
            connection.execute(
                "DELETE FROM sessions WHERE broker = ? AND client_id = ?",
                (broker, client_id),
            )

    # --- records --------------------------------------------------------------------------

    def load_records(self) -> list[tuple[bytes, bool]]:
        """Return the DHT records held, encoded, and whether each is our own to publish.

        Raises:
            StoreError: The store cannot be read.
        """
        with self._errors("read"):
            rows = self._fast.execute("SELECT data, own FROM records").fetchall()
        return [(data, bool(own)) for data, own in rows]

    def save_record(self, target: bytes, data: bytes, *, expires_at: int, own: bool) -> None:
        """Save a record in the place of an older one of its target.

        Raises:
            StoreError: The store cannot be written.
        """
        with self._transaction("write", durable=False) as connection:
            connection.execute(
                "INSERT INTO records VALUES (?, ?, ?, ?) ON CONFLICT (target) DO UPDATE SET"
                " data = excluded.data, expires_at = excluded.expires_at,"
                " own = max(own, excluded.own)",
                (target, data, expires_at, own),
            )

    def delete_records(self, *, expired_at: int) -> None:
        """Delete records whose end of life has come.

        Raises:
            StoreError: The store cannot be written.
        """
        with self._transaction("write", durable=False) as connection:
            connection.execute("DELETE FROM records WHERE expires_at <= ?", (expired_at,))


_FULL: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE})
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def _advice(error: Exception) -> str:
    """Say what to do about what an operator can mend."""
    code = getattr(error, "sqlite_errorcode", 0)
    if code in _FULL:
        return "; nothing was changed: free space there, authd goes on by itself"
    if code & 0xFF in _DAMAGED:
        return (
            "; the file is damaged: stop authd, move it away with its `-wal` and `-shm`, and bring"
            " back a backup with `authd restore`"
        )
    return ""


def _forget_chains(
    connection: sqlite3.Connection, domain: DomainId, key: PublicKey, first: int, before: int
) -> None:
    connection.execute(
        "DELETE FROM chains WHERE domain = ? AND key = ? AND epoch >= ? AND epoch < ?",
        (domain, key, first, before),
    )


def _insert(connection: sqlite3.Connection, statements: Iterable[StoredStatement]) -> None:
    connection.executemany(
        # Not `OR IGNORE`: that would leave out a damaged row without a word.
        "INSERT INTO statements (id, kind, data, source, received_at)"
        " VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
        [
            (one.statement_id, int(one.kind), one.data, one.source, one.received_at)
            for one in statements
        ],
    )


def _use(
    connection: sqlite3.Connection, replay_id: bytes, expires_at: int, broker: str, session: str
) -> bool:
    added = connection.execute(
        "INSERT INTO nonces (id, expires_at, broker, session) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (id) DO NOTHING",
        (replay_id, expires_at, broker, session),
    )
    return added.rowcount == 1


def _save(connection: sqlite3.Connection, session: StoredSession) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO sessions (broker, client_id, session_id, boot, username,"
        " key, form, audience_domain, audience_endpoint, durable, live, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            session.broker,
            session.client_id,
            session.session_id,
            session.boot,
            session.username,
            session.key,
            session.form,
            session.audience_domain,
            session.audience_endpoint,
            session.durable,
            session.live,
            session.created_at,
        ),
    )


def _statement(
    kind: int, statement_id: bytes, data: bytes, source: str, received_at: int
) -> StoredStatement:
    return StoredStatement(
        kind=Kind(kind),
        statement_id=StatementId(statement_id),
        data=data,
        source=source,
        received_at=received_at,
    )
