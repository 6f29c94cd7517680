"""What the controller works with, as it sees it: a cluster, its fleets, and attempts. Tests have others of them."""

from dataclasses import dataclass
from typing import NoReturn, Protocol

from nablad.v1 import cluster_pb2 as cluster_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb

__all__ = ["AttemptLike", "ClusterLike", "Ending", "JobProcessesLike"]


@dataclass(frozen=True)
class Ending:
    """The training has come to its end.

    Attributes:
        reason: Why, as a sentence.
        model_id: The model that was kept; empty if none was to be.
    """

    reason: str
    model_id: str = ""


class JobProcessesLike(Protocol):
    """The CPUs of one attempt, and then its processes."""

    async def start(self, assignment: ps_pb.Assignment, secret: str) -> str:
        """Starts the processes; gives the address of the parameter server."""
        ...

    async def failure(self) -> NoReturn:
        """Waits until one fails for good, and raises AttemptFailed or AttemptLost."""
        ...

    async def set_workers(self, workers: int) -> None:
        """Says how many workers there shall be."""
        ...

    async def stop(self) -> None:
        """Stops them and gives the CPUs back."""
        ...


class ClusterLike(Protocol):
    """Where fleets run."""

    async def nodes(self) -> list[cluster_pb.Node]:
        """The nodes that are there; raises ClusterLostError while nobody knows."""
        ...

    async def reserve(self, workers: int, cpus_per_worker: int) -> JobProcessesLike | None:
        """The CPUs of a job; None when they cannot be had."""
        ...


class AttemptLike(Protocol):
    """One attempt of a job on a fleet."""

    async def run(self) -> Ending:
        """Trains, and keeps the model."""
        ...

    async def checkpoint(self) -> jobs_pb.Checkpoint | None:
        """Takes a checkpoint now; None when there is nothing to take one of."""
        ...

    async def set_workers(self) -> None:
        """Brings the number of workers to what the job asks for by now."""
        ...

    async def clean_up(self) -> None:
        """Removes what nobody needs once the job has succeeded."""
        ...
