"""Orders: how tickets go out to workers, step by step or as a run that the native step core makes."""

from collections.abc import Mapping
from typing import Final

from service.parameter_server.coordinator import Coordinator
from service.parameter_server.runs import Runs
from service.parameter_server.shard.step_core import Status, StepCore
from service.parameter_server.transport.members import Members
from workers.transport.tickets import Ticket

__all__ = ["Orders"]

# A worker whose results are rejected so often in runs would end every one of them.
_MOST_REJECTED_RUNS: Final = 3


class Orders:
    """Sends tickets, and makes steps while there is a run. Belongs to the engine's thread.

    Attributes:
        obstacle: Why the steps that were dealt last are made in Python, as a sentence; empty if they are not.
    """

    def __init__(self, coordinator: Coordinator, members: Members, core: StepCore | None, obstacle: str) -> None:
        """Starts without a run.

        Args:
            coordinator: Deals the tickets.
            members: The workers.
            core: Native step core of the coordinator's shard; None: all steps are made in Python.
            obstacle: Why there is no core.
        """
        self.obstacle = obstacle
        self._coordinator = coordinator
        self._members = members
        self._runs = Runs(core) if core else None
        self._python_step = -1  # is not made by the core, which has rejected a result of it
        self._rejected_runs = 0

    @property
    def in_run(self) -> bool:
        """True while there is a run: somebody has to call `make_steps`."""
        return bool(self._runs and self._runs.number)

    def is_in_run(self, worker: str) -> bool:
        """Returns whether a worker belongs to the present run, so that it sends no results."""
        return bool(self._runs and self._runs.has_worker(worker))

    def is_waited_for(self, worker: str) -> bool:
        """Returns whether results of a worker are missing."""
        if self._runs and self._runs.has_worker(worker):
            return self._runs.is_waited_for(worker)
        return self._coordinator.is_at_work(worker)

    def send_tickets(self, now: float) -> None:
        """Deals tickets and sends them, unless the workers of the present run go on with just these parts."""
        coordinator, dealt, run = self._coordinator, self._coordinator.deal_tickets(), 0
        if self._runs and (dealt or coordinator.over):
            # Tickets of an evaluation may have the same parts.
            if coordinator.is_whole_step(dealt) and self._runs.continues_with(dealt):
                self._runs.publish()
                return
            self._runs.end()
            run = self._begin_run(self._runs, dealt)
        for worker, tickets in dealt.items():
            self._members.send_order(worker, tickets, coordinator.version, now, run)

    def make_steps(self, now: float) -> bool:
        """Makes steps of the present run until something else is to be looked at.

        Returns:
            Whether rounds were closed or tickets wait: they have to be sent and recorded.
        """
        assert self._runs is not None  # noqa: S101 (see `in_run`)
        rounds = self._coordinator.rounds
        if self._runs.make_steps(self._coordinator, now) != Status.REJECTED:
            return self._coordinator.rounds != rounds
        # The Python path finds out whose result it is, and why.
        self._python_step = self._coordinator.version
        self._rejected_runs += 1
        self._abandon_run(self._runs)
        return True

    def withdraw_worker(self, worker: str) -> None:
        """Ends the present run if a worker that is lost belongs to it."""
        if self._runs and self._runs.has_worker(worker):
            self._abandon_run(self._runs)

    def end_run(self) -> None:
        """Ends the present run, if there is one."""
        if self._runs:
            self._runs.end()

    def interrupt(self) -> None:
        """Makes a call of `make_steps` return soon; may be called by any thread."""
        if self._runs:
            self._runs.interrupt()

    def _abandon_run(self, runs: Runs) -> None:
        """Ends a run within a step, which begins anew: nothing of it has changed the weights."""
        runs.end()
        self._coordinator.abandon_tickets()

    def _begin_run(self, runs: Runs, dealt: Mapping[str, list[Ticket]]) -> int:
        """Begins a run with the tickets of a whole step; returns its number, or 0 if there can be none."""
        members = {self._members.member(worker): tickets for worker, tickets in dealt.items()}
        self.obstacle = self._obstacle(dealt) or runs.obstacle(members)
        if not self.obstacle:
            try:
                runs.begin(members, self._coordinator.round_begun)
            except MemoryError as error:
                self.obstacle = str(error)
        return runs.number

    def _obstacle(self, dealt: Mapping[str, list[Ticket]]) -> str:
        if self._rejected_runs >= _MOST_REJECTED_RUNS:
            return f"results were rejected {_MOST_REJECTED_RUNS} times"
        if self._coordinator.version == self._python_step:
            return "a result was rejected"
        if not self._coordinator.is_whole_step(dealt):
            return "the workers have not got all micro-batches of a step at once (they get 64 each at most)"
        return ""
