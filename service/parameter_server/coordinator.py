"""Coordinator of one attempt, as a state machine: results in, tickets out, updates of the shard when they are due.

Holds tickets, rounds and the ledger, and asks the policy; the vectors are the shard's. No gRPC, threads or files.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.checkpoints.image import Snapshot
from service.parameter_server.progress.accounting import EpochAccounting, Next
from service.parameter_server.progress.advice import Advice
from service.parameter_server.progress.attempt_statistics import ACTIVITIES
from service.parameter_server.progress.closed_rounds import ClosedRounds, StepSample
from service.parameter_server.progress.norm_schedule import NormSchedule
from service.parameter_server.progress.step_statistics import RoundTimer
from service.parameter_server.progress.stopping import StoppingRules
from service.parameter_server.progress.tracker import Position, ProgressTracker
from service.parameter_server.scheduling.dispatcher import Dispatcher
from service.parameter_server.scheduling.ledger import Ledger
from service.parameter_server.scheduling.policies import SchedulingPolicy
from service.parameter_server.scheduling.rounds import Round, RoundQueue
from service.parameter_server.shard.norms import Norms
from service.parameter_server.shard.shard import Shard
from service.parameter_server.shard.step_core import MadeSteps, StepsWanted
from workers.mathematics.optimizers import LearningRate
from workers.plan import Plan
from workers.runtime.failpoints import failpoint, failpoint_is_set
from workers.runtime.process_statistics import Stopwatch
from workers.transport.tickets import Rejection, Result, Ticket, TicketKind

__all__ = ["Coordinator"]

# Spare tickets go out late when a step has taken so many times as long as the first worker took for its tickets. Less
# would be usual where processes share CPUs, and each spare ticket that was not needed costs its worker the next step.
_LATE_FACTOR = 3.0


class Coordinator:
    """Rounds of an attempt: deals their tickets, admits their results, and applies them.

    Attributes:
        shard: Holds the vectors.
        rounds: Number of steps and evaluations that this attempt has made.
        failure: Sentence, why the training cannot go on; empty while it can.
        diverged: Whether it failed because its numbers are not finite, so that it would end so again.
        lag: Time from the first result of a round to the last one that was accepted, in seconds.
        counters: Running totals since the beginning of the attempt.
        steps: Statistics of the steps of the attempt.
        stopwatch: Seconds by activity.
    """

    def __init__(
        self,
        plan: Plan,
        policy: SchedulingPolicy,
        shard: Shard,
        learning_rate: LearningRate,
        state: ps_pb.TrainingState,
        rules: StoppingRules,
        *,
        attempt: int,
        labelled: bool,
        advice: Advice,
        clock: Callable[[], float],
    ) -> None:
        """Opens the round that comes next; nothing moves until workers are added.

        Args:
            plan: The cut of the rows into tickets.
            policy: Decides when the tickets of a step may go out, which results count, and when it is complete.
            shard: The vectors at the same state.
            learning_rate: Learning rate of the optimizer, which owns it.
            state: State that the attempt begins with.
            rules: Rules that end the training.
            attempt: Number of the attempt; results of other attempts are rejected.
            labelled: Whether targets are class labels, so that there is an accuracy.
            advice: Advice for numbers that grow beyond all bounds.
            clock: Monotonic seconds.
        """
        self.shard = shard
        self.rounds = 0
        self.failure = ""
        self.diverged = False
        self.lag = 0.0
        self.stopwatch = Stopwatch(ACTIVITIES, clock)
        self._plan = plan
        self._last_step = rules.last_step
        self._timer = RoundTimer(self.stopwatch)
        tracker = ProgressTracker(plan, state, attempt=attempt, learning_rate=learning_rate, labelled=labelled)
        self._accounting = EpochAccounting(plan, shard.weights, tracker, rules, state, advice)
        self.counters = self._accounting.counters
        self.steps = self._accounting.steps
        self._advice = advice
        self._divergence = f"the training diverged; {advice.remedy}"
        self._policy = policy
        self._first_run = math.inf  # seconds of this round until a worker had answered all its tickets
        self._dispatcher = Dispatcher()
        self._ledger = Ledger(attempt, plan, policy, self._dispatcher, shard.validate_gradient, self._explain)
        self._norm_schedule = NormSchedule(plan)
        self._queue = RoundQueue(plan, policy, self.version, evaluated=state.evaluated)
        self._open_rounds(self._accounting.start_attempt(self.version, evaluated=state.evaluated))
        self.record_rounds()

    @property
    def version(self) -> int:
        """Number of updates that the weights have seen."""
        return self.shard.version

    @property
    def round_begun(self) -> float:
        """Time when the present round began, by the stopwatch's clock."""
        return self._timer.begun

    @property
    def ending(self) -> str:
        """Sentence, why the training ended; empty while it goes on."""
        return self._accounting.ending

    @property
    def over(self) -> bool:
        """True if there will be no more tickets."""
        return bool(self._accounting.ending or self.failure)

    @property
    def position(self) -> Position:
        """Position of the training after the rounds that are recorded."""
        return self._accounting.position

    @property
    def rejected(self) -> dict[Rejection, int]:
        """Number of rejected results, by reason."""
        return self._ledger.rejected

    def add_worker(self, worker: str) -> None:
        """Adds a worker, which gets tickets from now on."""
        if not self._dispatcher.workers and not self.rounds:
            self.stopwatch.lap("waiting")
            self._timer.start_round()
        self._dispatcher.add_worker(worker)

    def remove_worker(self, worker: str, *, lost: bool = True) -> None:
        """Removes a worker; its tickets go to others. A lost one is counted, unless the training is over."""
        self.shard.detach_gradient(worker)
        self._dispatcher.remove_worker(worker)
        if lost and not self.over:
            self.counters.workers_lost += 1

    def holds_tickets(self, worker: str) -> bool:
        """Returns whether the worker has a ticket to answer."""
        return self._dispatcher.holds_tickets(worker)

    def is_at_work(self, worker: str) -> bool:
        """Returns whether a report of the worker is due, also of a ticket that was dropped meanwhile."""
        return self._dispatcher.is_at_work(worker)

    @property
    def seconds_to_spares(self) -> float:
        """Seconds from the last lap until spare tickets go out because the step is late; infinite if none can."""
        if not self._dispatcher.could_deal_spares or self.over:
            return math.inf
        return self._timer.begun + _LATE_FACTOR * self._first_run - self.stopwatch.mark

    @property
    def has_pending_work(self) -> bool:
        """True if there are tickets to deal, rounds to record, or an end to report."""
        return self._accounting.has_unrecorded_rounds or self.over or self._dispatcher.waiting > 0

    def deal_tickets(self) -> dict[str, list[Ticket]]:
        """Deals tickets to the free workers, by worker; they are for the present version."""
        dealt = {} if self.failure else self._dispatcher.deal_tickets(late=self.seconds_to_spares <= 0)
        for worker in dealt:
            self.shard.detach_gradient(worker)
        return dealt

    def accept_result(
        self, worker: str, attempt: int, result: Result, computed: float = 0.0, now: float = 0.0
    ) -> Rejection | None:
        """Accepts a result if the ledger admits it; a round that it completes is applied at once.

        Args:
            worker: Name of the worker that sent it.
            attempt: Number of the attempt that it belongs to.
            result: Its gradient is owned from now on. A borrowed one may change as soon as the worker has another
                ticket.
            computed: Seconds that the worker computed, as it reports; for statistics only.
            now: Time of its arrival, in monotonic seconds; for statistics only.

        Returns:
            The reason if it is rejected, else None.
        """
        self._dispatcher.record_report(worker)
        round_ = self._queue.find(result.ticket)
        rejection = self._ledger.admit(worker, attempt, result, round_, self.version)
        self.stopwatch.lap("inspecting")
        if rejection is None and round_ is not None:
            self.lag = round_.add_result(result, worker, computed, now)
            self._complete_ticket(worker, result, round_)
        elif rejection:
            self._reject_result(worker, result.ticket, rejection)
            self.shard.buffers.return_buffer(result.gradient)
        return rejection

    def record_rounds(self) -> None:
        """Records the rounds that were closed.

        That can wait until the next tickets are out, but not for another `accept_result`.
        """
        if failure := self._accounting.record_rounds(self._dispatcher.workers):
            self.failure, self.diverged = f"{failure}: {self._divergence}", True

    def pop_events(self) -> list[ps_pb.TrainingEvent]:
        """Returns the events that were recorded since the last call: sampled steps, ends of epochs, warnings."""
        return self._accounting.pop_events()

    def progress(self) -> jobs_pb.Progress:
        """Returns the progress of the training."""
        return self._accounting.progress(self._dispatcher.workers)

    def snapshot(self) -> Snapshot:
        """Returns all that it takes to go on from here, in arrays that change with the next result.

        Rounds must be recorded. Results of a round that is not complete are no part of it.
        """
        return self._accounting.snapshot()

    # -- results -------------------------------------------------------------------------------------------------------

    def _complete_ticket(self, worker: str, result: Result, round_: Round) -> None:
        """Completes the ticket of an accepted result, passes its gradient to the shard, and closes complete rounds."""
        self._dispatcher.complete_ticket(worker, result.ticket)
        if result.gradient is not None:
            weight = self._policy.weight(result.version, self.version)
            self.shard.add_gradient(
                round_.step, result.ticket.micro_batch, round_.parts, result.gradient, worker, weight
            )
            if self.holds_tickets(worker):
                self.shard.detach_gradient(worker)
        self.stopwatch.lap("reducing")
        if not self.holds_tickets(worker):
            self._first_run = min(self._first_run, self.stopwatch.mark - self._timer.begun)
        while complete := self._queue.pop_complete():
            self._dispatcher.drop_tickets(complete.missing_tickets(), reporter=worker)
            self._open_rounds(self._close_round(complete))

    def _reject_result(self, worker: str, ticket: Ticket, rejection: Rejection) -> None:
        """Has the ledger count the rejection; fails the training when it was one too many."""
        if self._ledger.reject(worker, ticket, rejection) and not self.failure:
            self.failure = self._ledger.failure_reason(ticket, rejection)
            self.diverged = rejection == Rejection.NOT_FINITE

    def _explain(self, ticket: Ticket) -> str:
        return self._advice.explain(ticket, self.shard.parameters) or self._divergence

    # -- runs: steps that the native core makes ------------------------------------------------------------------------

    def is_whole_step(self, dealt: Mapping[str, Sequence[Ticket]]) -> bool:
        """Returns whether these tickets are all of a step that no result has come for, in the order of their parts."""
        return (
            bool(dealt) and [ticket for tickets in dealt.values() for ticket in tickets] == self._queue.open_tickets()
        )

    def wanted_steps(self, most: int) -> StepsWanted:
        """Returns the steps that may be made next without a decision, at most so many; the open round is the first one.

        They end with the epoch, with the last step of the attempt, and before a step that has another number of parts.
        """
        plan, first = self._plan, self.version
        end = min((plan.epoch(first) + 1) * plan.steps_per_epoch, self._last_step or plan.steps)
        samples, last_samples = self._queue.part_samples(first), self._queue.part_samples(end - 1)
        if len(samples) != len(last_samples):
            end, last_samples = max(end - 1, first + 1), samples
        # A failpoint must find the weights between two steps.
        wanted = min(end, first + (1 if failpoint_is_set("ps.updated") else most))
        measured = [plan.is_checked(step) for step in range(first, wanted)]
        measured[0] = self._norm_schedule.is_gradient_due(first, self.stopwatch.mark)
        return StepsWanted(
            measured,
            samples,
            last_samples if wanted == end else samples,
            publish_last=wanted < end and not failpoint_is_set("ps.updated"),
        )

    def close_steps(self, made: MadeSteps, begun: float) -> None:
        """Closes steps that were made without tickets, and opens the round after them.

        Args:
            made: The open round, and those after it, all of one epoch; the shard has counted them.
            begun: Time of the last update, by the stopwatch's clock.
        """
        steps = len(made.sums)
        first, kind = self.version - steps, TicketKind.GRADIENT
        sampled = self._timer.count_steps(steps, sum(made.seconds) / steps)
        samples = {place: StepSample(*made.times(place)) for place in sampled}
        norms = self._with_weight_norms(made.norms, begun)
        closed = ClosedRounds(kind, self._plan.epoch(first), first, made.sums, made.seconds, samples, norms)
        self.rounds += steps
        self.counters.core_steps["native"] += steps
        self._timer.start_round(begun)
        self._ledger.forget_tickets()
        self._dispatcher.complete_all_tickets()
        self._queue.skip_steps(steps)
        self._open_rounds(self._accounting.close_rounds(closed))
        failpoint("ps.updated")

    def abandon_tickets(self) -> None:
        """Takes back all tickets that workers hold: their results will not come."""
        self._dispatcher.return_all_tickets()

    def _with_weight_norms(self, norms: Mapping[int, Norms], now: float) -> Mapping[int, Norms]:
        """Adds the norms of the present weights to the last ones, if these are due."""
        if not norms:
            return norms
        place, last = list(norms.items())[-1]
        if self._norm_schedule.are_weights_due(now):
            last = last._replace(weights=self.shard.weights.norms_by_layer())
        self._norm_schedule.record_norms(last, now)
        return {**norms, place: last}

    # -- rounds --------------------------------------------------------------------------------------------------------

    def _open_rounds(self, following: Next) -> None:
        """Opens the rounds that may be open now, and gives their tickets to the dispatcher."""
        if following != Next.PLAN:
            self._queue.cut(self.version, evaluate=following == Next.EVALUATION)
        for round_ in self._queue.open_rounds(self.version):
            spares = self._policy.spares(round_.parts) if round_.kind == TicketKind.GRADIENT else 0
            self._dispatcher.add_tickets(round_.tickets(), spares)

    def _close_round(self, round_: Round) -> Next:
        self._ledger.forget_tickets()
        self._first_run = math.inf
        norms = self._apply(round_) if round_.kind == TicketKind.GRADIENT else None
        self.counters.core_steps["python"] += round_.kind == TicketKind.GRADIENT
        self.rounds += 1
        time = self._timer.end_round(round_.kind)
        samples = {0: StepSample(time.spent, round_.computed)} if time.spent else {}
        measured = {0: norms} if norms else {}
        missing = [ticket.micro_batch for ticket in round_.missing_tickets()]
        return self._accounting.close_rounds(
            ClosedRounds(
                round_.kind, round_.epoch, round_.step, [round_.sums()], [time.seconds], samples, measured,
                round_.staleness, {0: missing} if missing else {},
                sum(round_.part_samples[part] for part in missing),
            )
        )  # fmt: skip

    def _apply(self, round_: Round) -> Norms | None:
        """Updates the weights; returns the norms at the steps where they are measured."""
        schedule, begun = self._norm_schedule, self._timer.begun
        measure = schedule.is_gradient_due(round_.step, begun)
        measure_weights = measure and schedule.are_weights_due(begun)
        norms = self.shard.update(round_.step, round_.samples, with_norms=measure, with_weight_norms=measure_weights)
        if norms:
            schedule.record_norms(norms, begun)
        self.stopwatch.lap("updating")
        failpoint("ps.updated")
        return norms
