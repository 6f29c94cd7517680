"""Processes that have to end by themselves."""

import os
import select
import threading
import time
from collections.abc import Mapping

__all__ = ["Departure"]

_SECONDS = 60.0


class Departure:
    """Looks, beside everything else, how long some processes stay.

    Attributes:
        pids: Of those that were there.
    """

    def __init__(self, processes: Mapping[int, str]) -> None:
        """Opens them at once, so that a process that gets the number of one of them is not mistaken for it.

        Args:
            processes: Their command lines by process id.
        """
        self._opened = {pid: descriptor for pid in processes if (descriptor := _open(pid)) is not None}
        self.pids = set(self._opened)
        self._lines = dict(processes)
        self._left: list[str] = []
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def left(self) -> list[str]:
        """Those who were still there after 60 s, as sentences; waits until that is known."""
        self._thread.join()
        return self._left

    def _wait(self) -> None:
        begin = time.monotonic()
        for pid, descriptor in self._opened.items():
            ended, _, _ = select.select([descriptor], [], [], max(0.0, begin + _SECONDS - time.monotonic()))
            if not ended:
                self._left.append(f"process {pid} was there {_SECONDS:.0f} s later: {self._lines[pid].strip()[:100]}")
            else:
                self.pids.discard(pid)
            os.close(descriptor)


def _open(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None
