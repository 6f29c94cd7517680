"""The file of a checkpoint, as bytes: safetensors with the weights and moments of a training, and where it stands.

    8 bytes          length of the header, little-endian
    header           JSON, padded with spaces to a multiple of 8 bytes
    best             weights of the best epoch, if they are kept
    moment0…         of the optimizer
    parameters       the weights

Every tensor has the shape (size,) and the dtype of the job. The metadata have one entry, ``nablad.v1``: JSON with the
caller's description of what the checkpoint belongs to, and the ``TrainingState`` in its key ``state``. The header is
made here, and not by the library, so that the arrays are copied once: the bytes are the snapshot.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import json_format
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load

from nablad.v1 import parameter_server_pb2 as ps_pb
from service.damage import CheckpointError

__all__ = ["CheckpointError", "Snapshot", "describe_image", "described_state", "make_image", "read_image"]

Vector = NDArray[np.floating]

_FORMAT = "nablad.v1"
_STATE = "state"
_PARAMETERS, _MOMENT, _BEST = "parameters", "moment", "best"
_DTYPES: Mapping[str, str] = {"float32": "F32", "float64": "F64"}
_LENGTH_BYTES = 8


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
    vectors = dict(sorted(_named(snapshot).items()))
    header = _header(vectors, description, snapshot.state)
    image = bytearray(len(header) + sum(vector.nbytes for vector in vectors.values()))
    image[: len(header)] = header
    start = len(header)
    for vector in vectors.values():
        np.frombuffer(image, vector.dtype, vector.size, offset=start)[:] = vector
        start += vector.nbytes
    return image


def read_image(path: Path, sha256: str) -> Snapshot:
    """Reads a checkpoint's file, once.

    Args:
        path: The file.
        sha256: Its digest, in hexadecimal: safetensors itself does not notice flipped bits.

    Raises:
        CheckpointError: It is gone, not what was written, or no checkpoint.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"checkpoint {path.name} cannot be read: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise CheckpointError(f"checkpoint {path.name} is not what was written: its SHA-256 is another one")
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise CheckpointError(f"checkpoint {path.name} is not a safetensors file: {error}") from error
    header_bytes = int.from_bytes(data[:_LENGTH_BYTES], "little")
    metadata = json.loads(data[_LENGTH_BYTES : _LENGTH_BYTES + header_bytes]).get("__metadata__")
    return _snapshot(described_state(_description(metadata, path.name)), tensors, path.name)


def describe_image(path: Path) -> Mapping[str, Any]:
    """The description of a checkpoint, with the TrainingState as JSON in its key ``state``; reads only the header.

    Raises:
        CheckpointError: The file cannot be read, is no checkpoint, or not as long as its header says.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata()
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
        return json_format.ParseDict(description[_STATE], ps_pb.TrainingState())
    except (KeyError, json_format.ParseError) as error:
        raise CheckpointError(f"the checkpoint's training state is not one that this release knows: {error}") from error


def _named(snapshot: Snapshot) -> dict[str, Vector]:
    vectors = {_PARAMETERS: snapshot.parameters}
    vectors |= {f"{_MOMENT}{number}": moment for number, moment in enumerate(snapshot.moments)}
    if snapshot.best is not None:
        vectors[_BEST] = snapshot.best
    return vectors


def _header(vectors: Mapping[str, Vector], description: Mapping[str, Any], state: ps_pb.TrainingState) -> bytes:
    """Length and JSON, byte for byte as the library writes them."""
    # Python writes a double so that the same one is read; JSON's missing infinity and NaN are texts in protobuf's JSON.
    described = {**description, _STATE: json_format.MessageToDict(state, preserving_proto_field_name=True)}
    entries: dict[str, Any] = {"__metadata__": {_FORMAT: json.dumps(described, sort_keys=True)}}
    end = 0
    for name, vector in vectors.items():
        start, end = end, end + vector.nbytes
        entries[name] = {"dtype": _DTYPES[vector.dtype.name], "shape": [vector.size], "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def _description(metadata: Mapping[str, str] | None, name: str) -> dict[str, Any]:
    try:
        description = json.loads((metadata or {})[_FORMAT])
    except (ValueError, KeyError, RecursionError) as error:
        raise CheckpointError(f"checkpoint {name} has no readable entry {_FORMAT!r} in its metadata") from error
    if not isinstance(description, dict):
        raise CheckpointError(f"checkpoint {name} must have an object in its entry {_FORMAT!r}")
    return description


def _snapshot(state: ps_pb.TrainingState, tensors: Mapping[str, Vector], name: str) -> Snapshot:
    """Puts the vectors in their places, if they are the ones that a checkpoint has."""
    moments = [f"{_MOMENT}{number}" for number in range(len(tensors.keys() - {_PARAMETERS, _BEST}))]
    if tensors.keys() - {_BEST} != {_PARAMETERS, *moments}:
        raise CheckpointError(
            f"checkpoint {name} must have the tensors {_PARAMETERS}, {_MOMENT}0… and perhaps {_BEST}, "
            f"not {sorted(tensors)}"
        )
    parameters = tensors[_PARAMETERS]
    for vector in tensors.values():
        if vector.dtype.name not in _DTYPES or vector.ndim != 1 or vector.shape != parameters.shape:
            raise CheckpointError(f"checkpoint {name} has tensors that are not vectors of one size")
    if len({vector.dtype for vector in tensors.values()}) != 1:
        raise CheckpointError(f"checkpoint {name} has tensors of several dtypes")
    return Snapshot(state, parameters, tuple(tensors[moment] for moment in moments), tensors.get(_BEST))
