"""The calls of a service as methods."""

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Self, TypeVar
from uuid import uuid4

from nablad.client.channel import open_channel, resolve_address
from nablad.client.downloading import write_file
from nablad.client.predicting import PredictionRun
from nablad.client.translation import translating
from nablad.client.uploading import ProgressCallback, Upload, describe_files
from nablad.client.watching import Patience, watch
from nablad.errors import UnavailableError
from nablad.v1 import (
    datasets_pb2,
    datasets_pb2_grpc,
    job_spec_pb2,
    jobs_pb2,
    jobs_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
)

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

PathName = str | PathLike[str]


def _ignore(_: UnavailableError) -> None:
    """Says nothing of a lost connection."""


class Client:
    """A connection to a nablad service; may be shared by threads.

    Every method raises a ``NablaError`` when the service refuses or cannot be reached: see ``nablad.errors``.

    Attributes:
        address: Where the service is, as ``host:port``.
    """

    def __init__(self, address: str | None = None, *, timeout_s: float = 30.0, patience_s: float = 120.0) -> None:
        """Connects with the first call.

        Args:
            address: ``host:port``; None: that of the environment variable NABLA_SERVER, else 127.0.0.1:7471.
            timeout_s: Seconds that a call with one answer may take. Streams have no limit.
            patience_s: Seconds that a watch tries to reach a service that it has lost.
        """
        self.address = resolve_address(address)
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._channel = open_channel(self.address)
        self._jobs = jobs_pb2_grpc.JobServiceStub(self._channel)
        self._datasets = datasets_pb2_grpc.DatasetServiceStub(self._channel)
        self._models = models_pb2_grpc.ModelServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends all calls and the connection."""
        self._channel.close()

    # Jobs

    def submit(
        self, spec: job_spec_pb2.JobSpec, *, request_id: str | None = None, validate_only: bool = False
    ) -> jobs_pb2.Job:
        """Queues a job.

        Args:
            spec: What to train.
            request_id: The same id always gives the same job, so that a call may be repeated; None: a new UUID.
            validate_only: Queue nothing; the answer holds only the completed spec.

        Raises:
            InvalidRequestError: The spec breaks rules; carries all violations.
        """
        request = jobs_pb2.CreateJobRequest(
            spec=spec, request_id=request_id or str(uuid4()), validate_only=validate_only
        )
        return self._call(self._jobs.CreateJob, request).job

    def job(self, job_id: str) -> jobs_pb2.Job:
        """The job with this id."""
        return self._call(self._jobs.GetJob, jobs_pb2.GetJobRequest(job_id=job_id)).job

    def jobs(self, states: Iterable[jobs_pb2.JobState.ValueType] = ()) -> Iterator[jobs_pb2.Job]:
        """All jobs in one of ``states``, or in any when none is given; the newest first."""
        for page in self._pages(self._jobs.ListJobs, jobs_pb2.ListJobsRequest(states=states)):
            yield from page.jobs

    def watch(
        self, job_id: str, from_event: int = 1, *, on_lost: Callable[[UnavailableError], None] = _ignore
    ) -> Iterator[jobs_pb2.Event | jobs_pb2.Progress]:
        """The events of a job from a number on, each once and in order, until it has ended.

        Samples of its progress come in between. A lost connection is made again, and the watch goes on where it was.

        Args:
            job_id: The job.
            from_event: Number of the first event wanted.
            on_lost: Told when the connection is lost, and again at each failed attempt to make it anew.
        """
        request = jobs_pb2.WatchJobRequest(job_id=job_id, from_event=from_event)
        return watch(self._jobs.WatchJob, request, self.address, Patience(self._patience_s), on_lost)

    def cancel(self, job_id: str) -> jobs_pb2.Job:
        """Ends a job that has not ended yet."""
        return self._call(self._jobs.CancelJob, jobs_pb2.CancelJobRequest(job_id=job_id)).job

    def delete_job(self, job_id: str) -> None:
        """Forgets a job that has ended, with its events; its model stays."""
        self._call(self._jobs.DeleteJob, jobs_pb2.DeleteJobRequest(job_id=job_id))

    # Data sets

    def add_dataset(
        self,
        name: str,
        paths: Sequence[PathName],
        *,
        target_column: str = "",
        target_kind: datasets_pb2.TargetKind.ValueType = datasets_pb2.TARGET_KIND_UNSPECIFIED,
        classes: int = 0,
        progress: ProgressCallback | None = None,
    ) -> datasets_pb2.Dataset:
        """Registers the data set in some files, which are streamed and never loaded as a whole.

        Args:
            name: What jobs will call it.
            paths: One .npz or .csv, or two files, features and targets, of .npy or IDX; .csv and IDX may be gzipped.
            target_column: CSV: name or number (from 0) of the targets' column; empty: the last one.
            target_kind: What the targets are; unspecified: labels if they are whole numbers, else values.
            classes: Number of classes when the labels do not show all of them; 0: the largest label + 1.
            progress: Told the bytes sent and the bytes in all, before each chunk; on another thread.

        Raises:
            OSError: A file cannot be read.
        """
        files = [Path(path) for path in paths]
        header = datasets_pb2.AddDatasetHeader(
            name=name, data_files=describe_files(files, target_column, target_kind, classes)
        )
        upload = Upload(datasets_pb2.AddDatasetRequest(header=header), files, datasets_pb2.AddDatasetRequest, progress)
        call = self._datasets.AddDataset.future(iter(upload))
        try:
            with upload.answers(self.address):
                return call.result().dataset
        finally:
            call.cancel()  # when the caller was interrupted; else it has ended

    def dataset(self, name: str) -> datasets_pb2.Dataset:
        """The data set with this name."""
        return self._call(self._datasets.GetDataset, datasets_pb2.GetDatasetRequest(name=name)).dataset

    def datasets(self) -> Iterator[datasets_pb2.Dataset]:
        """All data sets, in order of their names."""
        for page in self._pages(self._datasets.ListDatasets, datasets_pb2.ListDatasetsRequest()):
            yield from page.datasets

    def delete_dataset(self, name: str) -> None:
        """Forgets a data set that no unfinished job uses."""
        self._call(self._datasets.DeleteDataset, datasets_pb2.DeleteDatasetRequest(name=name))

    # Models

    def model(self, model_id: str) -> models_pb2.Model:
        """The model with this id, which is that of its job."""
        return self._call(self._models.GetModel, models_pb2.GetModelRequest(model_id=model_id)).model

    def models(self) -> Iterator[models_pb2.Model]:
        """All models, the newest first."""
        for page in self._pages(self._models.ListModels, models_pb2.ListModelsRequest()):
            yield from page.models

    def export_model(self, model_id: str, path: PathName, *, overwrite: bool = False) -> Path:
        """Writes a model's file, in whole or not at all.

        Args:
            model_id: The model.
            path: Where to; safetensors.
            overwrite: Replace a file that is there already.

        Raises:
            FileExistsError: There is a file already.
            OSError: The file cannot be written.
        """
        target = Path(path)
        if target.exists() and not overwrite:
            raise FileExistsError(
                errno.EEXIST, "There is a file already; choose another name or overwrite it", str(target)
            )
        model = self.model(model_id)
        call = self._models.ExportModel(models_pb2.ExportModelRequest(model_id=model_id))
        try:
            with translating(self.address):
                write_file(target, (response.chunk for response in call), model.sha256)
        finally:
            call.cancel()  # when the file could not be written; else it has ended
        return target

    def predict(
        self,
        model_id: str,
        paths: Sequence[PathName],
        *,
        target_column: str = "",
        target_kind: datasets_pb2.TargetKind.ValueType = datasets_pb2.TARGET_KIND_UNSPECIFIED,
        classes: int = 0,
    ) -> PredictionRun:
        """Predictions for the rows of a file, one after the other; then ``.comparison`` if the file had targets too.

        Args:
            model_id: The model that predicts.
            paths: Features alone, or features and targets; as for ``add_dataset``, like the other arguments.
            target_column: CSV: name or number (from 0) of the targets' column; empty: the last one.
            target_kind: What the targets are.
            classes: Number of classes.
        """
        files = [Path(path) for path in paths]
        header = models_pb2.PredictHeader(
            model_id=model_id, data_files=describe_files(files, target_column, target_kind, classes)
        )
        upload = Upload(models_pb2.PredictRequest(header=header), files, models_pb2.PredictRequest)
        return PredictionRun(self._models.Predict(iter(upload)), upload, self.address)

    def delete_model(self, model_id: str) -> None:
        """Forgets a model."""
        self._call(self._models.DeleteModel, models_pb2.DeleteModelRequest(model_id=model_id))

    # Calls

    def _call(self, call: Callable[..., _Response], request: Any) -> _Response:
        with translating(self.address):
            return call(request, timeout=self._timeout_s)

    def _pages(self, call: Callable[..., Any], request: Any) -> Iterator[Any]:
        while True:
            page = self._call(call, request)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token
