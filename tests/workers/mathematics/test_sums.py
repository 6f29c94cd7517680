"""Sums over samples, and what follows from them."""

from copy import deepcopy
from dataclasses import asdict
from functools import reduce
from operator import add

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.mathematics.sums import SampleSums

PARTS = [SampleSums(0.1, 10, 7), SampleSums(0.2, 5, 0), SampleSums(0.3, 8, 8)]
_numbers = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300)
_sums = st.builds(SampleSums, _numbers, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))


@given(st.lists(_sums, max_size=5))
def test_a_total_adds_every_sum_in_the_order_of_the_parts(parts: list[SampleSums]) -> None:
    """With the bits of one addition after the other, and counts that are exact."""
    total = asdict(SampleSums.total(parts))
    assert total == {name: reduce(add, [getattr(part, name) for part in parts], 0) for name in total}


def test_a_total_leaves_its_parts() -> None:
    """It is a new one."""
    before = deepcopy(PARTS)
    SampleSums.total(PARTS).add_sums(SampleSums(1.0, 1, 1))
    assert before == PARTS


def test_metrics_are_means_over_all_samples() -> None:
    """Of a total they are not the means of its parts'."""
    total = SampleSums.total(PARTS)
    assert total.cost == pytest.approx(0.6 / 23)
    assert total.accuracy == 15 / 23


def test_there_is_no_metric_of_no_samples() -> None:
    """None, and no error."""
    assert (SampleSums().cost, SampleSums().accuracy) == (None, None)


@pytest.mark.parametrize(
    ("sums", "possible"),
    [(SampleSums(1.0, 4, 4), True), (SampleSums(1.0, 4, 5), False), (SampleSums(1.0, 3, 0), False)],
)
def test_sums_count_their_samples_and_no_more(sums: SampleSums, possible: bool) -> None:
    """Of four samples."""
    assert sums.can_be_of(4) == possible
