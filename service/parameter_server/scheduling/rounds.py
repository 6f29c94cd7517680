"""A round: the tickets that belong together, and the ledger of their results."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.parameter_server.scheduling.policies import Policy
from service.parameter_server.shard.reduction import Buffers, TreeSum
from workers.mathematics.sums import Sums
from workers.plan import Plan
from workers.transport.tickets import Result, Ticket, TicketKind

__all__ = ["Round", "RoundQueue"]

Vector = NDArray[np.floating]

# Of computing one result: whoever claims more has not measured it.
_MOST_SECONDS: Final = 1e6


class Round:
    """One step, or one evaluation: which parts are in, and the sums of what they brought.

    Attributes:
        kind: Gradient or evaluation.
        epoch: From 0.
        step: From 0; for an evaluation, the number of updates that the evaluated weights have seen.
        parts: Tickets of the round.
        part_samples: Samples of each part.
        samples: Samples of all parts.
        addends: The one or two vectors whose sum is the gradient, once the round is complete; none before, and for an
            evaluation.
    """

    def __init__(self, kind: TicketKind, epoch: int, step: int, samples: Sequence[int], buffers: Buffers) -> None:
        """Opens the round; `samples` has the number of samples of each part."""
        self.kind = kind
        self.epoch = epoch
        self.step = step
        self.parts = len(samples)
        self.part_samples = samples
        self.samples = sum(samples)
        self.addends: tuple[Vector, ...] = ()
        self._first = 0.0  # when the first result came
        self._computed: dict[str, float] = {}
        self._sums: dict[int, Sums] = {}
        self._oldest_version = step
        self._tree = TreeSum(self.parts, buffers)

    @property
    def complete(self) -> bool:
        """Whether every part is in."""
        return len(self._sums) == self.parts

    def sums(self) -> Sums:
        """Over the samples of all parts, added in the order of their numbers, once all of them are in."""
        return Sums.total(map(self._sums.__getitem__, range(self.parts)))

    @property
    def staleness(self) -> int:
        """How many updates old the weights are, when it is applied, that its oldest result was computed with."""
        return self.step - self._oldest_version

    def is_in(self, part: int) -> bool:
        """Whether a result for this part was taken."""
        return part in self._sums

    def has_ticket(self, ticket: Ticket) -> bool:
        """Whether the ticket is one of this round's."""
        return ticket.step == self.step and ticket.kind == self.kind and ticket.micro_batch < self.parts

    @property
    def computed(self) -> float:
        """For how many seconds the worker computed that took longest, with all its parts."""
        return max(self._computed.values(), default=0.0)

    def take(self, result: Result, worker: str, computed: float, now: float) -> float:
        """Enters a result that passed every check.

        Args:
            result: Its gradient is taken over, or lent.
            worker: Whose it is.
            computed: For how many seconds the worker computed it, as it says.
            now: In monotonic seconds.

        Returns:
            How long after the first result of the round it came, in seconds.
        """
        part = result.ticket.micro_batch
        if not self._sums:
            self._first = now
        if 0 < computed < _MOST_SECONDS:
            self._computed[worker] = self._computed.get(worker, 0.0) + computed
        self._oldest_version = min(self._oldest_version, result.version)
        self._sums[part] = result.sums
        if result.gradient is not None:
            self.addends = self._tree.add(part, result.gradient) or ()
        return now - self._first

    def settle(self, lent: Vector) -> None:
        """The owner of a gradient that was lent wants to write to it."""
        self._tree.settle(lent)


class RoundQueue:
    """All rounds of a job in their order, from any point on: which are open, which come.

    The steps follow one another as the policy says; after each epoch comes an evaluation, if there are validation rows,
    for which the weights stand still.
    """

    def __init__(
        self, plan: Plan, policy: Policy, buffers: Buffers, version: int = 0, *, evaluated: bool = False
    ) -> None:
        """Begins with what comes after so many updates of the weights, which were evaluated already or not."""
        self._plan = plan
        self._buffers = buffers
        self._coming = self._rounds(version, evaluated)
        self._next = next(self._coming, None)
        self._policy = policy
        self._open: list[Round] = []

    def find(self, ticket: Ticket) -> Round | None:
        """The open round that the ticket belongs to."""
        for round_ in self._open:
            if round_.has_ticket(ticket):
                return round_
        return None

    def open(self, version: int) -> Iterator[Round]:
        """Opens the rounds that may be, now that the weights have seen `version` updates."""
        while self._next is not None and self._may_open(self._next, version):
            self._open.append(self._next)
            yield self._next
            self._next = next(self._coming, None)

    def pop_complete(self) -> Round | None:
        """Takes out the first open round if it is complete; a later one waits for it."""
        return self._open.pop(0) if self._open and self._open[0].complete else None

    def cut(self, version: int, *, evaluate: bool = False) -> None:
        """No step comes any more, only an evaluation of the weights after `version` updates, if that is wanted."""
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
