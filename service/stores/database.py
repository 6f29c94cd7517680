"""The SQLite database of a data directory."""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from nablad.files import sync_directory
from service.reserve import Reserve
from service.stores.migrations import MIGRATIONS, Migration

__all__ = ["NEWEST", "Database", "DatabaseError"]

_Result = TypeVar("_Result")

# Above every number, for pages that begin with the newest row.
NEWEST = 1 << 62
# Bodies on one page, but for a single larger one; a message of the API may have 4 MiB.
_PAGE_BYTES = 2 << 20


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
            committed: Told after each transaction how many seconds it took to reach the disk.
            reserve: Room on the disk for opening it and for `with_reserve`; None for none.

        Raises:
            DatabaseError: It is damaged, or its schema is newer than this release knows.
        """
        self._committed = committed
        self._reserve = reserve
        try:
            self._connection = sqlite3.connect(path, isolation_level=None)
            self.with_reserve(self._prepare)
            self._migrate(path)
        except sqlite3.Error as error:
            damaged = error.sqlite_errorcode in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
            advice = "restore it from a backup" if damaged else "look at its permissions and its disk"
            raise DatabaseError(f"{path} cannot be used: {error}; {advice}") from error
        except OSError as error:
            raise DatabaseError(f"{path} cannot be brought up to date: no copy of it can be kept ({error})") from error

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; durable when it ends without an exception."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
            begin = time.perf_counter()
            self._connection.execute("COMMIT")
            self._committed(time.perf_counter() - begin)
        except BaseException:
            if self._connection.in_transaction:  # on a full disk SQLite has rolled back already
                self._connection.execute("ROLLBACK")
            raise

    @contextmanager
    def without_cascade(self) -> Iterator[None]:
        """Rows that are deleted in this block leave the rows that belong to them, for who deletes those himself."""
        self._connection.execute("PRAGMA foreign_keys = OFF")
        try:
            yield
        finally:
            self._connection.execute("PRAGMA foreign_keys = ON")

    def with_reserve(self, write: Callable[[], _Result]) -> _Result:
        """Calls what frees room or stops work, on a full disk with the room that is kept for it.

        Args:
            write: A transaction that may be tried again.
        """
        return self._reserve.spend(write) if self._reserve else write()

    def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with closing(self._connection.execute(query, parameters)) as cursor:
            return cursor.fetchall()

    def bodies(self, query: str, *parameters: object) -> list[bytes]:
        """The first column of a query's rows, which holds serialised messages."""
        return [bytes(row[0]) for row in self.rows(query, *parameters)]

    def page(self, query: str, *parameters: object, limit: int) -> tuple[list[bytes], Any]:
        """The first bodies of a query for bodies and their positions, and the position of the last one if more follow.

        At most `limit` of them, and not more bytes than go well into one message.
        """
        bodies: list[bytes] = []
        size, last = 0, None
        with closing(self._connection.execute(query, parameters)) as cursor:
            for body, position in cursor:
                size += len(body)
                if bodies and (len(bodies) == limit or size > _PAGE_BYTES):
                    return bodies, last
                bodies.append(body)
                last = position
        return bodies, None

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

    def _apply(self, migration: Migration, number: int) -> None:
        """In one transaction, the version number included: a crash leaves the schema before it or after it."""
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
        """A copy of the database with its old schema beside it, for who has to go back to the release before."""
        copy = path.with_name(f"{path.name}.schema{version}")
        unfinished = path.with_name(f".{copy.name}")
        unfinished.unlink(missing_ok=True)
        with closing(sqlite3.connect(unfinished)) as target:
            self._connection.backup(target)
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(copy)
        sync_directory(path.parent)
