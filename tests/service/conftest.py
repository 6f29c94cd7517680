"""A database, the stores on it, a data directory, jobs to have models of, and a look at memory, for these tests."""

import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from nablad.jobspec import complete, parse
from nablad.v1 import datasets_pb2 as datasets_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.storage.data_directory import DataDirectory
from service.stores.catalogues import ModelCatalogue
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


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[DataDirectory]:
    """An empty data directory."""
    directory = DataDirectory(tmp_path / "data")
    yield directory
    directory.close()


@pytest.fixture
def models(database: Database) -> ModelCatalogue:
    """A catalogue of no models yet."""
    return ModelCatalogue(database)


_JOB_FILE = """
data: {{train: rows}}
model: {{layers: {layers}, dtype: {dtype}, bias: {bias}}}
training: {{optimizer: {{name: {optimizer}}}}}
"""


@pytest.fixture
def model_job() -> Callable[..., ps_pb.Assignment]:
    """The assignment of a job by its network and optimizer; its rows are nowhere."""

    def make(
        layers: Sequence[int] = (3, 7, 5, 2),
        *,
        dtype: str = "float64",
        bias: bool = True,
        optimizer: str = "sgd",
        job_id: str = "job-1",
    ) -> ps_pb.Assignment:
        text = _JOB_FILE.format(layers=list(layers), dtype=dtype, bias=str(bias).lower(), optimizer=optimizer)
        spec, violations = parse(text)
        assert not violations
        dataset = datasets_pb.Dataset(rows=4, features=layers[0], classes=layers[-1])
        return ps_pb.Assignment(
            job_id=job_id,
            spec=complete(spec, dataset),
            train=ps_pb.DataSource(dataset=dataset),
            scaling=ps_pb.FeatureScaling(shift=np.arange(layers[0]), factor=np.arange(1, layers[0] + 1)),
        )

    return make


class Peak:
    """What was allocated at most, in bytes."""

    bytes = 0


@contextmanager
def _allocating() -> Iterator[Peak]:
    peak = Peak()
    tracemalloc.start()
    try:
        yield peak
        peak.bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture
def allocating() -> Callable[[], AbstractContextManager[Peak]]:
    """Watches what is allocated while a block lasts, by numpy too; memory that is mapped from files does not count."""
    return _allocating
