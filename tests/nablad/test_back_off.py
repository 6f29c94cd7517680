"""Back-off: pauses grow to a bound."""

import pytest

from nablad.back_off import back_off_seconds


def test_every_failure_doubles_the_pause_up_to_the_longest() -> None:
    """The first failure is followed by the first pause."""
    assert [back_off_seconds(failures, 0.5, 10.0) for failures in range(1, 8)] == [0.5, 1, 2, 4, 8, 10, 10]


@pytest.mark.parametrize("failures", [100, 10_000, 2**64])
def test_no_number_of_failures_is_too_many(failures: int) -> None:
    """Who tries for years goes on trying."""
    assert back_off_seconds(failures, 1.0, 60.0) == 60


def test_the_first_pause_has_a_bound_too() -> None:
    """The longest pause is never exceeded."""
    assert back_off_seconds(1, 20.0, 10.0) == 10
