"""Epoch accounting: decides what follows a round, records closed rounds, and makes the events that they bring about."""

from enum import Enum, auto

from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.checkpoints.image import Snapshot
from service.parameter_server.progress.advice import Advice
from service.parameter_server.progress.attempt_statistics import AttemptCounters
from service.parameter_server.progress.closed_rounds import ClosedRounds
from service.parameter_server.progress.diagnostics import TrainingDiagnostics
from service.parameter_server.progress.step_statistics import StepStatistics
from service.parameter_server.progress.stopping import Stopping, StoppingRules
from service.parameter_server.progress.tracker import Position, ProgressTracker
from service.parameter_server.shard.reduction import all_finite
from service.parameter_server.shard.weights import Weights
from workers.plan import Plan
from workers.runtime.failpoints import failpoint
from workers.transport.tickets import TicketKind

__all__ = ["EpochAccounting", "Next"]


class Next(Enum):
    """Successor of a round."""

    PLAN = auto()
    """The next round of the plan."""
    EVALUATION = auto()
    """An evaluation of the present weights, and then nothing."""
    NOTHING = auto()


class EpochAccounting:
    """Decides at once what follows a round, and records later what can wait.

    Attributes:
        ending: Sentence, why the training ended; empty while it goes on.
        counters: Running totals since the beginning of the attempt.
        steps: Statistics of the steps of the attempt.
    """

    def __init__(
        self,
        plan: Plan,
        weights: Weights,
        tracker: ProgressTracker,
        rules: StoppingRules,
        state: ps_pb.TrainingState,
        advice: Advice,
    ) -> None:
        """Begins where an attempt begins.

        Args:
            plan: Plan of the job.
            weights: Read only, except that the best ones are kept when they are known to be.
            tracker: Sums and counts.
            rules: Rules that end the training.
            state: State that the attempt begins with.
            advice: Advice for warnings.
        """
        self.ending = ""
        self.counters = AttemptCounters()
        self.steps = StepStatistics()
        self._plan = plan
        self._weights = weights
        self._tracker = tracker
        self._stopping = Stopping(rules, state.best if state.HasField("best") else None)
        self._diagnostics = TrainingDiagnostics(plan, weights.layers, state, advice)
        self._seconds = state.seconds  # of training, over all attempts
        self._closed: list[ClosedRounds] = []  # and not recorded yet
        self._is_best = False  # the weights are the best ones, and not kept yet
        self._epoch_ended = False  # and its event is not made yet
        self._events: list[ps_pb.TrainingEvent] = []

    def start_attempt(self, version: int, *, evaluated: bool) -> Next:
        """Decides what the attempt begins with."""
        if version:
            following = self._decide(version, evaluated)
            # Events that happened before a checkpoint were made before it.
            self._epoch_ended = False
            return following
        self._diagnostics.set_first_weights_norm(self._weights.norm())
        self._events.append(ps_pb.TrainingEvent(first_weights_sha256=self._weights.digest()))
        return Next.PLAN

    @property
    def has_unrecorded_rounds(self) -> bool:
        """True if rounds were closed that are not recorded yet."""
        return bool(self._closed)

    @property
    def position(self) -> Position:
        """Position of the training after the rounds that are recorded."""
        return self._tracker.position

    def close_rounds(self, rounds: ClosedRounds) -> Next:
        """Decides what follows the last one of some rounds, of which no other one ends an epoch."""
        self._closed.append(rounds)
        for seconds in rounds.seconds:
            self._seconds += seconds
        evaluated = rounds.kind == TicketKind.EVALUATION
        return self._decide(rounds.last if evaluated else rounds.last + 1, evaluated=evaluated)

    def record_rounds(self, workers: int) -> str:
        """Records the closed rounds; `workers` are present.

        Returns:
            A sentence, why the training cannot go on; empty if it can.
        """
        self._record_closed()
        if self._is_best:
            self._is_best = False
            self._weights.keep_as_best()
        if self._epoch_ended:
            self._epoch_ended = False
            self._end_epoch(workers)
            if not all_finite(self._weights.parameters):
                return f"the weights are not finite after epoch {self.position.epochs_ended}"
        elif not self.ending:
            return ""
        self._warn()
        return ""

    def pop_events(self) -> list[ps_pb.TrainingEvent]:
        """Returns the events that were made since the last call."""
        events, self._events = self._events, []
        return events

    def progress(self, workers: int) -> jobs_pb.Progress:
        """Returns the progress of the training; `workers` are present."""
        return self._tracker.progress(workers)

    def snapshot(self) -> Snapshot:
        """Returns all that it takes to go on, in arrays that change with the next update."""
        updates, best, diagnostics = self._weights.updates, self._stopping.best, self._diagnostics.state()
        return self._weights.snapshot(self._tracker.state(self._seconds, updates, best, diagnostics))

    def _decide(self, version: int, evaluated: bool) -> Next:
        limit = self._stopping.limit_reason(version, self._seconds)
        ends_epoch = self._plan.ends_epoch(version - 1)
        if not (limit or ends_epoch):
            return Next.PLAN
        if self._plan.validation_rows and not evaluated:
            return Next.EVALUATION if limit else Next.PLAN
        self._conclude(limit, ends_epoch)
        return Next.NOTHING if self.ending else Next.PLAN

    def _conclude(self, limit: str, ends_epoch: bool) -> None:
        """Decides whether the metrics of an epoch, or of the last evaluation, end the training."""
        self._record_closed()
        tracker = self._tracker
        metrics, epoch = tracker.metrics(tracker.validation or tracker.training), tracker.epoch + 1
        self._is_best = tracker.validation is not None and self._stopping.is_better(epoch, metrics.cost)
        ending = self._stopping.ending_reason(epoch, metrics) if ends_epoch else ""
        self.ending = ending or limit
        self._epoch_ended = ends_epoch

    def _record_closed(self) -> None:
        closed, self._closed = self._closed, []
        for rounds in closed:
            if rounds.kind == TicketKind.EVALUATION:
                self._tracker.record_evaluation(rounds.sums[0])
                self.counters.add_evaluation(rounds.seconds[0])
                continue
            self._tracker.record_steps(rounds)
            self.counters.dropped_micro_batches += rounds.missing_micro_batches
            self.steps.record_steps(rounds)
            self._diagnostics.record_steps(rounds)
            self._events.extend(self._tracker.history_events(rounds))

    def _end_epoch(self, workers: int) -> None:
        """Makes the event with the metrics of an epoch, and the digest of the weights at its end."""
        self._tracker.end_epoch()
        end = ps_pb.EpochEnd(progress=self.progress(workers), weights_sha256=self._weights.digest())
        self._events.append(ps_pb.TrainingEvent(epoch_end=end))
        failpoint("ps.epoch_ended")

    def _warn(self) -> None:
        """Makes events of new warnings."""
        tracker = self._tracker
        warnings = self._diagnostics.warnings(
            self.position.step,
            tracker.epoch + 1,
            tracker.training.cost,
            tracker.validation.cost if tracker.validation else None,
            self._weights.norm,
            at_end=bool(self.ending),
        )
        self._events.extend(ps_pb.TrainingEvent(warning=warning) for warning in warnings)
