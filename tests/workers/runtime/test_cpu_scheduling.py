"""How the threads that make the steps share the CPUs."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from workers.runtime.cpu_scheduling import use_batch_scheduling


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

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    use_batch_scheduling()
