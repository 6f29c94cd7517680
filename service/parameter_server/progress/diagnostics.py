"""Diagnostics: warnings of a training that is not going well, which depend on the sums of its steps alone.

Everything is a pure function of spec and data: the plan gives the steps of the checks, and the state of the diagnostics
is part of the checkpoint. So each warning is given once, at the same step, whatever is lost in between.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.parameter_server.progress.advice import Advice
from service.parameter_server.progress.closed_rounds import ClosedRounds
from workers.mathematics.sums import SampleSums
from workers.plan import Plan

__all__ = ["TrainingDiagnostics"]

# The first steps are those until so many samples: later costs are compared with theirs.
_FIRST_SAMPLES: Final = 16
# A training has exploded when its cost is so many times that of the first steps, while its weights are so many times as
# large as they were: rare large targets can do the one, and a long training the other.
_COST_GROWTH: Final = 100.0
_WEIGHTS_GROWTH: Final = 10.0
# A gradient has vanished when its norm is below this part of the cost, which is not near 0 itself: a network that has
# learned everything gets no gradient either.
_NO_GRADIENT: Final = 1e-20
_LEARNED: Final = 1e-6
# One mini-batch may leave all nodes of a layer at rest by chance. So the checks of a whole epoch must agree, or, where
# not every step is checked, so many times as many as an epoch has steps; but no more than is enough.
_LEAST_CHECKS: Final = 3
_MOST_CHECKS: Final = 200
_CHECKS_PER_STEP: Final = 20


class TrainingDiagnostics:
    """Checks the sums of a training as its rounds are recorded."""

    def __init__(self, plan: Plan, layers: int, state: ps_pb.TrainingState, advice: Advice) -> None:
        """Begins where an attempt begins.

        Args:
            plan: Plan of the job.
            layers: Number of layers of weights.
            state: State that the attempt begins with.
            advice: Remedies for the warnings, and a baseline to compare with.
        """
        known = state.diagnostics
        self._plan = plan
        self._advice = advice
        self._first = SampleSums(known.first_cost_sum, known.first_samples)
        # Nothing can be compared with beginnings that an older release has not kept.
        self._beginning_is_known = not state.step or state.HasField("diagnostics")
        self._first_weights_norm = known.first_weights_norm
        self._vanished = list(known.vanished_checks) or [0] * layers
        self._given = list(known.given)
        steps = plan.steps_per_epoch
        wanted = steps if plan.sampling_interval == 1 else steps * _CHECKS_PER_STEP
        self._checks = min(max(wanted, _LEAST_CHECKS), _MOST_CHECKS)

    def set_first_weights_norm(self, weights_norm: float) -> None:
        """Sets the norm of the weights before the first step of the job."""
        self._first_weights_norm = weights_norm

    def record_steps(self, steps: ClosedRounds) -> None:
        """Records steps, one after the other; the norms of those that the plan has a check for."""
        for sums in steps.sums:
            if not self._beginning_is_known or self._first.samples >= _FIRST_SAMPLES:
                break
            self._first.add_sums(sums)
        for place, norms in steps.norms.items():
            if self._plan.is_checked(steps.first + place):
                self._check(steps.sums[place], norms.gradients)

    def _check(self, sums: SampleSums, gradient_norms: Sequence[float]) -> None:
        cost = abs(sums.cost_sum / sums.samples)
        learned = cost <= _LEARNED * abs(self._first.cost or 0.0)
        for layer, norm in enumerate(gradient_norms):
            vanished = not learned and norm <= _NO_GRADIENT * cost
            self._vanished[layer] = self._vanished[layer] + 1 if vanished else 0

    def warnings(
        self,
        step: int,
        epoch: int,
        training_cost: float | None,
        validation_cost: float | None,
        weights_norm: Callable[[], float],
        *,
        at_end: bool,
    ) -> Iterator[jobs_pb.JobWarning]:
        """Yields new warnings at the end of an epoch, or of the training.

        Args:
            step: Number of updates of the weights so far.
            epoch: Number of the epoch, from 1.
            training_cost: Mean cost per sample of its steps.
            validation_cost: Mean cost per sample of the last evaluation; None before the first one.
            weights_norm: Returns the present norm of the weights.
            at_end: Whether the training is over.
        """
        costs = {"training": training_cost, "validation": validation_cost}
        found: dict[jobs_pb.WarningKind.ValueType, Callable[[], str]] = {
            jobs_pb.WARNING_KIND_COST_EXPLODED: lambda: self._explosion(costs, epoch, weights_norm),
            jobs_pb.WARNING_KIND_GRADIENT_VANISHED: self._vanishing,
            jobs_pb.WARNING_KIND_NOTHING_LEARNED: lambda: self._futility(training_cost) if at_end else "",
        }
        for kind, check in found.items():
            if kind not in self._given and (message := check()):
                self._given.append(kind)
                yield jobs_pb.JobWarning(kind=kind, step=step, message=message)

    def state(self) -> ps_pb.Diagnostics | None:
        """Returns the state for a checkpoint."""
        if not self._beginning_is_known:
            return None
        return ps_pb.Diagnostics(
            first_weights_norm=self._first_weights_norm,
            first_cost_sum=self._first.cost_sum,
            first_samples=self._first.samples,
            vanished_checks=self._vanished,
            given=self._given,
        )

    def _explosion(self, costs: dict[str, float | None], epoch: int, weights_norm: Callable[[], float]) -> str:
        first = self._first.cost
        if first is None or first <= 0:
            return ""
        for rows, cost in costs.items():
            if cost is None or cost < _COST_GROWTH * first:
                continue
            grown = weights_norm()
            if grown >= _WEIGHTS_GROWTH * self._first_weights_norm:
                return (
                    f"the {rows} cost is {cost:.3g} after epoch {epoch}, but was {first:.3g} in the first steps, and "
                    f"the weights have grown from {self._first_weights_norm:.3g} to {grown:.3g}: the training has all "
                    f"but diverged; {self._advice.remedy}"
                )
        return ""

    def _vanishing(self) -> str:
        gone = {f"W{layer}": checks for layer, checks in enumerate(self._vanished) if checks >= self._checks}
        if not gone:
            return ""
        which = "any of the weights" if len(gone) == len(self._vanished) else " and ".join(gone)
        return (
            f"no gradient reaches {which} any more, in each of the last {min(gone.values())} steps that were checked: "
            "nothing is learned there, as nodes are dead (relu) or saturated (sigmoid, tanh); take another "
            "model.activation, such as leaky_relu, and an output_activation that can reach the targets, or "
            f"{self._advice.remedy}"
        )

    def _futility(self, cost: float | None) -> str:
        baseline = self._advice.baseline
        if baseline is None or cost is None or cost <= baseline.cost:
            return ""
        return (
            f"at its end the training cost is {cost:.3g}, while always answering {baseline.answer:.3g}, the middle of "
            f"the targets, would cost {baseline.cost:.3g} at most: the network has learned nothing; give targets in a "
            "unit in which they are near 1, an output_activation that can reach them, and more epochs"
        )
