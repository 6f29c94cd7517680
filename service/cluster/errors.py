"""Errors of Ray and of the processes on it, with the last lines that a lost process wrote to its log."""

import os
import re
from collections import deque
from pathlib import Path
from typing import Final

__all__ = [
    "MOST_LINES",
    "ClusterError",
    "ClusterLostError",
    "ProcessError",
    "describe_error",
    "last_lines",
    "read_log_end",
]

MOST_LINES: Final = 20
"""Largest number of log lines that an error carries."""

# Holds more than MOST_LINES lines of usual length; a longer line is cut.
_END_BYTES: Final = 64 << 10
_LINE_CHARACTERS: Final = 400

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
# Lines that Ray adds to the log of every process, and those of its C++ part below FATAL.
_NOISE = re.compile(
    r":(job_id|actor_name|task_name):|\(raylet\)|Extension modules: |\[[-0-9]{10} [0-9:,]+ [DIWE] \d+ \d+\] "
)

# Ray's message if a class of the service cannot be imported on the node where its process was started.
_NO_CODE_MARK: Final = "failed to import on the worker"
_NO_CODE: Final = "every node of Ray needs the same nablad as the service, with its extra `server`"


class ClusterError(Exception):
    """Ray could not be started or reached; the message says why and what to do."""


class ClusterLostError(Exception):
    """Ray is away, and the service tries to get it back. The message says why it is away."""


class ProcessError(Exception):
    """A process of a job has failed; the message says how.

    Attributes:
        cause: Exception that its program raised; None if the process itself is gone.
        error_lines: Last lines that it wrote to its log; empty if there are none.
    """

    def __init__(self, reason: str, cause: Exception | None, error_lines: str) -> None:
        super().__init__(reason)
        self.cause = cause
        self.error_lines = error_lines


def read_log_end(path: str, pid: int) -> str:
    """Returns the end of the log of a process; an empty text if it cannot be read.

    Ray names a log ``worker-ID-JOB-PID.err``. The ID belongs to the process, so that the log of a replacement is found
    by its process id alone.

    Args:
        path: Log of the first process of the actor.
        pid: Id of the process.
    """
    log = next(Path(path).parent.glob(f"worker-*-{pid}.err"), Path(path))
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - _END_BYTES, 0))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def last_lines(text: str, most: int = MOST_LINES) -> list[str]:
    """Returns the last lines of a log, without colours, Ray's own lines, and empty lines at both ends."""
    lines = (_ANSI.sub("", line).rstrip()[:_LINE_CHARACTERS] for line in text.splitlines())
    kept = deque((line for line in lines if not _NOISE.match(line)), most)
    while kept and not kept[0]:
        kept.popleft()
    while kept and not kept[-1]:
        kept.pop()
    return list(kept)


def describe_error(error: BaseException) -> str:
    """Returns the type and the last line of an error; the lines before say where it was raised.

    Ray's guesses at common causes are left out.
    """
    lines = last_lines(str(error).partition(" Some common causes include")[0])
    described = f"{type(error).__name__}: {lines[-1].strip() if lines else 'no message'}"
    return f"{described}; {_NO_CODE}" if _NO_CODE_MARK in str(error) else described
