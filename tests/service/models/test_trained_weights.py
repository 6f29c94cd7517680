"""The weights that a training leaves, from a parameter server that streams them to a model in the catalogue."""

import asyncio
import errno
import hashlib
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import grpc
import numpy as np
import pytest

from nablad.v1 import models_pb2 as models_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.errors import AttemptLost
from service.models import trained_weights
from service.models.model_files import ModelFile, ModelWriter
from service.models.trained_weights import TrainedWeights
from service.storage.data_directory import DataDirectory
from service.stores.catalogues import ModelCatalogue
from tests.service.conftest import NOW
from workers import from_spec

CHUNK = 1 << 20
LOST = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "it is gone")
LARGE = (100, 80_000, 2)  # 66 MB of float64
MOST_BYTES = 8 << 20

MakeJob = Callable[..., ps_pb.Assignment]


class Call:
    """A stream of chunks; an error among them is raised, and an event is set before waiting for ever."""

    def __init__(self, chunks: Iterable[bytes | Exception | asyncio.Event]) -> None:
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[ps_pb.FetchWeightsResponse]:
        for chunk in self._chunks:
            if isinstance(chunk, Exception):
                raise chunk
            if isinstance(chunk, asyncio.Event):
                chunk.set()
                await asyncio.Event().wait()
            yield ps_pb.FetchWeightsResponse(chunk=chunk)

    def cancel(self) -> None:
        """As of a call."""


class Stub:
    """A parameter server that sends the same chunks whenever it is asked."""

    def __init__(self, chunks: Callable[[], Iterable[bytes | Exception | asyncio.Event]]) -> None:
        self.calls: list[Call] = []
        self._chunks = chunks

    def FetchWeights(self, request: ps_pb.FetchWeightsRequest, metadata: Any) -> Call:  # noqa: N802 (the contract's)
        self.calls.append(Call(self._chunks()))
        return self.calls[-1]


@pytest.fixture
def trained(directory: DataDirectory, models: ModelCatalogue) -> Callable[..., TrainedWeights]:
    """What such a parameter server has."""

    def make(stub: Stub, note: Callable[[str], None] = pytest.fail) -> TrainedWeights:
        return TrainedWeights(stub, (), directory, models, lambda: NOW, note)  # type: ignore[arg-type]

    return make


def _data(job: ps_pb.Assignment) -> bytes:
    return (np.arange(from_spec.size(job.spec)) / 7).astype(from_spec.dtype(job.spec)).tobytes()


def _chunks(data: bytes, size: int = 100) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def _described(model: models_pb.Model, sha256: str) -> None:
    model.training.cost = 0.25


def _files(directory: DataDirectory) -> list[str]:
    return [path.name for path in (directory.path / "models").iterdir()]


async def test_a_model_is_kept(
    trained: Any, model_job: MakeJob, directory: DataDirectory, models: ModelCatalogue
) -> None:
    """Its file has the weights, the catalogue what is known of it, and the digest is that of the vector."""
    job = model_job()
    model, sha256 = await trained(Stub(lambda: _chunks(_data(job)))).save_model(job, _described)
    path = directory.model("job-1")
    assert sha256 == hashlib.sha256(_data(job)).hexdigest()
    assert model == models.get("job-1")
    assert (model.spec, model.classes, model.training.cost) == (job.spec, 2, 0.25)
    assert model.size_bytes == path.stat().st_size
    assert model.create_time.ToDatetime(NOW.tzinfo) == NOW
    with ModelFile(path, job.spec, model.sha256) as file:
        assert np.concatenate([*file.pieces()]).tobytes() == _data(job)


async def test_a_digest_writes_nothing(trained: Any, model_job: MakeJob, directory: DataDirectory) -> None:
    """Who verifies compares only."""
    data = _data(model_job())
    assert (await trained(Stub(lambda: _chunks(data))).compute_digest()) == hashlib.sha256(data).hexdigest()
    assert _files(directory) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda chunks: [*chunks[:3], LOST], "lost before its weights were fetched: it is gone"),
        (lambda _: [LOST], "lost before its weights were fetched: it is gone"),
        (lambda chunks: chunks[:-1], "sent no weights: the model has 640 bytes of weights, but 600 came"),
        (lambda chunks: [*chunks, b"more"], "sent no weights: the model has 640 bytes of weights, but more came"),
    ],
)
async def test_a_stream_that_breaks_off_leaves_nothing(
    trained: Any, model_job: MakeJob, directory: DataDirectory, change: Any, sentence: str
) -> None:
    """The attempt is lost, another one may succeed."""
    job = model_job()
    with pytest.raises(AttemptLost, match=sentence) as lost:
        await trained(Stub(lambda: change(_chunks(_data(job))))).save_model(job, _described)
    assert lost.value.cause == "parameter_server"
    assert _files(directory) == []


async def test_a_full_disk_is_waited_for(
    trained: Any, model_job: MakeJob, directory: DataDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told once, and tried again until there is room: the weights still are at their parameter server."""
    monkeypatch.setattr(trained_weights, "_REWRITE_SECONDS", 0)
    job, told = model_job(), []
    full = [True]

    class OnFullDisk(ModelWriter):
        def write(self, chunk: bytes | memoryview) -> None:
            super().write(chunk)
            if full[0] and chunk == _chunks(_data(job))[2]:
                raise OSError(errno.ENOSPC, "No space left on device")

    def make_room(sentence: str) -> None:
        told.append(sentence)
        assert _files(directory) == []
        full[0] = False

    monkeypatch.setattr("service.models.model_files.ModelWriter", OnFullDisk)
    stub = Stub(lambda: _chunks(_data(job)))
    model, _ = await trained(stub, make_room).save_model(job, _described)
    assert len(stub.calls) == 2
    assert told == [
        "the model could not be written: [Errno 28] No space left on device; it is tried again until there is room"
    ]
    assert model.sha256 == hashlib.sha256(directory.model("job-1").read_bytes()).hexdigest()


async def test_a_catalogue_that_takes_no_model_costs_no_second_fetch(
    trained: Any, model_job: MakeJob, models: ModelCatalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file stays until the model is known."""
    monkeypatch.setattr(trained_weights, "_REWRITE_SECONDS", 0)
    told: list[str] = []

    def full(name: str) -> None:
        if name == "model.written" and len(tries) < 3:
            tries.append(name)
            raise OSError("full")

    tries: list[str] = []
    monkeypatch.setattr(trained_weights, "failpoint", full)
    stub = Stub(lambda: _chunks(_data(model_job())))
    model, _ = await trained(stub, told.append).save_model(model_job(), _described)
    assert (len(tries), len(told), len(stub.calls)) == (3, 1, 1)
    assert models.get("job-1") == model


async def test_who_is_cancelled_leaves_no_file(trained: Any, model_job: MakeJob, directory: DataDirectory) -> None:
    """In the middle of the stream."""
    job = model_job()

    waits = asyncio.Event()
    stub = Stub(lambda: [*_chunks(_data(job))[:3], waits])
    keeping = asyncio.create_task(trained(stub).save_model(job, _described))
    await asyncio.wait_for(waits.wait(), 30)
    assert len(_files(directory)) == 1
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    assert _files(directory) == []


async def test_the_disk_is_never_written_to_by_the_loop_s_thread(
    trained: Any, model_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other calls go on while it takes its time."""
    threads: set[int] = set()

    class Watched(ModelWriter):
        def write(self, chunk: bytes | memoryview) -> None:
            threads.add(threading.get_ident())
            super().write(chunk)

        def finish(self) -> None:
            threads.add(threading.get_ident())
            super().finish()

    monkeypatch.setattr("service.models.model_files.ModelWriter", Watched)
    job = model_job()
    await trained(Stub(lambda: _chunks(_data(job)))).save_model(job, _described)
    assert threads
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("keep", [True, False])
async def test_a_large_model_takes_no_more_memory_than_a_small_one(
    trained: Any, model_job: MakeJob, allocating: Callable[[], Any], keep: bool
) -> None:
    """66 MB go through a few, on their way to a file and where they are only compared."""
    job = model_job(LARGE)
    size = 8 * from_spec.size(job.spec)
    weights = trained(Stub(lambda: (bytes(min(CHUNK, size - start)) for start in range(0, size, CHUNK))))
    with allocating() as peak:
        await (weights.save_model(job, _described) if keep else weights.compute_digest())
    assert size > 60 << 20
    assert peak.bytes < MOST_BYTES
