"""Files on their way to the service, a chunk at a time."""

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from nablad.client.translation import translating
from nablad.files import CHUNK_BYTES, naming
from nablad.v1 import datasets_pb2

Request_co = TypeVar("Request_co", covariant=True)
# Bytes sent so far, bytes in all.
ProgressCallback = Callable[[int, int], None]


class ChunkedRequest(Protocol[Request_co]):
    """The type of a request that holds a chunk of bytes."""

    def __call__(self, *, chunk: bytes) -> Request_co:
        """A request with this chunk."""


def describe_files(
    paths: Sequence[Path], target_column: str, target_kind: datasets_pb2.TargetKind.ValueType, classes: int
) -> datasets_pb2.DataFiles:
    """What the service has to know of the files before their bytes come.

    Raises:
        OSError: A file is missing or is not one.
    """
    files = [datasets_pb2.DataFile(filename=_as_text(path.name), size_bytes=_size_bytes(path)) for path in paths]
    return datasets_pb2.DataFiles(files=files, target_column=target_column, target_kind=target_kind, classes=classes)


def _as_text(name: str) -> str:
    """A name as a message can carry it: bytes that are no UTF-8 are replaced; only its ending says anything."""
    return name.encode(errors="replace").decode()


def _size_bytes(path: Path) -> int:
    found = path.stat()
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        # Before it is opened: that of a pipe waits for whoever writes to it.
        sentence = "This is a pipe or a device, whose name and size say nothing; give a file, such as data.csv"
        raise OSError(errno.ESPIPE, sentence, os.fspath(path))
    with path.open("rb") as file:  # so that a folder, or a file that may not be read, is found out now
        return file.seek(0, 2)


class Upload(Generic[Request_co]):
    """The requests of one upload, to be iterated once: the header, then the bytes of the files.

    gRPC iterates it on a thread of its own and has no way to hand an exception from there to the caller. So the stream
    just ends at an error, which the service refuses as incomplete, and ``error`` holds what happened.

    Attributes:
        error: What went wrong while reading; None when nothing did.
    """

    def __init__(
        self,
        header: Request_co,
        paths: Sequence[Path],
        chunked: ChunkedRequest[Request_co],
        progress: ProgressCallback | None = None,
    ) -> None:
        self.error: Exception | None = None
        self._header = header
        self._paths = paths
        self._chunked = chunked
        self._progress = progress

    def __iter__(self) -> Iterator[Request_co]:
        yield self._header
        try:
            for chunk in self._chunks():
                yield self._chunked(chunk=chunk)
        except Exception as error:  # noqa: BLE001  # raised again by `answers`, on the caller's thread
            self.error = error

    def _chunks(self) -> Iterator[bytes]:
        total_bytes = sum(map(_size_bytes, self._paths))
        sent_bytes = 0
        for path in self._paths:
            with naming(path), path.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    if self._progress is not None:
                        self._progress(sent_bytes, total_bytes)
                    yield chunk
                    sent_bytes += len(chunk)

    @contextmanager
    def answers(self, address: str) -> Iterator[None]:
        """Where the answers of the service at ``address`` are read.

        Raises:
            OSError: A file could not be read.
            NablaError: The service refused.
        """
        try:
            with translating(address):
                yield
        finally:
            if self.error is not None:
                raise self.error
