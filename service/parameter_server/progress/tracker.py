"""Progress tracker: the metrics and counts of a training, for progress, history and checkpoints."""

from collections.abc import Iterator
from typing import NamedTuple

from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import metrics_pb2 as metrics_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.parameter_server.progress.closed_rounds import ClosedRounds
from workers.learning import metrics_of, read_sums, sums_message, write_metrics
from workers.mathematics.optimizers import LearningRate
from workers.mathematics.sums import SampleSums
from workers.plan import Plan

__all__ = ["Position", "ProgressTracker"]


class Position(NamedTuple):
    """Position of a training; changes with every round."""

    step: int
    """Number of updates of the weights."""
    evaluated: bool
    """Whether the weights after these updates were evaluated."""
    epochs_ended: int
    """Number of epochs that are complete, with their evaluation."""


class ProgressTracker:
    """Sums and counts of a training, over all its attempts.

    Attributes:
        position: Position after the rounds that are recorded.
        samples: Number of samples that went into updates.
        dropped_micro_batches: Number of micro-batches that were dropped.
        dropped_samples: Number of samples in these.
        epoch: Number of the present epoch, from 0.
        training: Sums over the steps of the present epoch so far, each mini-batch before its update.
        validation: Sums of the last evaluation; None before the first one.
        gradient_norm: Euclidean norm of the mean gradient of a recent step; None if none was measured.
    """

    def __init__(
        self, plan: Plan, start: ps_pb.TrainingState, *, attempt: int, learning_rate: LearningRate, labelled: bool
    ) -> None:
        """Begins where an attempt begins.

        Args:
            plan: Plan of the job.
            start: State that the attempt begins with.
            attempt: Number of the attempt, for the history.
            learning_rate: Learning rate of the optimizer, which owns it.
            labelled: Whether targets are class labels, which some metrics need.
        """
        self._plan = plan
        self._attempt = attempt
        self._learning_rate = learning_rate
        self._labelled = labelled
        waits = bool(plan.validation_rows) and not start.evaluated and start.step % plan.steps_per_epoch == 0
        epochs_ended = max(0, start.step // plan.steps_per_epoch - waits)
        self.position = Position(start.step, start.evaluated, epochs_ended)
        self.samples = start.samples
        self.dropped_micro_batches = start.dropped_micro_batches
        self.dropped_samples = start.dropped_samples
        self.epoch = start.epoch.epoch
        self.training = read_sums(start.epoch.sums)
        self.validation = read_sums(start.validation) if start.HasField("validation") else None
        self._epoch_seconds = start.epoch.seconds  # of its steps, without evaluations
        self.gradient_norm = start.gradient_norm if start.HasField("gradient_norm") else None

    def record_steps(self, steps: ClosedRounds) -> None:
        """Records steps, one after the other."""
        if steps.epoch != self.epoch:
            self.epoch, self.training, self._epoch_seconds = steps.epoch, SampleSums(), 0.0
        before = self.training.samples
        for sums, seconds in zip(steps.sums, steps.seconds, strict=True):
            self.training.add_sums(sums)
            self._epoch_seconds += seconds
        self.position = Position(steps.last + 1, False, self.position.epochs_ended)
        self.samples += self.training.samples - before
        self.dropped_micro_batches += steps.missing_micro_batches
        self.dropped_samples += steps.missing_samples
        for norms in steps.norms.values():
            self.gradient_norm = norms.gradient

    def record_evaluation(self, sums: SampleSums) -> None:
        """Records an evaluation."""
        self.validation = sums
        self.position = self.position._replace(evaluated=True)

    def end_epoch(self) -> None:
        """Records that the present epoch is complete."""
        self.position = self.position._replace(epochs_ended=self.epoch + 1)

    def metrics(self, sums: SampleSums) -> metrics_pb.Metrics:
        """Returns the metrics of these samples."""
        return metrics_of(sums, labelled=self._labelled)

    def progress(self, workers: int) -> jobs_pb.Progress:
        """Returns the progress of the training; `workers` are present."""
        return jobs_pb.Progress(
            epoch=self.epoch + 1 if self.training.samples else 0,
            epochs=self._plan.epochs,
            step=self.position.step,
            steps=self._plan.steps,
            samples=self.samples,
            samples_per_second=self.training.samples / self._epoch_seconds if self._epoch_seconds else 0.0,
            training=self.metrics(self.training),
            validation=None if self.validation is None else self.metrics(self.validation),
            learning_rate=self._learning_rate(max(self.position.step, 1)),  # before the first step, that of the first
            gradient_norm=self.gradient_norm,
            workers_alive=workers,
            dropped_micro_batches=self.dropped_micro_batches,
            dropped_samples=self.dropped_samples,
        )

    def history_events(self, steps: ClosedRounds) -> Iterator[ps_pb.TrainingEvent]:
        """Yields events of those steps that the history keeps, without a time; the event log sets it."""
        interval = self._plan.sampling_interval
        for step in range(-(-steps.first // interval) * interval, steps.last + 1, interval):
            place = step - steps.first
            norms = steps.norms.get(place)
            # Field by field, because messages that are given to a constructor are copied, and there are many.
            event = ps_pb.TrainingEvent()
            point = event.step
            point.attempt, point.epoch, point.step = self._attempt, steps.epoch + 1, step + 1
            write_metrics(point.training, steps.sums[place], labelled=self._labelled)
            point.learning_rate = self._learning_rate(step + 1)
            if norms:
                point.gradient_norm = norms.gradient
            point.missing_micro_batches.extend(steps.missing.get(place, ()))
            yield event

    def state(
        self,
        seconds: float,
        optimizer_updates: int,
        best: ps_pb.BestEpoch | None,
        diagnostics: ps_pb.Diagnostics | None,
    ) -> ps_pb.TrainingState:
        """Returns the state for a checkpoint; the arguments are its further fields."""
        return ps_pb.TrainingState(
            step=self.position.step,
            optimizer_updates=optimizer_updates,
            evaluated=self.position.evaluated,
            samples=self.samples,
            seconds=seconds,
            epoch=ps_pb.EpochSums(epoch=self.epoch, sums=sums_message(self.training), seconds=self._epoch_seconds),
            validation=None if self.validation is None else sums_message(self.validation),
            best=best,
            gradient_norm=self.gradient_norm,
            diagnostics=diagnostics,
            dropped_micro_batches=self.dropped_micro_batches,
            dropped_samples=self.dropped_samples,
        )
