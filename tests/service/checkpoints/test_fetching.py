"""Checkpoints on their way from a parameter server to their folder."""

import asyncio
import errno
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.checkpoints.fetching import CheckpointFetcher
from service.checkpoints.folder import CheckpointFolder
from service.checkpoints.image import Snapshot, first_image, make_image
from service.errors import AttemptLost

STATE = ps_pb.TrainingState()
CHUNK = 1 << 20
MOST_BYTES = 8 << 20

Chunks = Iterable[bytes | memoryview | Exception]


class Call:
    """One checkpoint; an error among its chunks is raised."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[ps_pb.FetchCheckpointResponse]:
        yield ps_pb.FetchCheckpointResponse(state=STATE, events=5)
        for chunk in self._chunks:
            if isinstance(chunk, Exception):
                raise chunk
            yield ps_pb.FetchCheckpointResponse(chunk=bytes(chunk))

    def cancel(self) -> None:
        """As of a call."""


class Stub:
    """A parameter server with one checkpoint."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks

    def FetchCheckpoint(self, request: ps_pb.FetchCheckpointRequest, metadata: Any) -> Call:  # noqa: N802
        return Call(self._chunks)


async def _at_once(events: int) -> None:
    assert events == 5


def _take(folder: CheckpointFolder, chunks: Chunks, failed: Callable[[str], None] = pytest.fail) -> jobs_pb.Checkpoint:
    written: list[jobs_pb.Checkpoint] = []

    async def run() -> jobs_pb.Checkpoint | None:
        stub: Any = Stub(chunks)
        keeping = CheckpointFetcher(
            stub, (), folder, 1, _at_once, lambda checkpoint, _: written.append(checkpoint), failed
        )
        return await keeping.fetch_now()

    checkpoint = asyncio.run(run())
    assert checkpoint is not None
    assert written == [checkpoint]
    return checkpoint


def _image() -> bytes:
    return bytes(make_image(Snapshot(STATE, np.arange(100.0)), {"spec_sha256": ""}))


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    """Not there yet."""
    return CheckpointFolder(tmp_path / "job-1")


@pytest.mark.parametrize("size", [1, 7, 100, CHUNK])
def test_chunks_of_any_size_leave_the_same_file(folder: CheckpointFolder, size: int) -> None:
    """The bytes are those that were sent."""
    image = _image()
    checkpoint = _take(folder, [image[start : start + size] for start in range(0, len(image), size)])
    assert folder.path_of(checkpoint).read_bytes() == image
    assert folder.newest("") == (checkpoint, [])


@pytest.mark.parametrize(
    ("rest", "sentence"),
    [
        ([], "not a safetensors file"),
        (
            [
                grpc.aio.AioRpcError(
                    grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), details="it is gone"
                )
            ],
            "sent no checkpoint: it is gone",
        ),
    ],
)
def test_a_stream_that_breaks_off_leaves_nothing(folder: CheckpointFolder, rest: Chunks, sentence: str) -> None:
    """The parameter server is lost."""
    with pytest.raises(AttemptLost, match=sentence):
        _take(folder, [_image()[:200], *rest])
    assert list(folder.path.iterdir()) == []


class _StepCall:
    """A call that is answered with the checkpoint of a step, once something has happened; with none for no step."""

    def __init__(self, step: int | None, happened: asyncio.Event) -> None:
        self._step = step
        self._happened = happened

    async def __aiter__(self) -> AsyncIterator[ps_pb.FetchCheckpointResponse]:
        await self._happened.wait()
        if self._step is not None:
            state = ps_pb.TrainingState(step=self._step)
            image = make_image(Snapshot(state, np.arange(100.0)), {"spec_sha256": ""})
            yield ps_pb.FetchCheckpointResponse(state=state, events=5)
            yield ps_pb.FetchCheckpointResponse(chunk=bytes(image))

    def cancel(self) -> None:
        """As of a call."""


async def test_a_due_checkpoint_of_a_later_step_is_the_one_to_go_on_from(folder: CheckpointFolder) -> None:
    """The later one came first, though it was taken after the other: both are kept, and the later one counts."""
    at_once, due_written = asyncio.Event(), asyncio.Event()
    at_once.set()
    due = iter([9])

    class Server:
        def FetchCheckpoint(self, request: ps_pb.FetchCheckpointRequest, metadata: Any) -> _StepCall:  # noqa: N802
            return _StepCall(5, due_written) if request.now else _StepCall(next(due, None), at_once)

    server: Any = Server()
    fetcher = CheckpointFetcher(server, (), folder, 1, _at_once, lambda *_: due_written.set(), pytest.fail)
    newest, _ = await asyncio.gather(fetcher.fetch_now(), fetcher.run())
    assert newest is not None
    assert newest.step == 9
    assert [checkpoint.step for checkpoint in folder.list()] == [9, 5]
    assert folder.newest("")[0] == newest


def test_a_full_disk_is_told(folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle, and nothing is left."""

    def full(name: str) -> None:
        if name == "checkpoint.writing":
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("service.checkpoints.folder.failpoint", full)
    told: list[str] = []
    with pytest.raises(OSError, match="No space left"):
        _take(folder, [_image()[:200], _image()[200:]], told.append)
    assert told == ["No space left on device"]
    assert list(folder.path.iterdir()) == []


def test_a_large_checkpoint_takes_no_more_memory_than_a_small_one(
    folder: CheckpointFolder, allocating: Callable[[], Any]
) -> None:
    """64 MB go through a few; to list them and to find the newest one takes no more."""
    pieces = 32
    vector = lambda: (np.zeros(CHUNK // 8) for _ in range(pieces))  # noqa: E731
    image = first_image(np.dtype(np.float64), pieces * CHUNK // 8, vector, [vector], {"spec_sha256": ""})
    with allocating() as peak:
        checkpoint = _take(folder, image)
        assert folder.list() == [checkpoint]
        assert folder.newest("")[0] == checkpoint
    assert checkpoint.size_bytes > 64 << 20
    assert peak.bytes < MOST_BYTES
