"""Rounds: the tickets that belong together with the sums of their results, and the policy that opens them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from nablad.v1 import job_spec_pb2 as spec_pb
from service.parameter_server.shard.reduction import GradientBuffers, TreeSum
from workers.mathematics.sums import SampleSums
from workers.plan import Plan
from workers.transport.tickets import Result, Ticket, TicketKind

__all__ = ["POLICIES", "Round", "RoundQueue", "SchedulingPolicy", "SyncPolicy"]

Vector = NDArray[np.floating]

# Longest time, in seconds, that computing one result can take; a worker that reports more has not measured it.
_MOST_SECONDS: Final = 1e6


class SchedulingPolicy(Protocol):
    """Decides how far the tickets may run ahead of the updates. Steps are always applied in their order."""

    def may_open(self, step: int, version: int) -> bool:
        """Returns whether the tickets of `step` may go out while the weights have seen `version` updates."""


class SyncPolicy:
    """Opens a step when the one before it is applied: the result is that of one process."""

    def may_open(self, step: int, version: int) -> bool:
        """Returns whether every earlier step is applied."""
        return step == version


POLICIES: Mapping[spec_pb.Policy.ValueType, SchedulingPolicy] = {spec_pb.POLICY_SYNC: SyncPolicy()}
"""Every policy, by its number in a spec."""


class Round:
    """One step or one evaluation: the parts that have a result, and the sums of their results.

    Attributes:
        kind: Gradient or evaluation.
        epoch: Number of the epoch, from 0.
        step: Number of the step, from 0; for an evaluation, the number of updates that the evaluated weights have seen.
        parts: Number of tickets.
        part_samples: Number of samples of each part.
        samples: Number of samples of all parts.
        addends: The one or two vectors whose sum is the gradient, once the round is complete; empty before, and for an
            evaluation.
    """

    def __init__(
        self, kind: TicketKind, epoch: int, step: int, samples: Sequence[int], buffers: GradientBuffers
    ) -> None:
        """Opens the round; `samples` has the number of samples of each part."""
        self.kind = kind
        self.epoch = epoch
        self.step = step
        self.parts = len(samples)
        self.part_samples = samples
        self.samples = sum(samples)
        self.addends: tuple[Vector, ...] = ()
        self._first_time = 0.0  # of the first result
        self._computed: dict[str, float] = {}
        self._sums: dict[int, SampleSums] = {}
        self._oldest_version = step
        self._tree = TreeSum(self.parts, buffers)

    @property
    def complete(self) -> bool:
        """True if every part has a result."""
        return len(self._sums) == self.parts

    def sums(self) -> SampleSums:
        """Returns the sums over all samples, added in the order of the parts; the round must be complete."""
        return SampleSums.total(map(self._sums.__getitem__, range(self.parts)))

    @property
    def staleness(self) -> int:
        """Age, in updates, of the weights that the oldest result was computed with, when the round is applied."""
        return self.step - self._oldest_version

    def has_result(self, part: int) -> bool:
        """Returns whether a result for this part was accepted."""
        return part in self._sums

    def has_ticket(self, ticket: Ticket) -> bool:
        """Returns whether the ticket is one of this round's."""
        return ticket.step == self.step and ticket.kind == self.kind and ticket.micro_batch < self.parts

    @property
    def computed(self) -> float:
        """Seconds of computation of the slowest worker, with all its parts."""
        return max(self._computed.values(), default=0.0)

    def add_result(self, result: Result, worker: str, computed: float, now: float) -> float:
        """Adds a result that the ledger admitted.

        Args:
            result: Its gradient is owned from now on, or borrowed.
            worker: Name of the worker that sent it.
            computed: Seconds that the worker computed, as it reports.
            now: Monotonic seconds.

        Returns:
            Lag behind the first result of the round, in seconds.
        """
        part = result.ticket.micro_batch
        if not self._sums:
            self._first_time = now
        if 0 < computed < _MOST_SECONDS:
            self._computed[worker] = self._computed.get(worker, 0.0) + computed
        self._oldest_version = min(self._oldest_version, result.version)
        self._sums[part] = result.sums
        if result.gradient is not None:
            self.addends = self._tree.add_part(part, result.gradient) or ()
        return now - self._first_time

    def detach_gradient(self, borrowed: Vector) -> None:
        """Copies a borrowed gradient if it is still needed, because its owner writes to it next."""
        self._tree.detach_part(borrowed)


class RoundQueue:
    """Rounds of a job in their order, from any point on: those that are open, and those to come.

    The policy decides how steps follow one another. After each epoch comes an evaluation, if there are validation rows;
    the weights do not change meanwhile.
    """

    def __init__(
        self,
        plan: Plan,
        policy: SchedulingPolicy,
        buffers: GradientBuffers,
        version: int = 0,
        *,
        evaluated: bool = False,
    ) -> None:
        """Begins after `version` updates of the weights; `evaluated` says whether these weights were evaluated."""
        self._plan = plan
        self._buffers = buffers
        self._coming = self._rounds(version, evaluated)
        self._next = next(self._coming, None)
        self._policy = policy
        self._open: list[Round] = []

    def find(self, ticket: Ticket) -> Round | None:
        """Returns the open round that the ticket belongs to."""
        for round_ in self._open:
            if round_.has_ticket(ticket):
                return round_
        return None

    def open_rounds(self, version: int) -> Iterator[Round]:
        """Opens the rounds that the policy allows, now that the weights have seen `version` updates."""
        while self._next is not None and self._may_open(self._next, version):
            self._open.append(self._next)
            yield self._next
            self._next = next(self._coming, None)

    def pop_complete(self) -> Round | None:
        """Removes the first open round if it is complete; a later one waits for it."""
        return self._open.pop(0) if self._open and self._open[0].complete else None

    def cut(self, version: int, *, evaluate: bool = False) -> None:
        """Drops all rounds to come; leaves an evaluation of the weights after `version` updates if it is wanted."""
        self._coming = iter(())
        self._next = self._evaluation(version) if evaluate else None

    def _may_open(self, round_: Round, version: int) -> bool:
        if not self._open:
            return round_.kind == TicketKind.EVALUATION or self._policy.may_open(round_.step, version)
        kinds = {other.kind for other in (*self._open, round_)}
        return TicketKind.EVALUATION not in kinds and self._policy.may_open(round_.step, version)

    def _rounds(self, version: int, evaluated: bool) -> Iterator[Round]:
        plan = self._plan
        # All steps of an epoch but the last are alike.
        first, last = (
            [plan.samples(step, part) for part in range(plan.parts(step))] for step in (0, plan.steps_per_epoch - 1)
        )
        if version and plan.ends_epoch(version - 1) and plan.validation_rows and not evaluated:
            yield self._evaluation(version)
        for step in range(version, plan.steps):
            ends_epoch = plan.ends_epoch(step)
            samples = last if ends_epoch else first
            yield Round(TicketKind.GRADIENT, plan.epoch(step), step, samples, self._buffers)
            if ends_epoch and plan.validation_rows:
                yield self._evaluation(step + 1)

    def _evaluation(self, version: int) -> Round:
        samples = [_length(self._plan.evaluation(part)) for part in range(self._plan.evaluation_parts)]
        return Round(TicketKind.EVALUATION, self._plan.epoch(version - 1), version, samples, self._buffers)


def _length(rows: slice) -> int:
    length: int = rows.stop - rows.start
    return length
