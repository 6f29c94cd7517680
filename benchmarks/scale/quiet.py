"""Times on a machine that others use too: what disturbs a measurement only ever adds to it."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from benchmarks.machine import Stage

__all__ = ["Quiet", "quiet", "quiet_index", "repeated"]

# Fewer CPUs in use by others do not disturb; the kernel's own work is among them.
_OTHERS_CPUS = 0.1

_Value = TypeVar("_Value")


class Quiet:
    """Measures again what was disturbed.

    Attributes:
        others_cpus: How many CPUs others had in use meanwhile, for each measurement.
    """

    def __init__(self, stage: Stage, attempts: int) -> None:
        """`attempts`: the most of each measurement."""
        self.others_cpus: list[float] = []
        self._stage = stage
        self._attempts = attempts

    def measure(self, what: str, function: Callable[[], _Value]) -> _Value:
        """What a function measures while others leave the machine alone, or disturb it the least.

        Args:
            what: Is said before.
            function: Measures; processes that it starts are waited for.
        """
        best: tuple[float, _Value] | None = None
        for _ in range(self._attempts):
            self._stage.clear(what)
            begun, used = time.monotonic(), _others_seconds()
            value = function()
            others_cpus = (_others_seconds() - used) / (time.monotonic() - begun)
            if best is None or others_cpus < best[0]:
                best = others_cpus, value
            if others_cpus < _OTHERS_CPUS:
                break
        assert best
        self.others_cpus.append(best[0])
        return best[1]


def quiet_index(values: Sequence[float]) -> int:
    """Where the lower quartile is: of four measurements in a row, one may be expected to be left alone."""
    return sorted(range(len(values)), key=values.__getitem__)[len(values) // 4]


def quiet(values: Sequence[float]) -> float:
    """The lower quartile."""
    return values[quiet_index(values)]


def repeated(function: Callable[[], object], seconds: float, at_least: int = 5) -> float:
    """What a call takes, in seconds: called again and again for so many seconds, after once to warm up."""
    function()
    taken: list[float] = []
    while len(taken) < at_least or sum(taken) < seconds:
        begun = time.perf_counter()
        function()
        taken.append(time.perf_counter() - begun)
    return quiet(taken)


def _others_seconds() -> float:
    """CPU seconds of everybody but this process and the children it has waited for, from some time on."""
    fields = map(int, Path("/proc/stat").read_text(encoding="ascii").split()[1:9])
    user, nice, system, _, _, *interrupts = fields  # idle, and waiting for a disk, is not use
    own = os.times()
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK") - sum(own[:4])
