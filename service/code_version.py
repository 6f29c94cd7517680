"""Which code computes."""

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

import workers

__all__ = ["code_version"]

_DIGITS = 12


@cache
def code_version() -> str:
    """The release, and the beginning of a SHA-256 over the sources that make steps: ``0.1.0+4b1d6f0c52aa``."""
    digest = hashlib.sha256()
    for root in (Path(workers.__file__).parent, Path(__file__).parent / "parameter_server"):
        for file in sorted(root.rglob("*.py")):
            digest.update(f"{file.relative_to(root)}\0".encode())
            digest.update(file.read_bytes())
    return f"{version('nablad')}+{digest.hexdigest()[:_DIGITS]}"
