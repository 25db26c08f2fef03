"""The tables of the store, and how a file of an earlier version becomes one of this.

A file is made or brought up to date in one transaction, so that a crash leaves the old file.
"""

import sqlite3
from typing import Final

from authd.errors import StoreError

SCHEMA_VERSION: Final = 3
_TABLES: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE statements (
    id BLOB PRIMARY KEY, kind INTEGER NOT NULL, data BLOB NOT NULL,
    source TEXT NOT NULL, received_at INTEGER NOT NULL) STRICT;
CREATE TABLE chains (
    domain BLOB, key BLOB, epoch INTEGER, place INTEGER, id BLOB NOT NULL,
    PRIMARY KEY (domain, key, epoch, place)) STRICT, WITHOUT ROWID;
CREATE TABLE ended (
    target BLOB PRIMARY KEY, until INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE nonces (
    id BLOB PRIMARY KEY, expires_at INTEGER NOT NULL, broker TEXT NOT NULL DEFAULT '',
    session TEXT NOT NULL DEFAULT '') STRICT, WITHOUT ROWID;
CREATE INDEX nonces_by_end ON nonces (expires_at);
CREATE TABLE counters (slot BLOB PRIMARY KEY, last INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE sessions (
    broker TEXT, client_id TEXT, session_id TEXT NOT NULL, boot TEXT NOT NULL,
    username TEXT NOT NULL, key BLOB NOT NULL, form INTEGER NOT NULL,
    audience_domain BLOB NOT NULL, audience_endpoint TEXT NOT NULL, durable INTEGER NOT NULL,
    live INTEGER NOT NULL, created_at INTEGER NOT NULL,
    PRIMARY KEY (broker, client_id)) STRICT;
CREATE TABLE records (
    target BLOB PRIMARY KEY, data BLOB NOT NULL, expires_at INTEGER NOT NULL,
    own INTEGER NOT NULL) STRICT;
CREATE TABLE audit (
    at INTEGER NOT NULL, broker TEXT NOT NULL, client_id TEXT NOT NULL, key TEXT NOT NULL,
    effect TEXT NOT NULL, reason TEXT NOT NULL, detail TEXT NOT NULL) STRICT;
CREATE INDEX audit_by_time ON audit (at);
"""
# Version → what makes the next one of it.
_STEPS: Final = {
    1: """
ALTER TABLE nonces ADD COLUMN broker TEXT NOT NULL DEFAULT '';
ALTER TABLE nonces ADD COLUMN session TEXT NOT NULL DEFAULT '';
CREATE TABLE counters (slot BLOB PRIMARY KEY, last INTEGER NOT NULL) STRICT, WITHOUT ROWID;
""",
    2: """
CREATE TABLE ended (
    target BLOB PRIMARY KEY, until INTEGER NOT NULL) STRICT, WITHOUT ROWID;
""",
}


def bring_up_to_date(connection: sqlite3.Connection, name: str) -> None:
    """Make the tables, or those that a file of an earlier version lacks.

    Args:
        connection: In autocommit mode.
        name: Of the file, for messages.

    Raises:
        StoreError: The file was made by a newer authd.
        sqlite3.Error: It cannot be read or written; nothing was changed.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version_of(connection)
        if version is None:
            _run(connection, _TABLES)
        elif version == str(SCHEMA_VERSION):
            connection.execute("ROLLBACK")
            return
        else:
            _run(connection, _steps_from(version, name))
        connection.execute(
            "INSERT OR REPLACE INTO meta VALUES ('schema_version', ?)",
            (str(SCHEMA_VERSION),),
        )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _version_of(connection: sqlite3.Connection) -> str | None:
    made = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'meta'").fetchone()
    if made is None:
        return None
    row = connection.execute("SELECT value FROM meta WHERE name = 'schema_version'").fetchone()
    return "" if row is None else str(row[0])


def _steps_from(version: str, name: str) -> str:
    known = {str(number) for number in _STEPS}
    if version not in known:
        raise StoreError(
            f"`{name}` has schema version {version or 'none'}, this authd knows {SCHEMA_VERSION}",
        )
    return "".join(_STEPS[number] for number in range(int(version), SCHEMA_VERSION))


def _run(connection: sqlite3.Connection, statements: str) -> None:
    # Not `executescript`: that would commit before it begins.
    for statement in statements.split(";"):
        if statement.strip():
            connection.execute(statement)
