"""What the parameter server counts while it trains: the figures of an epoch, and running totals for metrics."""

import math
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass

from nablad.spec import name_of
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.parameter_server.rounds import Round

__all__ = ["EpochFigures", "Totals"]

# Upper bounds of the classes of step_seconds, in seconds.
_BOUNDS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


@dataclass
class EpochFigures:
    """Sums over the steps of one epoch so far, each mini-batch before its update."""

    epoch: int
    cost_sum: float = 0.0
    correct_count: int = 0
    samples: int = 0
    seconds: float = 0.0

    def add(self, step: Round, seconds: float) -> None:
        """Counts a step that took this long."""
        self.cost_sum += step.cost_sum
        self.correct_count += step.correct_count
        self.samples += step.samples
        self.seconds += seconds

    @property
    def cost(self) -> float | None:
        """Mean per sample."""
        return self.cost_sum / self.samples if self.samples else None

    @property
    def accuracy(self) -> float | None:
        """Share of samples classified right."""
        return self.correct_count / self.samples if self.samples else None

    @property
    def samples_per_second(self) -> float:
        """Over the time that the steps took; evaluations are not in it."""
        return self.samples / self.seconds if self.seconds else 0.0


class Totals:
    """Running totals of an attempt."""

    def __init__(self) -> None:
        self.samples = 0
        self.workers_lost = 0
        self.refused: Counter[ps_pb.Refusal.ValueType] = Counter()
        self._worker_seconds = ps_pb.WorkerSeconds()
        self._step_counts = [0] * (len(_BOUNDS) + 1)
        self._step_seconds = 0.0

    def add_step(self, step: Round, seconds: float) -> None:
        """Counts a step that took this long, from its first ticket to its update."""
        self.samples += step.samples
        self._step_counts[bisect_left(_BOUNDS, seconds)] += 1
        self._step_seconds += seconds

    def add_worker_seconds(self, seconds: ps_pb.WorkerSeconds) -> None:
        """A worker reports what its time went into. What cannot be a duration is left out."""
        for name in ("computing", "waiting", "exchanging"):
            value = getattr(seconds, name)
            if math.isfinite(value) and value > 0:
                setattr(self._worker_seconds, name, getattr(self._worker_seconds, name) + value)

    def message(self) -> ps_pb.Telemetry:
        """The totals as they stand."""
        return ps_pb.Telemetry(
            worker_seconds=self._worker_seconds,
            refused={name_of(ps_pb.Refusal.DESCRIPTOR, refusal): count for refusal, count in self.refused.items()},
            workers_lost=self.workers_lost,
            step_seconds_bounds=_BOUNDS,
            step_seconds_counts=self._step_counts,
            step_seconds_sum=self._step_seconds,
        )
