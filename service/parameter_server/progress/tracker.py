"""Where a training stands, in figures: what progress, history and checkpoints tell of it."""

from dataclasses import dataclass
from typing import NamedTuple

from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.parameter_server.progress.stopping import BestEpoch
from service.parameter_server.scheduling.rounds import Round
from workers.mathematics.optimizers import LearningRate
from workers.plan import Plan

__all__ = ["EpochFigures", "Figures", "Position", "ProgressTracker"]


class Position(NamedTuple):
    """How far a training is; changes with every round."""

    step: int
    """Updates of the weights."""
    evaluated: bool
    """Whether the weights after them were evaluated."""
    epochs_ended: int
    """Epochs that are complete, with their evaluation."""


@dataclass
class Figures:
    """Sums over samples."""

    cost_sum: float = 0.0
    correct_count: int = 0
    samples: int = 0

    @property
    def cost(self) -> float | None:
        """Mean per sample."""
        return self.cost_sum / self.samples if self.samples else None

    @property
    def accuracy(self) -> float | None:
        """Share of samples classified right."""
        return self.correct_count / self.samples if self.samples else None


@dataclass
class EpochFigures(Figures):
    """Sums over the steps of one epoch so far, each mini-batch before its update.

    Attributes:
        epoch: From 0.
        seconds: That its steps took.
    """

    epoch: int = 0
    seconds: float = 0.0

    def add(self, step: Round, seconds: float) -> None:
        """Counts a step that took this long."""
        self.cost_sum += step.cost_sum
        self.correct_count += step.correct_count
        self.samples += step.samples
        self.seconds += seconds

    @property
    def samples_per_second(self) -> float:
        """Over the time that the steps took; evaluations are not in it."""
        return self.samples / self.seconds if self.seconds else 0.0


class ProgressTracker:
    """The figures of a training, over all its attempts.

    Attributes:
        position: How far it is; of what was counted.
        samples: Samples that went into updates.
        epoch: Figures of the present epoch.
        validation: Figures of the last evaluation; None before the first one.
        gradient_norm: Euclidean norm of the mean gradient of a recent step; None if none was looked at.
    """

    def __init__(
        self, plan: Plan, start: ps_pb.TrainingState, *, attempt: int, learning_rate: LearningRate, labelled: bool
    ) -> None:
        """Begins where an attempt begins.

        Args:
            plan: Of the job.
            start: Where the training stands.
            attempt: Number of the attempt, for the history.
            learning_rate: That of the optimizer, which owns it.
            labelled: Whether there is an accuracy.
        """
        self._plan = plan
        self._attempt = attempt
        self._learning_rate = learning_rate
        self._labelled = labelled
        waits = bool(plan.validation_rows) and not start.evaluated and start.step % plan.steps_per_epoch == 0
        epochs_ended = max(0, start.step // plan.steps_per_epoch - waits)
        self.position = Position(start.step, start.evaluated, epochs_ended)
        self.samples = start.samples
        epoch = start.epoch
        self.epoch = EpochFigures(epoch.cost_sum, epoch.correct_count, epoch.samples, epoch.epoch, epoch.seconds)
        self.validation: Figures | None = None
        if start.HasField("validation"):
            sums = start.validation
            self.validation = Figures(sums.cost_sum, sums.correct_count, sums.samples)
        self.gradient_norm = start.gradient_norm if start.HasField("gradient_norm") else None

    def add_step(self, round_: Round, seconds: float, gradient_norm: float | None) -> None:
        """Counts a step that took this long; None if its gradient's norm was not looked at."""
        if round_.epoch != self.epoch.epoch:
            self.epoch = EpochFigures(epoch=round_.epoch)
        self.epoch.add(round_, seconds)
        self.position = Position(round_.step + 1, False, self.position.epochs_ended)
        self.samples += round_.samples
        if gradient_norm is not None:
            self.gradient_norm = gradient_norm

    def add_evaluation(self, round_: Round) -> None:
        """Counts an evaluation."""
        self.validation = Figures(round_.cost_sum, round_.correct_count, round_.samples)
        self.position = self.position._replace(evaluated=True)

    def end_epoch(self) -> None:
        """The present epoch is complete."""
        self.position = self.position._replace(epochs_ended=self.epoch.epoch + 1)

    def accuracy(self, figures: Figures | Round) -> float | None:
        """Share of the samples that were classified right, if they have class labels."""
        return figures.correct_count / figures.samples if self._labelled and figures.samples else None

    def progress(self, workers: int) -> jobs_pb.Progress:
        """For whoever looks at the job; `workers` are there."""
        progress = jobs_pb.Progress(
            epoch=self.epoch.epoch + 1 if self.epoch.samples else 0,
            epochs=self._plan.epochs,
            step=self.position.step,
            steps=self._plan.steps,
            samples=self.samples,
            samples_per_second=self.epoch.samples_per_second,
            training_cost=self.epoch.cost,
            training_accuracy=self.accuracy(self.epoch),
            learning_rate=self._learning_rate(max(self.position.step, 1)),  # before the first step, that of the first
            gradient_norm=self.gradient_norm,
            workers_alive=workers,
        )
        if self.validation is not None:
            progress.validation_cost = self.validation.cost_sum / self.validation.samples
            if (accuracy := self.accuracy(self.validation)) is not None:
                progress.validation_accuracy = accuracy
        return progress

    def point(self, round_: Round, gradient_norm: float | None) -> jobs_pb.HistoryPoint:
        """A step for the history; who tells it says when that was."""
        return jobs_pb.HistoryPoint(
            attempt=self._attempt,
            epoch=round_.epoch + 1,
            step=round_.step + 1,
            training_cost=round_.cost_sum / round_.samples,
            training_accuracy=self.accuracy(round_),
            learning_rate=self._learning_rate(round_.step + 1),
            gradient_norm=gradient_norm,
        )

    def state(
        self,
        seconds: float,
        optimizer_updates: int,
        best: BestEpoch | None,
        diagnostics: ps_pb.Diagnostics | None,
    ) -> ps_pb.TrainingState:
        """All of it, for a checkpoint; the arguments are its fields."""
        state = ps_pb.TrainingState(
            step=self.position.step,
            optimizer_updates=optimizer_updates,
            evaluated=self.position.evaluated,
            samples=self.samples,
            seconds=seconds,
            epoch=ps_pb.EpochSums(
                epoch=self.epoch.epoch,
                cost_sum=self.epoch.cost_sum,
                correct_count=self.epoch.correct_count,
                samples=self.epoch.samples,
                seconds=self.epoch.seconds,
            ),
            gradient_norm=self.gradient_norm,
            diagnostics=diagnostics,
        )
        if (sums := self.validation) is not None:
            state.validation.cost_sum, state.validation.correct_count = sums.cost_sum, sums.correct_count
            state.validation.samples = sums.samples
        if best is not None:
            state.best.epoch, state.best.validation_cost = best
        return state
