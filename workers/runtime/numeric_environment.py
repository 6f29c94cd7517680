"""What rounds numbers on this host: where it is the same, so are the bits."""

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

from nablad.v1 import jobs_pb2 as jobs_pb

__all__ = ["numeric_environment"]

_CPU_INFO = Path("/proc/cpuinfo")


def numeric_environment() -> jobs_pb.Arithmetic:
    """What this process computes with."""
    return jobs_pb.Arithmetic(cpu=_cpu(), blas=_blas(), numpy=np.__version__)


def _cpu() -> str:
    """The model name of the CPU; its architecture where the system does not tell more."""
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.machine()


def _blas() -> str:
    """Name, version and kernel of numpy's BLAS: other packages may have brought their own into the process."""
    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    of_numpy = [library for library in libraries if "numpy" in Path(library["filepath"]).parent.as_posix()]
    return ", ".join(sorted({_describe(library) for library in of_numpy or libraries}))


def _describe(library: Mapping[str, Any]) -> str:
    words = (library["internal_api"], library["version"], library.get("architecture"))
    return " ".join(word for word in words if word)
