"""Files that a client sent: their bytes, inflated if they are gzipped, and the errors about them.

DatasetError
└── DatasetTooLargeError     more than the service accepts, or than its disk holds
"""

import gzip
import unicodedata
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

_GZIP_MAGIC = b"\x1f\x8b"


class DatasetError(ValueError):
    """The files cannot become a data set.

    The message is one sentence: what was expected, what came, what to do. It names files as the client named them.
    """


class DatasetTooLargeError(DatasetError):
    """The files hold more than the service accepts, or than its disk has room for."""


def quoted(text: str, longest: int = 80) -> str:
    """Returns ``text`` for a message: in quotes, on one line, without control characters, cut after ``longest``."""
    clean = "".join("?" if unicodedata.category(letter)[0] == "C" else letter for letter in text[: longest + 1])
    return f"'{clean}'" if len(clean) <= longest else f"'{clean[:longest]}…'"


@dataclass(frozen=True)
class StagedFile:
    """A file that a client has sent.

    Attributes:
        filename: Name that the client gave. Messages show it, and its ending tells the format. Never used as a path.
        path: Path of the file on this machine.
    """

    filename: str
    path: Path

    @property
    def name(self) -> str:
        """The file name as messages show it."""
        return quoted(self.filename)


@contextmanager
def open_inflated(file: StagedFile) -> Iterator[BufferedIOBase]:
    """Opens a file for reading; if its name ends in .gz, its bytes are inflated as they are read.

    Raises:
        DatasetError: The name and the first bytes do not agree about gzip, or the file does not inflate.
    """
    with file.path.open("rb") as plain:
        gzipped = plain.read(2) == _GZIP_MAGIC
        plain.seek(0)
        _require_matching_ending(file, gzipped)
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


def _require_matching_ending(file: StagedFile, gzipped: bool) -> None:
    if file.path.stat().st_size == 0:
        raise DatasetError(f"{file.name} is empty, but numbers are expected; copy it again.")
    if gzipped and not file.filename.lower().endswith(".gz"):
        raise DatasetError(f"{file.name} is gzipped, but its name does not end in .gz; rename it.")
    if not gzipped and file.filename.lower().endswith(".gz"):
        raise DatasetError(f"{file.name} is not gzipped, but its name ends in .gz; rename it or copy it again.")
