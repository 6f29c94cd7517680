"""Files that may be gzipped, as streams of bytes that are inflated as they are read."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase

from service.datasets.errors import DatasetError
from service.datasets.source import StagedFile

_GZIP_MAGIC = b"\x1f\x8b"


@contextmanager
def opened(file: StagedFile) -> Iterator[BufferedIOBase]:
    """The bytes of the file, inflated if its name ends in .gz.

    Raises:
        DatasetError: Its name and its first bytes disagree about that, or it does not inflate.
    """
    with file.path.open("rb") as plain:
        gzipped = plain.read(2) == _GZIP_MAGIC
        plain.seek(0)
        _check_ending(file, gzipped)
        if not gzipped:
            yield plain
            return
        with gzip.GzipFile(fileobj=plain) as inflated, _inflating(file):
            yield inflated


@contextmanager
def _inflating(file: StagedFile) -> Iterator[None]:
    try:
        yield
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DatasetError(f"{file.name} is damaged: it does not inflate as gzip ({error}); copy it again.") from error
    except EOFError as error:
        raise DatasetError(f"{file.name} is truncated: it breaks off within its gzip data; copy it again.") from error


def _check_ending(file: StagedFile, gzipped: bool) -> None:
    if file.path.stat().st_size == 0:
        raise DatasetError(f"{file.name} is empty, but numbers are expected; copy it again.")
    if gzipped and not file.filename.lower().endswith(".gz"):
        raise DatasetError(f"{file.name} is gzipped, but its name does not end in .gz; rename it.")
    if not gzipped and file.filename.lower().endswith(".gz"):
        raise DatasetError(f"{file.name} is not gzipped, but its name ends in .gz; rename it or copy it again.")
