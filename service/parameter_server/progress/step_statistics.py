"""Statistics of the steps of an attempt, for metrics: durations, phases, norms and staleness."""

from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from operator import add, sub
from random import Random
from typing import Final, NamedTuple

import numpy as np

from nablad.v1 import parameter_server_pb2 as ps_pb
from service.parameter_server.progress.closed_rounds import ClosedRounds, StepSample
from workers.runtime.process_statistics import Stopwatch
from workers.transport.tickets import TicketKind

__all__ = ["PHASES", "RoundTime", "RoundTimer", "StepStatistics"]

PHASES = ("compute", "exchange", "wait", "reduce", "apply")
"""Phases of a step: the longest computation of its workers, and the parameter server's time for messages (receiving,
inspecting, dealing), waiting, adding gradients, and the update. Booking is no phase, because workers compute meanwhile.
"""

# Upper bounds of the classes of step_seconds, in seconds.
_BOUNDS: Final = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)

# One step in so many seconds of steps is sampled. Samples at even distances could fall on the same step of each epoch.
_LEAST_SECONDS: Final = 0.005
_MOST_SECONDS: Final = 0.01
# Number of steps that their mean duration is taken over.
_MEAN_STEPS: Final = 64
# Number of recent steps, and the quantiles that are reported of them.
_RECENT_STEPS: Final = 1024
_QUANTILES: Final = (0.5, 0.9, 0.99)


class RoundTime(NamedTuple):
    """Time of one round."""

    seconds: float
    """Seconds from the end of the round before to the end of this one."""
    spent: tuple[float, ...] = ()
    """Seconds of the parameter server meanwhile, by ACTIVITIES; empty if the round is not sampled."""


class RoundTimer:
    """Measures the time of each round. Where steps are short, only some are sampled by activity, which shows as much.

    Attributes:
        begun: Time when the present round began, by the stopwatch.
    """

    def __init__(self, stopwatch: Stopwatch) -> None:
        """Starts a round; `stopwatch` counts the parameter server's time by ACTIVITIES."""
        self._stopwatch = stopwatch
        self._random = Random(0)  # noqa: S311 (no secret)
        self._steps_to_sample = 0
        self._mean_seconds = 0.0  # of steps
        self.start_round()

    def start_round(self, begun: float | None = None) -> None:
        """Starts a round at the last lap, or at another time."""
        self.begun = self._stopwatch.mark if begun is None else begun
        self._before = tuple(self._stopwatch.seconds.values()) if self._steps_to_sample <= 0 else ()

    def end_round(self, kind: TicketKind) -> RoundTime:
        """Ends the round at the last lap, starts the next one, and returns the time of the one that ended."""
        seconds, spent = self._stopwatch.mark - self.begun, ()
        if kind == TicketKind.GRADIENT:
            before = self._before
            if self.count_steps(1, seconds):
                spent = tuple(map(sub, self._stopwatch.seconds.values(), before))
        self.start_round()
        return RoundTime(seconds, spent)

    def count_steps(self, steps: int, mean_seconds: float) -> list[int]:
        """Counts steps in a row; returns the places of those that are sampled by activity."""
        weight = min(1.0, steps / _MEAN_STEPS) if self._mean_seconds else 1.0
        self._mean_seconds += weight * (mean_seconds - self._mean_seconds)
        sampled, place = [], max(self._steps_to_sample, 0)
        while place < steps:
            sampled.append(place)
            place += max(1, self._draw_steps())
        self._steps_to_sample = place - steps
        return sampled

    def _draw_steps(self) -> int:
        """Draws the number of steps until the next sample. Seconds instead would sample mostly after long steps."""
        seconds = self._random.uniform(_LEAST_SECONDS, _MOST_SECONDS)
        return round(seconds / self._mean_seconds) if self._mean_seconds else 1


class StepStatistics:
    """Durations of all steps; phases, norms and staleness of those that were measured."""

    def __init__(self) -> None:
        self._new_seconds = array("d")  # durations that are not counted yet: many at once are faster
        self._seconds_counts = np.zeros(len(_BOUNDS) + 1, int)
        self._seconds_sum = 0.0
        self._phases = _Phases()
        self._gradient_norms: Sequence[float] = ()
        self._weight_norms: Sequence[float] = ()
        self._staleness = 0

    def record_steps(self, steps: ClosedRounds) -> None:
        """Records steps, one after the other."""
        self._new_seconds.extend(steps.seconds)
        for sample in steps.samples.values():
            self._phases.add_step(sample)
            self._staleness = steps.staleness
        for norms in steps.norms.values():
            self._gradient_norms = norms.gradients
            self._weight_norms = norms.weights or self._weight_norms
        if len(self._new_seconds) > _RECENT_STEPS:
            self._count()

    def write_to(self, statistics: ps_pb.AttemptStatistics) -> None:
        """Writes them to a message."""
        self._count()
        statistics.step_seconds_bounds.extend(_BOUNDS)
        statistics.step_seconds_counts.extend(self._seconds_counts.tolist())
        statistics.step_seconds_sum = self._seconds_sum
        statistics.phases.extend(self._phases.statistics())
        statistics.layers.extend(
            ps_pb.LayerStatistics(weight_norm=weights, gradient_norm=gradient)
            for weights, gradient in zip(self._weight_norms, self._gradient_norms, strict=True)
        )
        statistics.staleness = self._staleness

    def _count(self) -> None:
        classes = np.searchsorted(_BOUNDS, self._new_seconds)
        self._seconds_counts += np.bincount(classes, minlength=len(self._seconds_counts))
        self._seconds_sum += sum(self._new_seconds)
        del self._new_seconds[:]


class _Phases:
    """Seconds of the phases of steps: quantiles over recent steps, sums over all that were sampled."""

    def __init__(self) -> None:
        self._recent = deque[tuple[float, ...]](maxlen=_RECENT_STEPS)
        self._steps = 0
        self._sums = [0.0] * len(PHASES)

    def add_step(self, sample: StepSample) -> None:
        """Adds a step."""
        waiting, receiving, inspecting, reducing, updating, dealing, _ = sample.spent
        seconds = sample.computed, receiving + inspecting + dealing, waiting, reducing, updating
        self._recent.append(seconds)
        self._steps += 1
        self._sums = list(map(add, self._sums, seconds))

    def statistics(self) -> Iterator[ps_pb.PhaseStatistics]:
        """Yields the statistics of each phase."""
        quantiles = np.quantile(self._recent or [self._sums], _QUANTILES, axis=0).T.tolist()
        for phase, (p50, p90, p99), seconds in zip(PHASES, quantiles, self._sums, strict=True):
            yield ps_pb.PhaseStatistics(phase=phase, p50=p50, p90=p90, p99=p99, seconds_sum=seconds, steps=self._steps)
