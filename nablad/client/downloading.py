"""Downloads: a file from the service is written completely or not at all."""

import errno
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from nablad.errors import InternalError, InvalidRequestError
from nablad.files import naming, replacing

_SAFETENSORS = ".safetensors"
# Endings of formats that users expect here, and that are not supported yet.
_COMING = {".onnx": "ONNX"}


def export_target(path: Path, model_id: str, *, overwrite: bool) -> Path:
    """Returns the file that a model is to be written to: ``path``, or one named after the model in that folder.

    Args:
        path: A file whose ending names the format, or an existing folder.
        model_id: Id of the model.
        overwrite: Allow an existing file.

    Raises:
        InvalidRequestError: The ending is not that of a format.
        FileExistsError: The file exists already.
        FileNotFoundError: The folder is missing.
    """
    target = path / f"{model_id}{_SAFETENSORS}" if path.is_dir() else path
    ending = target.suffix.lower()
    if ending != _SAFETENSORS:
        raise InvalidRequestError(
            f"{target}: the ending of a file says its format, and {_objection(ending)}. Models are exported as "
            f"{_SAFETENSORS}: give {target.stem}{_SAFETENSORS}, or a folder that is there."
        )
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "There is no such folder", str(target.parent))
    if target.exists() and not overwrite:
        raise FileExistsError(
            errno.EEXIST, "There is a file already; give another name, or overwrite it (--overwrite)", str(target)
        )
    return target


def _objection(ending: str) -> str:
    if ending in _COMING:
        return f"{_COMING[ending]} is not supported yet"
    return f'"{ending}" is the ending of no format that there is' if ending else "there is no ending"


def write_file(path: Path, chunks: Iterable[bytes], sha256: str) -> None:
    """Writes a file from its chunks; after an error, everything is as before.

    Args:
        path: Path of the file; an existing file is replaced, a link to one is followed.
        chunks: Content of the file.
        sha256: Digest of the content, in hexadecimal.

    Raises:
        InternalError: The content has another digest.
        OSError: The file cannot be written.
    """
    digest = hashlib.sha256()
    place = Path(os.path.realpath(path))
    if place.exists() and not place.is_file():
        raise OSError(errno.EINVAL, "There is something that is not a file; choose another name", os.fspath(path))
    with naming(path), replacing(place) as file:
        for chunk in chunks:
            digest.update(chunk)
            file.write(chunk)
        if digest.hexdigest() != sha256:
            raise InternalError(
                f"What came for {path.name} is damaged: its SHA-256 is {digest.hexdigest()}, not {sha256}. "
                "Nothing was written; try again, and look at the service's disk if it stays so."
            )
