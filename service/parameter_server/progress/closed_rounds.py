"""Closed rounds: steps and evaluations that are complete and applied, as progress and statistics record them."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from service.parameter_server.shard.norms import Norms
from workers.mathematics.sums import SampleSums
from workers.transport.tickets import TicketKind

__all__ = ["ClosedRounds", "StepSample"]


class StepSample(NamedTuple):
    """Time of a step that was measured by activity."""

    spent: Sequence[float]
    """Seconds of the parameter server, by ACTIVITIES."""
    computed: float
    """Seconds of computation of the slowest worker."""


class ClosedRounds(NamedTuple):
    """One evaluation, or one or more steps in a row of one epoch."""

    kind: TicketKind
    """Gradient or evaluation."""
    epoch: int
    """Number of the epoch, from 0."""
    first: int
    """Number of the first step, from 0; for an evaluation, the version of the evaluated weights."""
    sums: Sequence[SampleSums]
    """Sums over all samples of each round."""
    seconds: Sequence[float]
    """Seconds of each round, from the end of the one before to its own end."""
    samples: Mapping[int, StepSample]
    """Times by activity of some of the steps, by their place."""
    norms: Mapping[int, Norms]
    """Norms of the updates in which they were measured, by their place."""
    staleness: int = 0
    """Age, in updates, of the oldest weights that a result was computed with."""
    missing: Mapping[int, Sequence[int]] = MappingProxyType({})
    """Numbers of the micro-batches that were dropped, of the steps with any, by their place."""
    missing_samples: int = 0
    """Number of samples in these."""

    @property
    def last(self) -> int:
        """Number of the last step."""
        return self.first + len(self.sums) - 1

    @property
    def missing_micro_batches(self) -> int:
        """Number of micro-batches that were dropped."""
        return sum(map(len, self.missing.values()))
