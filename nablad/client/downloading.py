"""A file on its way from the service: all of it, or nothing."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from nablad.errors import InternalError
from nablad.files import replacing


def write_file(path: Path, chunks: Iterable[bytes], sha256: str) -> None:
    """Writes a file from its chunks, or leaves everything as it was.

    Args:
        path: Where the file will be; one that is there already is replaced.
        chunks: Its bytes.
        sha256: What they must come to, in hexadecimal.

    Raises:
        InternalError: They come to something else.
        OSError: The file cannot be written.
    """
    digest = hashlib.sha256()
    with replacing(path) as file:
        for chunk in chunks:
            digest.update(chunk)
            file.write(chunk)
        if digest.hexdigest() != sha256:
            raise InternalError(
                f"What came for {path.name} is damaged: its SHA-256 is {digest.hexdigest()}, not {sha256}. "
                "Nothing was written; try again, and look at the service's disk if it stays so."
            )
