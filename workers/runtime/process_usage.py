"""What a process has used of its host: CPU seconds, and memory."""

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["Usage", "UsageMeter", "own_usage"]

_LOOK_SECONDS: Final = 1.0
_STATM: Final = Path("/proc/self/statm")


class Usage(NamedTuple):
    """Of one process."""

    cpu_seconds: float
    """Of all its threads, since it began."""
    resident_memory_bytes: float
    """That it has in memory now."""


def own_usage() -> Usage:
    """Of this process."""
    resident_pages = int(_STATM.read_text(encoding="ascii").split()[1])
    return Usage(time.process_time(), resident_pages * resource.getpagesize())


class UsageMeter:
    """Tells what this process has used, as often as it is asked, and looks no more than once a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, look: Callable[[], Usage] = own_usage) -> None:
        """`clock` gives monotonic seconds, `look` what is told."""
        self._clock = clock
        self._look = look
        self._next_look = clock()
        self._usage = Usage(0.0, 0.0)

    def read(self) -> Usage:
        """What it had used when it was last looked at."""
        now = self._clock()
        if now >= self._next_look:
            self._next_look = now + _LOOK_SECONDS
            self._usage = self._look()
        return self._usage
