"""What an attempt of a job has to know, put together from what is registered."""

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.datasets import fit_scaling
from service.storage.data_directory import DataDirectory
from service.stores.catalogues import DatasetCatalogue

__all__ = ["make_assignment"]


def make_assignment(
    directory: DataDirectory, datasets: DatasetCatalogue, spec: spec_pb.JobSpec, job_id: str, attempt: int = 0
) -> ps_pb.Assignment:
    """The assignment of an attempt, from its beginning.

    Raises:
        ServiceError: NOT_FOUND, when a data set is gone.
        DatasetError: A feature cannot be scaled.
        DamagedError: What is known of a data set, or its statistics, is damaged or gone.
        OSError: Its statistics cannot be read now.
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
