"""What the parameter server counts while it trains: running totals of an attempt, for metrics."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from nablad.v1 import parameter_server_pb2 as ps_pb
from workers.transport.frames import ACTIVITIES as WORKER_ACTIVITIES
from workers.transport.frames import TRANSPORTS
from workers.transport.tickets import Rejection

__all__ = ["ACTIVITIES", "Totals"]

ACTIVITIES = ("waiting", "receiving", "inspecting", "reducing", "updating", "dealing", "booking")
"""What a parameter server's time goes into: waiting for results, reading them, checking them, adding gradients, the
update of the weights, giving out tickets and weights, figures, digests and checkpoints."""


class Totals:
    """Running totals of an attempt."""

    def __init__(self) -> None:
        self.workers_lost = 0
        self.refused: Counter[Rejection] = Counter()
        self._worker_seconds = dict.fromkeys(WORKER_ACTIVITIES, 0.0)
        self._evaluations = 0
        self._evaluation_seconds = 0.0

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
            evaluations=self._evaluations,
            evaluation_seconds=self._evaluation_seconds,
        )


def _add_seconds(total: dict[str, float], seconds: Sequence[float]) -> None:
    """Adds to the activities' totals; what cannot be a duration is left out."""
    for activity, value in zip(WORKER_ACTIVITIES, seconds, strict=False):
        if 0 < value < math.inf:
            total[activity] += value
