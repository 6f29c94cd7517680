"""Several measurements become one figure."""

import pytest

from benchmarks.figures import Measurement, Spread, steady


def test_the_first_epoch_of_each_run_is_left_out() -> None:
    """What warms up does not count."""
    runs = [Measurement([1.0, 10.0, 30.0]), Measurement([99.0, 20.0])]
    assert steady(runs) == Spread(median=20.0, minimum=10.0, maximum=30.0)


def test_a_spread_of_nothing_is_refused() -> None:
    """There is no median of no values."""
    with pytest.raises(ValueError, match="no median"):
        Spread.of([])
