"""Uploads: files are sent to the service chunk by chunk."""

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
# (bytes sent so far, total bytes)
ProgressCallback = Callable[[int, int], None]


class ChunkedRequest(Protocol[Request_co]):
    """The type of a request that holds a chunk of bytes."""

    def __call__(self, *, chunk: bytes) -> Request_co:
        """Makes a request with this chunk."""


def describe_files(
    paths: Sequence[Path], target_column: str, target_kind: datasets_pb2.TargetKind.ValueType, classes: int
) -> datasets_pb2.DataFiles:
    """Describes files for the service, before their bytes are sent.

    Raises:
        OSError: A file is missing or is not one.
    """
    files = [datasets_pb2.DataFile(filename=_as_text(path.name), size_bytes=_size_bytes(path)) for path in paths]
    return datasets_pb2.DataFiles(files=files, target_column=target_column, target_kind=target_kind, classes=classes)


def _as_text(name: str) -> str:
    """Returns a name in UTF-8; other bytes are replaced, because only the ending of the name is used."""
    return name.encode(errors="replace").decode()


def _size_bytes(path: Path) -> int:
    found = path.stat()
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        # Checked before it is opened, because opening a pipe waits for its writer.
        sentence = "This is a pipe or a device, whose name and size say nothing; give a file, such as data.csv"
        raise OSError(errno.ESPIPE, sentence, os.fspath(path))
    with path.open("rb") as file:  # so that a folder or an unreadable file is refused now
        return file.seek(0, 2)


class Upload(Generic[Request_co]):
    """The requests of one upload: the header, then the bytes of the files; can be iterated once.

    gRPC iterates it on a thread of its own and cannot pass an exception from there to the caller. So the stream ends at
    an error, the service refuses it as incomplete, and ``error`` holds the cause.

    Attributes:
        error: Error while a file was read, if any.
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
        """Context in which the answers of the service at ``address`` are read.

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
