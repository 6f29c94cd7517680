"""Assignments: the message that describes the work of an attempt to its processes."""

from pathlib import Path

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.datasets import DatasetVerifier, fit_scaling
from service.storage.data_directory import DataDirectory
from service.stores.catalogues import DatasetCatalogue
from workers.runtime.concurrency import run_to_its_end

__all__ = ["make_assignment", "require_intact_data"]


def make_assignment(
    directory: DataDirectory, datasets: DatasetCatalogue, spec: spec_pb.JobSpec, job_id: str, attempt: int = 0
) -> ps_pb.Assignment:
    """Returns the assignment of an attempt that begins with step 0.

    Raises:
        ServiceError: NOT_FOUND, if a data set is gone.
        DatasetError: A feature cannot be scaled.
        DamagedError: The description of a data set, or its statistics, are damaged or gone.
        OSError: The statistics cannot be read now.
    """

    def source(name: str) -> ps_pb.DataSource:
        return ps_pb.DataSource(dataset=datasets.get(name), directory=str(directory.dataset(name)))

    data = spec.data
    train = source(data.train)
    return ps_pb.Assignment(
        job_id=job_id,
        attempt=attempt,
        spec=spec,
        train=train,
        validation=source(data.validation) if data.validation else None,
        scaling=fit_scaling(data.scaling, directory.dataset(data.train), train.dataset.statistics_sha256),
    )


async def require_intact_data(assignment: ps_pb.Assignment, verifier: DatasetVerifier) -> None:
    """Reads the data sets of an assignment on another thread, because a large one takes seconds.

    Raises:
        StoredDatasetError: One of them is gone, or not what was stored.
        OSError: One of them cannot be read now.
    """
    for source in (assignment.train, assignment.validation):
        if source.directory:
            await run_to_its_end(verifier.require_intact, source.dataset, Path(source.directory))
