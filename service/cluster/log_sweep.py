"""Logs of processes that have ended: an embedded Ray writes five files for each and removes none."""

import logging
import re
import threading
import time
from pathlib import Path
from typing import Final

__all__ = ["keep_swept", "sweep"]

_log = logging.getLogger(__name__)

# Whoever looks for the end of a lost process finds it for so long.
_KEPT_SECONDS: Final = 600.0
_LOOK_SECONDS: Final = 60.0
_NAME: Final = re.compile(r"(?:worker-|python-core-worker-|event_CORE_WORKER_|event_EXPORT_TASK_)(?:.*[-_])?(\d+)\.\w+")


def keep_swept(folder: Path) -> None:
    """Sweeps the logs of Ray's session in this folder now and then, on a thread that ends with the process."""

    def run() -> None:
        while True:
            time.sleep(_LOOK_SECONDS)
            sweep(folder / "session_latest" / "logs", time.time() - _KEPT_SECONDS)

    threading.Thread(target=run, name="log sweep", daemon=True).start()


def sweep(logs: Path, before: float) -> None:
    """Removes the logs of processes that have ended, if nothing was written since `before`, in Unix seconds."""
    for path in logs.rglob("*"):
        found = _NAME.fullmatch(path.name)
        if found is None or Path("/proc", found.group(1)).exists():
            continue
        try:
            if path.stat().st_mtime < before:
                path.unlink()
        except OSError as error:
            _log.debug("the log %s cannot be removed: %s", path, error)
