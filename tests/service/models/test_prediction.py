"""Predictions: what the whole network computes, block by block, of a model that is only mapped."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from nablad.v1 import datasets_pb2 as datasets_pb
from nablad.v1 import models_pb2 as models_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.datasets import StagedFile, read_for_prediction
from service.models import prediction
from service.models.model_files import writing_model
from service.models.prediction import Predictor
from workers import from_spec

MOST_BYTES = 8 << 20

MakeJob = Callable[..., ps_pb.Assignment]
MakePredictor = Callable[[ps_pb.Assignment, np.ndarray, int], Callable[[], Predictor]]


def _features(job: ps_pb.Assignment, rows: int) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(rows, job.spec.model.layers[0]))


@pytest.fixture
def predictor(tmp_path: Path) -> MakePredictor:
    """Opens a model with these weights, for so many rows with targets."""

    def make(job: ps_pb.Assignment, weights: np.ndarray, rows: int) -> Callable[[], Predictor]:
        with writing_model(tmp_path / "model", job) as writer:
            writer.write(weights.data.cast("B"))
        file = tmp_path / "rows.npz"
        np.savez(file, x=_features(job, rows), y=np.arange(rows) % 2)
        options = datasets_pb.DataFiles(classes=2)
        stored = read_for_prediction([StagedFile(file.name, file)], options, tmp_path / "rows", len(job.scaling.shift))
        model = models_pb.Model(model_id="m", spec=job.spec, sha256=writer.sha256, classes=2)
        return lambda: Predictor(tmp_path / "model", model, tmp_path / "rows", stored)

    return make


def _blocks(predictor: Predictor) -> list[models_pb.Predictions]:
    blocks = []
    while block := predictor.next_block():
        blocks.append(block)
    return blocks


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bias", [False, True])
def test_outputs_are_those_of_the_weights_in_memory(
    model_job: MakeJob, predictor: MakePredictor, dtype: str, bias: bool
) -> None:
    """Bit for bit, and the comparison with the targets too: that they lie in a file changes nothing."""
    job = model_job((3, 50, 20, 2), dtype=dtype, bias=bias)
    weights = from_spec.first_parameters(job.spec)
    predicted = predictor(job, weights, 2500)()
    blocks = _blocks(predicted)
    assert [(block.first_row, len(block.rows)) for block in blocks] == [(0, 1000), (1000, 1000), (2000, 500)]
    shift, factor = (np.array(figures).astype(dtype) for figures in (job.scaling.shift, job.scaling.factor))
    x = (_features(job, 2500).astype(dtype) - shift) * factor
    network, cost, correct = from_spec.back_propagation(job.spec), 0.0, 0
    for block in blocks:
        rows = slice(block.first_row, block.first_row + len(block.rows))
        with threadpool_limits(1):
            sums = network.evaluate(weights, x[rows], np.arange(2500)[rows] % 2)
            expected = network.outputs(weights, x[rows]).T
        assert [list(row.outputs) for row in block.rows] == expected.tolist()
        cost, correct = cost + sums.cost_sum, correct + sums.correct_count
    comparison = predicted.comparison()
    assert comparison == models_pb.Comparison(rows=2500, cost=cost / 2500, accuracy=correct / 2500)


def test_blocks_are_small_where_layers_are_wide(
    model_job: MakeJob, predictor: MakePredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a block takes has a bound, but it has a row at least; the outputs are the same to the last digits."""
    job = model_job((3, 50, 20, 2))
    weights = from_spec.first_parameters(job.spec)
    opened = predictor(job, weights, 100)
    usual = [row for block in _blocks(opened()) for row in block.rows]
    for activities, rows in ((76 * 30, 30), (75, 1)):
        monkeypatch.setattr(prediction, "_BLOCK_ACTIVITIES", activities)
        blocks = _blocks(opened())
        assert max(len(block.rows) for block in blocks) == rows
        found = [row for block in blocks for row in block.rows]
        np.testing.assert_allclose([row.outputs for row in found], [row.outputs for row in usual], rtol=1e-12)
        assert [row.label for row in found] == [row.label for row in usual]


def test_a_large_model_takes_no_more_memory_than_a_small_one(
    model_job: MakeJob, predictor: MakePredictor, allocating: Callable[[], Any]
) -> None:
    """66 MB of it are pages of its file, which the system may have back; activities have a bound of their own."""
    job = model_job((1000, 8_250, 2))
    weights = np.zeros(from_spec.size(job.spec))
    assert weights.nbytes > 60 << 20
    opened = predictor(job, weights, 20)
    with allocating() as peak:
        assert len(_blocks(opened())[0].rows) == 20
    assert peak.bytes < MOST_BYTES


def test_widest_layers_have_blocks_of_few_rows(
    model_job: MakeJob, predictor: MakePredictor, allocating: Callable[[], Any]
) -> None:
    """A layer of a million nodes: what is computed in it at a time takes 32 MB, and as much for each step of it."""
    job = model_job((1, 1_000_000, 2), bias=False)
    opened = predictor(job, np.zeros(from_spec.size(job.spec)), 10)
    with allocating() as peak:
        assert [len(block.rows) for block in _blocks(opened())] == [3, 3, 3, 1]
    assert peak.bytes < 8 * 32 << 20
