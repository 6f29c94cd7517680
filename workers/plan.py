"""Plan of a job: the rows of every ticket, computable by any process without history."""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["Plan"]

Rows = NDArray[np.intp]

# Keeps the draw of the row order apart from other draws under the same seed.
_ROW_ORDER = 1

# Parts are cut at multiples of so many rows, because BLAS multiplies matrices in blocks of as many columns: 52 columns
# take a tenth less time than 50. Small parts are not, because they would differ too much.
_CUT_ROWS = 4
_LARGE_PART_ROWS = 16

# Rows of one evaluation ticket: enough to amortise a message, few enough for small buffers.
_EVALUATION_ROWS = 1000
# Largest number of a job's steps that its history keeps.
_MOST_SAMPLED_STEPS = 1000


@lru_cache(maxsize=2)
def _row_order(rows: int, seed: int, epoch: int) -> Rows:
    """Returns the order of the rows in an epoch, shape (rows,)."""
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, _ROW_ORDER, epoch])))
    order = generator.permutation(rows)
    order.flags.writeable = False
    return order


def _cut(count: int, parts: int, number: int) -> int:
    """Returns where part `number` of so many rows starts; between large parts at a multiple of `_CUT_ROWS`."""
    cut = count * number // parts
    if count < _LARGE_PART_ROWS * parts or number == parts:
        return cut
    return (cut + _CUT_ROWS // 2) // _CUT_ROWS * _CUT_ROWS


@dataclass(frozen=True)
class Plan:
    """Division of the rows into epochs, steps and micro-batches.

    Attributes:
        rows: Rows of the train data set.
        batch_size: Rows of a mini-batch; the last one of an epoch has the remaining rows.
        micro_batches: Parts of a mini-batch; a mini-batch with fewer rows has one part per row.
        epochs: Passes over the train data set.
        seed: Seed of the order of the rows.
        validation_rows: Rows of the validation data set; 0 for none.
    """

    rows: int
    batch_size: int
    micro_batches: int
    epochs: int
    seed: int
    validation_rows: int = 0

    @cached_property
    def steps_per_epoch(self) -> int:
        """Number of steps of an epoch."""
        return -(-self.rows // self.batch_size)

    @cached_property
    def steps(self) -> int:
        """Number of steps of the job."""
        return self.epochs * self.steps_per_epoch

    @property
    def evaluation_parts(self) -> int:
        """Number of tickets of an evaluation."""
        return -(-self.validation_rows // _EVALUATION_ROWS)

    @property
    def rounds_cuts(self) -> bool:
        """True if the parts of some mini-batch are not the most equal ones, so that they are cut at multiples."""
        last = self.rows - (self.steps_per_epoch - 1) * self.batch_size
        counts = {min(self.batch_size, self.rows), last}
        splits = ((count, min(self.micro_batches, count)) for count in counts)
        return any(
            _cut(count, parts, number) != count * number // parts for count, parts in splits for number in range(parts)
        )

    def epoch(self, step: int) -> int:
        """Returns the epoch, from 0, of a step."""
        return step // self.steps_per_epoch

    def ends_epoch(self, step: int) -> bool:
        """Returns True if a step is the last one of its epoch."""
        return (step + 1) % self.steps_per_epoch == 0

    @cached_property
    def sampling_interval(self) -> int:
        """Distance between two steps that the history keeps, in steps."""
        return -(-self.steps // _MOST_SAMPLED_STEPS)

    def is_sampled(self, step: int) -> bool:
        """Returns True if the job's history keeps a step; these steps are evenly spread over the job."""
        return step % self.sampling_interval == 0

    def is_checked(self, step: int) -> bool:
        """Returns True if the gradient's norms are always computed in a step, independent of the time."""
        return self.is_sampled(step) or self.ends_epoch(step)

    def parts(self, step: int) -> int:
        """Returns the number of micro-batches of a step; none of them is empty."""
        return min(self.micro_batches, self._mini_batch(step)[1])

    def samples(self, step: int, micro_batch: int) -> int:
        """Returns the number of rows of a micro-batch."""
        start, stop = self._micro_batch(step, micro_batch)
        return stop - start

    def micro_batch(self, step: int, micro_batch: int) -> Rows:
        """Returns the row numbers of a micro-batch, shape (samples,), as a view of the epoch's order."""
        start, stop = self._micro_batch(step, micro_batch)
        return _row_order(self.rows, self.seed, step // self.steps_per_epoch)[start:stop]

    def evaluation(self, part: int) -> slice:
        """Returns the consecutive validation rows of an evaluation ticket."""
        return slice(part * _EVALUATION_ROWS, min((part + 1) * _EVALUATION_ROWS, self.validation_rows))

    def _mini_batch(self, step: int) -> tuple[int, int]:
        """Returns the place of a step's rows in the order of its epoch, and their number."""
        start = step % self.steps_per_epoch * self.batch_size
        return start, min(self.batch_size, self.rows - start)

    def _micro_batch(self, step: int, micro_batch: int) -> tuple[int, int]:
        """Returns where the rows of a micro-batch start and stop: a mini-batch has nearly equal, contiguous parts."""
        start, count = self._mini_batch(step)
        parts = min(self.micro_batches, count)
        return start + _cut(count, parts, micro_batch), start + _cut(count, parts, micro_batch + 1)
