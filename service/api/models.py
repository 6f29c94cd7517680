"""ModelService: listing, export and deletion of models, and predictions."""

import asyncio
from collections.abc import AsyncIterator

from nablad.files import CHUNK_BYTES
from nablad.v1 import datasets_pb2 as datasets_pb
from nablad.v1 import models_pb2 as models_pb
from nablad.v1 import models_pb2_grpc as models_grpc
from service.api.datasets import data_error
from service.api.uploads import receive_files, receive_first_request
from service.datasets import DatasetError, read_for_prediction
from service.models.model_files import open_model
from service.models.prediction import Predictor
from service.rpc.error_translation import Context, answer_errors
from service.rpc.pagination import decode_number, encode_token, page_size
from service.storage.data_directory import DataDirectory
from service.stores.catalogues import ModelCatalogue
from workers.runtime.concurrency import run_to_its_end

__all__ = ["ModelServicer"]


@answer_errors
class ModelServicer(models_grpc.ModelServiceServicer):
    """Serves trained models."""

    def __init__(self, directory: DataDirectory, models: ModelCatalogue) -> None:
        self._directory = directory
        self._models = models

    async def GetModel(self, request: models_pb.GetModelRequest, context: Context) -> models_pb.GetModelResponse:
        """Returns a model."""
        return models_pb.GetModelResponse(model=self._models.get(request.model_id))

    async def ListModels(self, request: models_pb.ListModelsRequest, context: Context) -> models_pb.ListModelsResponse:
        """Returns a page of models."""
        models, rest = self._models.page(decode_number(request.page_token), page_size(request.page_size))
        return models_pb.ListModelsResponse(models=models, next_page_token=encode_token(rest))

    async def ExportModel(
        self, request: models_pb.ExportModelRequest, context: Context
    ) -> AsyncIterator[models_pb.ExportModelResponse]:
        """Yields the file of a model, chunk by chunk."""
        model = self._models.get(request.model_id)
        with await run_to_its_end(open_model, self._directory.model(model.model_id), model.sha256) as file:
            while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                yield models_pb.ExportModelResponse(chunk=chunk)

    async def Predict(
        self, requests: AsyncIterator[models_pb.PredictRequest], context: Context
    ) -> AsyncIterator[models_pb.PredictResponse]:
        """Yields predictions in blocks of rows, then the comparison if there are targets."""
        header = (await receive_first_request(requests)).header
        model = self._models.get(header.model_id)
        # The kind of the targets follows from the model, and not from the header.
        header.data_files.classes = model.classes
        header.data_files.target_kind = (
            datasets_pb.TARGET_KIND_LABELS if model.classes else datasets_pb.TARGET_KIND_VALUES
        )
        features = model.spec.model.layers[0]
        with self._directory.staging() as staging:
            files = await receive_files(requests, header.data_files.files, staging)
            rows = staging / "rows"
            try:
                stored = await run_to_its_end(read_for_prediction, files, header.data_files, rows, features)
                self._models.get(model.model_id)  # raises if it was deleted while the files arrived
                file = self._directory.model(model.model_id)
                predictor = await run_to_its_end(Predictor, file, model, rows, stored)
            except DatasetError as error:
                raise data_error(error) from error
            while block := await asyncio.to_thread(predictor.next_block):
                yield models_pb.PredictResponse(predictions=block)
            if comparison := predictor.comparison():
                yield models_pb.PredictResponse(comparison=comparison)

    async def DeleteModel(
        self, request: models_pb.DeleteModelRequest, context: Context
    ) -> models_pb.DeleteModelResponse:
        """Deletes a model and its file."""
        self._models.delete(request.model_id)
        self._directory.model(request.model_id).unlink(missing_ok=True)
        return models_pb.DeleteModelResponse()
