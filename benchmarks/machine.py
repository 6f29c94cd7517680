"""The machine that is measured on: what it is, and whether it has anything else to do."""

import os
import platform
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click
import numpy as np
from threadpoolctl import threadpool_info

__all__ = ["Calm", "Stage", "all_cpu_seconds", "describe"]

# Fewer CPUs in use than this count as calm; an idle service with its Ray takes about 0.1.
_CALM_CPUS = 0.3
_LOOK_SECONDS = 1.0

_DISTRIBUTIONS = ("nablad", "grpcio", "ray", "torch", "scikit-learn")


@dataclass(frozen=True)
class Calm:
    """State of the machine just before a measurement.

    Attributes:
        cpus_in_use: Of all CPUs, over the last second.
        load: Load average over a minute; it remembers the measurement before.
        waited_s: Seconds that were waited for it.
        disturbed: Whether the wait was in vain.
    """

    cpus_in_use: float
    load: float
    waited_s: float
    disturbed: bool


class Stage:
    """Stage for one measurement after the other, each on a calm machine.

    Attributes:
        looks: What was going on before each of them.
    """

    def __init__(self, patience_s: float) -> None:
        """`patience_s`: seconds to wait for a calm machine before each measurement; 0 does not even look."""
        self.looks: list[Calm] = []
        self._patience_s = patience_s

    def clear(self, what: str) -> None:
        """Says what comes, and waits until the CPUs have nothing to do, or the patience ends."""
        if self._patience_s:
            self.looks.append(_await_calm(self._patience_s))
        click.echo(f"{what} …", err=True)


def _await_calm(patience_s: float) -> Calm:
    begun_s = time.monotonic()
    while True:
        in_use = _cpus_in_use()
        waited_s = time.monotonic() - begun_s
        if in_use < _CALM_CPUS or waited_s > patience_s:
            return Calm(in_use, os.getloadavg()[0], waited_s, in_use >= _CALM_CPUS)


def describe(distributions: Sequence[str] = _DISTRIBUTIONS) -> dict[str, str]:
    """Describes what decides the figures: hardware and versions.

    Args:
        distributions: Those whose versions matter.
    """
    model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="ascii"), re.MULTILINE)
    return {
        "CPU": model[1] if model else platform.machine(),
        "CPUs": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "numpy": np.__version__,
        "BLAS": ", ".join(sorted(_blas_libraries())),
        **{name: _version(name) for name in distributions},
    }


def _version(distribution: str) -> str:
    """Not every work has rivals that need all of them."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def _blas_libraries() -> set[str]:
    return {
        f"{library['internal_api']} {library['version']} ({library.get('architecture', 'unknown')} kernels)"
        for library in threadpool_info()
        if library["user_api"] == "blas"
    }


def _cpus_in_use() -> float:
    before = all_cpu_seconds()
    time.sleep(_LOOK_SECONDS)
    return (all_cpu_seconds() - before) / _LOOK_SECONDS


def all_cpu_seconds() -> float:
    """CPU that anything on this machine has used since its start; waiting for a disk is not use."""
    user, nice, system, _, _, *others = map(int, Path("/proc/stat").read_text(encoding="ascii").split()[1:9])
    return (user + nice + system + sum(others)) / os.sysconf("SC_CLK_TCK")
