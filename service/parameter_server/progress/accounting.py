"""The course of a training: its metrics as rounds close, what is told of them, and whether it goes on."""

from enum import Enum, auto
from typing import NamedTuple

from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.checkpoints.image import Snapshot
from service.parameter_server.progress.advice import Advice
from service.parameter_server.progress.diagnostics import Diagnostics
from service.parameter_server.progress.step_statistics import StepStatistics, Time
from service.parameter_server.progress.stopping import Stopping, StoppingRules
from service.parameter_server.progress.telemetry import Totals
from service.parameter_server.progress.tracker import Position, ProgressTracker
from service.parameter_server.scheduling.rounds import Round
from service.parameter_server.scheduling.validation import all_finite
from service.parameter_server.shard.weights import Norms, Weights
from workers.plan import Plan
from workers.runtime.failpoints import failpoint
from workers.transport.tickets import TicketKind

__all__ = ["EpochAccounting", "Next"]


class Next(Enum):
    """What follows a round."""

    PLAN = auto()
    """Whatever the plan says."""
    EVALUATION = auto()
    """An evaluation of the present weights, and then nothing."""
    NOTHING = auto()


class _Closed(NamedTuple):
    """A round that is complete and applied, and not counted yet."""

    round: Round
    time: Time
    norms: Norms | None


class EpochAccounting:
    """Decides at once what follows a round, and counts what can wait when there is time.

    Attributes:
        ending: Why the training ended, as a sentence; empty while it goes on.
        totals: What was counted since the beginning of the attempt.
        steps: What the steps of the attempt are like.
    """

    def __init__(
        self,
        plan: Plan,
        weights: Weights,
        standing: ProgressTracker,
        rules: StoppingRules,
        state: ps_pb.TrainingState,
        advice: Advice,
    ) -> None:
        """Begins where an attempt begins.

        Args:
            plan: Of the job.
            weights: Only looked at, but for the best ones, which are kept when they are known to be.
            standing: Sums and counts.
            rules: When to end.
            state: Where the training stands.
            advice: What to say of what is not going well.
        """
        self.ending = ""
        self.totals = Totals()
        self.steps = StepStatistics()
        self._plan = plan
        self._weights = weights
        self._standing = standing
        self._stopping = Stopping(rules, state.best if state.HasField("best") else None)
        self._diagnostics = Diagnostics(plan, weights.layers, state, advice)
        self._seconds = state.seconds  # of training, over all attempts
        self._closed: list[_Closed] = []
        self._better = False  # the weights are the best ones, and not kept yet
        self._epoch_ended = False  # and was not told yet
        self._events: list[ps_pb.TrainingEvent] = []

    def begin(self, version: int, *, evaluated: bool) -> Next:
        """What follows where the attempt begins."""
        if version:
            following = self._decide(version, evaluated)
            # What happened before a checkpoint was told before it.
            self._epoch_ended = False
            return following
        self._diagnostics.begin(self._weights.norm())
        self._events.append(ps_pb.TrainingEvent(first_weights_sha256=self._weights.digest()))
        return Next.PLAN

    @property
    def to_count(self) -> bool:
        """Whether rounds were closed that are not counted yet."""
        return bool(self._closed)

    @property
    def position(self) -> Position:
        """How far the training is; of what was booked."""
        return self._standing.position

    def close(self, round_: Round, time: Time, norms: Norms | None) -> Next:
        """A round is complete and applied, and took so long: what follows? Norms are None if nobody looked at them."""
        self._closed.append(_Closed(round_, time, norms))
        self._seconds += time.seconds
        if round_.kind == TicketKind.EVALUATION:
            return self._decide(round_.step, evaluated=True)
        return self._decide(round_.step + 1, evaluated=False)

    def book(self, workers: int) -> str:
        """Counts what was closed.

        Returns:
            Why the training cannot go on, as a sentence; empty if it can.
        """
        self._count()
        if self._better:
            self._better = False
            self._weights.keep()
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
        """What was booked since the last call."""
        events, self._events = self._events, []
        return events

    def progress(self, workers: int) -> jobs_pb.Progress:
        """For whoever looks at the job; `workers` are there."""
        return self._standing.progress(workers)

    def snapshot(self) -> Snapshot:
        """All that it takes to go on, in arrays that change with the next update."""
        updates, best, diagnostics = self._weights.updates, self._stopping.best, self._diagnostics.state()
        return self._weights.snapshot(self._standing.state(self._seconds, updates, best, diagnostics))

    def _decide(self, version: int, evaluated: bool) -> Next:
        limit = self._stopping.limit(version, self._seconds)
        ends_epoch = self._plan.ends_epoch(version - 1)
        if not (limit or ends_epoch):
            return Next.PLAN
        if self._plan.validation_rows and not evaluated:
            return Next.EVALUATION if limit else Next.PLAN
        self._conclude(limit, ends_epoch)
        return Next.NOTHING if self.ending else Next.PLAN

    def _conclude(self, limit: str, ends_epoch: bool) -> None:
        """The metrics of an epoch are complete, or those of the last evaluation: do they end the training?"""
        self._count()
        standing = self._standing
        metrics, epoch = standing.metrics(standing.validation or standing.training), standing.epoch + 1
        self._better = standing.validation is not None and self._stopping.is_better(epoch, metrics.cost)
        ending = self._stopping.ending(epoch, metrics) if ends_epoch else ""
        self.ending = ending or limit
        self._epoch_ended = ends_epoch

    def _count(self) -> None:
        closed, self._closed = self._closed, []
        for round_, time, norms in closed:
            sums = round_.sums()
            if round_.kind == TicketKind.EVALUATION:
                self._standing.add_evaluation(sums)
                self.totals.add_evaluation(time.seconds)
                continue
            norm = norms.gradient if norms else None
            self._standing.add_step(round_, sums, time.seconds, norm)
            self.steps.add(round_, time, norms)
            checked = norms.gradients if norms and self._plan.is_checked(round_.step) else ()
            self._diagnostics.add_step(sums, checked)
            if self._plan.is_sampled(round_.step):
                self._events.append(ps_pb.TrainingEvent(step=self._standing.point(round_, sums, norm)))

    def _end_epoch(self, workers: int) -> None:
        """Tells the metrics of an epoch, and the digest of the weights at its end."""
        self._standing.end_epoch()
        end = ps_pb.EpochEnd(progress=self.progress(workers), weights_sha256=self._weights.digest())
        self._events.append(ps_pb.TrainingEvent(epoch_end=end))
        failpoint("ps.epoch_ended")

    def _warn(self) -> None:
        """Tells of what is not going well."""
        standing = self._standing
        warnings = self._diagnostics.warnings(
            self.position.step,
            standing.epoch + 1,
            standing.training.cost,
            standing.validation.cost if standing.validation else None,
            self._weights.norm,
            at_end=bool(self.ending),
        )
        self._events.extend(ps_pb.TrainingEvent(warning=warning) for warning in warnings)
