"""A round: the tickets that belong together, and the ledger of their results."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from nablad.v1 import parameter_server_pb2 as ps_pb
from service.parameter_server.policies import Policy
from service.parameter_server.reduction import TreeSum
from workers.plan import Plan

__all__ = ["Round", "RoundQueue"]

Vector = NDArray[np.floating]


class Round:
    """One step, or one evaluation: which parts are in, and the sums of what they brought.

    Attributes:
        kind: Gradient or evaluation.
        epoch: From 0.
        step: From 0; for an evaluation, the number of updates that the evaluated weights have seen.
        parts: Tickets of the round.
        samples: Samples of all parts.
        gradient: Sum of the parts' gradients once the round is complete; None before, and for an evaluation.
    """

    def __init__(self, kind: ps_pb.TicketKind.ValueType, epoch: int, step: int, samples: list[int]) -> None:
        """Opens the round; `samples` has the number of samples of each part."""
        self.kind = kind
        self.epoch = epoch
        self.step = step
        self.parts = len(samples)
        self.samples = sum(samples)
        self.gradient: Vector | None = None
        self._part_samples = samples
        self._cost_sums: dict[int, float] = {}
        self._correct_count = 0
        self._tree = TreeSum(self.parts)

    @property
    def complete(self) -> bool:
        """Whether every part is in."""
        return len(self._cost_sums) == self.parts

    @property
    def cost_sum(self) -> float:
        """Sum of the parts' costs, in the order of their numbers."""
        return sum(self._cost_sums[part] for part in range(self.parts))

    @property
    def correct_count(self) -> int:
        """Samples that were classified right."""
        return self._correct_count

    def is_in(self, part: int) -> bool:
        """Whether a result for this part was taken."""
        return part in self._cost_sums

    def has_ticket(self, ticket: ps_pb.Ticket) -> bool:
        """Whether the ticket is one of this round's."""
        return (ticket.kind, ticket.step) == (self.kind, self.step) and ticket.micro_batch < self.parts

    def counts_right(self, result: ps_pb.Result) -> bool:
        """Whether the result covers as many samples as its part has."""
        return result.correct_count <= result.sample_count == self._part_samples[result.ticket.micro_batch]

    def take(self, result: ps_pb.Result, gradient: Vector | None) -> None:
        """Enters a result that passed every check. The gradient vector is taken over."""
        part = result.ticket.micro_batch
        self._cost_sums[part] = result.cost_sum
        self._correct_count += result.correct_count
        if gradient is not None:
            self.gradient = self._tree.add(part, gradient)


class RoundQueue:
    """All rounds of a job in their order: which are open, which come.

    The steps follow one another as the policy says; after each epoch comes an evaluation, if there are validation rows,
    for which the weights stand still.
    """

    def __init__(self, plan: Plan, policy: Policy) -> None:
        self._coming = _rounds(plan)
        self._next = next(self._coming, None)
        self._policy = policy
        self._open: list[Round] = []

    @property
    def finished(self) -> bool:
        """Whether the last round is complete."""
        return self._next is None and not self._open

    @property
    def evaluation_comes(self) -> bool:
        """Whether the next round to be opened is an evaluation."""
        return self._next is not None and self._next.kind == ps_pb.TICKET_KIND_EVALUATION

    def find(self, ticket: ps_pb.Ticket) -> Round | None:
        """The open round that the ticket belongs to."""
        return next((round_ for round_ in self._open if round_.has_ticket(ticket)), None)

    def open(self, version: int) -> Iterator[Round]:
        """Opens the rounds that may be, now that the weights have seen `version` updates."""
        while self._next is not None and self._may_open(self._next, version):
            self._open.append(self._next)
            yield self._next
            self._next = next(self._coming, None)

    def pop_complete(self) -> Round | None:
        """Takes out the first open round if it is complete; a later one waits for it."""
        return self._open.pop(0) if self._open and self._open[0].complete else None

    def _may_open(self, round_: Round, version: int) -> bool:
        kinds = {other.kind for other in (*self._open, round_)}
        if ps_pb.TICKET_KIND_EVALUATION in kinds:
            return not self._open
        return self._policy.may_open(round_.step, version)


def _rounds(plan: Plan) -> Iterator[Round]:
    for step in range(plan.steps):
        epoch = plan.epoch(step)
        samples = [plan.samples(step, part) for part in range(plan.parts(step))]
        yield Round(ps_pb.TICKET_KIND_GRADIENT, epoch, step, samples)
        if plan.ends_epoch(step) and plan.validation_rows:
            ranges = [plan.evaluation(part) for part in range(plan.evaluation_parts)]
            samples = [rows.stop - rows.start for rows in ranges]
            yield Round(ps_pb.TICKET_KIND_EVALUATION, epoch, step + 1, samples)
