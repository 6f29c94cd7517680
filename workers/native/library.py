"""The loaded native library, or the reason why there is none."""

import ctypes
from functools import cache
from pathlib import Path

from workers.native.compiler import LIBRARY, abi

__all__ = ["missing_reason", "native_abi", "native_library"]

_INSTALL_AGAIN = "run `pip install ./deploy/server` in nablad's source folder (`make native` in a checkout)"


def native_library() -> ctypes.CDLL | None:
    """Returns the library, or None if there is none that fits; `missing_reason` then says why.

    Calls of its functions release the interpreter's lock.
    """
    return _load_once()[0]


def native_abi() -> int:
    """Returns the digest of the sources of the loaded library; 0 if there is none."""
    return abi() if native_library() else 0


def missing_reason() -> str:
    """Returns why there is no native library and what to do, in one sentence; empty if it is loaded."""
    return _load_once()[1]


@cache
def _load_once() -> tuple[ctypes.CDLL | None, str]:
    return load_library(LIBRARY)


def load_library(path: Path) -> tuple[ctypes.CDLL | None, str]:
    """Loads the library in `path` if it was compiled from the sources that lie here.

    Returns:
        The library and an empty reason, or None and the reason.
    """
    if not path.exists():
        return None, (
            "no native library: nablad-server was installed where no C compiler worked; install gcc or clang, then "
            f"{_INSTALL_AGAIN}"
        )
    try:
        library = ctypes.CDLL(str(path))
        compiled_from = library.nablad_abi()
    except (OSError, AttributeError) as error:
        return None, f"no native library: {path} cannot be used ({error}); {_INSTALL_AGAIN}"
    if compiled_from != abi():
        return None, f"no native library: {path} was compiled from other sources than those beside it; {_INSTALL_AGAIN}"
    return library, ""
