"""The plan: every row once per epoch, the same on every process, with no history."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.plan import Plan


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    rows = draw(st.integers(1, 300))
    batch_size = draw(st.integers(1, 350))
    return Plan(
        rows=rows,
        batch_size=batch_size,
        micro_batches=draw(st.integers(1, batch_size)),
        epochs=draw(st.integers(1, 3)),
        seed=draw(st.integers(0, 2**64 - 1)),
        validation_rows=draw(st.integers(0, 3000)),
    )


def _epoch_rows(plan: Plan, epoch: int) -> list[int]:
    first = epoch * plan.steps_per_epoch
    return [
        int(row)
        for step in range(first, first + plan.steps_per_epoch)
        for part in range(plan.parts(step))
        for row in plan.micro_batch(step, part)
    ]


@given(plans())
def test_every_row_is_used_exactly_once_per_epoch(plan: Plan) -> None:
    """Each epoch is a permutation of the rows."""
    for epoch in range(plan.epochs):
        assert sorted(_epoch_rows(plan, epoch)) == list(range(plan.rows))


@given(plans())
def test_parts_are_full_and_nearly_equal(plan: Plan) -> None:
    """No micro-batch is empty, those of a step differ by few rows, and samples() tells their sizes.

    Small ones differ by one row; large ones begin at multiples of four.
    """
    for step in range(plan.steps_per_epoch):
        sizes = [len(plan.micro_batch(step, part)) for part in range(plan.parts(step))]
        assert sizes == [plan.samples(step, part) for part in range(plan.parts(step))]
        if sum(sizes) < 16 * len(sizes):
            assert 0 < min(sizes) <= max(sizes) <= min(sizes) + 1
        else:
            assert 12 < min(sizes) <= max(sizes) <= min(sizes) + 5
            assert not any(size % 4 for size in sizes[:-1])
        assert sum(sizes) <= plan.batch_size


@given(plans())
def test_the_number_of_parts_does_not_move_rows_between_steps(plan: Plan) -> None:
    """The cut into micro-batches leaves every mini-batch as it is."""
    whole = Plan(plan.rows, plan.batch_size, 1, plan.epochs, plan.seed)
    for step in range(plan.steps):
        parts = [plan.micro_batch(step, part) for part in range(plan.parts(step))]
        assert np.array_equal(np.concatenate(parts), whole.micro_batch(step, 0))


@given(plans())
def test_an_evaluation_covers_the_validation_rows_in_order(plan: Plan) -> None:
    """The parts of an evaluation are consecutive, full and complete."""
    parts = [plan.evaluation(part) for part in range(plan.evaluation_parts)]
    rows = [row for part in parts for row in range(part.start, part.stop)]
    assert rows == list(range(plan.validation_rows))
    assert all(part.stop > part.start for part in parts)


@given(rows=st.integers(1, 5000), epochs=st.integers(1, 5000))
def test_at_most_a_thousand_steps_are_sampled_evenly(rows: int, epochs: int) -> None:
    """The first one, and from there on at equal distances; all of them where there are not more."""
    plan = Plan(rows=rows, batch_size=1 + rows // 3, micro_batches=1, epochs=epochs, seed=0)
    sampled = [step for step in range(plan.steps) if plan.is_sampled(step)]
    assert sampled[0] == 0
    assert len(sampled) == plan.steps if plan.steps <= 1000 else 500 <= len(sampled) <= 1000
    assert len({after - before for before, after in pairwise(sampled)}) <= 1


@pytest.mark.parametrize("other", [{"seed": 8}, {"rows": 101}])
def test_the_order_depends_on_the_seed_and_the_rows(other: dict[str, int]) -> None:
    """Another seed, or another number of rows, gives another order."""
    base = {"rows": 100, "batch_size": 10, "micro_batches": 2, "epochs": 2, "seed": 7}
    assert _epoch_rows(Plan(**base), 0) != _epoch_rows(Plan(**(base | other)), 0)


def test_epochs_have_different_orders() -> None:
    """An epoch does not repeat the order of the one before."""
    plan = Plan(rows=100, batch_size=10, micro_batches=2, epochs=2, seed=7)
    assert _epoch_rows(plan, 0) != _epoch_rows(plan, 1)


def test_the_order_is_the_same_on_every_machine() -> None:
    """Golden values: a change here changes the result of every job ever trained."""
    plan = Plan(rows=10, batch_size=10, micro_batches=1, epochs=2, seed=7)
    assert [_epoch_rows(plan, epoch) for epoch in range(2)] == [
        [9, 0, 8, 6, 7, 1, 3, 4, 2, 5],
        [7, 2, 1, 0, 6, 9, 8, 4, 3, 5],
    ]
