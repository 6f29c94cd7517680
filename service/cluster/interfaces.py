"""Interfaces of a cluster and of job processes: the same in the service, in the cluster process, and in tests.

The service has `ClusterClient` and `JobProcessesClient`, the cluster process `RayCluster` and `JobProcesses`.
"""

from typing import NoReturn, Protocol

from nablad.v1 import cluster_pb2 as cluster_pb
from nablad.v1 import parameter_server_pb2 as ps_pb

__all__ = ["ClusterLike", "JobProcessesLike"]


class JobProcessesLike(Protocol):
    """Reserved CPUs of one attempt, and later the processes on them: a parameter server and workers."""

    async def start(self, assignment: ps_pb.Assignment, secret: str) -> str:
        """Starts the processes; returns the address of the parameter server.

        Args:
            assignment: Job, data and checkpoint of the attempt.
            secret: Secret that calls of the parameter server have to carry.

        Raises:
            AttemptLost: They did not start.
            AttemptFailed: They cannot start with this job.
        """
        ...

    async def wait_for_failure(self) -> NoReturn:
        """Waits until a process fails for good. A worker that merely dies is replaced and does not count.

        Raises:
            AttemptLost: The parameter server is gone, or a worker for good, or Ray.
            AttemptFailed: A worker failed in a way that another attempt would repeat.
        """
        ...

    async def scale_workers(self, workers: int) -> None:
        """Sets the number of workers.

        More are started as CPUs become free. A surplus worker is stopped when the parameter server has released it.
        """
        ...

    async def stop(self) -> None:
        """Stops the processes, and returns when their CPUs are released."""
        ...


class ClusterLike(Protocol):
    """Nodes with CPUs on which job processes run."""

    async def list_nodes(self) -> list[cluster_pb.Node]:
        """Returns the nodes that are alive.

        Raises:
            ClusterLostError: Ray is away.
        """
        ...

    async def reserve_cpus(self, workers: int, cpus_per_worker: int) -> JobProcessesLike | None:
        """Reserves the CPUs of a job until its processes are stopped; returns None if they are not free.

        Raises:
            ClusterLostError: Ray is away.
        """
        ...
