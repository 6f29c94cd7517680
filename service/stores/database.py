"""The SQLite database of a data directory."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

__all__ = ["NEWEST", "Database", "DatabaseError"]

# Each entry takes the schema one version further. Entries are only ever added.
_MIGRATIONS = (
    """
    CREATE TABLE jobs (
        number     INTEGER PRIMARY KEY AUTOINCREMENT,
        job_id     TEXT NOT NULL UNIQUE,
        request_id TEXT UNIQUE,
        state      INTEGER NOT NULL,
        body       BLOB NOT NULL          -- nablad.v1.Job
    );
    CREATE INDEX jobs_by_state ON jobs (state, number);
    CREATE TABLE events (
        job_id     TEXT NOT NULL REFERENCES jobs (job_id) ON DELETE CASCADE,
        number     INTEGER NOT NULL,
        body       BLOB NOT NULL,         -- nablad.v1.Event
        PRIMARY KEY (job_id, number)
    ) WITHOUT ROWID;
    CREATE TABLE datasets (
        name       TEXT PRIMARY KEY,
        body       BLOB NOT NULL          -- nablad.v1.Dataset
    );
    CREATE TABLE models (
        number     INTEGER PRIMARY KEY AUTOINCREMENT,
        model_id   TEXT NOT NULL UNIQUE,
        body       BLOB NOT NULL          -- nablad.v1.Model
    );
    """,
)


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

    def __init__(self, path: Path) -> None:
        """Opens the database, makes it if there is none, and brings an older schema up to date.

        Raises:
            DatabaseError: It is damaged, or its schema is newer than this release knows.
        """
        try:
            self._connection = sqlite3.connect(path, isolation_level=None)
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
                self._connection.execute(f"PRAGMA {pragma}")
            self._migrate(path)
        except sqlite3.Error as error:
            damaged = error.sqlite_errorcode in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
            advice = "restore it from a backup" if damaged else "look at its permissions and its disk"
            raise DatabaseError(f"{path} cannot be used: {error}; {advice}") from error

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; durable when it ends without an exception."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # on a full disk SQLite has rolled back already
                self._connection.execute("ROLLBACK")
            raise

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

    def _migrate(self, path: Path) -> None:
        ((version,),) = self.rows("PRAGMA user_version")
        if not isinstance(version, int) or version > len(_MIGRATIONS):
            raise DatabaseError(
                f"{path} has schema {version}, but this release knows schemas up to {len(_MIGRATIONS)}: "
                "a newer nablad wrote it; run that one, or give another --data-dir"
            )
        for number, script in enumerate(_MIGRATIONS[version:], start=version + 1):
            # One transaction, the version number included: a crash leaves the schema before it or after it.
            self._connection.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;")
