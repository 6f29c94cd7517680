"""Scratch folder: the place of files that end with the daemon, such as sockets and logs of an embedded Ray."""

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

__all__ = ["MOST_BYTES", "ScratchError", "scratch_folder"]

# Longest path of a Unix socket, in bytes, and the deepest path of a socket that Ray makes below the folder.
_SOCKET_BYTES: Final = 107
_DEEPEST: Final = "/r/session_2026-01-31_23-59-59_999999_4194304/sockets/plasma_store"
MOST_BYTES: Final = _SOCKET_BYTES - len(_DEEPEST)
"""Longest path of the folder, in bytes."""

# Directories of the environment come first, as usual; then those on a disk, which outlast the user's session.
_NAMES: Final = ("TMPDIR", "TEMP", "TMP")
_PLACES: Final = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 (the folder is for its owner alone)


class ScratchError(Exception):
    """No directory can hold the folder; the message says which were tried and what to set."""


def _is_usable(place: Path) -> bool:
    """Returns whether folders can be made there."""
    return place.is_dir() and os.access(place, os.W_OK | os.X_OK)


def scratch_folder(
    owner: Path, environment: Mapping[str, str] = os.environ, is_usable: Callable[[Path], bool] = _is_usable
) -> Path:
    """Returns the folder's path, the same at every start in the same environment, so that the next start sweeps it.

    Takes the first usable directory for temporary files whose path leaves room for the sockets below. Those of batch
    systems are often too long.

    Args:
        owner: The absolute path of the data directory; the folder is named after it.
        environment: Variables that name directories for temporary files.
        is_usable: Returns whether a folder can be made in a directory.

    Raises:
        ScratchError: There is no such directory.
    """
    name = f"nablad-{hashlib.sha256(bytes(owner)).hexdigest()[:12]}"
    named = [environment.get(variable, "") for variable in _NAMES]
    places = [*named, *_PLACES, environment.get("XDG_RUNTIME_DIR", "")]
    tried = {}
    for place in dict.fromkeys(Path(place) for place in places if place):
        folder = place / name
        if not place.is_absolute():
            tried[place] = "is not absolute"
        elif len(bytes(folder)) > MOST_BYTES:
            tried[place] = f"has more than {MOST_BYTES - len(name) - 1} bytes"
        elif not is_usable(place):
            tried[place] = "cannot be written"
        else:
            return folder
    reasons = ", ".join(f"{os.fsencode(place)!r} {why}".removeprefix("b") for place, why in tried.items())
    raise ScratchError(
        f"there is no place for Ray's sockets: {reasons}; set TMPDIR to a directory with a path of at most "
        f"{MOST_BYTES - len(name) - 1} bytes that this user can write"
    )
