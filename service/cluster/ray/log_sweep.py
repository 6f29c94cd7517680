"""Logs of processes that have ended: an embedded Ray writes five files for each and removes none."""

import logging
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

__all__ = ["KEPT_SECONDS", "LogSweep", "keep_swept"]

_log = logging.getLogger(__name__)

KEPT_SECONDS: Final = 600.0
"""Whoever looks for the end of a lost process finds it for so long."""

_LOOK_SECONDS: Final = 60.0
_NAME: Final = re.compile(r"(?:worker-|python-core-worker-|event_CORE_WORKER_|event_EXPORT_TASK_)(?:.*[-_])?(\d+)\.\w+")


def keep_swept(folder: Path) -> None:
    """Sweeps the logs of Ray's session in this folder now and then, on a thread that ends with the process."""
    logs = LogSweep(folder / "session_latest" / "logs", time.monotonic)

    def run() -> None:
        while True:
            time.sleep(_LOOK_SECONDS)
            logs.sweep()

    threading.Thread(target=run, name="log sweep", daemon=True).start()


class LogSweep:
    """Removes logs some time after it has seen that their processes have ended."""

    def __init__(self, logs: Path, clock: Callable[[], float]) -> None:
        """Has seen nothing yet.

        Args:
            logs: Their folder.
            clock: Monotonic seconds; the times of the files are as wrong as the time of day may be.
        """
        self._logs = logs
        self._clock = clock
        self._ended: dict[Path, float] = {}  # since when, by log

    def sweep(self) -> None:
        """Looks at all logs."""
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
