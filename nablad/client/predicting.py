"""Predictions as they come."""

from collections.abc import Generator, Iterator
from typing import Protocol, Self

from nablad.client.uploading import Upload
from nablad.v1 import models_pb2


class PredictCall(Protocol):
    """What is used of a call that gRPC streams answers of."""

    def __iter__(self) -> Iterator[models_pb2.PredictResponse]: ...

    def cancel(self) -> object:
        """Ends the call."""


class PredictionRun(Iterator[models_pb2.Prediction]):
    """The predictions for the rows of a file, in their order, to be iterated once.

    Attributes:
        comparison: The predictions against the targets, once all rows have come; None when the file had no targets.
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
        """Ends the call; rows that have not come yet will not come."""
        self._call.cancel()
        self._rows.close()

    def _read(self, upload: Upload[models_pb2.PredictRequest], address: str) -> Generator[models_pb2.Prediction]:
        with upload.answers(address):
            for response in self._call:
                if response.WhichOneof("content") == "comparison":
                    self.comparison = response.comparison
                else:
                    yield from response.predictions.rows
