"""The document of a soak, and what it takes for growth."""

from dataclasses import replace
from pathlib import Path

from benchmarks.soak.reading import Files, Processes, Reading
from benchmarks.soak.report import grown, markdown
from benchmarks.soak.run import Soak

_WHO = ("daemon", "cluster process", "Ray actors", "Ray")
_WHERE = ("shared memory", "checkpoints/", "models/", "staging/", "database", "Ray's logs")


def _reading(jobs: int, **daemon: int) -> Reading:
    counts = Processes(1, 10**8, 20, 10)
    processes = dict.fromkeys(_WHO, counts) | {"daemon": replace(counts, **daemon)}
    return Reading(jobs, processes, dict.fromkeys(_WHERE, Files(jobs, jobs)) | {"staging/": Files(0, 0)})


def test_more_descriptors_are_growth_and_fewer_are_not() -> None:
    """The first reading is compared with the last one."""
    readings = [_reading(10), _reading(20, descriptors=30), _reading(30, descriptors=23, threads=9)]
    assert grown(Soak([replace(each, files={**each.files, "shared memory": Files(0, 0)}) for each in readings])) == {
        "daemon: descriptors": 3
    }


def test_files_that_jobs_leave_are_told_and_are_no_growth() -> None:
    """Shared memory is what must not stay."""
    assert grown(Soak([_reading(10), _reading(12)])) == {"shared memory: files": 2}


def test_every_figure_is_in_the_document() -> None:
    """With what a job adds, and the seconds of jobs."""
    soak = Soak([_reading(1), _reading(3, resident_bytes=10**8 + 4000)], [2.0, 3.0, 3.0], _reading(3))
    document = markdown(soak, {"CPUs": "2"})
    assert "| daemon: resident bytes          | 100,000,000 | 100,004,000 |     +2,000.0 | 100,000,000 |" in document
    assert all(name in document for name in soak.readings[0].figures())
    assert "3.00" in document


def test_files_are_counted_below_a_folder(tmp_path: Path) -> None:
    """By name if wanted; links and folders are none."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "one.txt").write_bytes(b"123")
    (tmp_path / "two").write_bytes(b"45")
    (tmp_path / "link").symlink_to(tmp_path / "two")
    assert Files.below(tmp_path) == Files(2, 5)
    assert Files.below(tmp_path, "*.txt") == Files(1, 3)
