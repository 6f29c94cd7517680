"""Failpoints that are armed from outside."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.fuses import HITS, SERVICE_POINTS, Fuse, Fuses
from workers.runtime.failpoints import NAMES

ROOT = Path(__file__).parents[2]
PROGRAM = "import sys; from workers.runtime.failpoints import failpoint; [failpoint(sys.argv[1]) for _ in range(3)]"


def _dies(fuses: Fuses, name: str) -> bool:
    """Whether a process does that comes to a failpoint three times."""
    ran = subprocess.run([sys.executable, "-c", PROGRAM, name], cwd=ROOT, env=fuses.environment, check=False)
    assert ran.returncode in {0, -9}
    return ran.returncode != 0


def test_every_failpoint_is_somebodys() -> None:
    """Those that every job's processes pass have exact hits, those of the service have not."""
    assert sorted([*HITS, *SERVICE_POINTS]) == sorted(NAMES)


@pytest.mark.parametrize("fuse", [Fuse("worker.ordered", hit=2), Fuse("job.ending")])
def test_a_fuse_blows_once_each_time_that_it_is_armed(tmp_path: Path, fuse: Fuse) -> None:
    """And never else."""
    fuses = Fuses(tmp_path)
    assert not _dies(fuses, fuse.name)
    for _ in range(2):
        fuses.arm(fuse)
        assert not fuses.has_blown(fuse)
        assert _dies(fuses, fuse.name)
        assert fuses.has_blown(fuse)
        assert not _dies(fuses, fuse.name)


def test_a_hit_that_is_passed_does_not_come_again(tmp_path: Path) -> None:
    """So that who has gone on for longer is spared."""
    fuses = Fuses(tmp_path)
    fuses.arm(Fuse("worker.ordered", hit=7))
    assert not _dies(fuses, "worker.ordered")


def test_a_disarmed_fuse_does_not_blow(tmp_path: Path) -> None:
    """Nobody fails on purpose after the run that wanted it."""
    fuses = Fuses(tmp_path)
    fuses.arm(Fuse("job.ending"))
    fuses.disarm(Fuse("job.ending"))
    assert not _dies(fuses, "job.ending")
