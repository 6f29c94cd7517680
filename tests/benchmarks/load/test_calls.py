"""Latencies of calls."""

from benchmarks.load.calls import Latencies


def test_one_call_of_a_hundred_may_be_longer_than_the_99th_percentile() -> None:
    """Whatever their order; each figure is one that was measured."""
    seconds = [float(number) for number in range(1, 101)][::-1]
    assert Latencies.of(seconds) == Latencies(calls=100, p50=50.0, p99=99.0, longest=100.0)
    assert Latencies.of([*seconds, 1000.0]).p99 == 100.0


def test_a_single_call_is_all_there_is() -> None:
    """All figures are its own."""
    assert Latencies.of([0.5]) == Latencies(calls=1, p50=0.5, p99=0.5, longest=0.5)
