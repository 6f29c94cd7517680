"""Norm schedule: the steps in which norms are measured. A pass over the vectors at every step would be too much."""

import math
from typing import Final

from service.parameter_server.shard.norms import Norms
from workers.plan import Plan

__all__ = ["NormSchedule"]

# Seconds between two measurements of the gradient's norm.
_GRADIENT_SECONDS: Final = 0.5
# Seconds between two measurements of the weights' norms, which change more slowly.
_WEIGHTS_SECONDS: Final = 5.0


class NormSchedule:
    """Norms of the gradient are due in steps that the plan checks, and after a time; those of the weights with them."""

    def __init__(self, plan: Plan) -> None:
        """Starts with everything due."""
        self._plan = plan
        self._gradient_time = self._weights_time = -math.inf

    def is_gradient_due(self, step: int, now: float) -> bool:
        """Returns whether the norms of the gradient of a step are measured; `now` is in monotonic seconds."""
        return self._plan.is_checked(step) or now - self._gradient_time >= _GRADIENT_SECONDS

    def are_weights_due(self, now: float) -> bool:
        """Returns whether the norms of the weights are measured, where those of the gradient are."""
        return now - self._weights_time >= _WEIGHTS_SECONDS

    def record_norms(self, norms: Norms, now: float) -> None:
        """Records that norms were measured."""
        self._gradient_time = now
        if norms.weights:
            self._weights_time = now
