"""A task reaches the process that does it."""

import json
from pathlib import Path

from benchmarks.peers import __main__ as command
from benchmarks.peers.task import Task


def test_a_task_is_read_as_it_was_written(task: Task, tmp_path: Path) -> None:
    """Nothing of it is lost on the way."""
    written = Task(task.spec, task.folder, task.rows, processes=2, threads=3)
    written.write(tmp_path / "task.json")
    assert Task.read(tmp_path / "task.json") == written


def test_the_measurement_is_written_as_json(task: Task, tmp_path: Path) -> None:
    """The command finds the module, and its costs are in the result's file."""
    task.write(tmp_path / "task.json")
    command.main("numpy_single", str(tmp_path / "task.json"), str(tmp_path / "result.json"))
    result = json.loads((tmp_path / "result.json").read_text())
    assert len(result["costs"]) == len(result["samples_per_second"]) == 3
