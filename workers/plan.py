"""The plan of a job: which rows every ticket covers, computable by any process without history."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["Plan"]

Rows = NDArray[np.intp]

# Keeps the draw of the row order apart from every other draw that a seed makes.
_ROW_ORDER = 1

# Rows of one evaluation ticket: enough to amortise a message, few enough for small buffers.
_EVALUATION_ROWS = 1000
# Of a job's steps, the history keeps at most so many.
_MOST_SAMPLED_STEPS = 1000


@lru_cache(maxsize=2)
def _row_order(rows: int, seed: int, epoch: int) -> Rows:
    """The order in which the rows are used in an epoch."""
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, _ROW_ORDER, epoch])))
    order = generator.permutation(rows)
    order.flags.writeable = False
    return order


def _part(count: int, parts: int, number: int) -> slice:
    """The `number`-th of `parts` nearly equal, contiguous parts of `count` things."""
    return slice(count * number // parts, count * (number + 1) // parts)


@dataclass(frozen=True)
class Plan:
    """How the rows are cut into epochs, steps and micro-batches.

    Attributes:
        rows: Rows of the train data set.
        batch_size: Rows of a mini-batch; the last one of an epoch takes what is left.
        micro_batches: Parts of a mini-batch; a mini-batch with fewer rows has as many parts as rows.
        epochs: Passes over the train data set.
        seed: Fixes the order of the rows.
        validation_rows: Rows of the validation data set; 0 for none.
    """

    rows: int
    batch_size: int
    micro_batches: int
    epochs: int
    seed: int
    validation_rows: int = 0

    @property
    def steps_per_epoch(self) -> int:
        """Steps of every epoch."""
        return -(-self.rows // self.batch_size)

    @property
    def steps(self) -> int:
        """Steps of the job."""
        return self.epochs * self.steps_per_epoch

    @property
    def evaluation_parts(self) -> int:
        """Tickets of an evaluation."""
        return -(-self.validation_rows // _EVALUATION_ROWS)

    def epoch(self, step: int) -> int:
        """The epoch, from 0, that a step belongs to."""
        return step // self.steps_per_epoch

    def ends_epoch(self, step: int) -> bool:
        """Whether a step is the last one of its epoch."""
        return (step + 1) % self.steps_per_epoch == 0

    @property
    def sampling_interval(self) -> int:
        """Steps from one that the history keeps to the next one."""
        return -(-self.steps // _MOST_SAMPLED_STEPS)

    def is_sampled(self, step: int) -> bool:
        """Whether a step is one of those, evenly spread over the job, that its history keeps."""
        return step % self.sampling_interval == 0

    def is_checked(self, step: int) -> bool:
        """Whether the gradient's norms are looked at in a step, whatever the time."""
        return self.is_sampled(step) or self.ends_epoch(step)

    def parts(self, step: int) -> int:
        """Micro-batches of a step; none of them is empty."""
        return min(self.micro_batches, _length(self._mini_batch(step)))

    def samples(self, step: int, micro_batch: int) -> int:
        """Rows of a micro-batch."""
        return _length(self._micro_batch(step, micro_batch))

    def micro_batch(self, step: int, micro_batch: int) -> Rows:
        """The row numbers of a micro-batch, shape (samples,), as a view of the epoch's order."""
        order = _row_order(self.rows, self.seed, self.epoch(step))
        return order[self._mini_batch(step)][self._micro_batch(step, micro_batch)]

    def evaluation(self, part: int) -> slice:
        """The consecutive validation rows of an evaluation ticket."""
        return slice(part * _EVALUATION_ROWS, min((part + 1) * _EVALUATION_ROWS, self.validation_rows))

    def _mini_batch(self, step: int) -> slice:
        start = step % self.steps_per_epoch * self.batch_size
        return slice(start, min(start + self.batch_size, self.rows))

    def _micro_batch(self, step: int, micro_batch: int) -> slice:
        """Within the mini-batch."""
        return _part(_length(self._mini_batch(step)), self.parts(step), micro_batch)


def _length(rows: slice) -> int:
    length: int = rows.stop - rows.start
    return length
