"""Checkpoint image: a safetensors file with the weights, moments and state of a training.

    header           as `service.tensor_files` has it
    best             weights of the best epoch, if kept
    moment0…         moments of the optimizer
    parameters       weights

Every tensor has the shape (size,) and the dtype of the job. The metadata have one entry, ``nablad.v1``: JSON with the
caller's description of what the checkpoint belongs to, and the ``TrainingState`` in its key ``state``.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import json_format
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from nablad.v1 import parameter_server_pb2 as ps_pb
from service.errors import CheckpointError
from service.storage.digests import open_stored
from service.storage.tensor_files import Tensor, TensorFile, TensorFileError, TensorLayout

__all__ = [
    "CheckpointError",
    "Pieces",
    "Snapshot",
    "describe_image",
    "described_state",
    "first_image",
    "make_image",
    "read_image",
    "reading_parameters",
]

Vector = NDArray[np.floating]
Pieces = Callable[[], Iterable[Vector]]
"""A vector that can be read any number of times, piece by piece."""

_FORMAT = "nablad.v1"
_STATE = "state"
_PARAMETERS, _MOMENT, _BEST = "parameters", "moment", "best"
_LENGTH_BYTES = 8
# A header has one or two thousand bytes.
_MOST_HEADER_BYTES = 1 << 20


@dataclass(frozen=True)
class Snapshot:
    """State of a training between two steps.

    Attributes:
        state: State without the vectors.
        parameters: Weights, shape (size,), of the job's dtype, as all vectors here.
        moments: Moments of the optimizer, in its order.
        best: Weights of the best epoch, if kept.
    """

    state: ps_pb.TrainingState
    parameters: Vector
    moments: tuple[Vector, ...] = ()
    best: Vector | None = None


def make_image(snapshot: Snapshot, description: Mapping[str, Any]) -> bytearray:
    """Returns the whole file, allocated once. The arrays are copied into it, and may change afterwards.

    Args:
        snapshot: State to write.
        description: Description as JSON of what the checkpoint belongs to. `CheckpointFolder` reads ``spec_sha256``.
    """
    vectors = _named(snapshot)
    parameters = snapshot.parameters
    layout = _layout(vectors, parameters.dtype, parameters.size, description, snapshot.state)
    image = bytearray(layout.size_bytes)
    image[: len(layout.header)] = layout.header
    for name, place in layout.tensors.items():
        np.frombuffer(image, place.dtype, place.size, offset=place.start)[:] = vectors[name]
    return image


def first_image(
    dtype: np.dtype[np.floating],
    size: int,
    parameters: Pieces,
    moments: Sequence[Pieces],
    description: Mapping[str, Any],
) -> Iterator[bytes | memoryview]:
    """Yields the file of a training that has made no step, piece by piece.

    Args:
        dtype: Type of the job's weights.
        size: Number of weights.
        parameters: The weights.
        moments: First moments of the optimizer.
        description: Description, as for `make_image`.
    """
    vectors = dict(zip([_PARAMETERS, *_moments(len(moments))], [parameters, *moments], strict=True))
    layout = _layout(vectors, dtype, size, description, ps_pb.TrainingState())
    yield layout.header
    for name in layout.tensors:
        for piece in vectors[name]():
            yield piece.data.cast("B")


def read_image(path: Path, sha256: str) -> Snapshot:
    """Reads a checkpoint's file into writable vectors, after comparing it with its digest.

    Args:
        path: The file.
        sha256: Digest of the file, in hexadecimal. safetensors itself does not notice flipped bits.

    Raises:
        CheckpointError: The file is gone, not what was written, or no checkpoint.
    """
    with _reading(path, sha256) as (file, state):
        vectors = {name: file.read(name) for name in file.tensors}
        parameters, best = vectors.pop(_PARAMETERS), vectors.pop(_BEST, None)
        return Snapshot(state, parameters, tuple(vectors[name] for name in _moments(len(vectors))), best)


@contextmanager
def reading_parameters(path: Path, sha256: str) -> Iterator[Pieces]:
    """Opens the weights in a checkpoint's file, piece by piece, within the block. Arguments as for `read_image`.

    Raises:
        CheckpointError: The file is gone, not what was written, or no checkpoint.
    """
    with _reading(path, sha256) as (file, _):
        yield lambda: file.pieces(_PARAMETERS)


def describe_image(path: Path) -> Mapping[str, Any]:
    """Returns the description of a checkpoint, with the TrainingState in its key ``state``; reads only the header.

    Raises:
        CheckpointError: The file cannot be read, is no checkpoint, or has not the length that its header says.
    """
    try:
        _require_short_header(path)
        with safe_open(path, framework="numpy") as tensors:
            metadata = tensors.metadata()
    except SafetensorError as error:
        raise CheckpointError(f"checkpoint {path.name} is not a safetensors file: {error}") from error
    except OSError as error:
        raise CheckpointError(f"checkpoint {path.name} cannot be read: {error}") from error
    return _description(metadata, path.name)


def described_state(description: Mapping[str, Any]) -> ps_pb.TrainingState:
    """Returns the state of the training from the description of a checkpoint.

    Raises:
        CheckpointError: This release cannot read the state.
    """
    try:
        return json_format.ParseDict(_present_form(description[_STATE]), ps_pb.TrainingState())
    except Exception as error:  # json_format raises TypeError, OverflowError, SystemError, … for wrong types
        raise CheckpointError(f"the checkpoint's training state is not one that this release knows: {error}") from error


def _present_form(state: dict[str, Any]) -> dict[str, Any]:
    """Converts a state of an earlier release, which had the sums of an epoch beside its number."""
    epoch: dict[str, Any] = state.get("epoch", {})
    sums = {name: epoch[name] for name in ("cost_sum", "correct_count", "samples") if name in epoch}
    if not sums:
        return state
    others = {name: value for name, value in epoch.items() if name not in sums}
    return {**state, "epoch": {**others, "sums": sums}}


@contextmanager
def _reading(path: Path, sha256: str) -> Iterator[tuple[TensorFile, ps_pb.TrainingState]]:
    """Opens a checkpoint's file, and reads the state of the training.

    Raises:
        CheckpointError: The file cannot be read, or is no checkpoint.
    """
    _require_short_header(path)
    try:
        with TensorFile(path, sha256) as file:
            state = described_state(_description(file.metadata, path.name))
            _require_vectors(file.tensors, path.name)
            yield file, state
    except TensorFileError as error:
        raise CheckpointError(f"checkpoint {path.name} {error}") from error


def _named(snapshot: Snapshot) -> dict[str, Vector]:
    vectors = {_PARAMETERS: snapshot.parameters}
    vectors |= zip(_moments(len(snapshot.moments)), snapshot.moments, strict=True)
    if snapshot.best is not None:
        vectors[_BEST] = snapshot.best
    return vectors


def _moments(count: int) -> list[str]:
    return [f"{_MOMENT}{number}" for number in range(count)]


def _layout(
    names: Iterable[str],
    dtype: np.dtype[np.floating],
    size: int,
    description: Mapping[str, Any],
    state: ps_pb.TrainingState,
) -> TensorLayout:
    """Returns the layout of a file with vectors of these names."""
    # Python's JSON keeps every double exactly, and protobuf's JSON has infinity and NaN as strings.
    described = {**description, _STATE: json_format.MessageToDict(state, preserving_proto_field_name=True)}
    shapes = dict.fromkeys(names, (dtype, (size,)))
    return TensorLayout(shapes, {_FORMAT: json.dumps(described, sort_keys=True)})


def _require_short_header(path: Path) -> None:
    """Raises CheckpointError if the header is too long, before a library reads it."""
    try:
        with open_stored(path) as file:
            header_bytes = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    except FileNotFoundError as error:
        raise CheckpointError(f"checkpoint {path.name} is gone") from error
    except OSError as error:
        raise CheckpointError(f"checkpoint {path.name} cannot be read: {error.strerror or error}") from error
    if header_bytes > _MOST_HEADER_BYTES:
        raise CheckpointError(
            f"checkpoint {path.name} is not a safetensors file of ours: its header claims {header_bytes:,} bytes, at "
            f"most {_MOST_HEADER_BYTES:,} are allowed"
        )


def _description(metadata: Mapping[str, str] | None, name: str) -> dict[str, Any]:
    try:
        description = json.loads((metadata or {})[_FORMAT])
    except (TypeError, ValueError, KeyError, RecursionError) as error:
        raise CheckpointError(f"checkpoint {name} has no readable entry {_FORMAT!r} in its metadata") from error
    if not isinstance(description, dict):
        raise CheckpointError(f"checkpoint {name} must have an object in its entry {_FORMAT!r}")
    return description


def _require_vectors(tensors: Mapping[str, Tensor], name: str) -> None:
    """Raises CheckpointError if the tensors are not those of a checkpoint."""
    moments = _moments(len(tensors.keys() - {_PARAMETERS, _BEST}))
    if tensors.keys() - {_BEST} != {_PARAMETERS, *moments}:
        raise CheckpointError(
            f"checkpoint {name} must have the tensors {_PARAMETERS}, {_MOMENT}0… and perhaps {_BEST}, "
            f"not {sorted(tensors)}"
        )
    if len({tensor.shape for tensor in tensors.values()}) != 1 or len(tensors[_PARAMETERS].shape) != 1:
        raise CheckpointError(f"checkpoint {name} has tensors that are not vectors of one size")
    if len({tensor.dtype for tensor in tensors.values()}) != 1:
        raise CheckpointError(f"checkpoint {name} has tensors of several dtypes")
