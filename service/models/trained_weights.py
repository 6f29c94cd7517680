"""Trained weights: fetched from the parameter server, and written into a model's file piece by piece."""

import asyncio
import hashlib
import sqlite3
from collections.abc import Callable
from datetime import datetime
from typing import Final

import grpc

from nablad.v1 import models_pb2 as models_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from nablad.v1 import parameter_server_pb2_grpc as ps_grpc
from service.errors import AttemptLost
from service.models.model_files import WrongSizeError, writing_model
from service.storage.data_directory import DataDirectory
from service.stores.catalogues import ModelCatalogue
from workers.runtime.concurrency import on_thread, run_to_its_end
from workers.runtime.failpoints import failpoint

__all__ = ["TrainedWeights"]

# Pause before a model is written again that a full disk did not take.
_REWRITE_SECONDS: Final = 5.0

Metadata = tuple[tuple[str, str], ...]


class TrainedWeights:
    """The weights of a finished training, while its parameter server still runs."""

    def __init__(
        self,
        stub: "ps_grpc.ParameterServerServiceAsyncStub",
        metadata: Metadata,
        directory: DataDirectory,
        models: ModelCatalogue,
        now: Callable[[], datetime],
        note: Callable[[str], None],
    ) -> None:
        """Fetches nothing yet.

        Args:
            stub: Stub of the parameter server.
            metadata: Metadata of every call.
            directory: Data directory, for the model's file.
            models: Catalogue of the models.
            now: Clock of the time of day.
            note: Called with a sentence if the model could not be written.
        """
        self._stub = stub
        self._metadata = metadata
        self._directory = directory
        self._models = models
        self._now = now
        self._note = note

    async def compute_digest(self) -> str:
        """Returns the SHA-256 of the weights, in hexadecimal.

        Raises:
            AttemptLost: The parameter server is gone.
        """
        digest = hashlib.sha256()
        await self._fetch(digest.update)
        return digest.hexdigest()

    async def save_model(
        self, assignment: ps_pb.Assignment, describe: Callable[[models_pb.Model, str], None]
    ) -> tuple[models_pb.Model, str]:
        """Writes the weights into a model's file, and registers the model.

        On a full disk it waits for room, because the finished training must not be lost.

        Args:
            assignment: Assignment of the attempt.
            describe: Called with the model and the SHA-256 of the weights; sets the model's other fields.

        Returns:
            The model, and the SHA-256 of the weights, in hexadecimal.

        Raises:
            AttemptLost: The parameter server is gone.
        """
        reported = False
        written: tuple[models_pb.Model, str] | None = None
        while True:
            try:
                if written is None:
                    written = await self._write(assignment, describe)
                failpoint("model.written")
                self._models.add(written[0])
            except asyncio.CancelledError:
                self._directory.model(assignment.job_id).unlink(missing_ok=True)
                raise
            except (OSError, sqlite3.Error) as error:
                if not reported:
                    reported = True
                    self._note(f"the model could not be written: {error}; it is tried again until there is room")
                await asyncio.sleep(_REWRITE_SECONDS)
            else:
                return written

    async def _write(
        self, assignment: ps_pb.Assignment, describe: Callable[[models_pb.Model, str], None]
    ) -> tuple[models_pb.Model, str]:
        digest = hashlib.sha256()
        path = self._directory.model(assignment.job_id)
        try:
            async with on_thread(writing_model(path, assignment)) as writer:

                def write(chunk: bytes) -> None:
                    digest.update(chunk)
                    writer.write(chunk)

                await self._fetch(write)
        except WrongSizeError as error:
            raise AttemptLost(f"the parameter server sent no weights: {error}", cause="parameter_server") from error
        model = models_pb.Model(
            model_id=assignment.job_id,
            spec=assignment.spec,
            sha256=writer.sha256,
            size_bytes=writer.size_bytes,
            classes=assignment.train.dataset.classes,
        )
        model.create_time.FromDatetime(self._now())
        describe(model, digest.hexdigest())
        return model, digest.hexdigest()

    async def _fetch(self, write: Callable[[bytes], None]) -> None:
        """Calls `write` with the bytes of the parameter vector, piece by piece, on another thread."""
        call = self._stub.FetchWeights(ps_pb.FetchWeightsRequest(), metadata=self._metadata)
        try:
            async for response in call:
                await run_to_its_end(write, response.chunk)
        except grpc.aio.AioRpcError as error:
            lost = f"the parameter server was lost before its weights were fetched: {error.details()}"
            raise AttemptLost(lost, cause="parameter_server") from error
        finally:
            call.cancel()
