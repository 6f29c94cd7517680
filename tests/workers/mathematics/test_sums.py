"""Sums over samples, and what follows from them."""

from copy import deepcopy
from dataclasses import asdict
from functools import reduce
from operator import add

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.mathematics.sums import Sums

PARTS = [Sums(0.1, 10, 7), Sums(0.2, 5, 0), Sums(0.3, 8, 8)]
_numbers = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300)
_sums = st.builds(Sums, _numbers, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))


@given(st.lists(_sums, max_size=5))
def test_a_total_adds_every_sum_in_the_order_of_the_parts(parts: list[Sums]) -> None:
    """With the bits of one addition after the other, and counts that are exact."""
    total = asdict(Sums.total(parts))
    assert total == {name: reduce(add, [getattr(part, name) for part in parts], 0) for name in total}


def test_a_total_leaves_its_parts() -> None:
    """It is a new one."""
    before = deepcopy(PARTS)
    Sums.total(PARTS).add(Sums(1.0, 1, 1))
    assert before == PARTS


def test_metrics_are_means_over_all_samples() -> None:
    """Of a total they are not the means of its parts'."""
    total = Sums.total(PARTS)
    assert total.cost == pytest.approx(0.6 / 23)
    assert total.accuracy == 15 / 23


def test_there_is_no_metric_of_no_samples() -> None:
    """None, and no error."""
    assert (Sums().cost, Sums().accuracy) == (None, None)


@pytest.mark.parametrize(
    ("sums", "possible"), [(Sums(1.0, 4, 4), True), (Sums(1.0, 4, 5), False), (Sums(1.0, 3, 0), False)]
)
def test_sums_count_their_samples_and_no_more(sums: Sums, possible: bool) -> None:
    """Of four samples."""
    assert sums.can_be_of(4) == possible
