"""Who did other work is found out."""

import pytest

from benchmarks.contestants import Tolerance, check_costs, largest_difference
from benchmarks.errors import CostsDisagreeError

REFERENCE = [2.0, 1.0]


def test_costs_within_the_tolerance_pass() -> None:
    """Relative to the reference, and an absolute part on top."""
    check_costs("x", [[2.0001, 0.9999]], REFERENCE, Tolerance(relative=1e-4))
    check_costs("x", [[2.0, 1.001]], REFERENCE, Tolerance(relative=1e-4, absolute=1e-3))


@pytest.mark.parametrize("costs", [[2.0, 1.001], [2.01, 1.0], [2.0, float("nan")]])
def test_one_epoch_of_one_run_is_enough_to_fail(costs: list[float]) -> None:
    """The error names the contestant."""
    with pytest.raises(CostsDisagreeError, match=r"torch: the training cost of epoch [12] should be"):
        check_costs("torch", [REFERENCE, costs], REFERENCE, Tolerance(relative=1e-4))


def test_another_number_of_epochs_fails() -> None:
    """Costs that are missing do not pass unseen."""
    with pytest.raises(CostsDisagreeError, match="there should be 2 epochs, but are 1"):
        check_costs("x", [[2.0]], REFERENCE, Tolerance(relative=1e-4))


def test_the_largest_difference_is_relative() -> None:
    """Over all epochs of all runs."""
    assert largest_difference([REFERENCE, [2.0, 0.9]], REFERENCE) == pytest.approx(0.1)
