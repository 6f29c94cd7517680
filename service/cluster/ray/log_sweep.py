"""Log sweep: removes the logs of ended processes. An embedded Ray writes five for each process and removes none."""

import logging
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

__all__ = ["KEPT_SECONDS", "LogSweep", "start_log_sweep"]

_log = logging.getLogger(__name__)

KEPT_SECONDS: Final = 600.0
"""Seconds for which the log of an ended process is kept, because its last lines may be needed."""

_SWEEP_SECONDS: Final = 60.0
_NAME: Final = re.compile(r"(?:worker-|python-core-worker-|event_CORE_WORKER_|event_EXPORT_TASK_)(?:.*[-_])?(\d+)\.\w+")


def start_log_sweep(folder: Path) -> None:
    """Starts a thread that sweeps the logs of Ray's session in this folder every minute."""
    logs = LogSweep(folder / "session_latest" / "logs", time.monotonic)

    def run() -> None:
        while True:
            time.sleep(_SWEEP_SECONDS)
            logs.sweep()

    threading.Thread(target=run, name="log sweep", daemon=True).start()


class LogSweep:
    """Sweep that removes a log some minutes after it has found its process ended."""

    def __init__(self, logs: Path, clock: Callable[[], float]) -> None:
        """Prepares the sweep.

        Args:
            logs: Folder of the logs.
            clock: Returns monotonic seconds. The times of the files are not used, because the time of day may be wrong.
        """
        self._logs = logs
        self._clock = clock
        self._ended: dict[Path, float] = {}  # since when, by log

    def sweep(self) -> None:
        """Checks all logs, and removes those whose processes ended long enough ago."""
        clock = self._clock()
        self._ended = {path: self._ended.get(path, clock) for path in self._logs.rglob("*") if _has_ended(path)}
        for path, since in self._ended.items():
            if clock - since >= KEPT_SECONDS:
                try:
                    path.unlink()
                except OSError as error:
                    _log.debug("the log %s cannot be removed: %s", path, error)


def _has_ended(path: Path) -> bool:
    """Returns whether a file is the log of a process that has ended."""
    found = _NAME.fullmatch(path.name)
    return found is not None and not Path("/proc", found.group(1)).exists()
