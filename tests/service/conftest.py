"""A database, and the stores on it, for the service's tests."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.stores.database import Database
from service.stores.jobs import JobStore

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """An empty database."""
    database = Database(tmp_path / "nablad.sqlite3")
    yield database
    database.close()


@pytest.fixture
def jobs(database: Database) -> JobStore:
    """An empty store of jobs, whose clock stands still."""
    return JobStore(database, lambda: NOW)
