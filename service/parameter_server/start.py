"""Start of an attempt: with weights that are drawn, or with a checkpoint."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.checkpoints.image import CheckpointError, Snapshot, read_image
from service.parameter_server.progress.stopping import stopping_rules
from workers import from_spec
from workers.transport.shared_memory import SharedMemory, vectors_bytes

__all__ = ["PlacedWeights", "first_snapshot", "place_in_shared_memory"]

_log = logging.getLogger(__name__)


def first_snapshot(assignment: ps_pb.Assignment) -> Snapshot:
    """Returns the state before the first step of the attempt.

    Raises:
        CheckpointError: The checkpoint that it begins with cannot be used.
    """
    if not assignment.HasField("start"):
        return Snapshot(ps_pb.TrainingState(), from_spec.first_parameters(assignment.spec))
    snapshot = read_image(Path(assignment.start.path), assignment.start.sha256)
    _require_fitting(snapshot, assignment)
    return snapshot


@dataclass(frozen=True)
class PlacedWeights:
    """The state before the first step, with its weights where workers can read them.

    Attributes:
        snapshot: The state; its weights are one of the versions.
        versions: Buffers for the versions of the weights: version v is in buffer v modulo their number.
        memory: Shared memory of the buffers; None if they lie in ordinary memory.
    """

    snapshot: Snapshot
    versions: tuple[NDArray[np.floating], ...]
    memory: SharedMemory | None = None


def place_in_shared_memory(
    snapshot: Snapshot, transport: spec_pb.Transport.ValueType, buffers: int = 1
) -> PlacedWeights:
    """Places the weights, writable and with so many buffers, in shared memory for the workers.

    They lie in ordinary memory if the spec does not want to share it, or the system has none to share.
    """
    parameters = snapshot.parameters
    dtype, size, present = parameters.dtype, parameters.size, snapshot.state.step % buffers
    if transport != spec_pb.TRANSPORT_INLINE:
        try:
            memory = SharedMemory.create("weights", vectors_bytes(dtype, size, buffers), others_may_write=False)
        except OSError as error:
            _log.warning(
                "this system has no memory that can be shared, weights and gradients are sent inline: %s", error
            )
        else:
            versions = memory.vectors(dtype, size, buffers)
            np.copyto(versions[present], parameters)
            return PlacedWeights(replace(snapshot, parameters=versions[present]), versions, memory)
    own = parameters if parameters.flags.writeable else parameters.copy()
    versions = tuple(own if number == present else np.empty_like(own) for number in range(buffers))
    return PlacedWeights(replace(snapshot, parameters=own), versions)


def _require_fitting(snapshot: Snapshot, assignment: ps_pb.Assignment) -> None:
    """Raises CheckpointError if the checkpoint does not fit the job."""
    name, spec, plan = Path(assignment.start.path).name, assignment.spec, from_spec.plan(assignment)
    vector = snapshot.parameters
    expected = from_spec.size(spec), from_spec.dtype(spec)
    if (vector.size, vector.dtype) != expected:
        raise CheckpointError(
            f"checkpoint {name} has {vector.size} weights of type {vector.dtype}, but the job has {expected[0]} of "
            f"type {expected[1]}"
        )
    moments = len(from_spec.update_rule(spec).init(np.empty(0, vector.dtype)).moments)
    if len(snapshot.moments) != moments and (snapshot.moments or snapshot.state.step):
        raise CheckpointError(
            f"checkpoint {name} has {len(snapshot.moments)} moments, but the job's optimizer has {moments}"
        )
    if snapshot.state.step > plan.steps:
        raise CheckpointError(f"checkpoint {name} is of step {snapshot.state.step}, but the job has {plan.steps} steps")
    if snapshot.best is None and snapshot.state.HasField("best") and stopping_rules(assignment).keep_best:
        raise CheckpointError(f"checkpoint {name} lacks the weights of its best epoch, which the job keeps")
