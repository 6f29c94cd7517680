"""The database: whole transactions, and schemas of every age."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from service.errors import DatabaseRowError
from service.stores.database import Database, DatabaseError


def test_a_transaction_that_fails_leaves_nothing(database: Database) -> None:
    """What was written before the exception is not there."""
    with pytest.raises(sqlite3.IntegrityError), database.transaction() as transaction:
        transaction.executemany("INSERT INTO datasets VALUES (?, x'00', x'')", [("a",), ("a",)])
    assert database.rows("SELECT * FROM datasets") == []


def test_what_was_committed_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    """Closing and opening keeps the rows and does not migrate twice."""
    for expected in ([], [("a",)]):
        database = Database(tmp_path / "db")
        assert database.rows("SELECT name FROM datasets") == expected
        if not expected:
            with database.transaction() as transaction:
                transaction.execute("INSERT INTO datasets VALUES ('a', x'00', x'')")
        database.close()


def test_commits_reach_the_disk(database: Database) -> None:
    """Write-ahead log, and a full sync at each commit."""
    assert database.rows("PRAGMA journal_mode") == [("wal",)]
    assert database.rows("PRAGMA synchronous") == [(2,)]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    """What is no database is refused in a sentence, and left as it is."""
    (tmp_path / "db").write_bytes(b"no database at all" * 100)
    with pytest.raises(DatabaseError, match=r"not a database.*backup"):
        Database(tmp_path / "db")
    assert (tmp_path / "db").read_bytes() == b"no database at all" * 100


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    """The message says that a newer release wrote it, and nothing is changed."""
    with closing(sqlite3.connect(tmp_path / "db")) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(DatabaseError, match=r"schema 99.*newer nablad"):
        Database(tmp_path / "db")


def _change_both(database: Database) -> None:
    with database.transaction() as transaction:
        transaction.execute("INSERT INTO datasets VALUES ('a', x'00', x'')")
        transaction.execute("DELETE FROM receipts")


def test_a_damaged_page_is_told_as_damage(tmp_path: Path) -> None:
    """By whatever meets it, within a transaction as well; and nothing of the transaction is left."""
    with closing(Database(tmp_path / "db")) as database:
        ((root,),) = database.rows("SELECT rootpage FROM sqlite_schema WHERE name = 'receipts'")
    with (tmp_path / "db").open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xff" * 4096)
    with closing(Database(tmp_path / "db")) as database:
        with pytest.raises(DatabaseRowError, match=r"database is damaged.*nablad check.*backup"):
            database.rows("SELECT * FROM receipts")
        with pytest.raises(DatabaseRowError, match="database is damaged"):
            _change_both(database)
        assert database.rows("SELECT * FROM datasets") == []


def test_tables_of_another_make_are_refused(tmp_path: Path) -> None:
    """A bit that was flipped in the schema renames a column, for one."""
    Database(tmp_path / "db").close()
    with closing(sqlite3.connect(tmp_path / "db")) as connection:
        connection.execute("ALTER TABLE jobs RENAME COLUMN priority TO priorhty")
    with pytest.raises(DatabaseError, match=r"its tables are not those of schema 6.*backup"):
        Database(tmp_path / "db")
