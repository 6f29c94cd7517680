"""Model files: safetensors with the weights W0, b0, W1, b1…, the scaling, and a description in the metadata.

A file holds exactly what predicting takes and nothing of how the training was distributed, so that two jobs that differ
only in their workers leave the same bytes.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from google.protobuf import json_format
from numpy.typing import NDArray
from safetensors.numpy import load, save

from nablad.files import replacing
from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.errors import Reason, ServiceError
from workers import build
from workers.mathematics.parameters import ParameterLayout

__all__ = ["StoredModel", "load_model", "save_model"]

_FORMAT = "nablad.v1"
_SHIFT, _FACTOR = "scaling.shift", "scaling.factor"


@dataclass(frozen=True)
class StoredModel:
    """A model as read from its file.

    Attributes:
        parameters: Flat vector, shape (size,), of the spec's dtype.
        scaling: What features go through first.
    """

    parameters: NDArray[np.floating]
    scaling: ps_pb.FeatureScaling


def save_model(path: Path, assignment: ps_pb.Assignment, parameters: NDArray[np.floating]) -> str:
    """Writes a model file, whole or not at all, and gives its SHA-256 in hexadecimal."""
    spec = assignment.spec
    description = {
        "model": json_format.MessageToDict(spec.model, preserving_proto_field_name=True),
        "cost": json_format.MessageToDict(spec.cost, preserving_proto_field_name=True),
        "classes": assignment.train.dataset.classes,
    }
    tensors = _layout(spec).named(parameters)
    tensors[_SHIFT] = np.asarray(assignment.scaling.shift, np.float64)
    tensors[_FACTOR] = np.asarray(assignment.scaling.factor, np.float64)
    # One entry only: safetensors writes the entries of the metadata in no fixed order.
    data = save(tensors, {_FORMAT: json.dumps(description, sort_keys=True)})
    with replacing(path) as file:
        file.write(data)
    return hashlib.sha256(data).hexdigest()


def load_model(path: Path, spec: spec_pb.JobSpec, sha256: str) -> StoredModel:
    """Reads the model file of a job with this spec.

    Raises:
        ServiceError: DAMAGED, when it is gone or not what was written. safetensors itself does not notice flipped bits.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ServiceError(Reason.DAMAGED, f"the file of model {path.stem} cannot be read: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ServiceError(Reason.DAMAGED, f"the file of model {path.stem} is not what was written: train it again")
    tensors = load(data)
    layout = _layout(spec)
    parameters = np.empty(layout.size, build.dtype(spec))
    for name, view in layout.named(parameters).items():
        view[...] = tensors[name]
    return StoredModel(parameters, ps_pb.FeatureScaling(shift=tensors[_SHIFT], factor=tensors[_FACTOR]))


def _layout(spec: spec_pb.JobSpec) -> ParameterLayout:
    return ParameterLayout(tuple(spec.model.layers), spec.model.bias)
