"""The memory of a job's processes, as the kernel tells it."""

import os
from pathlib import Path

import pytest

from benchmarks.memory import LIMITS, MemoryWatch, ProcessMemory, descendants, process_memory, role_of


def _process(proc: Path, pid: int, parent: int, command: bytes, peak_kb: int = 0, pss_kb: int = 0) -> None:
    folder = proc / str(pid)
    folder.mkdir()
    (folder / "stat").write_text(f"{pid} (a) b) S {parent} 1 1")
    (folder / "cmdline").write_bytes(command)
    (folder / "status").write_text(f"Name:\tx\nVmHWM:\t  {peak_kb} kB\nVmRSS:\t 1 kB\n")
    (folder / "smaps_rollup").write_text(f"00-ff ---p\nRss: 9 kB\nPss: {pss_kb} kB\nPss_Dirty: 1 kB\n")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """10 is the root, 11 its child, 12 and 13 the job; 20 is a job of somebody else."""
    _process(tmp_path, 10, 1, b"python")
    _process(tmp_path, 11, 10, b"raylet")
    _process(tmp_path, 12, 11, b"ray::_ParameterServerProcess.run\0", 2000, 1000)
    _process(tmp_path, 13, 11, b"ray::_WorkerProcess.run\0", 3000, 500)
    _process(tmp_path, 20, 1, b"ray::_WorkerProcess.run\0", 9000, 9000)
    return tmp_path


def test_descendants_are_found_at_any_depth(proc: Path) -> None:
    """Children and their children, but neither the root nor strangers."""
    assert sorted(descendants(10, proc)) == [11, 12, 13]


def test_processes_are_known_by_their_names(proc: Path) -> None:
    """Those of the job by what they are, others not at all."""
    assert [role_of(pid, proc) for pid in (11, 12, 13)] == [None, "parameter server", "worker"]


def test_the_figures_are_those_of_the_kernel(proc: Path) -> None:
    """In bytes."""
    assert process_memory(12, proc) == ProcessMemory(peak=2000 * 1024, proportional=1000 * 1024)


def test_a_watch_keeps_the_largest_figures(proc: Path) -> None:
    """Of every look, and of all processes of a role; processes of somebody else do not count."""
    watch = MemoryWatch()
    watch.look(10, proc)
    (proc / "13" / "smaps_rollup").write_text("Pss: 400 kB\n")
    _process(proc, 14, 11, b"ray::_WorkerProcess.run\0", 2500, 600)
    watch.look(10, proc)
    assert watch.largest("worker") == ProcessMemory(peak=3000 * 1024, proportional=600 * 1024)


def test_a_process_that_ends_meanwhile_is_passed_over(proc: Path) -> None:
    """Its files are gone, or empty of figures, as a zombie's are."""
    (proc / "12" / "status").unlink()
    (proc / "13" / "status").write_text("Name:\tx\n")
    watch = MemoryWatch()
    watch.look(10, proc)
    assert not any(watch.seen.values())


def test_this_process_has_memory() -> None:
    """The files of the real kernel are read."""
    memory = process_memory(os.getpid())
    assert memory.peak > 1_000_000
    assert 0 < memory.proportional <= memory.peak


def test_limits_grow_with_weights_and_rows() -> None:
    """A base, so many times the weights, and the rows for workers alone."""
    assert LIMITS["parameter server"].bytes(10, 1000) == 120_000_040
    assert LIMITS["worker"].bytes(10, 1000) == 170_001_050
