"""The stopwatch: no second is lost, and none counts twice."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.runtime.stopwatch import Stopwatch

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
