"""Policies: how far steps may run ahead of each other, which results count, and when a step is complete."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

from nablad.v1 import job_spec_pb2 as spec_pb

__all__ = ["BackupPolicy", "SchedulingPolicy", "SyncPolicy", "policy_of"]


class SchedulingPolicy(Protocol):
    """Rules of a step. Steps are always applied in their order, and evaluations are always complete."""

    @property
    def exact(self) -> bool:
        """True if the result depends on nothing but spec, data and arithmetic: neither on workers nor on time."""

    @property
    def weight_buffers(self) -> int:
        """Number of buffers for the weights: 1, or more if workers may read a version while later ones are written."""

    @property
    def allows_runs(self) -> bool:
        """True if many steps may be made without asking: each takes all results of the present weights, in place."""

    @property
    def promise(self) -> str:
        """Sentence, what holds for the result; for receipts."""

    def may_open(self, step: int, version: int) -> bool:
        """Returns whether the tickets of `step` may go out while the weights have seen `version` updates."""

    def accepts(self, result_version: int, version: int) -> bool:
        """Returns whether a result of weights of `result_version` counts while their version is `version`."""

    def spares(self, parts: int) -> int:
        """Returns how many parts may be missing when a step of so many parts is applied."""

    def is_complete(self, results: int, parts: int) -> bool:
        """Returns whether a step of so many parts may be applied with so many results."""

    def weight(self, result_version: int, version: int) -> float:
        """Returns the factor of an accepted result's gradient; its samples count as they are."""


class _StepByStep:
    """Rules of policies under which all results of a step are of the present weights."""

    def may_open(self, step: int, version: int) -> bool:
        """Returns whether every earlier step is applied."""
        return step == version

    def accepts(self, result_version: int, version: int) -> bool:
        """Returns whether the result is of the present weights."""
        return result_version == version

    def spares(self, parts: int) -> int:  # noqa: ARG002 (a step needs all of them)
        """Returns 0."""
        return 0

    def is_complete(self, results: int, parts: int) -> bool:
        """Returns whether all results but the spare ones are in."""
        return results >= parts - self.spares(parts)

    def weight(self, result_version: int, version: int) -> float:  # noqa: ARG002 (all are of the same weights)
        """Returns 1."""
        return 1.0


class SyncPolicy(_StepByStep):
    """Each step waits for all results of the one before: the result is that of one process."""

    exact = True
    weight_buffers = 1
    allows_runs = True
    promise = (
        "The weights follow bit for bit from spec, data and arithmetic, whatever the number and losses of workers."
    )


@dataclass(frozen=True)
class BackupPolicy(_StepByStep):
    """Each step waits for all but a few results of the one before, so that it need not wait for slow workers.

    Chen et al., "Revisiting distributed synchronous SGD" (2016), with micro-batches in place of workers.

    Attributes:
        spare_micro_batches: Number of micro-batches of a step that may be missing when it is applied.
    """

    spare_micro_batches: int
    exact: ClassVar[bool] = False
    weight_buffers: ClassVar[int] = 2
    allows_runs: ClassVar[bool] = False

    @property
    def promise(self) -> str:
        """Sentence, which micro-batches are applied, and how often."""
        return (
            f"Each step applies the mean over all but at most {self.spare_micro_batches} of its micro-batches. Those "
            "that are missing are counted and never applied, and no sample counts twice in an epoch. The weights "
            "depend on which results came in time, so that another run ends with others."
        )

    def spares(self, parts: int) -> int:
        """Returns the number of the spec; at least one part is needed, also of a short last step."""
        return min(self.spare_micro_batches, parts - 1)


def policy_of(spec: spec_pb.JobSpec) -> SchedulingPolicy:
    """Returns the policy of a completed spec."""
    policy = spec.distribution.policy
    if policy.name == spec_pb.POLICY_BACKUP:
        return BackupPolicy(policy.spare_micro_batches)
    return SyncPolicy()
