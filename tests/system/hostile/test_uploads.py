"""Uploads that are not what their header says, or that stop half-way."""

from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

import grpc
import pytest

from nablad import Client
from nablad.v1 import datasets_pb2 as datasets_pb
from nablad.v1 import datasets_pb2_grpc as datasets_grpc

Until = Callable[[Callable[[], bool]], None]

_SECONDS = 30
_CSV = b"1,2,0\n3,4,1\n5,6,0\n7,9,1\n"


def _header(*files: tuple[str, int], name: str = "hostile", **options: Any) -> datasets_pb.AddDatasetRequest:
    described = [datasets_pb.DataFile(filename=filename, size_bytes=size) for filename, size in files]
    data_files = datasets_pb.DataFiles(files=described, **options)
    return datasets_pb.AddDatasetRequest(header=datasets_pb.AddDatasetHeader(name=name, data_files=data_files))


def _chunk(data: bytes = _CSV) -> datasets_pb.AddDatasetRequest:
    return datasets_pb.AddDatasetRequest(chunk=data)


_SIZE = len(_CSV)
_WHOLE = _header(("a.csv", _SIZE))
_STREAMS: dict[str, tuple[list[datasets_pb.AddDatasetRequest], str]] = {
    "nothing": ([], "first message must be the header"),
    "no header": ([_chunk()], "first message must be the header"),
    "header twice": ([_WHOLE, _WHOLE, _chunk()], "without a chunk"),
    "header at the end": ([_WHOLE, _chunk(), _WHOLE], "more bytes"),
    "empty chunk": ([_WHOLE, _chunk(b""), _chunk()], "without a chunk"),
    "too few bytes": ([_WHOLE, _chunk(_CSV[:-1])], "ended 1 bytes before"),
    "too many bytes": ([_WHOLE, _chunk(), _chunk(b"1")], "more bytes"),
    "no files": ([_header()], "0 files"),
    "three files": ([_header(*[("a.npy", 1)] * 3), _chunk(b"123")], "3 files"),
    "many files": ([_header(*[("a.npy", 1)] * 100_000)], "100000 files"),
    "an empty file": ([_header(("a.csv", 0))], "empty"),
    "two empty files": ([_header(("a.npy", 0), ("b.npy", 0))], "a.npy"),
    "all there is": ([_header(("a.npy", 2**64 - 1), ("b.npy", 2**64 - 1)), _chunk()], "make room"),
    "odd file name": ([_header(("a\0\n\x1b[31m\u202e/../b.csv", 4)), _chunk(b"1,x\n")], "'a???[31m?/../b.csv'"),
    "long file name": ([_header(("a" * 1_500_000, _SIZE)), _chunk()], "format"),
    "long column name": ([_header(("a.csv", _SIZE), target_column="z" * 1_500_000), _chunk()], "no column"),
    "unknown kind": ([_header(("a.csv", _SIZE), target_kind=77), _chunk()], "breaks rules"),
    "too many classes": ([_header(("a.csv", _SIZE), classes=2**32 - 1), _chunk()], "at most 1,000,000 classes"),
    "long name": ([_header(("a.csv", _SIZE), name="n" * 1_500_000), _chunk()], "breaks rules"),
    "name with NUL": ([_header(("a.csv", _SIZE), name="a\0"), _chunk()], "breaks rules"),
}  # fmt: skip


@pytest.mark.parametrize("case", _STREAMS)
def test_a_wrong_upload_is_refused_and_forgotten(channel: grpc.Channel, client: Client, case: str) -> None:
    """The client is told what was wrong with its stream, and no data set comes of it."""
    requests, sentence = _STREAMS[case]
    call = datasets_grpc.DatasetServiceStub(channel).AddDataset.future(iter(requests), timeout=_SECONDS)
    assert call.code() in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert sentence in call.details()
    assert "hostile" not in {dataset.name for dataset in client.datasets()}


def test_uploads_that_stop_are_in_nobodys_way(channel: grpc.Channel, until: Until, daemon: Any) -> None:
    """Fifty clients that send half a file and then nothing do not hinder others; when they go, their bytes go."""
    stub, gone = datasets_grpc.DatasetServiceStub(channel), Event()

    def half() -> Iterator[datasets_pb.AddDatasetRequest]:
        yield _header(("a.csv", 1 << 20))
        yield _chunk()
        gone.wait(_SECONDS)

    calls = [stub.AddDataset.future(half()) for _ in range(50)]
    until(lambda: len(list((daemon.data_directory / "staging").iterdir())) == len(calls))
    for call in calls:
        call.cancel()
    gone.set()
    until(lambda: not list((daemon.data_directory / "staging").iterdir()))
