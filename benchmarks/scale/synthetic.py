"""Jobs on made-up rows, so that nothing has to be at hand: what they cost does not depend on what the rows hold."""

from pathlib import Path

import numpy as np

from nablad.jobspec import complete, parse
from nablad.v1 import datasets_pb2 as datasets_pb
from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import parameter_server_pb2 as ps_pb

__all__ = ["assignment", "spec"]

_PIXEL_VALUES = 256

_SPEC = """
data: {train: synthetic, scaling: unit}
model: {activation: sigmoid, output_activation: sigmoid}
cost: {function: log_loss}
training: {learning_rate: 0.001, seed: 7}
"""


def spec(layers: tuple[int, ...], batch_size: int, epochs: int, workers: int, transport: str) -> spec_pb.JobSpec:
    """A job, completed: one micro-batch for each worker, sigmoid everywhere, plain gradient descent.

    Args:
        layers: Nodes of L(0)…L(E).
        batch_size: Rows of a step, over all workers.
        epochs: Passes over the rows.
        workers: And as many micro-batches.
        transport: "shared" or "inline".
    """
    written = (
        f"{_SPEC.replace('model: {', f'model: {{layers: {list(layers)}, ')}"
        f"distribution: {{workers: {workers}, micro_batches: {workers}, transport: {transport}}}"
    )
    job, violations = parse(written)
    if violations:
        raise ValueError(f"the spec of a synthetic job should be without mistakes, but: {violations[0]}")
    job.training.batch_size, job.training.epochs = batch_size, epochs
    return complete(job)


def assignment(job: spec_pb.JobSpec, rows: int, folder: Path) -> ps_pb.Assignment:
    """The assignment of such a job over so many rows of pixels, which are written into the folder."""
    features, classes = job.model.layers[0], job.model.layers[-1]
    generator = np.random.default_rng(0)
    np.save(folder / "features.npy", generator.integers(0, _PIXEL_VALUES, (rows, features), np.uint8))
    np.save(folder / "targets.npy", generator.integers(0, classes, rows, np.int64))
    dataset = datasets_pb.Dataset(
        name=job.data.train, rows=rows, features=features, classes=classes, feature_dtype="uint8"
    )
    return ps_pb.Assignment(
        job_id="scale",
        attempt=1,
        spec=job,
        train=ps_pb.DataSource(dataset=dataset, directory=str(folder)),
        scaling=ps_pb.FeatureScaling(shift=[0.0], factor=[1 / (_PIXEL_VALUES - 1)]),
    )
