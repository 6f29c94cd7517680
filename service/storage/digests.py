"""Digests of stored files and of rows of the database."""

import stat
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from nablad.files import CHUNK_BYTES

__all__ = ["is_intact", "open_stored", "row_digest", "sha256_of"]


def open_stored(path: Path) -> BinaryIO:
    """Opens a regular file for reading, because the opening of a pipe would wait for ever.

    Raises:
        OSError: The file is missing, not regular, or cannot be read.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(f"{path} is not a regular file")
    return path.open("rb")


def sha256_of(files: Iterable[BinaryIO]) -> str:
    """Returns the SHA-256 of the rest of the files, joined, in hexadecimal; reads in bounded pieces."""
    digest = sha256()
    for file in files:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def row_digest(values: Sequence[object]) -> bytes:
    """Returns the digest of a row without its digest: 8 bytes of SHA-256.

    Covers the type of each value too. `ascii` has one form of the values before the body, in every release of Python,
    and that form shows where they end.
    """
    body = values[-1]
    content = ascii(values[:-1]).encode() + (body if isinstance(body, bytes) else ascii(body).encode())
    return sha256(content).digest()[:8]


def is_intact(row: Sequence[object]) -> bool:
    """Returns whether a row, digest last, is what was written."""
    return isinstance(row[-2], bytes) and bool(row[-1] == row_digest(row[:-1]))
