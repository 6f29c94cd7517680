"""Processes of a service: signals to them, those that have to end, and counts of what they take of the machine."""

import os
import re
import select
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc

from nablad.local import ROLES, pids_of
from nablad.v1 import cluster_pb2, cluster_pb2_grpc

__all__ = [
    "Census",
    "Departure",
    "lower_priority",
    "send",
    "shared_files",
    "until_empty",
    "wait_until_gone",
    "what_stays",
]

_SECONDS = 60.0
_LOOK_SECONDS = 0.05
# Connections of clients come and go, and a database opens its files when it needs them.
_SPARE_DESCRIPTORS = 8
_ANSWER_SECONDS = 5.0
_SOCKET = re.compile(r"service\.cluster.* --socket (\S+)")
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (only looked at)


def send(number: signal.Signals, pids: Iterable[int]) -> int:
    """Sends a signal; gives how many processes were there to get it."""
    count = 0
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            count += 1
    return count


def lower_priority(pids: Iterable[int]) -> None:
    """Leaves the CPUs to others where these want them too; each thread has a priority of its own."""
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.setpriority(os.PRIO_PROCESS, int(task.name), 10)


class Departure:
    """Looks, beside everything else, how long some processes stay.

    Attributes:
        pids: Of those that were there.
    """

    def __init__(self, processes: Mapping[int, str]) -> None:
        """Opens them at once, so that a process that gets the number of one of them is not mistaken for it.

        Args:
            processes: Their command lines by process id.
        """
        self._opened = {pid: descriptor for pid in processes if (descriptor := _open(pid)) is not None}
        self.pids = set(self._opened)
        self._lines = dict(processes)
        self._left: list[str] = []
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def left(self) -> list[str]:
        """Those who were still there after 60 s, as sentences; waits until that is known."""
        self._thread.join()
        return self._left

    def _wait(self) -> None:
        begin = time.monotonic()
        for pid, descriptor in self._opened.items():
            ended, _, _ = select.select([descriptor], [], [], max(0.0, begin + _SECONDS - time.monotonic()))
            if not ended:
                self._left.append(f"process {pid} was there {_SECONDS:.0f} s later: {self._lines[pid].strip()[:100]}")
            else:
                self.pids.discard(pid)
            os.close(descriptor)


def _open(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


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
    def take(cls, processes: dict[int, str], temporary: Path, data_directory: Path) -> "Census":
        """Counts what there is now.

        Args:
            processes: Command lines of the service's processes by process id.
            temporary: Folder for its temporary files.
            data_directory: Its data directory.
        """
        return cls(
            {role: len(pids_of(role, processes)) for role in ROLES},
            _regions(processes),
            _descriptors(pids_of("service", processes)),
            len(list(temporary.iterdir())),
            len(shared_files()),
            len([path for path in data_directory.rglob(".*") if path.is_file()]),
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


def what_stays(take: Callable[[], Census], before: Census) -> list[str]:
    """Lists what there is more of than before after 60 s, as sentences; returns as soon as there is nothing."""
    return until_empty(lambda: list(take().more_than(before)))


def until_empty(look: Callable[[], list[str]]) -> list[str]:
    """Looks again and again until nothing is found, for at most 60 s; gives what is found then."""
    deadline = time.monotonic() + _SECONDS
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
    return found


def shared_files() -> set[str]:
    """Files in /dev/shm that belong to this user."""
    found = set()
    for entry in os.scandir(_SHARED_MEMORY):
        with suppress(FileNotFoundError):  # removed in the meantime
            if entry.stat().st_uid == os.getuid():
                found.add(entry.name)
    return found


def _free_cpus(processes: dict[int, str]) -> int:
    """Asks the cluster process for its free CPUs; 0 while there is no such process."""
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


def _regions(pids: Iterable[int]) -> int:
    """Open descriptors of shared memory for weights and gradients."""
    return sum(link.startswith("/memfd:nablad-") for pid in pids for link in _links(pid))


def _descriptors(pids: Iterable[int]) -> int:
    """Open descriptors of any kind."""
    return sum(len(_links(pid)) for pid in pids)


def _links(pid: int) -> list[str]:
    links = []
    with suppress(OSError):  # the process ended, or closed it
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                links.append(str(entry.readlink()))
    return links


def wait_until_gone(processes: Mapping[int, str], pattern: str = "") -> None:
    """Waits until those processes have ended whose command lines match.

    Args:
        processes: Their command lines by process id.
        pattern: A regular expression; without it all have to end.
    """
    for pid, line in processes.items():
        if re.search(pattern, line) and (descriptor := _open(pid)) is not None:
            ended, _, _ = select.select([descriptor], [], [], _SECONDS)
            os.close(descriptor)
            assert ended, line
