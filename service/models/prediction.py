"""Predictions of a stored model for rows of data."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from nablad.v1 import datasets_pb2 as datasets_pb
from nablad.v1 import models_pb2 as models_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.datasets import DatasetError, StoredData
from service.models.model_files import ModelFile
from workers import from_spec
from workers.learning import metrics_of
from workers.mathematics.sums import SampleSums
from workers.rows import Rows

__all__ = ["Predictor"]

# Outputs of one block: with up to half a million output nodes its message stays below gRPC's 4 MiB.
_BLOCK_OUTPUTS = 100_000
# Activities of all layers in one block: 32 MB of float64, and up to five times as much with what they are made of.
_BLOCK_ACTIVITIES = 4_000_000
_MOST_ROWS = 1000


class Predictor:
    """Predicts rows block by block."""

    def __init__(self, model_file: Path, model: models_pb.Model, directory: Path, stored: StoredData) -> None:
        """Memory-maps the model and the rows.

        Args:
            model_file: Path of the model's file.
            model: Description of the model.
            directory: Directory of the rows, from `read_for_prediction`.
            stored: Description of the rows.

        Raises:
            DatasetError: The number of target columns is not that of the model's outputs.
            ModelFileError: The model's file is gone, or not what was written.
        """
        with ModelFile(model_file, model.spec, model.sha256) as file:
            self._weights, scaling = file.weights(), file.scaling
        self._threads = model.spec.distribution.cpus_per_worker
        self._back_propagation = from_spec.back_propagation(model.spec)
        self._classes = model.classes
        self._has_targets = stored.has_targets
        self._check_targets(stored, outputs=model.spec.model.layers[-1])
        dataset = datasets_pb.Dataset(**asdict(stored))
        source = ps_pb.DataSource(dataset=dataset, directory=str(directory))
        self._rows = Rows(source, scaling, from_spec.dtype(model.spec))
        self._block = _block_rows(model.spec.model.layers)
        self._start = 0
        self._sums = SampleSums()

    def next_block(self) -> models_pb.Predictions | None:
        """Returns predictions of the next rows, or None after the last one."""
        start, stop = self._start, min(self._start + self._block, self._rows.count)
        if start == stop:
            return None
        x, targets = self._rows.read_slice(start, stop)
        # The same number of threads as in training, because another one may round differently.
        with threadpool_limits(self._threads):
            if self._has_targets:
                self._sums.add_sums(self._back_propagation.evaluate(self._weights, x, targets))
            outputs = self._back_propagation.outputs(self._weights, x)
        self._start = stop
        rows = [models_pb.Prediction(outputs=sample, label=self._label(sample)) for sample in outputs.T]
        return models_pb.Predictions(first_row=start, rows=rows)

    def comparison(self) -> models_pb.Comparison | None:
        """Compares the predictions so far with the targets, if there are any."""
        if not self._has_targets:
            return None
        known = metrics_of(self._sums, labelled=bool(self._classes))
        comparison = models_pb.Comparison(rows=self._start, cost=known.cost)
        if known.HasField("accuracy"):
            comparison.accuracy = known.accuracy
        return comparison

    def _label(self, outputs: np.ndarray) -> int | None:
        """Returns the class of a sample: the index of the largest output, or for a single output 1 from 0.5 on."""
        if not self._classes:
            return None
        return int(outputs.argmax()) if len(outputs) > 1 else int(outputs[0] >= 0.5)

    def _check_targets(self, stored: StoredData, outputs: int) -> None:
        if not stored.has_targets:
            return
        if not self._classes and stored.target_columns != outputs:
            raise DatasetError(
                f"the model predicts {outputs} values, but the targets have {stored.target_columns} columns"
            )


def _block_rows(layers: Sequence[int]) -> int:
    """Returns the number of rows in a block."""
    return max(1, min(_MOST_ROWS, _BLOCK_OUTPUTS // layers[-1], _BLOCK_ACTIVITIES // sum(layers)))
