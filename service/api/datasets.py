"""DatasetService: registration, listing and deletion of data sets."""

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from datetime import datetime

from nablad.errors import Violation
from nablad.jobspec.names import names, one_of
from nablad.v1 import constraints_pb2
from nablad.v1 import datasets_pb2 as datasets_pb
from nablad.v1 import datasets_pb2_grpc as datasets_grpc
from nablad.v1 import job_spec_pb2 as spec_pb
from service.api.uploads import receive_files, receive_first_request
from service.datasets import DatasetError, DatasetTooLargeError, store_dataset
from service.errors import Reason, ServiceError
from service.rpc.error_translation import Context, answer_errors
from service.rpc.pagination import decode_token, encode_token, page_size
from service.storage.data_directory import DataDirectory
from service.stores.catalogues import DatasetCatalogue
from service.stores.jobs import JobStore
from workers.runtime.concurrency import run_to_its_end

__all__ = ["DatasetServicer", "data_error"]

# A data set's name must be one that a job spec can have.
_NAME = spec_pb.DataSpec.DESCRIPTOR.fields_by_name["train"].GetOptions().Extensions[constraints_pb2.constraint]


def data_error(error: DatasetError) -> ServiceError:
    """Returns the error of a call whose files cannot be used."""
    return ServiceError(
        Reason.TOO_LARGE if isinstance(error, DatasetTooLargeError) else Reason.INVALID_DATA, str(error)
    )


@answer_errors
class DatasetServicer(datasets_grpc.DatasetServiceServicer):
    """Serves data sets, which are registered once and immutable."""

    def __init__(
        self,
        directory: DataDirectory,
        datasets: DatasetCatalogue,
        jobs: JobStore,
        now: Callable[[], datetime],
    ) -> None:
        self._directory = directory
        self._datasets = datasets
        self._jobs = jobs
        self._now = now

    async def AddDataset(
        self, requests: AsyncIterator[datasets_pb.AddDatasetRequest], context: Context
    ) -> datasets_pb.AddDatasetResponse:
        """Receives files, checks them, and registers the data set; keeps nothing if a check fails."""
        header = (await receive_first_request(requests)).header
        self._check(header)
        with self._directory.staging() as staging:
            files = await receive_files(requests, header.data_files.files, staging)
            stored_in = staging / "stored"
            try:
                stored = await run_to_its_end(store_dataset, files, header.data_files, stored_in)
            except DatasetError as error:
                raise data_error(error) from error
            dataset = datasets_pb.Dataset(name=header.name, **asdict(stored))
            dataset.create_time.FromDatetime(self._now())
            # No other call runs between this check and the registration. Files without a registration, which a crash
            # may leave, are replaced.
            self._datasets.require_free(header.name)
            self._directory.adopt_dataset(stored_in, header.name)
            self._datasets.add(dataset)
        return datasets_pb.AddDatasetResponse(dataset=dataset)

    async def GetDataset(
        self, request: datasets_pb.GetDatasetRequest, context: Context
    ) -> datasets_pb.GetDatasetResponse:
        """Returns a data set."""
        return datasets_pb.GetDatasetResponse(dataset=self._datasets.get(request.name))

    async def ListDatasets(
        self, request: datasets_pb.ListDatasetsRequest, context: Context
    ) -> datasets_pb.ListDatasetsResponse:
        """Returns a page of data sets."""
        found, rest = self._datasets.page(decode_token(request.page_token), page_size(request.page_size))
        return datasets_pb.ListDatasetsResponse(datasets=found, next_page_token=encode_token(rest))

    async def DeleteDataset(
        self, request: datasets_pb.DeleteDatasetRequest, context: Context
    ) -> datasets_pb.DeleteDatasetResponse:
        """Deletes a data set that no open job uses."""
        self._datasets.require(request.name)
        if job_id := self._jobs.job_using_dataset(request.name):
            raise ServiceError(
                Reason.IN_USE,
                f"data set {request.name!r} is used by job {job_id}: wait for its end, or cancel it",
                dataset=request.name,
                job_id=job_id,
            )
        self._datasets.delete(request.name)
        self._directory.remove_dataset(request.name)
        return datasets_pb.DeleteDatasetResponse()

    def _check(self, header: datasets_pb.AddDatasetHeader) -> None:
        violations = []
        if not re.fullmatch(_NAME.pattern, header.name):
            violations.append(Violation("name", f"got {header.name[:80]!r}; allowed: {_NAME.pattern_description}"))
        kinds, kind = datasets_pb.TargetKind.DESCRIPTOR, header.data_files.target_kind
        if kind not in kinds.values_by_number:
            violations.append(Violation("data_files.target_kind", f"got {kind}; {one_of(names(kinds))}"))
        if violations:
            raise ServiceError(Reason.INVALID_REQUEST, "the header of the data set breaks rules", violations=violations)
        self._datasets.require_free(header.name)
