"""Model files: the same bytes however the weights come, read without holding them, and refused when they are others."""

import hashlib
import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from nablad.v1 import parameter_server_pb2 as ps_pb
from service.errors import Reason, ServiceError
from service.model_files import ModelFile, WrongSizeError, writing_model
from workers import build
from workers.mathematics.parameters import ParameterLayout

MakeJob = Callable[..., ps_pb.Assignment]
LARGE = (100, 80_000, 2)  # 66 MB of float64
MOST_BYTES = 8 << 20


def _weights(job: ps_pb.Assignment) -> np.ndarray:
    return (np.arange(build.size(job.spec)) / 7).astype(build.dtype(job.spec))


def _views(job: ps_pb.Assignment, weights: np.ndarray) -> Any:
    return ParameterLayout(tuple(job.spec.model.layers), job.spec.model.bias).views(weights)


def _library_s(job: ps_pb.Assignment) -> bytes:
    """The file as the library makes it of the whole weights."""
    spec = job.spec
    tensors = {"scaling.shift": np.array(job.scaling.shift), "scaling.factor": np.array(job.scaling.factor)}
    for number, (weights, biases) in enumerate(_views(job, _weights(job))):
        tensors |= {f"W{number}": weights} | ({f"b{number}": biases} if biases is not None else {})
    description = {
        "model": json_format.MessageToDict(spec.model, preserving_proto_field_name=True),
        "cost": json_format.MessageToDict(spec.cost, preserving_proto_field_name=True),
        "classes": job.train.dataset.classes,
    }
    return save(tensors, {"nablad.v1": json.dumps(description, sort_keys=True)})


def _write(path: Path, job: ps_pb.Assignment, pieces: Sequence[bytes]) -> str:
    with writing_model(path, job) as writer:
        for piece in pieces:
            writer.write(piece)
    assert writer.size_bytes == path.stat().st_size
    return writer.sha256


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("layers", [(3, 7, 5, 2), (1, 1), (2,) * 13])
def test_the_bytes_are_the_library_s(
    model_job: MakeJob, tmp_path: Path, dtype: str, bias: bool, layers: Sequence[int]
) -> None:
    """Also with more than ten matrices, which are in another order by name; the digest is the file's."""
    job = model_job(layers, dtype=dtype, bias=bias)
    sha256 = _write(tmp_path / "a", job, [_weights(job).tobytes()])
    assert (tmp_path / "a").read_bytes() == _library_s(job)
    assert sha256 == hashlib.sha256(_library_s(job)).hexdigest()


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 640)))
def test_pieces_of_any_size_leave_the_same_file(model_job: MakeJob, tmp_path: Path, cuts: list[int]) -> None:
    """Cut wherever, in the middle of numbers too; empty ones change nothing."""
    job = model_job()
    data = _weights(job).tobytes()
    edges = [0, *sorted(cuts), len(data)]
    pieces = [data[begin:end] for begin, end in pairwise(edges)]
    sha256 = _write(tmp_path / "a", job, pieces)
    assert (tmp_path / "a").read_bytes() == _library_s(job)
    assert sha256 == hashlib.sha256(_library_s(job)).hexdigest()


@pytest.mark.parametrize("length", [0, 8, 639, 641, 1280])
def test_another_number_of_weights_leaves_nothing(model_job: MakeJob, tmp_path: Path, length: int) -> None:
    """Neither a file nor the beginning of one; a file that was there stays."""
    (tmp_path / "a").write_bytes(b"before")
    with pytest.raises(WrongSizeError, match="640 bytes of weights"):
        _write(tmp_path / "a", model_job(), [bytes(length)])
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bias", [False, True])
def test_what_was_written_is_read(model_job: MakeJob, tmp_path: Path, dtype: str, bias: bool) -> None:
    """The vector piece by piece, its matrices, and the scaling."""
    job = model_job(dtype=dtype, bias=bias)
    with ModelFile(tmp_path / "a", job.spec, _write(tmp_path / "a", job, [_weights(job).tobytes()])) as file:
        assert np.concatenate([*file.pieces()]).tobytes() == _weights(job).tobytes()
        found = file.weights()
    assert file.scaling == job.scaling
    for mine, expected in zip(found, _views(job, _weights(job)), strict=True):
        for array, same in zip(mine, expected, strict=True):
            assert (array is None) == (same is None)
            assert array is None or (array.dtype == dtype and np.array_equal(array, same))


def _flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda path: path.unlink(), "the file of model a cannot be read: No such file or directory: train it again"),
        (lambda path: path.write_bytes(_flipped(path.read_bytes())), "the file of model a is not what was written"),
        (lambda path: path.write_bytes(b""), "the file of model a is not what was written"),
    ],
)
def test_a_damaged_file_is_told(
    model_job: MakeJob, tmp_path: Path, spoil: Callable[[Path], None], sentence: str
) -> None:
    """With what to do."""
    job = model_job()
    path = tmp_path / "a.safetensors"
    sha256 = _write(path, job, [_weights(job).tobytes()])
    spoil(path)
    with pytest.raises(ServiceError, match=sentence) as told:
        ModelFile(path, job.spec, sha256)
    assert told.value.reason == Reason.DAMAGED


def test_the_file_of_another_network_is_told(model_job: MakeJob, tmp_path: Path) -> None:
    """Though it is what was written."""
    job = model_job()
    sha256 = _write(tmp_path / "a", job, [_weights(job).tobytes()])
    for other in (model_job((3, 7, 6, 2)), model_job(dtype="float32"), model_job((3, 7, 5, 2, 2))):
        with pytest.raises(ServiceError, match="has not the tensors of its model: train it again"):
            ModelFile(tmp_path / "a", other.spec, sha256)


def test_neither_writing_nor_reading_holds_the_weights(
    model_job: MakeJob, tmp_path: Path, allocating: Callable[[], Any]
) -> None:
    """66 MB go through a few; but for pages of the file, which the system may have back."""
    job = model_job(LARGE)
    size = 8 * build.size(job.spec)
    with allocating() as peak:
        with writing_model(tmp_path / "a", job) as writer:
            for start in range(0, size, 1 << 20):
                writer.write(bytes(min(1 << 20, size - start)))
        with ModelFile(tmp_path / "a", job.spec, writer.sha256) as file:
            assert sum(piece.nbytes for piece in file.pieces()) == size
            assert sum(array.nbytes for view in file.weights() for array in view if array is not None) == size
    assert size > 8 * MOST_BYTES - (4 << 20)
    assert peak.bytes < MOST_BYTES
