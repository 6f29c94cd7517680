"""The SQLite database of a data directory."""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from nablad.files import sync_directory
from service.errors import DatabaseRowError
from service.storage.reserve import Reserve
from service.stores.migrations import MIGRATIONS, Migration

__all__ = ["NEWEST", "Database", "DatabaseError"]

_Result = TypeVar("_Result")

# Larger than every number, for pages that begin with the newest row.
NEWEST = 1 << 62
# SQLite's own tables and indexes have no SQL text.
_SCHEMA = "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY name"
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class DatabaseError(Exception):
    """The database cannot be used: it is damaged, or a newer release wrote it."""


class Database:
    """A connection with transactions that are on the disk when they end.

    Used from one thread. Write-ahead log with synchronous=FULL: what was committed is there after any crash.
    """

    def __init__(
        self, path: Path, committed: Callable[[float], None] = lambda _: None, reserve: Reserve | None = None
    ) -> None:
        """Opens the database, makes it if there is none, and brings an older schema up to date.

        Args:
            path: The file.
            committed: Called after each transaction with the seconds of its commit.
            reserve: Room on the disk for opening it and for `with_reserve`; None for none.

        Raises:
            DatabaseError: It is damaged, or its schema is newer than this release knows.
        """
        self._committed = committed
        self._reserve = reserve
        try:
            self._connection = sqlite3.connect(path, isolation_level=None)
            # A flipped bit may break UTF-8. That must fail the row with the bit, not the whole query.
            self._connection.text_factory = lambda text: text.decode(errors="surrogateescape")
            self.with_reserve(self._prepare)
            self._migrate(path)
            self._require_schema(path)
        except UnicodeDecodeError as error:  # in a message of SQLite that quotes the schema
            raise DatabaseError(f"{path} cannot be used: its schema is damaged; restore it from a backup") from error
        except sqlite3.Error as error:
            advice = "restore it from a backup" if _is_damage(error) else "check its permissions and its disk"
            raise DatabaseError(f"{path} cannot be used: {error}; {advice}") from error
        except OSError as error:
            raise DatabaseError(f"{path} cannot be brought up to date: no copy of it can be kept ({error})") from error

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Opens a transaction: all or nothing, and durable when the block ends without an exception."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
            begin = time.perf_counter()
            self._connection.execute("COMMIT")
            self._committed(time.perf_counter() - begin)
        except BaseException as error:
            if self._connection.in_transaction:  # on a full disk SQLite has rolled back already
                self._connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                _raise_if_damaged(error)
            raise

    @contextmanager
    def without_cascade(self) -> Iterator[None]:
        """Switches cascading deletes off in this block, for a caller that deletes the other rows itself."""
        self._connection.execute("PRAGMA foreign_keys = OFF")
        try:
            yield
        finally:
            self._connection.execute("PRAGMA foreign_keys = ON")

    def with_reserve(self, write: Callable[[], _Result]) -> _Result:
        """Calls `write`; on a full disk it may use the reserve. For writes that free room or stop work.

        Args:
            write: A transaction that may be tried again.
        """
        return self._reserve.run_with_reserve(write) if self._reserve else write()

    def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Returns the rows of a query.

        Raises:
            DatabaseRowError: The database's structure is damaged.
        """
        try:
            with closing(self._connection.execute(query, parameters)) as cursor:
                return cursor.fetchall()
        except sqlite3.Error as error:
            _raise_if_damaged(error)
            raise

    def iterate(self, query: str, *parameters: object) -> Iterator[tuple[Any, ...]]:
        """Yields the rows of a query. Nothing may be written meanwhile.

        Raises:
            DatabaseRowError: The database's structure is damaged.
        """
        try:
            with closing(self._connection.execute(query, parameters)) as cursor:
                yield from cursor
        except sqlite3.Error as error:
            _raise_if_damaged(error)
            raise

    def _prepare(self) -> None:
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            self._connection.execute(f"PRAGMA {pragma}")

    def _migrate(self, path: Path) -> None:
        ((version,),) = self.rows("PRAGMA user_version")
        if not isinstance(version, int) or version > len(MIGRATIONS):
            raise DatabaseError(
                f"{path} has schema {version}, but this release knows schemas up to {len(MIGRATIONS)}: "
                "a newer nablad wrote it; run that one, or give another --data-dir"
            )
        if 0 < version < len(MIGRATIONS):
            self._keep_copy(path, version)
        for number, migration in enumerate(MIGRATIONS[version:], start=version + 1):
            self._apply(migration, number)

    def _require_schema(self, path: Path) -> None:
        """Raises DatabaseError if the schema is not that of this release: a flipped bit may rename a column."""
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as fresh:
            for migration in MIGRATIONS:
                fresh.executescript(migration.script)
            expected = fresh.execute(_SCHEMA).fetchall()
        if self.rows(_SCHEMA) != expected:
            raise DatabaseError(
                f"{path} cannot be used: its tables are not those of schema {len(MIGRATIONS)}; restore it from a backup"
            )

    def _apply(self, migration: Migration, number: int) -> None:
        """Applies a migration and its version number in one transaction, so that a crash leaves either schema whole."""
        try:
            self._connection.executescript(f"BEGIN IMMEDIATE; {migration.script}")
            if migration.fill:
                migration.fill(self._connection)
            self._connection.execute(f"PRAGMA user_version = {number}")
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _keep_copy(self, path: Path, version: int) -> None:
        """Keeps a copy of the database with its old schema, for a return to the previous release."""
        copy = path.with_name(f"{path.name}.schema{version}")
        unfinished = path.with_name(f".{copy.name}")
        unfinished.unlink(missing_ok=True)
        with closing(sqlite3.connect(unfinished)) as target:
            self._connection.backup(target)
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(copy)
        sync_directory(path.parent)


def _is_damage(error: sqlite3.Error) -> bool:
    """Returns whether the error means that the database is damaged."""
    # Errors of the Python module have no code. The lowest byte is the primary code.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE


def _raise_if_damaged(error: sqlite3.Error) -> None:
    """Raises DatabaseRowError if the error says that the database is damaged."""
    if _is_damage(error):
        raise DatabaseRowError(
            f"the service's database is damaged ({error}): stop the service, look at what `nablad check` finds, and "
            "restore the database from a backup"
        ) from error
