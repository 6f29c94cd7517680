"""The calls about models."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from nablad.client.connection import Connection, PathName
from nablad.client.downloading import export_target, write_file
from nablad.client.predicting import PredictionRun
from nablad.client.translation import translating
from nablad.client.uploading import Upload, describe_files
from nablad.v1 import datasets_pb2, models_pb2


class ModelCalls(Connection):
    """Look at what jobs have learned, and use it."""

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
            path: Where to; a file whose ending says the format, .safetensors, or a folder that is there.
            overwrite: Replace a file that is there already.

        Returns:
            The file; in a folder, it is named after the model.

        Raises:
            InvalidRequestError: The ending is not that of a format.
            FileExistsError: There is a file already.
            OSError: The file cannot be written.
        """
        target = export_target(Path(path), model_id, overwrite=overwrite)
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
