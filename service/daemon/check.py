"""Check of a data directory that no daemon uses: reads the database, and every file that it names."""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from nablad.v1 import datasets_pb2 as datasets_pb
from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import models_pb2 as models_pb
from service.checkpoints.folder import CheckpointFolder
from service.datasets import require_intact
from service.datasets.statistics import load_statistics
from service.errors import DamagedError
from service.models.model_files import open_model
from service.storage.data_directory import DataDirectory
from service.storage.digests import is_intact
from service.storage.reserve import is_full_disk
from service.stores.database import Database, DatabaseError
from service.stores.job_states import ENDED
from service.stores.migrations import MIGRATIONS
from service.stores.tables import DATASETS, JOBS, MODELS, TABLES

__all__ = ["CheckError", "DirectoryCheck", "Finding"]

_LOSSES = """
    SELECT job_id FROM jobs
    WHERE events > (SELECT count(*) FROM events WHERE events.job_id = jobs.job_id)
    OR points > (SELECT count(*) FROM history WHERE history.job_id = jobs.job_id)
    OR receipts > (SELECT count(*) FROM receipts WHERE receipts.job_id = jobs.job_id)
"""
_GAPS = """
    SELECT job_id, count(*), max(number) FROM events WHERE job_id IN (SELECT job_id FROM jobs)
    GROUP BY job_id HAVING count(*) < max(number)
"""
_LEFT_OVER = """
    SELECT job_id FROM events UNION SELECT job_id FROM history UNION SELECT job_id FROM receipts
    EXCEPT SELECT job_id FROM jobs
"""
_RESTORE = "restore the database from a backup"


class CheckError(Exception):
    """The directory cannot be checked; the message says why and what to do."""


@dataclass(frozen=True)
class Finding:
    """A defect or an oddity of the directory.

    Attributes:
        sentence: Description with the place and what to do.
        harmless: Whether nothing is lost by it.
    """

    sentence: str
    harmless: bool = False


class DirectoryCheck:
    """One check of a data directory, which the caller has locked. Changes nothing.

    Attributes:
        counts: Number of checked entries by kind, such as ``events``.
    """

    def __init__(self, directory: DataDirectory) -> None:
        self.counts: Counter[str] = Counter()
        self._directory = directory
        self._jobs: dict[str, jobs_pb.Job] = {}
        self._datasets: dict[str, datasets_pb.Dataset] = {}
        self._models: dict[str, models_pb.Model] = {}
        self._names_are_known = True

    def run(self) -> Iterator[Finding]:
        """Yields findings as they are found.

        Raises:
            CheckError: The database cannot be opened, because its disk is full.
        """
        path = self._directory.database
        if not path.exists():
            yield Finding(f"the database is gone: {path} is not there; {_RESTORE}")
            return
        try:
            version = _schema(path)
            if version < len(MIGRATIONS):
                yield Finding(
                    f"{path} has schema {version} of an earlier release, whose rows have no digests: start "
                    "`nablad serve` once, which brings it up to date, and check again; nothing but its structure was "
                    "looked at",
                    harmless=True,
                )
                yield from map(Finding, _broken_structure(path))
                return
            with closing(Database(path)) as database:
                yield from map(Finding, _broken_structure(path))
                yield from self._rows(database)
        except (DatabaseError, sqlite3.Error, DamagedError) as error:
            if is_full_disk(error.__cause__ or error):
                raise CheckError(
                    f"{path} cannot be looked through, because its disk is full ({error}): make room there"
                ) from error
            yield Finding(f"the database cannot be looked through: {error}; {_RESTORE}")
            return
        yield from self._files()

    # -- the database --------------------------------------------------------------------------------------------------

    def _rows(self, database: Database) -> Iterator[Finding]:
        for table in TABLES:
            ((count,),) = database.rows(f"SELECT count(*) FROM {table.name}")  # noqa: S608 (our names)
            self.counts[table.name] = count
            damages = table.damages(database)
            yield from (Finding(str(damage)) for damage in damages)
            if damages and table in (JOBS, DATASETS, MODELS):
                self._names_are_known = False
        yield from _gaps(database)
        if self._names_are_known:
            yield from _left_over(database)
        # Row by row, and without unneeded fields, because a spec may have a megabyte.
        for row in filter(is_intact, JOBS.iterate(database)):
            job = jobs_pb.Job.FromString(row[-2])
            spec = spec_pb.JobSpec(data=job.spec.data)
            self._jobs[job.job_id] = jobs_pb.Job(job_id=job.job_id, state=job.state, spec=spec)
        for row in filter(is_intact, DATASETS.iterate(database)):
            dataset = datasets_pb.Dataset.FromString(row[-2])
            self._datasets[dataset.name] = dataset
        for row in filter(is_intact, MODELS.iterate(database)):
            model = models_pb.Model.FromString(row[-2])
            self._models[model.model_id] = models_pb.Model(model_id=model.model_id, sha256=model.sha256)

    # -- files ---------------------------------------------------------------------------------------------------------

    def _files(self) -> Iterator[Finding]:
        for dataset in self._datasets.values():
            yield from self._dataset(dataset)
        for model in self._models.values():
            yield from self._model(model)
        for job_id in sorted(self._directory.jobs_with_checkpoints()):
            yield from self._checkpoints(job_id)
        # A file that a damaged row names is neither gone nor an orphan.
        if self._names_are_known:
            yield from self._missing_datasets()
            yield from self._orphans()

    def _dataset(self, dataset: datasets_pb.Dataset) -> Iterator[Finding]:
        directory = self._directory.dataset(dataset.name)
        yield from _damage(lambda: require_intact(dataset, directory))
        yield from _damage(lambda: load_statistics(directory, dataset.statistics_sha256))
        if not dataset.statistics_sha256:
            yield Finding(
                f"data set {dataset.name!r} was registered by an earlier release, without a digest of its statistics: "
                "they were read, but not compared",
                harmless=True,
            )

    def _model(self, model: models_pb.Model) -> Iterator[Finding]:
        yield from _damage(lambda: open_model(self._directory.model(model.model_id), model.sha256).close())

    def _missing_datasets(self) -> Iterator[Finding]:
        known = {path.name for path in (self._directory.path / "datasets").iterdir()} & self._datasets.keys()
        for job in self._jobs.values():
            for name in {job.spec.data.train, job.spec.data.validation} - {""} - known:
                if job.state not in ENDED:
                    yield Finding(
                        f"job {job.job_id!r} needs data set {name!r}, which is gone: add it again with "
                        f"`nabla dataset add {name}`, or the job will fail"
                    )

    def _checkpoints(self, job_id: str) -> Iterator[Finding]:
        folder = CheckpointFolder(self._directory.checkpoints(job_id))
        try:
            checkpoints = folder.list()
        except OSError as error:
            yield Finding(f"the checkpoints of job {job_id!r} cannot be read: {error}; look at {folder.path}")
            return
        self.counts["checkpoints"] += len(checkpoints)
        for checkpoint in checkpoints:
            if checkpoint.damage:
                yield Finding(
                    f"{checkpoint.damage}, in {folder.path}: the job goes on from the one before, or begins anew; "
                    "restore it from a backup to spare that"
                )

    def _orphans(self) -> Iterator[Finding]:
        for model_id in sorted(self._directory.model_ids()):
            job = self._jobs.get(model_id)
            if model_id not in self._models and (job is None or job.state in ENDED):
                path = self._directory.model(model_id)
                yield Finding(f"{path} belongs to no model: the next start removes it", harmless=True)
        for job_id in sorted(set(self._directory.jobs_with_checkpoints()) - self._jobs.keys()):
            path = self._directory.checkpoints(job_id)
            yield Finding(f"{path} belongs to no job: the next start removes it", harmless=True)
        for path in sorted((self._directory.path / "datasets").iterdir()):
            if path.name not in self._datasets:
                yield Finding(f"{path} belongs to no data set: nobody needs it, remove it", harmless=True)


def _schema(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        ((version,),) = connection.execute("PRAGMA user_version")
    return int(version)


def _broken_structure(path: Path) -> list[str]:
    """Returns SQLite's errors of tables and their indexes."""
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = lambda text: text.decode(errors="backslashreplace")
        lines = [line for (line,) in connection.execute("PRAGMA integrity_check") if line != "ok"]
    return [f"the database is damaged: {' '.join(line.split())}; {_RESTORE}" for line in lines]


def _gaps(database: Database) -> Iterator[Finding]:
    for job_id, count, last in database.rows(_GAPS):
        yield Finding(f"the events of job {job_id!r} go up to {last}, but there are {count} of them: {_RESTORE}")
    for (job_id,) in database.rows(_LOSSES):
        yield Finding(f"job {job_id!r} has lost events, points of its history or its receipt: {_RESTORE}")


def _left_over(database: Database) -> Iterator[Finding]:
    """Yields the rows of deleted jobs, which are deleted in pieces. Damaged ids are reported as damage before."""
    for (job_id,) in database.rows(_LEFT_OVER):
        yield Finding(
            f"the database has rows of job {job_id!r}, which is not there: the next start removes those that its "
            "deletion has left",
            harmless=True,
        )


def _damage(look: Callable[[], object]) -> Iterator[Finding]:
    try:
        look()
    except DamagedError as damage:
        yield Finding(str(damage))
    except OSError as error:
        yield Finding(f"{error.filename or 'a file'} cannot be read: {error}; look after the disk")
