"""The table of works is sound."""

import pytest

from benchmarks.contestants import CONTESTANTS, OPTIONAL, REFERENCE, SUBJECT
from benchmarks.requirements import RATIOS
from benchmarks.works import MESSAGES, PAPER_500, WORKERS, WORKS, Work, quick

ROWS_OF_MNIST = 60_000


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.name)
def test_a_work_can_be_shared_and_compared(work: Work) -> None:
    """Every step is a whole mini-batch that divides among the workers; there is a steady epoch and a reference."""
    assert work.rows <= ROWS_OF_MNIST
    assert work.rows % work.batch_size == 0
    assert work.batch_size % WORKERS == 0
    assert work.epochs > 1
    assert set(work.contestants) <= CONTESTANTS.keys()
    assert {REFERENCE, SUBJECT} <= set(work.contestants)


def test_a_work_decides_the_spec() -> None:
    """Layers, batch size, learning rate and epochs are those of the work, and nothing is evaluated."""
    spec = PAPER_500.spec()
    assert tuple(spec.model.layers) == PAPER_500.layers
    assert spec.training.batch_size == PAPER_500.batch_size
    assert spec.training.learning_rate == PAPER_500.learning_rate
    assert spec.training.epochs == PAPER_500.epochs
    assert PAPER_500.spec(epochs=1).training.epochs == 1
    assert spec.distribution.workers == spec.distribution.micro_batches == WORKERS
    assert not spec.data.validation


def test_the_weights_of_the_messages_are_7_mb() -> None:
    """784·1024 + 1024 + 1024·1024 + 1024 + 1024·10 + 10 numbers of 4 bytes."""
    assert MESSAGES.weights_bytes == 4 * 1_863_690


def test_quick_starts_everybody() -> None:
    """Each contestant is in one of the works that are left, which are short."""
    reduced = quick(WORKS)
    assert {name for work in reduced for name in work.contestants} == {
        name for work in WORKS for name in work.contestants
    }
    assert all(work.rows <= 10 * work.batch_size for work in reduced)


def test_all_but_two_can_be_left_out() -> None:
    """The reference and the service remain, in a work that is otherwise the same."""
    left = PAPER_500.without(OPTIONAL)
    assert left.contestants == (REFERENCE, SUBJECT)
    assert left.spec() == PAPER_500.spec()


def test_requirements_are_of_works_that_are_measured() -> None:
    """Every ratio finds both of its contestants in its work."""
    works = {work.name: work for work in WORKS}
    for ratio in RATIOS:
        assert {ratio.contestant, ratio.by} <= set(works[ratio.work].contestants)
