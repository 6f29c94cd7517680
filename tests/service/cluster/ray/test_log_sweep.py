"""The log sweep: which logs are removed, and when."""

import os
from pathlib import Path

import pytest

from service.cluster.ray.log_sweep import KEPT_SECONDS, LogSweep

# No process has this id.
GONE = 2**22 + 1


@pytest.mark.parametrize(
    "name", ["worker-abc-01000000-{}.err", "python-core-worker-abc_{}.log", "events/event_CORE_WORKER_{}.log"]
)
def test_only_old_logs_of_processes_that_have_ended_go(tmp_path: Path, name: str) -> None:
    """Logs of living processes, of those that ended recently, and other files stay.

    The times of the files do not matter.
    """
    (tmp_path / "events").mkdir()
    old, living, young, other = names = [
        name.format(GONE), name.format(os.getpid()), name.format(GONE + 1), "gcs_server.out",
    ]  # fmt: skip
    clock = [1000.0]
    logs = LogSweep(tmp_path, lambda: clock[0])
    for each in (old, living, other):
        (tmp_path / each).touch()
        os.utime(tmp_path / each, (0, 0))
    logs.sweep()
    assert (tmp_path / old).exists()
    clock[0] += KEPT_SECONDS - 1
    (tmp_path / young).touch()
    os.utime(tmp_path / old, (2**32, 2**32))
    logs.sweep()
    assert (tmp_path / old).exists()
    clock[0] += 1
    logs.sweep()
    assert [(tmp_path / each).exists() for each in names] == [False, True, True, True]
