"""A folder of checkpoints, and checkpoints to write into it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.checkpoints.folder import CheckpointFolder
from service.checkpoints.image import Snapshot, make_image

SPEC = "5" * 64

Write = Callable[[int, int], jobs_pb.Checkpoint]


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    """Not there yet."""
    (tmp_path / "checkpoints").mkdir()
    return CheckpointFolder(tmp_path / "checkpoints" / "job-1")


@pytest.fixture
def write(folder: CheckpointFolder) -> Write:
    """Writes the checkpoint of a step and an attempt, in two chunks; its weights are the step."""

    def write(step: int, attempt: int = 1) -> jobs_pb.Checkpoint:
        state = ps_pb.TrainingState(step=step, epoch=ps_pb.EpochSums(epoch=step // 10))
        image = make_image(Snapshot(state, np.full(30, step, np.float32)), {"spec_sha256": SPEC})
        with folder.writing(step, attempt) as writer:
            writer.write(memoryview(image)[:100])
            writer.write(memoryview(image)[100:])
        return writer.checkpoint

    return write
