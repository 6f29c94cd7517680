"""Files: atomic replacement, names in errors, and the size of a chunk on the wire."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

__all__ = ["CHUNK_BYTES", "naming", "replacing", "sync_directory"]

CHUNK_BYTES = 1 << 20
"""Largest part of a file or of a parameter vector in one message, in bytes."""


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Adds the file's name to an OSError without one, because read and write raise such errors."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = os.fspath(path)
        raise


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yields a temporary file. If the block succeeds, syncs it and atomically replaces ``path``; else removes it."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_directory(directory: Path) -> None:
    """Syncs the entries of a directory to disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
