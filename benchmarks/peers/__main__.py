"""One run of a contestant, in this process: ``python -m benchmarks.peers NAME TASK RESULT``."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from benchmarks.figures import Measurement
from benchmarks.peers.task import Task


def main(name: str, task_file: str, result_file: str) -> None:
    """Reads the task, does it, and writes the measurement as JSON."""
    train: Callable[[Task], Measurement] = import_module(f"benchmarks.peers.{name}").train
    measurement = train(Task.read(Path(task_file)))
    Path(result_file).write_text(json.dumps(asdict(measurement)), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
