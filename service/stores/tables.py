"""Tables with a digest of the other columns in every row, so that a flipped bit never goes unnoticed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from service.errors import DatabaseRowError
from service.storage.digests import is_intact, row_digest
from service.stores.database import Database

__all__ = ["DATASETS", "EVENTS", "HISTORY", "JOBS", "MODELS", "RECEIPTS", "TABLES", "Row", "Table"]

# Largest size of the bodies on a page, except for a single larger one. A message of the API may have 4 MiB.
_PAGE_BYTES: Final = 2 << 20

#: All columns of a table in their order, the serialised message and the digest last.
Row = tuple[Any, ...]


class Table:
    """Reads and writes the rows of one table.

    Attributes:
        name: Name of the table.
    """

    def __init__(self, name: str, keys: Sequence[str], others: Sequence[str], describe: Callable[..., str]) -> None:
        """Describes the columns of a table.

        Args:
            name: Name of the table.
            keys: Columns that identify a row.
            others: Other columns, without the last two: ``body``, a serialised message, and ``digest``.
            describe: Returns, for the keys of a damaged row, what it was and what to do: the beginning of a sentence.
        """
        self.name = name
        self._keys = tuple(keys)
        self._columns = (*keys, *others, "body")
        self._describe = describe
        names = ", ".join((*self._columns, "digest"))
        marks = ", ".join("?" * (len(self._columns) + 1))
        self._select = f"SELECT {names} FROM {name}"  # noqa: S608 (our names)
        self._insert = f"INTO {name} ({names}) VALUES ({marks})"

    def rows(self, database: Database, clause: str = "", *parameters: object) -> list[Row]:
        """Returns the rows that a clause of SQL selects, also damaged ones."""
        return database.rows(f"{self._select} {clause}", *parameters)

    def iterate(self, database: Database, clause: str = "", *parameters: object) -> Iterator[Row]:
        """Yields the same rows as `rows`."""
        return database.iterate(f"{self._select} {clause}", *parameters)

    def body(self, row: Row) -> bytes:
        """Returns the serialised message of a row.

        Raises:
            DatabaseRowError: The row is not what was written.
        """
        if not is_intact(row):
            damage = self.damage(row)
            raise DatabaseRowError(f"{damage}; `nablad check` looks through everything", **damage.metadata)
        return bytes(row[-2])

    def bodies(self, database: Database, clause: str, *parameters: object) -> list[bytes]:
        """Returns the serialised messages of the rows that a clause selects.

        Raises:
            DatabaseRowError: One of them is not what was written.
        """
        return [self.body(row) for row in self.rows(database, clause, *parameters)]

    def page(self, database: Database, clause: str, *parameters: object, limit: int) -> tuple[list[Row], Row | None]:
        """Returns the first rows that a clause selects, and the row after which the next page begins, if any.

        A page has at most `limit` rows, and not more bytes than fit into one message. It ends with an intact row,
        because the key of a damaged one could lead back to the beginning.
        """
        rows: list[Row] = []
        size, last = 0, None
        for row in self.iterate(database, clause, *parameters):
            intact = is_intact(row)
            size += len(row[-2]) if intact else 0
            if last and (len(rows) >= limit or size > _PAGE_BYTES):
                return rows, last
            rows.append(row)
            last = row if intact else last
        return rows, None

    def insert(self, database: Database, values: Mapping[str, object], *, replace: bool = False) -> None:
        """Adds a row. With `replace`, it replaces one with the same keys."""
        verb = "INSERT OR REPLACE" if replace else "INSERT"
        row = tuple(values[name] for name in self._columns)
        database.rows(f"{verb} {self._insert}", *row, row_digest(row))

    def update(self, database: Database, values: Mapping[str, object]) -> None:
        """Writes all columns of the existing row with these keys."""
        row = tuple(values[name] for name in self._columns)
        changes = ", ".join(f"{name} = ?" for name in (*self._columns, "digest"))
        where = " AND ".join(f"{name} = ?" for name in self._keys)
        query = f"UPDATE {self.name} SET {changes} WHERE {where}"  # noqa: S608 (our names)
        database.rows(query, *row, row_digest(row), *(values[name] for name in self._keys))

    def next_number(self, database: Database) -> int:
        """Returns the number of the next row, for numbered tables. A deleted row leaves a gap."""
        query = (
            f"SELECT max(number) FROM {self.name} "  # noqa: S608 (our names)
            "UNION ALL SELECT seq FROM sqlite_sequence WHERE name = ?"
        )
        return 1 + max(number or 0 for (number,) in database.rows(query, self.name))

    def rebuild_indexes(self, database: Database) -> None:
        """Rebuilds all indexes of the table, even on a full disk."""
        database.with_reserve(lambda: database.rows(f"REINDEX {self.name}"))

    def damage(self, row: Row) -> DatabaseRowError:
        """Returns the error that describes a damaged row by its keys."""
        keys = {name: _shown(value) for name, value in zip(self._keys, row, strict=False)}
        stored = row[-1].hex() if isinstance(row[-1], bytes) else repr(row[-1])
        return DatabaseRowError(
            f"{self._describe(**keys)}; its row in table {self.name} has digest {row_digest(row[:-1]).hex()}, but was "
            f"written with {stored}",
            table=self.name,
            **keys,
        )

    def damages(self, database: Database) -> list[DatabaseRowError]:
        """Checks all rows. Returns the damage of each damaged one, or that the table cannot be read."""
        found = []
        try:
            found += [self.damage(row) for row in self.iterate(database) if not is_intact(row)]
        except DatabaseRowError as damage:
            found.append(damage)
        return found


def _shown(value: object) -> str:
    """Returns a key as text for a message, even if it is damaged."""
    return str(value).encode(errors="backslashreplace").decode()


def _restore(what: str, otherwise: str) -> str:
    return f"{what} is damaged in the database: restore it from a backup, or {otherwise}"


JOBS = Table(
    "jobs",
    ["job_id", "number"],
    [
        *("request_id", "state", "priority", "workers", "cpus_per_worker", "retry_time", "attempt", "update_time"),
        *("events", "points", "receipts"),
    ],
    lambda job_id, number: _restore(
        f"job {job_id!r} (number {number})", f"give the job up with `nabla job delete {job_id}` and submit it again"
    ),
)
EVENTS = Table(
    "events",
    ["job_id", "number"],
    ["kind"],
    lambda job_id, number: _restore(f"event {number} of job {job_id!r}", "go on without what it said"),
)
HISTORY = Table(
    "history",
    ["job_id", "kind", "step"],
    [],
    lambda job_id, kind, step: _restore(
        f"the history of job {job_id!r} at step {step} (kind {kind})",
        f"train again to the same bits: submit the spec that `nabla job get {job_id}` shows",
    ),
)
RECEIPTS = Table(
    "receipts",
    ["job_id"],
    [],
    lambda job_id: _restore(
        f"the receipt of job {job_id!r}", f"train again: submit the spec that `nabla job get {job_id}` shows"
    ),
)
DATASETS = Table(
    "datasets",
    ["name"],
    [],
    lambda name: _restore(
        f"data set {name!r}", f"`nabla dataset delete {name}` and add it again with `nabla dataset add`"
    ),
)
MODELS = Table(
    "models",
    ["model_id", "number"],
    [],
    lambda model_id, number: _restore(
        f"model {model_id!r} (number {number})", f"`nabla model delete {model_id}` and train it again"
    ),
)

TABLES: Final = (JOBS, EVENTS, HISTORY, RECEIPTS, DATASETS, MODELS)
