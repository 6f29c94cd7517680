"""Runs: steps in a row that the native step core makes with the same workers, without a message between them."""

import os
from collections.abc import Mapping, Sequence
from typing import Final

from service.parameter_server.coordinator import Coordinator
from service.parameter_server.shard.step_core import RunPart, Status, StepCore, StepsWanted
from service.parameter_server.transport.members import Member
from workers.transport.run_memory import address_of
from workers.transport.tickets import Ticket

__all__ = ["Runs"]

# Time of one call of the core: between two, the engine serves everybody else.
_CALL_SECONDS: Final = 0.05
# The other results mostly come before a sleeping process would be awake again.
_SPIN_SECONDS: Final = 200e-6


class Runs:
    """The present run, if there is one, and what it takes to begin another one. Belongs to the engine's thread.

    Attributes:
        number: Number of the present run; 0: none.
    """

    def __init__(self, core: StepCore) -> None:
        """Starts without a run."""
        self.number = 0
        self._core = core
        self._runs = 0
        self._members: list[tuple[Member, list[int]]] = []
        self._lags: list[float] = []  # of each part, when they were counted last
        self._arrived: dict[str, int] = {}  # results of the present step, by worker

    def continues_with(self, dealt: Mapping[str, Sequence[Ticket]]) -> bool:
        """Returns whether the present run has just these workers, with these parts."""
        parts = [(worker, [ticket.micro_batch for ticket in tickets]) for worker, tickets in dealt.items()]
        return bool(self.number) and parts == [(member.worker, parts) for member, parts in self._members]

    def has_worker(self, worker: str) -> bool:
        """Returns whether a worker belongs to the present run."""
        return bool(self.number) and any(member.worker == worker for member, _ in self._members)

    @staticmethod
    def obstacle(dealt: Mapping[Member, Sequence[Ticket]]) -> str:
        """Returns why these workers cannot make a run, as a sentence; empty if they can."""
        for member, tickets in dealt.items():
            memory = member.connection.run_memory
            if not member.connected:
                return f"{member.worker} was lost"
            if memory is None and member.connection.transport == "inline":
                return f"{member.worker} sends its gradients inline"
            if memory is None:
                return f"{member.worker} has no native library, or not the parameter server's"
            if len(tickets) > len(memory.gradients):
                return f"{member.worker} has no memory for the results of {len(tickets)} micro-batches"
        return ""

    def begin(self, dealt: Mapping[Member, Sequence[Ticket]], mark: float) -> None:
        """Begins a run; the workers must get an order with its number.

        Args:
            dealt: The tickets of all parts of a step, in the order of the parts.
            mark: Time of the last update, by the stopwatch's clock.

        Raises:
            MemoryError: There is no room for it.
        """
        self._members = [(member, [ticket.micro_batch for ticket in tickets]) for member, tickets in dealt.items()]
        parts = []
        for owner, (member, numbers) in enumerate(self._members):
            memory = member.connection.run_memory
            assert memory is not None  # noqa: S101 (see `obstacle`)
            parts += [
                RunPart(memory.slot_address(i), address_of(memory.gradients[i]), owner) for i in range(len(numbers))
            ]
        cpus = len(os.sched_getaffinity(0))
        # Where there are more processes than CPUs, one that polls takes the CPU of one that computes.
        worker_spin = _SPIN_SECONDS if len(dealt) <= cpus else 0.0
        server_spin = _SPIN_SECONDS if len(dealt) < cpus else 0.0
        self._runs += 1
        self._core.times[1] = mark
        self._core.begin_run(self._runs, parts, worker_spin, server_spin)
        self._lags = [0.0] * len(parts)
        self._arrived.clear()
        self.number = self._runs

    def publish(self) -> None:
        """Lets the workers go on with the next step."""
        self._core.publish_version()

    def end(self) -> None:
        """Ends the present run, if there is one: workers drop what they compute, and look for orders."""
        if self.number:
            self.number = 0
            self._members = []
            self._core.end_run()

    def interrupt(self) -> None:
        """Makes the engine's thread come back soon; may be called by any thread."""
        self._core.interrupt()

    def make_steps(self, coordinator: Coordinator, now: float) -> Status:
        """Makes steps of the present run, and has the coordinator close them.

        Args:
            coordinator: Has opened the first of the steps.
            now: Monotonic seconds.
        """
        core, stopwatch = self._core, coordinator.stopwatch
        wanted = coordinator.wanted_steps(core.most_steps)
        core.times[0] = stopwatch.mark
        report = core.make_steps(wanted, _CALL_SECONDS)
        stopwatch.add_seconds(report.spent, float(core.times[0]))
        if report.made.sums:
            self._count_results(wanted, len(report.made.sums), now)
            coordinator.close_steps(report.made, float(core.times[1]))
            stopwatch.lap("booking")
        else:
            self._hear(now)
        return report.status

    def is_waited_for(self, worker: str) -> bool:
        """Returns whether results of a worker for the present step are missing."""
        return any(
            member.worker == worker and not all(map(self._core.has_result, parts)) for member, parts in self._members
        )

    def _count_results(self, wanted: StepsWanted, steps: int, now: float) -> None:
        """Counts the results of each worker in so many of the wanted steps."""
        lags = [self._core.lag(part) for part in range(len(self._lags))]
        last = steps == len(wanted.measured)
        for member, parts in self._members:
            samples = sum((steps - last) * wanted.samples[part] + last * wanted.last_samples[part] for part in parts)
            member.record_steps(now)
            member.counters.add_results(
                steps * len(parts), samples, sum(lags[part] - self._lags[part] for part in parts)
            )
        self._lags = lags
        self._arrived.clear()

    def _hear(self, now: float) -> None:
        """Notes of which workers a result of the present step has arrived since the last look."""
        for member, parts in self._members:
            arrived = sum(map(self._core.has_result, parts))
            if arrived != self._arrived.get(member.worker, 0):
                self._arrived[member.worker] = arrived
                member.heard = now
