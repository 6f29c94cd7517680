"""What the kernel says of a process."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

__all__ = ["all_cpu_seconds", "cpu_seconds", "resident_bytes", "threads"]

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PER_KIB = 1024


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU that the processes have used since their start, all threads together; none for those that have ended."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            # The command's name, in brackets, may hold anything.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / _TICKS_PER_SECOND


def all_cpu_seconds() -> float:
    """CPU that anything on this machine has used since its start; waiting for a disk is not use."""
    user, nice, system, _, _, *others = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + sum(others)) / _TICKS_PER_SECOND


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in RAM."""
    return _status(pid, "VmRSS:") * _PER_KIB


def threads(pid: int) -> int:
    """Threads of a process."""
    return _status(pid, "Threads:")


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise ProcessLookupError(f"/proc/{pid}/status says no {name.rstrip(':')}: the process has ended")
