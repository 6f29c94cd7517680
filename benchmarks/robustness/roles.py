"""Who is who among the processes of a service."""

import os
import re
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

__all__ = ["ROLES", "descriptors", "lower_priority", "pids_of", "regions", "send"]

# By their command lines.
ROLES = {
    "service": r"-m nablad serve",
    "cluster process": r"service\.cluster",
    "raylet": r"raylet/raylet ",
    "gcs_server": r"gcs/gcs_server ",
    "parameter server": r"_ParameterServerProcess",
    "worker": r"_WorkerProcess",
}


def pids_of(role: str, processes: dict[int, str]) -> set[int]:
    """Of those that have the role."""
    return {pid for pid, line in processes.items() if re.search(ROLES[role], line)}


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


def regions(pids: Iterable[int]) -> int:
    """Open descriptors of shared memory for weights and gradients."""
    return sum(link.startswith("/memfd:nablad-") for pid in pids for link in _links(pid))


def descriptors(pids: Iterable[int]) -> int:
    """Open descriptors of any kind."""
    return sum(len(_links(pid)) for pid in pids)


def _links(pid: int) -> list[str]:
    links = []
    with suppress(OSError):  # the process ended, or closed it
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                links.append(str(entry.readlink()))
    return links
