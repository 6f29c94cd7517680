"""The file of a checkpoint: safetensors with the weights and moments of a training, and where it stands.

    header           as `service.tensor_files` has it
    best             weights of the best epoch, if they are kept
    moment0…         of the optimizer
    parameters       the weights

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
"""A vector that may be gone through again and again, piece by piece."""

_FORMAT = "nablad.v1"
_STATE = "state"
_PARAMETERS, _MOMENT, _BEST = "parameters", "moment", "best"
_LENGTH_BYTES = 8
# A header has a thousand bytes or two.
_MOST_HEADER_BYTES = 1 << 20


@dataclass(frozen=True)
class Snapshot:
    """Where a training stands between two steps.

    Attributes:
        state: Everything but the vectors.
        parameters: The weights, shape (size,), of the job's dtype, as all the others.
        moments: Of the optimizer, in its order.
        best: Weights of the best epoch, if they are kept.
    """

    state: ps_pb.TrainingState
    parameters: Vector
    moments: tuple[Vector, ...] = ()
    best: Vector | None = None


def make_image(snapshot: Snapshot, description: Mapping[str, Any]) -> bytearray:
    """The whole file, allocated once; the arrays are copied into it and may change afterwards.

    Args:
        snapshot: What to keep.
        description: What it belongs to, as far as JSON can say it. `CheckpointFolder` looks for ``spec_sha256``.
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
    """The file of a training that has made no step, piece by piece.

    Args:
        dtype: The job's.
        size: How many weights there are.
        parameters: They themselves.
        moments: What the optimizer begins with.
        description: As for `make_image`.
    """
    vectors = dict(zip([_PARAMETERS, *_moments(len(moments))], [parameters, *moments], strict=True))
    layout = _layout(vectors, dtype, size, description, ps_pb.TrainingState())
    yield layout.header
    for name in layout.tensors:
        for piece in vectors[name]():
            yield piece.data.cast("B")


def read_image(path: Path, sha256: str) -> Snapshot:
    """Reads a checkpoint's file into vectors that may be written to, after it was compared with its digest.

    Args:
        path: The file.
        sha256: Its digest, in hexadecimal: safetensors itself does not notice flipped bits.

    Raises:
        CheckpointError: It is gone, not what was written, or no checkpoint.
    """
    with _reading(path, sha256) as (file, state):
        vectors = {name: file.read(name) for name in file.tensors}
        parameters, best = vectors.pop(_PARAMETERS), vectors.pop(_BEST, None)
        return Snapshot(state, parameters, tuple(vectors[name] for name in _moments(len(vectors))), best)


@contextmanager
def reading_parameters(path: Path, sha256: str) -> Iterator[Pieces]:
    """The weights in a checkpoint's file, piece by piece, as long as the block lasts; arguments as for `read_image`.

    Raises:
        CheckpointError: It is gone, not what was written, or no checkpoint.
    """
    with _reading(path, sha256) as (file, _):
        yield lambda: file.pieces(_PARAMETERS)


def describe_image(path: Path) -> Mapping[str, Any]:
    """The description of a checkpoint, with the TrainingState as JSON in its key ``state``; reads only the header.

    Raises:
        CheckpointError: The file cannot be read, is no checkpoint, or not as long as its header says.
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
    """Where the training stands, out of the description of a checkpoint.

    Raises:
        CheckpointError: This release cannot read it.
    """
    try:
        return json_format.ParseDict(_present_form(description[_STATE]), ps_pb.TrainingState())
    except Exception as error:  # of wrong types json_format raises TypeError, OverflowError, SystemError, …
        raise CheckpointError(f"the checkpoint's training state is not one that this release knows: {error}") from error


def _present_form(state: dict[str, Any]) -> dict[str, Any]:
    """A state as this release writes it: releases before had the sums of an epoch beside its number."""
    epoch: dict[str, Any] = state.get("epoch", {})
    sums = {name: epoch[name] for name in ("cost_sum", "correct_count", "samples") if name in epoch}
    if not sums:
        return state
    others = {name: value for name, value in epoch.items() if name not in sums}
    return {**state, "epoch": {**others, "sums": sums}}


@contextmanager
def _reading(path: Path, sha256: str) -> Iterator[tuple[TensorFile, ps_pb.TrainingState]]:
    """A checkpoint's file, and where the training stood.

    Raises:
        CheckpointError: Whenever it cannot be read, and if it is no checkpoint.
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
    """Of a file with vectors of these names."""
    # Python writes a double so that the same one is read; JSON's missing infinity and NaN are texts in protobuf's JSON.
    described = {**description, _STATE: json_format.MessageToDict(state, preserving_proto_field_name=True)}
    shapes = dict.fromkeys(names, (dtype, (size,)))
    return TensorLayout(shapes, {_FORMAT: json.dumps(described, sort_keys=True)})


def _require_short_header(path: Path) -> None:
    """Looks at the beginning of the file, before anybody reads its header."""
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
    """Raises CheckpointError if they are not those that a checkpoint has."""
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
