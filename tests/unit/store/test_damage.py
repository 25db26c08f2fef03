"""A damaged file is reported with what to do, wherever the damage is."""

import sqlite3
from pathlib import Path

import pytest

from authd.core.claims import Kind
from authd.core.identity import StatementId
from authd.errors import StoreError
from authd.service.ports import StoredStatement
from authd.store.sqlite import SqliteStore


def filled(path: Path) -> int:
    """Make a store of some pages; return its size."""
    with SqliteStore(path) as store:
        store.save_statements(
            [
                StoredStatement(
                    kind=Kind.GRANT,
                    statement_id=StatementId(number.to_bytes(16, "big")),
                    data=bytes(200),
                    source="local",
                    received_at=1,
                )
                for number in range(500)
            ],
            durable=True,
        )
    return path.stat().st_size


@pytest.mark.parametrize("place", ["head", "tables", "rows"])
def test_a49_a_damaged_file_is_named_with_what_to_do(tmp_path: Path, place: str) -> None:
    path = tmp_path / "authd.db"
    size = filled(path)
    page = sqlite3.connect(path).execute("PRAGMA page_size").fetchone()[0]
    start = {"head": 0, "tables": 100, "rows": page}[place]
    end = {"head": 100, "tables": page, "rows": size}[place]
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\xa5" * (end - start))
    with pytest.raises(StoreError) as raised, SqliteStore(path) as store:
        list(store.each_statement())
    assert str(path) in str(raised.value)
    assert "authd restore" in str(raised.value)


def test_other_failures_come_without_that_advice(tmp_path: Path) -> None:
    with SqliteStore(tmp_path / "authd.db") as store:
        store._fast.execute("DROP TABLE nonces")
        with pytest.raises(StoreError) as raised:
            store.seen(b"n")
    assert "restore" not in str(raised.value)
