"""What the parameter server counts while it trains: running totals of an attempt and figures of late, for metrics."""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from nablad.v1 import parameter_server_pb2 as ps_pb
from service.parameter_server.lines import TRANSPORTS
from service.parameter_server.rounds import Round
from service.parameter_server.weights import Norms
from workers.frames import ACTIVITIES as WORKER_ACTIVITIES
from workers.tickets import Refusal

__all__ = ["ACTIVITIES", "PHASES", "Phases", "StepFigures", "Time", "Totals"]

ACTIVITIES = ("waiting", "receiving", "inspecting", "reducing", "updating", "dealing", "booking")
"""What a parameter server's time goes into: waiting for results, reading them, checking them, adding gradients, the
update of the weights, giving out tickets and weights, figures, digests and checkpoints."""

PHASES = ("compute", "exchange", "wait", "reduce", "apply")
"""What a step consists of: the longest computation of its workers; and of the parameter server's time messages
(receiving, inspecting, dealing), waiting, adding gradients, and the update. Booking is no part of it: workers compute
meanwhile."""

# Upper bounds of the classes of step_seconds, in seconds.
_BOUNDS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)

# The steps of late, and what is told of them.
_STEPS: Final = 1024
_QUANTILES: Final = (0.5, 0.9, 0.99)
_LOOK_SECONDS: Final = 1.0


class Time(NamedTuple):
    """What one round took."""

    seconds: float
    """From the round before to the end of this one."""
    before: tuple[float, ...]
    """What the parameter server's time had gone into before, by ACTIVITIES."""
    after: tuple[float, ...]
    """And at its end."""


class Totals:
    """Running totals of an attempt."""

    def __init__(self) -> None:
        self.workers_lost = 0
        self.refused: Counter[Refusal] = Counter()
        self._worker_seconds = dict.fromkeys(WORKER_ACTIVITIES, 0.0)
        self._step_counts = [0] * (len(_BOUNDS) + 1)
        self._step_seconds = 0.0
        self._evaluations = 0
        self._evaluation_seconds = 0.0

    def add_step(self, seconds: float) -> None:
        """Counts a step that took this long, from its first ticket to its update."""
        self._step_counts[bisect_left(_BOUNDS, seconds)] += 1
        self._step_seconds += seconds

    def add_evaluation(self, seconds: float) -> None:
        """Counts an evaluation, for which the steps stood still so long."""
        self._evaluations += 1
        self._evaluation_seconds += seconds

    def add_worker_seconds(self, seconds: Sequence[float]) -> None:
        """A worker that is gone has reported what its time went into, by activity."""
        _add_seconds(self._worker_seconds, seconds)

    def message(
        self, worker_seconds: Iterable[Sequence[float]], server_seconds: Mapping[str, float], transports: Iterable[str]
    ) -> ps_pb.Telemetry:
        """The totals as they stand.

        Args:
            worker_seconds: Reported by each worker that is there, by activity.
            server_seconds: What the parameter server's time went into, by activity.
            transports: Of the workers that are there.
        """
        all_seconds = self._worker_seconds.copy()
        for seconds in worker_seconds:
            _add_seconds(all_seconds, seconds)
        return ps_pb.Telemetry(
            worker_seconds=all_seconds,
            server_seconds=server_seconds,
            refused={refusal.name.lower(): count for refusal, count in self.refused.items()},
            workers_lost=self.workers_lost,
            transport_workers=dict.fromkeys(TRANSPORTS, 0) | Counter(transports),
            step_seconds_bounds=_BOUNDS,
            step_seconds_counts=self._step_counts,
            step_seconds_sum=self._step_seconds,
            evaluations=self._evaluations,
            evaluation_seconds=self._evaluation_seconds,
        )


class Phases:
    """Seconds of the phases of steps: quantiles over those of late, sums over all."""

    def __init__(self) -> None:
        self._late = np.zeros((_STEPS, len(PHASES)))  # a ring
        self._steps = 0
        self._sums = np.zeros(len(PHASES))
        # Steps that are not in these yet: many at once are counted in less time than one by one.
        self._new: list[tuple[float, Time]] = []
        self._quantiles = [(0.0,) * len(_QUANTILES)] * len(PHASES)
        self._next_look = -math.inf

    def add(self, computed: float, time: Time) -> None:
        """Counts a step, the longest computation of which took so many seconds."""
        self._new.append((computed, time))
        if len(self._new) == _STEPS:
            self._count_new()

    def figures(self, now: float) -> Iterator[ps_pb.PhaseFigures]:
        """Of each phase; quantiles are those of a second ago, at most. `now` is in monotonic seconds."""
        self._count_new()
        if self._steps and now >= self._next_look:
            self._next_look = now + _LOOK_SECONDS
            self._quantiles = np.quantile(self._late[: self._steps], _QUANTILES, axis=0).T.tolist()
        for phase, (p50, p90, p99), seconds in zip(PHASES, self._quantiles, self._sums.tolist(), strict=True):
            yield ps_pb.PhaseFigures(phase=phase, p50=p50, p90=p90, p99=p99, seconds_sum=seconds, steps=self._steps)

    def _count_new(self) -> None:
        if not self._new:
            return
        computed = np.array([computed for computed, _ in self._new])
        spent = np.array([time.after for _, time in self._new]) - np.array([time.before for _, time in self._new])
        waiting, receiving, inspecting, reducing, updating, dealing, _ = spent.T
        steps = np.stack([computed, receiving + inspecting + dealing, waiting, reducing, updating], axis=1)
        self._late[np.arange(self._steps, self._steps + len(steps)) % _STEPS] = steps
        self._sums += steps.sum(axis=0)
        self._steps += len(steps)
        self._new.clear()


class StepFigures:
    """What steps are like: their phases, the norms of a recent one, and the staleness of the last one."""

    def __init__(self) -> None:
        self._phases = Phases()
        self._gradient_norms: Sequence[float] = ()
        self._weight_norms: Sequence[float] = ()
        self._staleness = 0

    def add(self, round_: Round, time: Time, norms: Norms | None) -> None:
        """Counts a step; None if its norms were not looked at."""
        self._phases.add(round_.computed, time)
        self._staleness = round_.staleness
        if norms:
            self._gradient_norms = norms.gradients
            self._weight_norms = norms.weights or self._weight_norms

    def tell(self, telemetry: ps_pb.Telemetry, now: float) -> None:
        """Enters them; `now` is in monotonic seconds."""
        telemetry.phases.extend(self._phases.figures(now))
        telemetry.layers.extend(
            ps_pb.LayerFigures(weight_norm=weights, gradient_norm=gradient)
            for weights, gradient in zip(self._weight_norms, self._gradient_norms, strict=True)
        )
        telemetry.staleness = self._staleness


def _add_seconds(total: dict[str, float], seconds: Sequence[float]) -> None:
    """Adds to the activities' totals; what cannot be a duration is left out."""
    for activity, value in zip(WORKER_ACTIVITIES, seconds, strict=False):
        if 0 < value < math.inf:
            total[activity] += value
