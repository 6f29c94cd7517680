"""Closed rounds: steps and evaluations that are complete and applied, as progress and statistics record them."""

from collections.abc import Sequence
from typing import NamedTuple

from service.parameter_server.shard.norms import Norms
from workers.mathematics.sums import SampleSums
from workers.transport.tickets import TicketKind

__all__ = ["ClosedRound"]


class ClosedRound(NamedTuple):
    """A step that was applied, or an evaluation."""

    kind: TicketKind
    """Gradient or evaluation."""
    epoch: int
    """Number of the epoch, from 0."""
    step: int
    """Number of the step, from 0; for an evaluation, the number of updates that the evaluated weights have seen."""
    sums: SampleSums
    """Sums over all samples."""
    seconds: float
    """Seconds from the end of the round before to the end of this one."""
    spent: Sequence[float] = ()
    """Seconds of the parameter server meanwhile, by ACTIVITIES; empty if the round is not sampled."""
    computed: float = 0.0
    """Seconds of computation of the slowest worker."""
    staleness: int = 0
    """Age, in updates, of the oldest weights that a result was computed with."""
    norms: Norms | None = None
    """Norms of the update, if they were measured."""
