"""Stopping rules: when a training ends, and which epoch was the best. Rules over metrics, without weights or clocks."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from nablad.learning_metrics import LEARNING_METRICS
from nablad.v1 import metrics_pb2 as metrics_pb
from nablad.v1 import parameter_server_pb2 as ps_pb

__all__ = ["Stopping", "StoppingRules", "stopping_rules"]


@dataclass(frozen=True)
class StoppingRules:
    """Rules that end a training, beside its last epoch.

    Attributes:
        epochs: Number of epochs of the job.
        targets: Values that are good enough, by the name of their metric.
        patience: Epochs in a row that may pass without a better validation cost; 0 for any number.
        minimum_improvement: Distance below the best validation cost from which a cost is better.
        keep_best: Whether the weights of the best epoch are the result.
        wall_time_seconds: Seconds of training, over all attempts, after which it ends.
        last_step: Number of updates of the weights after which it ends; 0 for no such limit.
    """

    epochs: int
    targets: Mapping[str, float] = field(default_factory=dict)
    patience: int = 0
    minimum_improvement: float = 0.0
    keep_best: bool = False
    wall_time_seconds: float = math.inf
    last_step: int = 0


def stopping_rules(assignment: ps_pb.Assignment) -> StoppingRules:
    """Returns the rules of a completed spec, and of its assignment."""
    spec, limits = assignment.spec.training.stopping, assignment.spec.limits
    return StoppingRules(
        epochs=assignment.spec.training.epochs,
        targets={
            given.name.removeprefix("target_"): target
            for given, target in spec.ListFields()
            if given.name.startswith("target_")
        },
        patience=spec.patience,
        minimum_improvement=spec.minimum_improvement,
        keep_best=spec.keep_best if spec.HasField("keep_best") else bool(spec.patience),
        wall_time_seconds=limits.wall_time_seconds if limits.HasField("wall_time_seconds") else math.inf,
        last_step=assignment.last_step,
    )


class Stopping:
    """Applies the rules to the metrics as they come.

    Attributes:
        best: The best epoch so far; None before the first evaluation, or if no rule asks for it.
    """

    def __init__(self, rules: StoppingRules, best: ps_pb.BestEpoch | None = None) -> None:
        """Begins with the best epoch of the attempts before."""
        self.best = best
        self._rules = rules

    def is_better(self, epoch: int, validation_cost: float) -> bool:
        """Records an evaluation; returns whether it is the best one so far, and a rule asks for the best."""
        rules, best = self._rules, self.best
        if not (rules.patience or rules.keep_best):
            return False
        if best is not None and not validation_cost < best.validation_cost - rules.minimum_improvement:
            return False
        self.best = ps_pb.BestEpoch(epoch=epoch, validation_cost=validation_cost)
        return True

    def limit_reason(self, step: int, seconds: float) -> str:
        """Returns a sentence, why no steps may follow; empty if they may.

        Args:
            step: Updates of the weights so far.
            seconds: Training time over all attempts, in seconds.
        """
        return self._wall_time_reason(step, seconds) or self._last_step_reason(step)

    def _wall_time_reason(self, step: int, seconds: float) -> str:
        limit = self._rules.wall_time_seconds
        return f"stopped at step {step} after {limit:g} s (limits.wall_time_seconds)" if seconds >= limit else ""

    def _last_step_reason(self, step: int) -> str:
        is_last = 0 < self._rules.last_step <= step
        return f"stopped at step {step}, the last one that was asked for" if is_last else ""

    def ending_reason(self, epoch: int, metrics: metrics_pb.Metrics) -> str:
        """Returns a sentence, why the training ends with this epoch; empty if it goes on.

        Args:
            epoch: Number of the epoch, from 1.
            metrics: Metrics of its evaluation, which is recorded already, or of its steps if nothing is evaluated.
        """
        rules = self._rules
        for metric in LEARNING_METRICS:
            target, value = rules.targets.get(metric.name), metric.value(metrics)
            if target is not None and value is not None and metric.reaches(value, target):
                return f"the target {metric.name} {target:g} was reached after epoch {epoch}"
        if epoch >= rules.epochs:
            return f"all {rules.epochs} epochs are done" if rules.epochs > 1 else "the only epoch is done"
        if rules.patience and self.best is not None and epoch - self.best.epoch >= rules.patience:
            return self._patience_reason(epoch, self.best)
        return ""

    def _patience_reason(self, epoch: int, best: ps_pb.BestEpoch) -> str:
        count = f"{self._rules.patience} epoch{'s' if self._rules.patience > 1 else ''}"
        return (
            f"the validation cost was not better than {best.validation_cost:.6g} (epoch {best.epoch}) "
            f"for {count}: stopped after epoch {epoch}"
        )
