"""Interfaces of an attempt, as the controller uses it; tests put attempts of their own in its place."""

from dataclasses import dataclass
from typing import Protocol

from nablad.v1 import jobs_pb2 as jobs_pb

__all__ = ["AttemptLike", "Ending"]


@dataclass(frozen=True)
class Ending:
    """Successful end of a training.

    Attributes:
        reason: Reason of the end, as a sentence.
        model_id: Id of the model that was kept; empty if none was to be kept.
    """

    reason: str
    model_id: str = ""


class AttemptLike(Protocol):
    """One attempt of a job, on job processes."""

    async def run(self) -> Ending:
        """Trains, and keeps the model."""
        ...

    async def checkpoint(self) -> jobs_pb.Checkpoint | None:
        """Takes a checkpoint now; returns None if there is no state to take one of."""
        ...

    async def scale_workers(self) -> None:
        """Starts or stops workers until there are as many as the job asks for at this moment."""
        ...

    async def clean_up(self) -> None:
        """Removes the files that nothing needs once the job has succeeded."""
        ...
