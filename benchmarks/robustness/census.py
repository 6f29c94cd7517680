"""What a service has taken of its machine."""

import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc

from benchmarks.robustness.roles import ROLES, descriptors, pids_of, regions
from benchmarks.robustness.service import Service
from nablad.v1 import cluster_pb2, cluster_pb2_grpc

__all__ = ["Census", "what_stays"]

_SECONDS = 60.0
_LOOK_SECONDS = 0.05
# Connections of clients come and go, and a database opens its files when it needs them.
_SPARE_DESCRIPTORS = 8
_ANSWER_SECONDS = 5.0
_SOCKET = re.compile(r"service\.cluster.* --socket (\S+)")
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (only looked at)


@dataclass(frozen=True)
class Census:
    """Counts.

    Attributes:
        processes: By role.
        regions: Descriptors of shared memory, in all processes.
        descriptors: Of any kind, in the daemon.
        temporary: Entries of the temporary folder.
        shared_memory: Files in /dev/shm that belong to this user.
        unfinished: Files of the data directory that are not finished.
        free_cpus: Of Ray's, those that nobody has.
    """

    processes: dict[str, int]
    regions: int
    descriptors: int
    temporary: int
    shared_memory: int
    unfinished: int
    free_cpus: int

    @classmethod
    def take(cls, service: Service) -> "Census":
        """As it is now."""
        processes = service.processes()
        return cls(
            {role: len(pids_of(role, processes)) for role in ROLES},
            regions(processes),
            descriptors(pids_of("service", processes)),
            len(list(service.temporary.iterdir())),
            len(_shared_files()),
            len([path for path in service.data_dir.rglob(".*") if path.is_file()]),
            _free_cpus(processes),
        )

    def more_than(self, before: "Census") -> Iterator[str]:
        """Sentences on what there is more of."""
        for role, count in self.processes.items():
            if count != before.processes[role]:
                yield f"{count} processes are {role}, before there were {before.processes[role]}"
        if self.free_cpus < before.free_cpus:
            yield f"{self.free_cpus} CPUs are free, before there were {before.free_cpus}"
        limits = asdict(before) | {"descriptors": before.descriptors + _SPARE_DESCRIPTORS}
        for name in ("regions", "descriptors", "temporary", "shared_memory", "unfinished"):
            if getattr(self, name) > limits[name]:
                yield f"{name}: {getattr(self, name)}, before {getattr(before, name)}"


def what_stays(service: Service, before: Census) -> list[str]:
    """What there is more of than before after 60 s, as sentences; returns as soon as there is nothing."""
    return _until_empty(lambda: list(Census.take(service).more_than(before)))


def _until_empty(look: Callable[[], list[str]]) -> list[str]:
    deadline = time.monotonic() + _SECONDS
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
    return found


def _shared_files() -> list[str]:
    """Of this user."""
    return [entry.name for entry in os.scandir(_SHARED_MEMORY) if entry.stat().st_uid == os.getuid()]


def _free_cpus(processes: dict[int, str]) -> int:
    """As the process says that speaks to Ray; none while there is none."""
    sockets = [found[1] for line in processes.values() if (found := _SOCKET.search(line))]
    if len(sockets) != 1:
        return 0
    with grpc.insecure_channel(f"unix:{sockets[0]}") as channel:
        try:
            nodes = cluster_pb2_grpc.ClusterServiceStub(channel).ListNodes(
                cluster_pb2.ListNodesRequest(), timeout=_ANSWER_SECONDS
            )
        except grpc.RpcError:
            return 0
    return sum(node.free_cpus for node in nodes.nodes)
