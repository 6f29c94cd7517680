"""Speed of a training in a stretch of time."""

import math
import os

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.load.windows import Ratio, Window, compare, cpu_seconds, resident_bytes, samples_per_second, threads
from nablad.v1.jobs_pb2 import HistoryPoint


def _epoch(end: float, speed: float) -> HistoryPoint:
    point = HistoryPoint(samples_per_second=speed)
    point.time.FromNanoseconds(round(end * 1e9))
    return point


def test_only_epochs_that_lie_in_the_window_count() -> None:
    """Those that began before it or end after it are somebody else's; the others count by their time."""
    epochs = [_epoch(12, 10), _epoch(14, 50), _epoch(24, 10), _epoch(31, 1000)]
    assert samples_per_second(Window("a", 11, 30), epochs, rows=100) == pytest.approx(200 / 12)


def test_a_window_without_an_epoch_is_too_short() -> None:
    """There is no speed to tell."""
    with pytest.raises(BenchmarkError, match="too short"):
        samples_per_second(Window("a", 1, 2), [_epoch(3, 10)], rows=100)


def test_windows_are_compared_with_those_around_them() -> None:
    """However the machine's own speed changes from one to the next."""
    speeds = [("alone", 100), ("b", 99), ("c", 55), ("alone", 120), ("b", 88), ("alone", 80)]
    windows = [Window(name, samples_per_second=speed) for name, speed in speeds]
    b, c = compare(windows, "b", "alone"), compare(windows, "c", "alone")
    assert (b.median, b.error) == pytest.approx((0.89, 0.0131), rel=1e-2)
    assert (c.median, math.isnan(c.error)) == (0.5, True)
    assert (str(b), str(c)) == ("89.0% ± 1.3%", "50.0%")


def test_a_ratio_is_not_misled_by_a_window_that_was_disturbed() -> None:
    """Its error grows with what most windows differ by, and falls with their number."""

    def ratio(pairs: int, disturbed: float) -> Ratio:
        speeds = [98.0, 99.0, 100.0] * pairs + [disturbed]
        return compare(
            [w for s in speeds for w in (Window("a", samples_per_second=100), Window("b", samples_per_second=s))],
            "b",
            "a",
        )

    assert ratio(10, 5.0).median == ratio(10, 99.0).median == 0.99
    assert ratio(10, 5.0).error == pytest.approx(ratio(10, 99.0).error)
    assert ratio(40, 99.0).error == pytest.approx(ratio(10, 99.0).error / 2, rel=0.02)


def test_a_machine_that_gets_faster_all_along_misleads_nobody() -> None:
    """Windows are compared with what there would have been alone at their time."""
    names = ["alone", "b", "c", "alone", "b", "c", "alone"]
    windows = [
        Window(name, begin, begin + 15, samples_per_second=100 + begin)
        for begin, name in zip(range(0, 140, 20), names, strict=True)
    ]
    assert compare(windows, "b", "alone") == compare(windows, "c", "alone") == Ratio(pytest.approx(1), pytest.approx(0))


def test_anything_can_be_compared() -> None:
    """The memory of the daemon, say."""
    windows = [Window("a", daemon_bytes=100), Window("b", daemon_bytes=150)]
    assert compare(windows, "b", "a", lambda window: window.daemon_bytes).median == 1.5


def test_the_kernel_knows_this_process() -> None:
    """Of a process that has ended, there is no CPU time and no memory."""
    nobody = 2**22 + 1  # above every process id
    assert cpu_seconds([os.getpid(), nobody]) > 0 == cpu_seconds([nobody])
    assert resident_bytes(os.getpid()) > 1e6
    assert threads(os.getpid()) >= 1
    with pytest.raises(OSError, match=str(nobody)):
        resident_bytes(nobody)
