"""The SQLite store: round trips, damage, other schemas, failed transactions, file modes."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from authd.core.claims import Kind
from authd.core.identity import DomainId, PublicKey, StatementId
from authd.errors import ReasonCode, StoreError
from authd.service.ports import StoredSession, StoredStatement
from authd.store.memory import MemoryReplay
from authd.store.schema import SCHEMA_VERSION
from authd.store.sqlite import SqliteStore

DOMAIN = DomainId(b"d" * 16)
KEY = PublicKey(b"k" * 32)


MakeReplay = Callable[[Path], SqliteStore | MemoryReplay]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "authd.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with SqliteStore(path) as store:
        yield store


def statement(number: int, kind: Kind = Kind.GRANT) -> StoredStatement:
    return StoredStatement(
        kind=kind,
        statement_id=StatementId(bytes([number]) * 16),
        data=bytes([number, 0, 255]),
        source="gossip",
        received_at=number,
    )


def session(client_id: str = "pump", **change: object) -> StoredSession:
    values = {
        "session_id": "s",
        "broker": "m",
        "boot": "0" * 16,
        "client_id": client_id,
        "username": "u",
        "key": KEY,
        "form": 1,
        "audience_domain": DOMAIN,
        "audience_endpoint": "h:1",
        "durable": True,
        "live": False,
        "created_at": 7,
    }
    return StoredSession(**(values | change))  # type: ignore[arg-type]  # one dict for all


# --- round trips ------------------------------------------------------------------------------


def test_statements_come_back_in_order_and_the_first_bytes_are_kept(store: SqliteStore) -> None:
    kinds = [Kind.REVOKE, Kind.ROOT, Kind.GRANT, Kind.HEARTBEAT, Kind.BROKER]
    saved = [statement(number, kind) for number, kind in enumerate(kinds, 1)]
    store.save_statements(saved[:3], durable=True)
    store.save_statements(saved[2:], durable=False)
    assert store.load_statements() == saved
    other = StoredStatement(
        kind=Kind.GRANT,
        statement_id=saved[0].statement_id,
        data=b"another wrapping",
        source="dht",
        received_at=99,
    )
    store.save_statements([other], durable=False)
    assert store.load_statements() == saved
    store.delete_statements([saved[1].statement_id, StatementId(bytes(16))])
    assert store.load_statements() == [saved[0], *saved[2:]]


def test_chains_grow_and_the_one_before_stays_until_it_is_forgotten(store: SqliteStore) -> None:
    ids = [StatementId(bytes([number]) * 16) for number in range(6)]
    stranger = DomainId(b"e" * 16)
    assert store.load_chain(DOMAIN, KEY) == (0, [])
    assert store.load_closed(DOMAIN, KEY) == []
    store.append_chain(DOMAIN, KEY, 10, 0, ids[:2])
    store.append_chain(DOMAIN, KEY, 10, 2, ids[2:4])
    store.append_chain(stranger, KEY, 9, 0, ids[:1])
    assert store.load_chain(DOMAIN, KEY) == (10, ids[:4])
    store.append_chain(DOMAIN, KEY, 11, 0, ids[4:5])
    store.append_chain(DOMAIN, KEY, 12, 0, ids[5:])
    assert store.load_chain(DOMAIN, KEY) == (12, ids[5:])
    assert store.load_closed(DOMAIN, KEY) == ids[:5]
    store.forget_chains(DOMAIN, KEY, first=11, before=12)
    assert store.load_closed(DOMAIN, KEY) == ids[:4]
    store.forget_chains(DOMAIN, KEY, first=0, before=12)
    assert store.load_closed(DOMAIN, KEY) == []
    assert store.load_chain(DOMAIN, KEY) == (12, ids[5:])
    assert store.load_chain(stranger, KEY) == (9, ids[:1])


def test_a_list_that_comes_with_its_head_takes_the_place_of_those_before(
    store: SqliteStore,
) -> None:
    ids = [StatementId(bytes([number]) * 16) for number in range(3)]
    store.append_chain(DOMAIN, KEY, 10, 0, ids)
    store.append_chain(DOMAIN, KEY, 11, 0, ids[:1], head=statement(1))
    assert store.load_chain(DOMAIN, KEY) == (11, ids[:1])
    assert store.load_closed(DOMAIN, KEY) == []
    assert store.load_statements() == [statement(1)]
    store._durable.execute("DROP TABLE statements")
    with pytest.raises(StoreError):
        store.append_chain(DOMAIN, KEY, 12, 0, ids, head=statement(2))
    assert store.load_chain(DOMAIN, KEY) == (11, ids[:1]), "neither list nor head"


def test_a_nonce_is_consumed_once_and_swept_only_after_its_end(store: SqliteStore) -> None:
    assert not store.seen(b"n")
    assert store.consume(b"n", expires_at=100, now=0)
    assert store.seen(b"n")
    assert not store.consume(b"n", expires_at=200, now=0)
    for number in range(1_000):
        store.consume(number.to_bytes(4, "big"), expires_at=100, now=160)
    assert store.seen(b"n"), "it may still be inside a plugin's window"
    for number in range(1_000):
        store.consume(number.to_bytes(5, "big"), expires_at=300, now=161)
    assert not store.seen(b"n")


def test_a_nonce_and_the_session_it_lets_in_are_saved_both_or_neither(store: SqliteStore) -> None:
    first, second = session(), session(session_id="t")
    assert store.admit(b"n", first, expires_at=100, now=0)
    assert (store.seen(b"n"), store.load_sessions()) == (True, [first])
    assert not store.admit(b"n", second, expires_at=100, now=0), "somebody used it"
    assert store.load_sessions() == [first]
    with pytest.raises(StoreError):
        store.admit(b"o", session(username=None), expires_at=100, now=0)
    assert (store.seen(b"o"), store.load_sessions()) == (False, [first])
    assert store.admit(b"o", second, expires_at=100, now=0)
    assert store.load_sessions() == [second]
    assert store.open_nonces("m", now=0, most=9) == [b"o", b"n"]
    assert not store.consume(b"n", expires_at=100, now=0, broker="m", session="s")


def test_nonces_that_let_sessions_in_are_swept_too(store: SqliteStore) -> None:
    for number in range(1_000):
        store.admit(number.to_bytes(4, "big"), session(), expires_at=100, now=160)
    assert store.seen(bytes(4))
    for number in range(1_000):
        store.admit(number.to_bytes(5, "big"), session(), expires_at=300, now=161)
    assert not store.seen(bytes(4))


@pytest.mark.parametrize("make", [SqliteStore, lambda _: MemoryReplay()])
def test_a_counter_is_taken_if_it_is_higher(path: Path, make: MakeReplay) -> None:
    used = make(path)
    assert used.last_counter(b"s") is None
    taken = [used.raise_counter(b"s", number) for number in (0, 0, 5, 4, 5, 2**63 - 1)]
    assert taken == [True, False, True, False, False, True]
    assert used.last_counter(b"s") == 2**63 - 1
    assert used.raise_counter(b"t", 1), "another slot"


@pytest.mark.parametrize("make", [SqliteStore, lambda _: MemoryReplay()])
def test_a_nonce_is_somebodys_and_may_be_said_again_by_the_same_session(
    path: Path, make: MakeReplay
) -> None:
    used = make(path)
    assert used.consume(b"n", expires_at=100, now=0, broker="m", session="s")
    assert used.consume(b"n", expires_at=100, now=0, broker="m", session="s")
    assert not used.consume(b"n", expires_at=100, now=0, broker="m", session="t")
    assert not used.consume(b"n", expires_at=100, now=0, broker="e", session="s")
    assert not used.consume(b"n", expires_at=100, now=0)
    assert used.consume(b"o", expires_at=100, now=0, broker="m")
    assert not used.consume(b"o", expires_at=100, now=0, broker="m"), "a verdict used it up"


@pytest.mark.parametrize("make", [SqliteStore, lambda _: MemoryReplay()])
def test_the_nonces_of_a_broker_are_listed_until_a_minute_after_their_end(
    path: Path, make: MakeReplay
) -> None:
    used = make(path)
    used.consume(b"m", expires_at=100, now=0, broker="m")
    used.consume(b"n", expires_at=101, now=0, broker="m")
    used.consume(b"e", expires_at=100, now=0, broker="e")
    used.consume(b"old", expires_at=90, now=0)
    assert used.open_nonces("m", now=150, most=9) == [b"n", b"m", b"old"]
    assert used.open_nonces("m", now=150, most=1) == [b"n"]
    assert used.open_nonces("m", now=161, most=9) == [b"n"]


def test_of_many_processes_with_one_counter_exactly_one_is_taken(path: Path) -> None:
    with SqliteStore(path) as first, SqliteStore(path) as second:
        assert first.raise_counter(b"s", 1)
        assert not second.raise_counter(b"s", 1)
        assert second.raise_counter(b"s", 2)
        assert first.last_counter(b"s") == 2


def test_one_client_id_of_a_broker_has_one_session(store: SqliteStore) -> None:
    first, other = session(), session("lamp", broker="e", durable=False, live=True)
    store.save_session(first)
    store.save_session(other)
    assert store.load_sessions() == [first, other]
    newer = session(session_id="t", live=True)
    store.save_session(newer)
    assert sorted(one.session_id for one in store.load_sessions()) == ["s", "t"]
    store.delete_session("m", "pump")
    store.delete_session("m", "nobody")
    assert store.load_sessions() == [other]


def test_records_are_replaced_stay_our_own_and_die(store: SqliteStore) -> None:
    store.save_record(b"t", b"1", expires_at=10, own=True)
    store.save_record(b"t", b"2", expires_at=20, own=False)
    store.save_record(b"u", b"3", expires_at=30, own=False)
    assert store.load_records() == [(b"2", True), (b"3", False)]
    store.delete_records(expired_at=20)
    assert store.load_records() == [(b"3", False)]


def test_everything_survives_closing(path: Path) -> None:
    with SqliteStore(path) as store:
        store.save_statements([statement(1)], durable=False)
        store.save_session(session())
        store.consume(b"n", expires_at=100, now=0)
        store.raise_counter(b"s", 7)
        store.set_meta("floor", "7")
    with SqliteStore(path) as store:
        assert store.load_statements() == [statement(1)]
        assert store.load_sessions() == [session()]
        assert store.seen(b"n")
        assert store.last_counter(b"s") == 7
        assert store.meta("floor") == "7"
        assert store.meta("nothing") is None


# --- durability, modes ------------------------------------------------------------------------


def test_revocations_wait_for_the_disk_and_nonces_do_not(store: SqliteStore) -> None:
    full, normal = 2, 1
    assert store._durable.execute("PRAGMA synchronous").fetchone()[0] == full
    assert store._fast.execute("PRAGMA synchronous").fetchone()[0] == normal
    assert store._fast.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_nobody_else_can_read_the_database_or_its_companions(
    path: Path, store: SqliteStore
) -> None:
    store.set_meta("x", "y")
    modes = {one.name: one.stat().st_mode & 0o777 for one in path.parent.iterdir()}
    assert set(modes.values()) == {0o600}, modes
    assert "authd.db-wal" in modes


# --- damage -----------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [1, 2, 256])
def test_statements_are_read_by_kind_while_others_go(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr("authd.store.sqlite._READ_AT_ONCE", at_once)
    kinds = [Kind.BROKER, Kind.GRANT, Kind.ROOT, Kind.GRANT, Kind.BROKER, Kind.REVOKE, Kind.GRANT]
    saved = [statement(number, kind) for number, kind in enumerate(kinds)]
    store.save_statements(saved, durable=True)
    read = []
    for one in store.each_statement():
        read.append(one)
        store.delete_statements([one.statement_id])
    assert read == [saved[place] for place in (2, 1, 3, 6, 5, 0, 4)]
    assert store.load_statements() == []


def test_a49_no_row_is_too_low_and_no_kind_too_new_to_be_read(store: SqliteStore) -> None:
    insert = "INSERT INTO statements (rowid, id, kind, data, source, received_at)"
    store._fast.execute(f"{insert} VALUES (-7, x'01', 1, x'00', 's', 0)")
    assert [one.statement_id for one in store.each_statement()] == [b"\x01"]
    store._fast.execute(f"{insert} VALUES (1, x'02', 77, x'00', 's', 0)")
    with pytest.raises(StoreError, match="77"):
        next(store.each_statement())


@pytest.mark.parametrize("content", [b"not a database" * 100, b"SQLite format 3\x00" + bytes(200)])
def test_a49_a_damaged_file_is_reported_by_name(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"authd\.db") as caught:
        SqliteStore(path)
    assert caught.value.reason is ReasonCode.STORE_FAILED


def test_a49_a_database_cut_short_is_reported_when_it_is_read(path: Path) -> None:
    with SqliteStore(path) as store:
        store.save_statements([statement(number) for number in range(200)], durable=True)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(StoreError), SqliteStore(path) as store:
        store.load_statements()


def test_a_place_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot open"):
        SqliteStore(tmp_path / "missing" / "authd.db")
    with pytest.raises(StoreError):
        SqliteStore(tmp_path)


@pytest.mark.parametrize("version", [str(SCHEMA_VERSION + 1), "0", "x"])
def test_a_database_of_another_schema_is_refused(path: Path, version: str) -> None:
    with SqliteStore(path) as store:
        store.set_meta("schema_version", version)
    with pytest.raises(StoreError, match="schema version"):
        SqliteStore(path)


def test_a49_values_outside_their_type_are_damage(path: Path, store: SqliteStore) -> None:
    store._fast.execute("INSERT INTO statements VALUES (x'00', 77, x'00', 's', 0)")
    with pytest.raises(StoreError, match="77"):
        store.load_statements()


# --- failed transactions ----------------------------------------------------------------------


def test_a_failed_transaction_changes_nothing_and_the_next_one_works(store: SqliteStore) -> None:
    store.save_statements([statement(1)], durable=True)
    for durable in (True, False):
        broken = StoredStatement(
            kind=Kind.GRANT,
            statement_id=StatementId(b"x" * 16),
            data=None,  # type: ignore[arg-type]  # what the schema refuses
            source="s",
            received_at=0,
        )
        with pytest.raises(StoreError):
            store.save_statements([statement(2), broken], durable=durable)
        assert store.load_statements() == [statement(1)]
    store.save_statements([statement(3)], durable=True)
    assert store.load_statements() == [statement(1), statement(3)]


def test_a_commit_that_fails_leaves_no_transaction_open(path: Path, store: SqliteStore) -> None:
    page_size = store._fast.execute("PRAGMA page_size").fetchone()[0]
    pages = store._durable.execute("PRAGMA page_count").fetchone()[0]
    store._durable.execute(f"PRAGMA max_page_count = {pages}")
    big = StoredStatement(
        kind=Kind.GRANT,
        statement_id=StatementId(b"b" * 16),
        data=bytes(page_size * 50),
        source="s",
        received_at=0,
    )
    for _ in range(2):
        with pytest.raises(StoreError, match="full"):
            store.save_statements([statement(1), big], durable=True)
    assert not store._durable.in_transaction
    assert store.load_statements() == []
    store._durable.execute(f"PRAGMA max_page_count = {pages * 1_000}")
    store.save_statements([statement(1), big], durable=True)
    assert len(store.load_statements()) == 2


def test_a_lock_held_by_another_process_is_an_error_and_not_a_lost_write(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authd.store.sqlite._BUSY_TIMEOUT_S", 0.05)
    with SqliteStore(path) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            store.save_statements([statement(1)], durable=True)
        other.execute("ROLLBACK")
        other.close()
        store.save_statements([statement(1)], durable=True)
        assert store.load_statements() == [statement(1)]


def test_every_operation_on_a_store_without_tables_is_a_store_error(
    store: SqliteStore,
) -> None:
    for table in ("statements", "chains", "nonces", "counters", "sessions", "records", "meta"):
        store._fast.execute(f"DROP TABLE {table}")
    operations: list[Callable[[], object]] = [
        store.load_statements,
        lambda: next(store.each_statement()),
        lambda: store.save_statements([statement(1)], durable=True),
        lambda: store.delete_statements([StatementId(bytes(16))]),
        lambda: store.load_chain(DOMAIN, KEY),
        lambda: store.load_closed(DOMAIN, KEY),
        lambda: store.forget_chains(DOMAIN, KEY, first=0, before=1),
        lambda: store.append_chain(DOMAIN, KEY, 1, 0, [StatementId(bytes(16))]),
        lambda: store.seen(b"n"),
        lambda: store.consume(b"n", expires_at=1, now=0),
        lambda: store.admit(b"n", session(), expires_at=1, now=0),
        lambda: store.open_nonces("m", now=0, most=1),
        lambda: store.last_counter(b"s"),
        lambda: store.raise_counter(b"s", 1),
        store.load_sessions,
        lambda: store.save_session(session()),
        lambda: store.delete_session("m", "x"),
        store.load_records,
        lambda: store.save_record(b"t", b"d", expires_at=1, own=True),
        lambda: store.delete_records(expired_at=1),
        lambda: store.meta("x"),
        lambda: store.set_meta("x", "y"),
    ]
    for operation in operations:
        with pytest.raises(StoreError):
            operation()
