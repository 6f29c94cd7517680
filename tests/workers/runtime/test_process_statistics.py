"""Statistics of a process: no second is lost or counted twice, and its usage is measured no more often than needed."""

import os
import time
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.runtime.process_statistics import Stopwatch, Usage, UsageMeter, own_usage


def test_cpu_seconds_are_those_of_the_process() -> None:
    """They grow by what it computes, and lie between what the system says before and after."""
    before = sum(os.times()[:2])
    first = own_usage()
    while time.process_time() <= first.cpu_seconds:
        pass
    second = own_usage()
    after = sum(os.times()[:2])
    tick = 2 / os.sysconf("SC_CLK_TCK")
    assert before - tick <= first.cpu_seconds < second.cpu_seconds <= after + tick


def test_resident_memory_is_that_of_the_process() -> None:
    """64 MiB that are written to are there."""
    before = own_usage().resident_memory_bytes
    block = np.ones(64 * 2**20, np.uint8)
    assert own_usage().resident_memory_bytes - before >= block.nbytes // 2


def test_the_process_is_looked_at_once_a_second() -> None:
    """However often the meter is asked; in between it tells what it saw."""
    clock, looks = SimpleNamespace(now=7.0), count(1)
    meter = UsageMeter(lambda: clock.now, lambda: Usage(next(looks), 4096))
    told = []
    for clock.now in (7.0, 7.5, 7.99, 8.0, 8.5, 20.0, 20.9, 21.0):
        told.append(meter.read().cpu_seconds)
    assert told == [1, 1, 1, 2, 2, 3, 3, 4]


def test_nothing_is_looked_at_before_somebody_asks() -> None:
    """Making a meter costs nothing."""
    looks = count()
    UsageMeter(lambda: 0.0, lambda: Usage(next(looks), 0))
    assert next(looks) == 0


ACTIVITIES = ("gathering", "computing", "waiting")

laps = st.lists(st.tuples(st.sampled_from(ACTIVITIES), st.integers(0, 1000)))


@given(laps)
def test_every_second_goes_into_one_activity(laps: list[tuple[str, int]]) -> None:
    """The time from one lap to the next is the activity's that the lap names; together they are all the time."""
    clock = SimpleNamespace(now=17)
    stopwatch = Stopwatch(ACTIVITIES, lambda: clock.now)
    for activity, seconds in laps:
        clock.now += seconds
        stopwatch.lap(activity)
    assert stopwatch.seconds == {
        activity: sum(seconds for name, seconds in laps if name == activity) for activity in ACTIVITIES
    }
    assert sum(stopwatch.seconds.values()) == clock.now - 17
    assert stopwatch.mark == clock.now


def test_activities_keep_their_order() -> None:
    """The seconds go over a line without their names."""
    stopwatch = Stopwatch(ACTIVITIES)
    stopwatch.lap("waiting")
    stopwatch.lap("gathering")
    assert tuple(stopwatch.seconds) == ACTIVITIES


def test_an_activity_that_is_none_is_an_error() -> None:
    """A misspelt one would be missing in the figures."""
    with pytest.raises(KeyError):
        Stopwatch(ACTIVITIES).lap("sleeping")
