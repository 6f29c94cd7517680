"""The last lines that a process wrote to its standard error, as far as they tell a person something."""

import os
import re
from collections import deque
from pathlib import Path
from typing import Final

__all__ = ["MOST_LINES", "last_lines", "read_end", "sentence"]

MOST_LINES: Final = 20
"""So many are kept."""

# More than so many lines of usual length; a longer line keeps its beginning.
_END_BYTES: Final = 64 << 10
_LINE_CHARACTERS: Final = 400

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
# What Ray writes into the log of every process, and the lines of its C++ part below FATAL.
_NOISE = re.compile(
    r":(job_id|actor_name|task_name):|\(raylet\)|Extension modules: |\[[-0-9]{10} [0-9:,]+ [DIWE] \d+ \d+\] "
)

# What Ray says when a class of the service cannot be imported where its process was started.
_NO_CODE_MARK: Final = "failed to import on the worker"
_NO_CODE: Final = "every node of Ray needs the same nablad as the service, with its extra `server`"


def read_end(path: str, pid: int) -> str:
    """The end of the log of a process; nothing if it cannot be read.

    Args:
        path: The log of the first process of its actor. Ray calls it ``worker-ID-JOB-PID.err``, and ID is the process's
            own, so that only a look finds the log of another one.
        pid: The process.
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
    """The last lines without colours, Ray's own lines and empty ones at both ends."""
    lines = (_ANSI.sub("", line).rstrip()[:_LINE_CHARACTERS] for line in text.splitlines())
    kept = deque((line for line in lines if not _NOISE.match(line)), most)
    while kept and not kept[0]:
        kept.popleft()
    while kept and not kept[-1]:
        kept.pop()
    return list(kept)


def sentence(error: BaseException) -> str:
    """What an error says, without what Ray guesses: its last line; the lines before say where."""
    lines = last_lines(str(error).partition(" Some common causes include")[0])
    said = f"{type(error).__name__}: {lines[-1].strip() if lines else 'no message'}"
    return f"{said}; {_NO_CODE}" if _NO_CODE_MARK in str(error) else said
