"""What the steps of an attempt are like, for metrics: durations, phases, norms and staleness."""

from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from operator import add, sub
from random import Random
from typing import Final, NamedTuple

import numpy as np

from nablad.v1 import parameter_server_pb2 as ps_pb
from service.parameter_server.scheduling.rounds import Round
from service.parameter_server.shard.weights import Norms
from workers.runtime.stopwatch import Stopwatch
from workers.transport.tickets import TicketKind

__all__ = ["PHASES", "RoundTimer", "StepStatistics", "Time"]

PHASES = ("compute", "exchange", "wait", "reduce", "apply")
"""What a step consists of: the longest computation of its workers; and of the parameter server's time messages
(receiving, inspecting, dealing), waiting, adding gradients, and the update. Booking is no part of it: workers compute
meanwhile."""

# Upper bounds of the classes of step_seconds, in seconds.
_BOUNDS: Final = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)

# One step in so many seconds of steps is looked at closely. Looks at even distances could fall on the same step of each
# epoch.
_LEAST_SECONDS: Final = 0.005
_MOST_SECONDS: Final = 0.01
# Over how many steps their mean duration is taken.
_MEAN_STEPS: Final = 64
# The steps of late, and what is told of them.
_STEPS: Final = 1024
_QUANTILES: Final = (0.5, 0.9, 0.99)


class Time(NamedTuple):
    """What one round took."""

    seconds: float
    """From the round before to the end of this one."""
    spent: tuple[float, ...] = ()
    """What the parameter server's time went into meanwhile, by ACTIVITIES; nothing if nobody looked at it."""


class RoundTimer:
    """Says what each round took. Where steps are short, some of them are looked at closely: they tell as much as all.

    Attributes:
        begun: When the present round began, or the one before ended.
    """

    def __init__(self, stopwatch: Stopwatch) -> None:
        """`stopwatch` counts what the parameter server's time goes into, by ACTIVITIES."""
        self._stopwatch = stopwatch
        self._random = Random(0)  # noqa: S311 (no secret)
        self._steps_to_look = 0
        self._mean_seconds = 0.0  # of steps
        self.begin()

    def begin(self) -> None:
        """The time from the last lap on belongs to the round that ends next."""
        self.begun = self._stopwatch.mark
        self._before = tuple(self._stopwatch.seconds.values()) if self._steps_to_look <= 0 else ()

    def next(self, kind: TicketKind) -> Time:
        """A round ended with the last lap, and the next one begins."""
        seconds, spent = self._stopwatch.mark - self.begun, ()
        if kind == TicketKind.GRADIENT:
            self._mean_seconds += (seconds - self._mean_seconds) / _MEAN_STEPS if self._mean_seconds else seconds
            if self._before:
                spent = tuple(map(sub, self._stopwatch.seconds.values(), self._before))
                self._steps_to_look = self._draw_steps()
            self._steps_to_look -= 1
        self.begin()
        return Time(seconds, spent)

    def _draw_steps(self) -> int:
        """After how many the next one is looked at. Of steps, not seconds: else most looks would follow a long step."""
        seconds = self._random.uniform(_LEAST_SECONDS, _MOST_SECONDS)
        return round(seconds / self._mean_seconds) if self._mean_seconds else 1


class StepStatistics:
    """Durations of all steps; phases, norms and staleness of those that somebody looked at."""

    def __init__(self) -> None:
        self._new_seconds = array("d")  # durations that are not counted yet: many at once take less time
        self._seconds_counts = np.zeros(len(_BOUNDS) + 1, int)
        self._seconds_sum = 0.0
        self._phases = _Phases()
        self._gradient_norms: Sequence[float] = ()
        self._weight_norms: Sequence[float] = ()
        self._staleness = 0

    def add(self, round_: Round, time: Time, norms: Norms | None) -> None:
        """A step was made; None if its norms were not looked at."""
        self._new_seconds.append(time.seconds)
        if time.spent:
            self._look_at(round_, time.spent)
        if norms:
            self._gradient_norms = norms.gradients
            self._weight_norms = norms.weights or self._weight_norms

    def tell(self, telemetry: ps_pb.Telemetry) -> None:
        """Enters them."""
        self._count()
        telemetry.step_seconds_bounds.extend(_BOUNDS)
        telemetry.step_seconds_counts.extend(self._seconds_counts.tolist())
        telemetry.step_seconds_sum = self._seconds_sum
        telemetry.phases.extend(self._phases.statistics())
        telemetry.layers.extend(
            ps_pb.LayerStatistics(weight_norm=weights, gradient_norm=gradient)
            for weights, gradient in zip(self._weight_norms, self._gradient_norms, strict=True)
        )
        telemetry.staleness = self._staleness

    def _look_at(self, round_: Round, spent: Sequence[float]) -> None:
        self._phases.add(round_.computed, spent)
        self._staleness = round_.staleness
        if len(self._new_seconds) > _STEPS:
            self._count()

    def _count(self) -> None:
        classes = np.searchsorted(_BOUNDS, self._new_seconds)
        self._seconds_counts += np.bincount(classes, minlength=len(self._seconds_counts))
        self._seconds_sum += sum(self._new_seconds)
        del self._new_seconds[:]


class _Phases:
    """Seconds of the phases of steps: quantiles over those of late, sums over all."""

    def __init__(self) -> None:
        self._late = deque[tuple[float, ...]](maxlen=_STEPS)
        self._steps = 0
        self._sums = [0.0] * len(PHASES)

    def add(self, computed: float, spent: Sequence[float]) -> None:
        """A step.

        Args:
            computed: Seconds of its longest computation.
            spent: What the parameter server's time went into, by ACTIVITIES.
        """
        waiting, receiving, inspecting, reducing, updating, dealing, _ = spent
        seconds = computed, receiving + inspecting + dealing, waiting, reducing, updating
        self._late.append(seconds)
        self._steps += 1
        self._sums = list(map(add, self._sums, seconds))

    def statistics(self) -> Iterator[ps_pb.PhaseStatistics]:
        """Of each phase."""
        quantiles = np.quantile(self._late or [self._sums], _QUANTILES, axis=0).T.tolist()
        for phase, (p50, p90, p99), seconds in zip(PHASES, quantiles, self._sums, strict=True):
            yield ps_pb.PhaseStatistics(phase=phase, p50=p50, p90=p90, p99=p99, seconds_sum=seconds, steps=self._steps)
