"""Events of jobs: one class for each kind, as the control plane publishes it and subscribers receive it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb

__all__ = [
    "LOSS_CAUSES",
    "AttemptResumed",
    "CheckpointFailed",
    "CheckpointWritten",
    "EndUnwritten",
    "HistoryExtended",
    "JobDeleted",
    "JobEvent",
    "Notice",
    "ProgressReported",
    "StateChanged",
    "StepCoreChanged",
    "WaitingExplained",
    "WarningRaised",
    "WorkerGone",
    "WorkerJoined",
    "WorkersChanged",
]

LOSS_CAUSES: Final = ("parameter_server", "worker", "ray", "service")
"""Parts of an attempt that can be lost, as metrics name them."""


@dataclass(frozen=True)
class JobEvent:
    """Something that happened to a job.

    Attributes:
        job_id: Id of the job.
    """

    job_id: str


# -- events that change the job itself: the publisher makes them when the change is written ----------------------------


@dataclass(frozen=True)
class StateChanged(JobEvent):
    """The job was created, or moved to another state.

    Attributes:
        job: The job after the move.
        previous: The job before the move; an empty message if it was created.
        lost_cause: Part that the job lost its attempt with, one of LOSS_CAUSES; empty if it lost none.
    """

    job: jobs_pb.Job
    previous: jobs_pb.Job
    lost_cause: str = ""


@dataclass(frozen=True)
class WorkersChanged(JobEvent):
    """A client changed the number of workers that the job asks for.

    Attributes:
        workers: The new number.
    """

    workers: int


@dataclass(frozen=True)
class JobDeleted(JobEvent):
    """The job is no longer in the database."""


# -- events that are kept in the job's event log -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Sentence(JobEvent):
    """An event that consists of a sentence.

    Attributes:
        message: The sentence.
    """

    message: str


@dataclass(frozen=True)
class WorkerJoined(_Sentence):
    """A worker joined the job."""


@dataclass(frozen=True)
class WorkerGone(_Sentence):
    """A worker was lost, or released because there were too many."""


@dataclass(frozen=True)
class StepCoreChanged(_Sentence):
    """Steps are made by other code than before, or the first ones were made.

    Attributes:
        step_core: The code.
    """

    step_core: spec_pb.StepCore.ValueType


@dataclass(frozen=True)
class HistoryExtended(JobEvent):
    """Epochs ended, or steps of the history were made: in one transaction, because each transaction waits for the disk.

    Attributes:
        epochs: For each epoch its progress, its point of the history, and a sentence.
        steps: For each step its point of the history.
    """

    epochs: Sequence[tuple[jobs_pb.Progress, jobs_pb.HistoryPoint, str]]
    steps: Sequence[jobs_pb.HistoryPoint]


@dataclass(frozen=True)
class WarningRaised(JobEvent):
    """The training shows a sign of not going well; a later attempt may raise the same warning again."""

    warning: jobs_pb.JobWarning


@dataclass(frozen=True)
class Notice(_Sentence):
    """Anything else that a user should know."""


@dataclass(frozen=True)
class AttemptResumed(JobEvent):
    """An attempt goes on from a checkpoint.

    Attributes:
        attempt: Number of the attempt.
        step: Updates of the weights in the checkpoint.
    """

    attempt: int
    step: int

    @property
    def message(self) -> str:
        """The event as a sentence."""
        return f"attempt {self.attempt} goes on from the checkpoint of step {self.step}"


@dataclass(frozen=True)
class CheckpointWritten(JobEvent):
    """A checkpoint is safe on the disk.

    Attributes:
        checkpoint: The checkpoint.
        seconds: Time that it took to be fetched and written.
        time: Time when it was written, in Unix seconds.
    """

    checkpoint: jobs_pb.Checkpoint
    seconds: float
    time: float

    @property
    def message(self) -> str:
        """The event as a sentence."""
        size = f"{self.checkpoint.size_bytes:,} bytes in {self.seconds:.2f} s"
        return f"checkpoint of step {self.checkpoint.step} in epoch {self.checkpoint.epoch}: {size}"


@dataclass(frozen=True)
class CheckpointFailed(_Sentence):
    """A checkpoint could not be written; the message is empty if the last one failed as well."""


# -- events that are not stored ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ProgressReported(JobEvent):
    """The parameter server reported how far the training is.

    Attributes:
        progress: The newest progress.
        statistics: The newest statistics of the attempt; None if they were not requested.
    """

    progress: jobs_pb.Progress
    statistics: ps_pb.AttemptStatistics | None = None


@dataclass(frozen=True)
class WaitingExplained(JobEvent):
    """The controller found why a queued job cannot start yet.

    Attributes:
        reason: A sentence.
    """

    reason: str


@dataclass(frozen=True)
class EndUnwritten(JobEvent):
    """A job without processes could not be moved, because the move cannot be written yet.

    Attributes:
        reason: Reason of the move, as a sentence.
    """

    reason: str
