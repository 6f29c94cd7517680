"""A small training that every rival can do."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers.task import Task
from nablad.jobspec import complete, parse

JOB_FILE = """
data: {train: random}
model: {layers: [12, 9, 7, 4], activation: sigmoid, output_activation: sigmoid, initialisation_scale: 4}
cost: {function: log_loss}
training: {epochs: 3, batch_size: 32, learning_rate: 0.5, seed: 3}
"""


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """150 rows, of which an epoch's last step takes 22."""
    images = np.random.default_rng(0).integers(0, 256, (150, 12), np.uint8)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "labels.npy", images[:, :4].argmax(axis=1).astype(np.uint8))
    spec, violations = parse(JOB_FILE)
    assert not violations
    return Task(complete(spec), tmp_path, rows=150)
