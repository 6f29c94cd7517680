"""The host: what rounds numbers on it, and how threads share its CPUs."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workers.runtime import host as host_module
from workers.runtime.host import numeric_environment, use_batch_scheduling


def _library(filepath: str, version: str, **others: str) -> dict[str, Any]:
    return {"user_api": "blas", "internal_api": "openblas", "filepath": filepath, "version": version, **others}


def test_it_is_the_same_whenever_it_is_asked_for() -> None:
    """And no part of it is left out on this host."""
    told = numeric_environment()
    assert told == numeric_environment()
    assert told.cpu
    assert told.blas
    assert told.numpy == np.__version__


LIBRARIES = [
    ([_library("/x/numpy.libs/a.so", "0.3", architecture="SkylakeX")], "openblas 0.3 SkylakeX"),
    (
        [_library("/x/scipy.libs/b.so", "0.2", architecture="Zen"), _library("/x/numpy.libs/a.so", "0.3")],
        "openblas 0.3",
    ),
    ([_library("/usr/lib/libblas.so", "0.1", architecture="Haswell")], "openblas 0.1 Haswell"),
    ([_library("/usr/lib/b.so", "2"), _library("/usr/lib/a.so", "1")], "openblas 1, openblas 2"),
    ([{"user_api": "openmp", "internal_api": "openmp", "filepath": "/x/gomp.so", "version": None}], ""),
]


@pytest.mark.parametrize(("libraries", "told"), LIBRARIES)
def test_the_blas_is_numpys(monkeypatch: pytest.MonkeyPatch, libraries: list[dict[str, Any]], told: str) -> None:
    """Whatever else was loaded into the process; all that there are where nobody can tell which one numpy takes."""
    monkeypatch.setattr(host_module, "threadpool_info", lambda: libraries)
    assert numeric_environment().blas == told


CPU_INFOS = [
    ("processor\t: 0\nmodel name\t: AMD EPYC 7B13\nflags\t: fpu\n\nmodel name\t: other\n", "AMD EPYC 7B13"),
    ("processor\t: 0\nBogoMIPS\t: 50\n", "aarch64"),
    (None, "aarch64"),
]


@pytest.mark.parametrize(("text", "told"), CPU_INFOS)
def test_the_cpu_is_told_by_its_model_or_else_its_architecture(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None, told: str
) -> None:
    """Not every kind of CPU has a model name, and not every system has the file."""
    file = tmp_path / "cpuinfo"
    if text is not None:
        file.write_text(text)
    monkeypatch.setattr(host_module, "_CPU_INFO", file)
    monkeypatch.setattr(host_module.platform, "machine", lambda: "aarch64")
    assert numeric_environment().cpu == told


def _join() -> int:
    use_batch_scheduling()
    return os.sched_getscheduler(0)


def test_only_the_thread_that_joins_is_of_the_batch() -> None:
    """Whoever else runs in the process keeps its scheduling."""
    before = os.sched_getscheduler(0)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(_join).result() == os.SCHED_BATCH
    assert os.sched_getscheduler(0) == before


def test_where_it_is_forbidden_everything_works_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """It only makes steps faster."""

    def reject(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", reject)
    use_batch_scheduling()
