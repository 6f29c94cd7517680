"""Rounds: the tickets that belong together with the sums of their results, and the queue that opens them in order."""

from collections.abc import Iterator, Sequence
from typing import Final

from service.parameter_server.scheduling.policies import SchedulingPolicy
from workers.mathematics.sums import SampleSums
from workers.plan import Plan
from workers.transport.tickets import Result, Ticket, TicketKind

__all__ = ["Round", "RoundQueue"]

# Longest time, in seconds, that computing one result can take; a worker that reports more has not measured it.
_MOST_SECONDS: Final = 1e6


class Round:
    """One step or one evaluation: the parts that have a result, and the sums of their results.

    Attributes:
        kind: Gradient or evaluation.
        epoch: Number of the epoch, from 0.
        step: Number of the step, from 0; for an evaluation, the number of updates that the evaluated weights have seen.
        parts: Number of tickets.
        part_samples: Number of samples of each part.
        samples: Number of samples of the parts that have a result.
    """

    def __init__(self, kind: TicketKind, epoch: int, step: int, samples: Sequence[int]) -> None:
        """Opens the round; `samples` has the number of samples of each part."""
        self.kind = kind
        self.epoch = epoch
        self.step = step
        self.parts = len(samples)
        self.part_samples = samples
        self.samples = 0
        self._first_time = 0.0  # of the first result
        self._computed: dict[str, float] = {}
        self._sums: dict[int, SampleSums] = {}
        self._oldest_version = step

    @property
    def results(self) -> int:
        """Number of parts that have a result."""
        return len(self._sums)

    def sums(self) -> SampleSums:
        """Returns the sums over the samples of all results, added in the order of the parts."""
        return SampleSums.total(self._sums[part] for part in sorted(self._sums))

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

    def tickets(self) -> Iterator[Ticket]:
        """Yields all tickets of the round in the order of their parts."""
        return (Ticket(self.step, self.kind, part) for part in range(self.parts))

    def missing_tickets(self) -> list[Ticket]:
        """Returns the tickets that have no result, in the order of their parts."""
        if len(self._sums) == self.parts:
            return []
        return [ticket for ticket in self.tickets() if ticket.micro_batch not in self._sums]

    @property
    def computed(self) -> float:
        """Seconds of computation of the slowest worker, with all its parts."""
        return max(self._computed.values(), default=0.0)

    def add_result(self, result: Result, worker: str, computed: float, now: float) -> float:
        """Adds the sums of a result that the ledger admitted.

        Args:
            result: The result; its gradient is left alone.
            worker: Name of the worker that sent it.
            computed: Seconds that the worker computed, as it reports.
            now: Monotonic seconds.

        Returns:
            Lag behind the first result of the round, in seconds.
        """
        if not self._sums:
            self._first_time = now
        if 0 < computed < _MOST_SECONDS:
            self._computed[worker] = self._computed.get(worker, 0.0) + computed
        self._oldest_version = min(self._oldest_version, result.version)
        self._sums[result.ticket.micro_batch] = result.sums
        self.samples += self.part_samples[result.ticket.micro_batch]
        return now - self._first_time


class RoundQueue:
    """Rounds of a job in their order, from any point on: those that are open, and the one to come.

    The policy decides how steps follow one another. After each epoch comes an evaluation, if there are validation rows;
    the weights do not change meanwhile.
    """

    def __init__(self, plan: Plan, policy: SchedulingPolicy, version: int = 0, *, evaluated: bool = False) -> None:
        """Begins after `version` updates of the weights; `evaluated` says whether these weights were evaluated."""
        self._plan = plan
        self._policy = policy
        # All steps of an epoch but the last are alike.
        self._samples, self._last_samples = (
            [plan.samples(step, part) for part in range(plan.parts(step))] for step in (0, plan.steps_per_epoch - 1)
        )
        waits = version and plan.ends_epoch(version - 1) and plan.validation_rows and not evaluated
        self._next = self._evaluation(version) if waits else self._step(version)
        self._cut = False
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
            opened, self._next = self._next, self._after(self._next)
            self._open.append(opened)
            yield opened

    def pop_complete(self) -> Round | None:
        """Removes the first open round if it is complete; a later one waits for it."""
        return self._open.pop(0) if self._open and self._is_complete(self._open[0]) else None

    def open_tickets(self) -> list[Ticket]:
        """Returns the tickets of the open round of a step that no result has come for; empty if there is none."""
        if len(self._open) == 1 and self._open[0].kind == TicketKind.GRADIENT and not self._open[0].results:
            return list(self._open[0].tickets())
        return []

    def skip_steps(self, steps: int) -> None:
        """Drops the open round and those after it: so many steps of one epoch are made in another way."""
        (first,) = self._open
        self._open.clear()
        last = self._step(first.step + steps - 1)
        self._next = self._after(last) if last else None

    def part_samples(self, step: int) -> Sequence[int]:
        """Returns the number of samples of each part of a step."""
        return self._last_samples if self._plan.ends_epoch(step) else self._samples

    def cut(self, version: int, *, evaluate: bool = False) -> None:
        """Drops all rounds to come; leaves an evaluation of the weights after `version` updates if it is wanted."""
        self._cut = True
        self._next = self._evaluation(version) if evaluate else None

    def _is_complete(self, round_: Round) -> bool:
        if round_.kind == TicketKind.EVALUATION:
            return round_.results == round_.parts
        return self._policy.is_complete(round_.results, round_.parts)

    def _may_open(self, round_: Round, version: int) -> bool:
        if not self._open:
            return round_.kind == TicketKind.EVALUATION or self._policy.may_open(round_.step, version)
        kinds = {other.kind for other in (*self._open, round_)}
        return TicketKind.EVALUATION not in kinds and self._policy.may_open(round_.step, version)

    def _after(self, round_: Round) -> Round | None:
        if self._cut:
            return None
        if round_.kind == TicketKind.EVALUATION:
            return self._step(round_.step)
        step = round_.step + 1
        if self._plan.ends_epoch(round_.step) and self._plan.validation_rows:
            return self._evaluation(step)
        return self._step(step)

    def _step(self, step: int) -> Round | None:
        if step >= self._plan.steps:
            return None
        return Round(TicketKind.GRADIENT, self._plan.epoch(step), step, self.part_samples(step))

    def _evaluation(self, version: int) -> Round:
        samples = [_length(self._plan.evaluation(part)) for part in range(self._plan.evaluation_parts)]
        return Round(TicketKind.EVALUATION, self._plan.epoch(version - 1), version, samples)


def _length(rows: slice) -> int:
    length: int = rows.stop - rows.start
    return length
