"""Calls about models, and the stream of predictions."""

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Protocol, Self

from nablad.client.connection import Connection, PathName
from nablad.client.downloading import export_target, write_file
from nablad.client.translation import translating
from nablad.client.uploading import Upload, describe_files
from nablad.v1 import datasets_pb2, models_pb2


class PredictCall(Protocol):
    """A gRPC call that streams its answers, as far as it is used here."""

    def __iter__(self) -> Iterator[models_pb2.PredictResponse]: ...

    def cancel(self) -> object:
        """Ends the call."""


class PredictionRun(Iterator[models_pb2.Prediction]):
    """Predictions for the rows of a file, in their order; can be iterated once.

    Attributes:
        comparison: Comparison with the targets, once all rows have come; None if the file has no targets.
    """

    comparison: models_pb2.Comparison | None = None

    def __init__(self, call: PredictCall, upload: Upload[models_pb2.PredictRequest], address: str) -> None:
        self._call = call
        self._rows = self._read(upload, address)

    def __next__(self) -> models_pb2.Prediction:
        return next(self._rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the call; rows that have not come yet are dropped."""
        self._call.cancel()
        self._rows.close()

    def _read(self, upload: Upload[models_pb2.PredictRequest], address: str) -> Generator[models_pb2.Prediction]:
        with upload.answers(address):
            for response in self._call:
                if response.WhichOneof("content") == "comparison":
                    self.comparison = response.comparison
                else:
                    yield from response.predictions.rows


class ModelCalls(Connection):
    """Get, list, export and delete models, and predict with them."""

    def model(self, model_id: str) -> models_pb2.Model:
        """Returns the model with this id, which is the id of its job."""
        return self._call(self._models.GetModel, models_pb2.GetModelRequest(model_id=model_id)).model

    def models(self) -> Iterator[models_pb2.Model]:
        """Yields all models, the newest first."""
        for page in self._pages(self._models.ListModels, models_pb2.ListModelsRequest()):
            yield from page.models

    def export_model(self, model_id: str, path: PathName, *, overwrite: bool = False) -> Path:
        """Writes a model's file, completely or not at all.

        Args:
            model_id: Id of the model.
            path: A file whose ending names the format, .safetensors, or an existing folder.
            overwrite: Replace an existing file.

        Returns:
            Path of the file; in a folder, it is named after the model.

        Raises:
            InvalidRequestError: The ending is not that of a format.
            FileExistsError: The file exists already.
            OSError: The file cannot be written.
        """
        target = export_target(Path(path), model_id, overwrite=overwrite)
        model = self.model(model_id)
        call = self._models.ExportModel(models_pb2.ExportModelRequest(model_id=model_id))
        try:
            with translating(self.address):
                write_file(target, (response.chunk for response in call), model.sha256)
        finally:
            call.cancel()  # in case the file could not be written
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
        """Predicts for the rows of a file, in their order; then there is a ``.comparison`` if the file has targets too.

        Args:
            model_id: Id of the model.
            paths: Features alone, or features and targets; as for ``add_dataset``, like the other arguments.
            target_column: CSV: name or number (from 0) of the targets' column; empty: the last one.
            target_kind: Kind of the targets: class labels or values.
            classes: Number of classes.
        """
        files = [Path(path) for path in paths]
        header = models_pb2.PredictHeader(
            model_id=model_id, data_files=describe_files(files, target_column, target_kind, classes)
        )
        upload = Upload(models_pb2.PredictRequest(header=header), files, models_pb2.PredictRequest)
        return PredictionRun(self._models.Predict(iter(upload)), upload, self.address)

    def delete_model(self, model_id: str) -> None:
        """Deletes a model."""
        self._call(self._models.DeleteModel, models_pb2.DeleteModelRequest(model_id=model_id))
