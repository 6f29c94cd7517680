"""Model files: safetensors with the weights W0, b0, W1, b1…, the scaling, and a description in the metadata.

A file holds exactly what predicting needs, and nothing about how the training was distributed. So two jobs that differ
only in their workers leave the same bytes. Files are written and read without holding all weights in memory.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
from google.protobuf import json_format
from numpy.typing import NDArray

from nablad.files import replacing
from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.errors import ModelFileError
from service.storage.tensor_files import Tensor, TensorFile, TensorFileError, TensorLayout, open_intact
from workers import from_spec
from workers.mathematics.parameters import ParameterLayout, View

__all__ = ["ModelFile", "ModelWriter", "WrongSizeError", "open_model", "writing_model"]

_FORMAT = "nablad.v1"
_SHIFT, _FACTOR = "scaling.shift", "scaling.factor"

_Shapes = dict[str, tuple[np.dtype[np.floating], tuple[int, ...]]]


class WrongSizeError(Exception):
    """The weights have not the size of the model; the message says so, as a sentence."""


class ModelWriter:
    """Writes the weights, which come in the order of the parameter vector, to their places in the file.

    Attributes:
        sha256: SHA-256 of the file, in hexadecimal; set, as the size, when the block of `writing_model` has ended well.
        size_bytes: Size of the file, in bytes.
    """

    def __init__(self, file: BinaryIO, assignment: ps_pb.Assignment) -> None:
        """Writes all but the weights."""
        self.sha256 = ""
        self.size_bytes = 0
        self._file = file
        scaling = {
            _SHIFT: np.asarray(assignment.scaling.shift, np.float64),
            _FACTOR: np.asarray(assignment.scaling.factor, np.float64),
        }
        weights = _shapes(assignment.spec)
        shapes: _Shapes = {name: (values.dtype, values.shape) for name, values in scaling.items()}
        shapes |= weights
        # Only one entry, because another release of the library might write two in another order.
        self._layout = TensorLayout(shapes, {_FORMAT: _description(assignment)})
        file.write(self._layout.header)
        for name, values in scaling.items():
            file.seek(self._layout.tensors[name].start)
            file.write(values.data)
        self._places = [self._layout.tensors[name] for name in weights]  # in the vector's order
        self._expected = sum(place.nbytes for place in self._places)
        self._came = 0
        self._next = iter(self._places)
        self._room = 0  # bytes in the present place that are not written yet

    def write(self, chunk: bytes | memoryview) -> None:
        """Writes the next bytes of the vector.

        Raises:
            WrongSizeError: There are too many of them.
        """
        self._came += len(chunk)
        if self._came > self._expected:
            raise self._wrong_size("more")
        rest = memoryview(chunk)
        while rest:
            if not self._room:
                self._begin(next(self._next))
            part = rest[: self._room]
            self._file.write(part)
            self._room -= len(part)
            rest = rest[len(part) :]

    def finish(self) -> None:
        """Reads the file again for its digest, because its order of the weights is not that of the vector.

        Raises:
            WrongSizeError: Weights are missing.
        """
        if self._came != self._expected:
            raise self._wrong_size(f"{self._came:,}")
        self._file.flush()
        with Path(self._file.name).open("rb") as written:
            self.sha256 = hashlib.file_digest(written, "sha256").hexdigest()
        self.size_bytes = self._layout.size_bytes

    def _begin(self, place: Tensor) -> None:
        self._file.seek(place.start)
        self._room = place.nbytes

    def _wrong_size(self, came: str) -> WrongSizeError:
        return WrongSizeError(f"the model has {self._expected:,} bytes of weights, but {came} came")


@contextmanager
def writing_model(path: Path, assignment: ps_pb.Assignment) -> Iterator[ModelWriter]:
    """Opens a model file for writing. It is whole and on the disk when the block ends well, else nothing of it is left.

    Raises:
        WrongSizeError: The weights have not the size of the model.
        OSError: The file cannot be written.
    """
    with replacing(path) as file:
        writer = ModelWriter(file, assignment)
        yield writer
        writer.finish()


def open_model(path: Path, sha256: str) -> BinaryIO:
    """Opens the file of a model, after comparing it with its digest.

    Raises:
        ModelFileError: The file is gone, cannot be read, or is not what was written.
    """
    with _translated_errors(path):
        return open_intact(path, sha256)


class ModelFile:
    """An open model file of a job.

    Attributes:
        scaling: Scaling of the features.
    """

    def __init__(self, path: Path, spec: spec_pb.JobSpec, sha256: str) -> None:
        """Opens the file, and compares it with its digest.

        Raises:
            ModelFileError: The file is gone, not what was written, or no model of such a spec.
        """
        self._path = path
        self._shapes = _shapes(spec)
        self._layout = _parameter_layout(spec)
        with _translated_errors(path):
            self._file = TensorFile(path, sha256)
            try:
                self._require_shapes()
                shift, factor = (np.concatenate([*self._file.pieces(name)]) for name in (_SHIFT, _FACTOR))
            except BaseException:
                self._file.close()
                raise
        self.scaling = ps_pb.FeatureScaling(shift=shift, factor=factor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def weights(self) -> list[View]:
        """Returns W(N) and b(N), at index N, memory-mapped. They stay valid when the file is closed."""
        return self._layout.from_named(self._file.map_tensors())

    def pieces(self) -> Iterator[NDArray[np.floating]]:
        """Yields the parameter vector, of the spec's dtype, piece by piece.

        Raises:
            ModelFileError: The file cannot be read any more.
        """
        with _translated_errors(self._path):
            for name in self._shapes:
                yield from self._file.pieces(name)

    def _require_shapes(self) -> None:
        found = {name: (tensor.dtype, tensor.shape) for name, tensor in self._file.tensors.items()}
        scaling = [found.get(name, (None, ())) for name in (_SHIFT, _FACTOR)]
        if {**found, **self._shapes} != found or any(
            dtype != np.float64 or len(shape) != 1 or not shape[0] for dtype, shape in scaling
        ):
            raise TensorFileError("has not the tensors of its model")


@contextmanager
def _translated_errors(path: Path) -> Iterator[None]:
    """Translates errors of tensor files into ModelFileErrors that say what to do."""
    try:
        yield
    except TensorFileError as error:
        raise ModelFileError(
            f"the file of model {path.stem} {error}: {path}; restore it from a backup, or train again to the same bits "
            f"and `nabla model delete {path.stem}`",
            model_id=path.stem,
            path=str(path),
        ) from error


def _description(assignment: ps_pb.Assignment) -> str:
    spec = assignment.spec
    description = {
        "model": json_format.MessageToDict(spec.model, preserving_proto_field_name=True),
        "cost": json_format.MessageToDict(spec.cost, preserving_proto_field_name=True),
        "classes": assignment.train.dataset.classes,
    }
    return json.dumps(description, sort_keys=True)


def _shapes(spec: spec_pb.JobSpec) -> _Shapes:
    """Returns types and shapes of the weights by name, in the vector's order."""
    return {name: (from_spec.dtype(spec), shape) for name, shape in _parameter_layout(spec).shapes().items()}


def _parameter_layout(spec: spec_pb.JobSpec) -> ParameterLayout:
    return ParameterLayout(tuple(spec.model.layers), spec.model.bias)
