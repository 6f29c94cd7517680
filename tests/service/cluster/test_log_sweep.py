"""Logs that nobody needs any more."""

import os
from pathlib import Path

import pytest

from service.cluster.log_sweep import sweep

# No process has this id.
GONE = 2**22 + 1


@pytest.mark.parametrize(
    "name", ["worker-abc-01000000-{}.err", "python-core-worker-abc_{}.log", "events/event_CORE_WORKER_{}.log"]
)
def test_only_old_logs_of_processes_that_have_ended_go(tmp_path: Path, name: str) -> None:
    """Those of living processes stay, those that are young stay, and whatever is not a process's."""
    (tmp_path / "events").mkdir()
    old, living, young, other = names = [
        name.format(GONE), name.format(os.getpid()), name.format(GONE + 1), "gcs_server.out",
    ]  # fmt: skip
    for each in names:
        (tmp_path / each).touch()
    for each in (old, living, other):
        os.utime(tmp_path / each, (0, 0))
    sweep(tmp_path, before=1.0)
    assert [(tmp_path / each).exists() for each in (old, living, young, other)] == [False, True, True, True]
