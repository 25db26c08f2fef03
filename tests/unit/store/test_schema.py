"""Files of earlier versions: brought up to date whole, or left as they are."""

import sqlite3
from pathlib import Path

import pytest

from authd.core.identity import StatementId
from authd.errors import StoreError
from authd.store.schema import SCHEMA_VERSION
from authd.store.sqlite import SqliteStore

# As version 1 made it, but for what no step touches.
VERSION_1 = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE statements (
    id BLOB PRIMARY KEY, kind INTEGER NOT NULL, data BLOB NOT NULL,
    source TEXT NOT NULL, received_at INTEGER NOT NULL) STRICT;
CREATE TABLE nonces (
    id BLOB PRIMARY KEY, expires_at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX nonces_by_end ON nonces (expires_at);
INSERT INTO meta VALUES ('schema_version', '1');
INSERT INTO meta VALUES ('floor', '7');
INSERT INTO nonces VALUES (x'6e', 100);
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "authd.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(VERSION_1)
    connection.close()
    return path


def version_of(path: Path) -> str:
    connection = sqlite3.connect(path)
    row = connection.execute("SELECT value FROM meta WHERE name = 'schema_version'").fetchone()
    connection.close()
    return str(row[0])


def test_a_file_of_version_1_keeps_what_it_holds_and_gets_counters(path: Path) -> None:
    for _ in range(2):
        with SqliteStore(path) as store:
            assert store.meta("floor") == "7"
            assert store.seen(b"n")
            assert store.open_nonces("any broker", now=0, most=9)[-1] == b"n"
            store.raise_counter(b"s", 5)
            store.consume(b"o", expires_at=101, now=0, broker="m", session="s")
            assert store.last_counter(b"s") == 5
            store.note_ends([(StatementId(bytes(16)), 7)])
            assert store.end_of(StatementId(bytes(16))) == 7
    assert version_of(path) == str(SCHEMA_VERSION)


def test_a_file_of_version_2_keeps_what_it_holds_and_gets_ends(tmp_path: Path) -> None:
    path = tmp_path / "authd.db"
    with SqliteStore(path) as store:
        store.raise_counter(b"s", 5)
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE ended")
        connection.execute("UPDATE meta SET value = '2' WHERE name = 'schema_version'")
    connection.close()
    with SqliteStore(path) as store:
        store.note_ends([(StatementId(bytes(16)), 7)])
        assert store.end_of(StatementId(bytes(16))) == 7
        assert store.last_counter(b"s") == 5
    assert version_of(path) == str(SCHEMA_VERSION)


def test_a49_a_step_that_fails_leaves_the_file_as_it_was(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE counters (in_the_way TEXT)")
    connection.close()
    with pytest.raises(StoreError, match="counters"):
        SqliteStore(path)
    assert version_of(path) == "1"
    with sqlite3.connect(path) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(nonces)")]
    connection.close()
    assert columns == ["id", "expires_at"]


def test_a_file_that_says_no_version_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM meta WHERE name = 'schema_version'")
    connection.close()
    with pytest.raises(StoreError, match="schema version none"):
        SqliteStore(path)
