"""Crowds of watchers."""

import pytest

from benchmarks.load.crowd import CrowdSize


@pytest.mark.parametrize(("watchers", "silent", "processes"), [(1000, 100, 2), (7, 3, 4), (5, 0, 1), (1, 1, 3)])
def test_a_crowd_is_spread_over_its_processes(watchers: int, silent: int, processes: int) -> None:
    """Everybody is in one of them; readers and silent ones are shared out evenly, each for themselves."""
    size = CrowdSize(watchers, silent, processes)
    readers, silent_ones = zip(*(size.of_process(number) for number in range(processes)), strict=True)
    assert (sum(readers), sum(silent_ones)) == (watchers - silent, silent)
    assert max(max(shares) - min(shares) for shares in (readers, silent_ones)) <= 1
