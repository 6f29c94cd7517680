"""Model files: the same bytes however the weights come, read in pieces, and rejected when they are others."""

import asyncio
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from nablad.v1 import models_pb2 as models_pb
from nablad.v1 import models_pb2_grpc as models_grpc
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.api.models import ModelServicer
from service.errors import ModelFileError
from service.models.model_files import ModelFile, WrongSizeError, open_model, writing_model
from service.storage.data_directory import DataDirectory
from service.stores.catalogues import ModelCatalogue
from service.stores.database import Database
from workers import from_spec
from workers.mathematics.parameters import ParameterLayout

MakeJob = Callable[..., ps_pb.Assignment]
LARGE = (100, 80_000, 2)  # 66 MB of float64
MOST_BYTES = 8 << 20
SECONDS = 20


def _weights(job: ps_pb.Assignment) -> np.ndarray:
    return (np.arange(from_spec.size(job.spec)) / 7).astype(from_spec.dtype(job.spec))


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


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
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


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of the model "m"."""
    return tmp_path / "m.safetensors"


@pytest.fixture
def sha256(model_job: MakeJob, path: Path) -> str:
    """The digest of a model that was written."""
    job = model_job()
    return _write(path, job, [_weights(job).tobytes()])


def test_every_changed_byte_is_noticed(model_job: MakeJob, path: Path, sha256: str) -> None:
    """Every third byte in turn, and lengths; the sentence has both digests, and what to do."""
    data = path.read_bytes()
    with open_model(path, sha256) as file:
        assert file.read() == data
    changed = [data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :] for place in range(0, len(data), 3)]
    for content in [*changed, *(data[:length] for length in range(0, len(data), 9)), data + b"x"]:
        path.write_bytes(content)
        with pytest.raises(
            ModelFileError, match=f"model m is damaged.*{sha256}: {path}; restore it.*nabla model delete m"
        ):
            open_model(path, sha256)
    with pytest.raises(ModelFileError, match="model m is damaged"):
        ModelFile(path, model_job().spec, sha256)


def test_whatever_the_bytes_are_the_error_is_one_of_models(
    model_job: MakeJob, path: Path, sha256: str, mutations: Callable[..., Iterator[bytes]]
) -> None:
    """Also where the digest is that of the changed file: a model of this spec, or ModelFileError."""
    spec, data = model_job().spec, path.read_bytes()
    refused = 0
    for content in mutations(data, 8 + int.from_bytes(data[:8], "little"), 400):
        path.write_bytes(content)
        try:
            with ModelFile(path, spec, hashlib.sha256(content).hexdigest()) as file:
                assert sum(piece.size for piece in file.pieces()) == from_spec.size(spec)
                file.weights()
        except ModelFileError:
            refused += 1
    assert sha256
    assert refused > 300


@pytest.mark.parametrize("kind", ["gone", "folder", "pipe", "dangling"])
def test_what_is_no_file_is_named(model_job: MakeJob, path: Path, sha256: str, kind: str) -> None:
    """At once, with the path and what to do; a pipe would be waited for, for ever."""
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "dangling":
        path.symlink_to(path.with_name("nowhere"))
    for read in (open_model, lambda path, sha256: ModelFile(path, model_job().spec, sha256)):
        with pytest.raises(ModelFileError, match=r"the file of model m .*m\.safetensors.*restore it from a backup"):
            read(path, sha256)


def test_the_file_of_another_network_is_told(model_job: MakeJob, tmp_path: Path) -> None:
    """Though it is what was written."""
    job = model_job()
    sha256 = _write(tmp_path / "a", job, [_weights(job).tobytes()])
    for other in (model_job((3, 7, 6, 2)), model_job(dtype="float32"), model_job((3, 7, 5, 2, 2))):
        with pytest.raises(ModelFileError, match="has not the tensors of its model"):
            ModelFile(tmp_path / "a", other.spec, sha256)


def test_neither_writing_nor_reading_holds_the_weights(
    model_job: MakeJob, tmp_path: Path, allocating: Callable[[], Any]
) -> None:
    """66 MB go through a few; but for pages of the file, which the system may have back."""
    job = model_job(LARGE)
    size = 8 * from_spec.size(job.spec)
    with allocating() as peak:
        with writing_model(tmp_path / "a", job) as writer:
            for start in range(0, size, 1 << 20):
                writer.write(bytes(min(1 << 20, size - start)))
        with ModelFile(tmp_path / "a", job.spec, writer.sha256) as file:
            assert sum(piece.nbytes for piece in file.pieces()) == size
            assert sum(array.nbytes for view in file.weights() for array in view if array is not None) == size
    assert size > 8 * MOST_BYTES - (4 << 20)
    assert peak.bytes < MOST_BYTES


@pytest.mark.parametrize("damage", ["gone", "flipped"])
async def test_an_export_answers_what_is_lost(
    model_job: MakeJob, tmp_path: Path, database: Database, damage: str
) -> None:
    """DATA_LOSS with the sentence, before the first byte; a whole one goes out byte for byte."""
    directory, models = DataDirectory(tmp_path / "data"), ModelCatalogue(database)
    file = directory.model("m")
    job = model_job()
    sha256 = _write(file, job, [_weights(job).tobytes()])
    models.add(models_pb.Model(model_id="m", spec=job.spec, sha256=sha256))

    async def export(stub: Any) -> bytes:
        return b"".join([each.chunk async for each in stub.ExportModel(models_pb.ExportModelRequest(model_id="m"))])

    async def run() -> None:
        server = grpc.aio.server()
        models_grpc.add_ModelServiceServicer_to_server(ModelServicer(directory, models), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = models_grpc.ModelServiceStub(channel)
            data = file.read_bytes()
            assert await export(stub) == data
            if damage == "gone":
                file.unlink()
            else:
                file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
            with pytest.raises(grpc.aio.AioRpcError, match=f"the file of model m is .*{file}") as caught:
                await export(stub)
            assert caught.value.code() is grpc.StatusCode.DATA_LOSS
        await server.stop(None)

    await asyncio.wait_for(run(), SECONDS)
    directory.close()
