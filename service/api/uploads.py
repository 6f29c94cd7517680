"""Uploads: receives files from a stream of requests into a staging folder."""

import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

from nablad.v1 import datasets_pb2 as datasets_pb
from nablad.v1 import models_pb2 as models_pb
from service.datasets import StagedFile
from service.errors import Reason, ServiceError

__all__ = ["Chunked", "receive_files", "receive_first_request"]

_Request = TypeVar("_Request", datasets_pb.AddDatasetRequest, models_pb.PredictRequest)

_MOST_FILES = 2
# Bytes that an upload leaves free on the disk, for the database and for models.
_RESERVE_BYTES = 256 << 20


class Chunked(Protocol):
    """A request that may carry a chunk."""

    @property
    def chunk(self) -> bytes:
        """Next bytes; empty if the request has no chunk."""
        ...


async def receive_first_request(requests: AsyncIterator[_Request]) -> _Request:
    """Receives the first request of an upload.

    Raises:
        ServiceError: INVALID_REQUEST when it holds no header.
    """
    first = await anext(requests, None)
    if first is None or not first.HasField("header"):
        raise ServiceError(Reason.INVALID_REQUEST, "the first message must be the header")
    return first


async def receive_files(
    requests: AsyncIterator[Chunked], files: Sequence[datasets_pb.DataFile], folder: Path
) -> list[StagedFile]:
    """Receives the announced files into a folder, named by number; clients' names are never used as paths.

    Raises:
        ServiceError: INVALID_REQUEST when more or fewer bytes come than were announced, or too many files; TOO_LARGE
            when the disk has no room for them.
    """
    _check(files, folder)
    staged = [StagedFile(file.filename, folder / str(number)) for number, file in enumerate(files)]
    rest = b""
    for file, place in zip(files, staged, strict=True):
        with place.path.open("wb") as target:
            rest = await _fill(target, file, rest, requests)
    if rest or (await anext(requests, None)) is not None:
        raise ServiceError(
            Reason.INVALID_REQUEST, "more bytes came than the header announced: send the files as they are"
        )
    return staged


async def _fill(target: BinaryIO, file: datasets_pb.DataFile, rest: bytes, requests: AsyncIterator[Chunked]) -> bytes:
    """Writes one file, beginning with the rest of the last chunk; returns the rest of its own last chunk."""
    missing = file.size_bytes
    while True:
        target.write(rest[:missing])
        missing, rest = missing - min(missing, len(rest)), rest[missing:]
        if not missing:
            return rest
        request = await anext(requests, None)
        if request is None:
            raise ServiceError(
                Reason.INVALID_REQUEST,
                f"the stream ended {missing:,} bytes before the end of {file.filename!r} "
                f"({file.size_bytes:,} bytes announced): send it again",
            )
        if not request.chunk:
            raise ServiceError(
                Reason.INVALID_REQUEST,
                f"a message without a chunk came {missing:,} bytes before the end of {file.filename!r}: "
                "after the header send chunks of at least one byte",
            )
        rest = request.chunk


def _check(files: Sequence[datasets_pb.DataFile], folder: Path) -> None:
    if not 1 <= len(files) <= _MOST_FILES:
        raise ServiceError(
            Reason.INVALID_REQUEST,
            f"{len(files)} files were announced: give one file with features and targets, or two, features first",
        )
    announced, free = sum(file.size_bytes for file in files), shutil.disk_usage(folder).free
    if announced > free - _RESERVE_BYTES:
        raise ServiceError(
            Reason.TOO_LARGE,
            f"the files have {announced:,} bytes, but the service's disk has {free:,} bytes free, of which it keeps "
            f"{_RESERVE_BYTES:,} for itself: make room there",
        )
