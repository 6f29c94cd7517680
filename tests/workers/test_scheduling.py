"""How the threads that make the steps share the CPUs."""

import os
from concurrent.futures import ThreadPoolExecutor

from workers.scheduling import join_the_batch


def _join() -> int:
    join_the_batch()
    return os.sched_getscheduler(0)


def test_only_the_thread_that_joins_is_of_the_batch() -> None:
    """Whoever else runs in the process keeps its scheduling."""
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(_join).result() == os.SCHED_BATCH
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
