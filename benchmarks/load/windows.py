"""Stretches of time in which something went on: the CPUs that everybody had in use, and the training's speed."""

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median

from benchmarks.errors import BenchmarkError
from benchmarks.machine import all_cpu_seconds
from benchmarks.memory import figure
from nablad.local import LocalService, pids_of
from nablad.v1.jobs_pb2 import HistoryPoint

__all__ = [
    "Ratio",
    "Window",
    "by_name",
    "compare",
    "cpu_seconds",
    "descriptors",
    "resident_bytes",
    "samples_per_second",
    "threads",
    "training_cpus",
    "watched_time",
]

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_ROLES = {
    "daemon": ("service",),
    "cluster process": ("cluster process",),
    "Ray": ("raylet", "gcs_server"),
    "training": ("parameter server", "worker"),
}


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU that the processes have used since their start, all threads together; none for those that have ended."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            # The command's name, in brackets, may hold anything.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / _TICKS_PER_SECOND


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in RAM."""
    return figure(pid, "status", "VmRSS:")


def descriptors(pids: Iterable[int]) -> int:
    """Open descriptors of the processes; none of those that have ended."""
    count = 0
    for pid in pids:
        with suppress(OSError):
            count += len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 (names are all that is wanted)
    return count


def threads(pid: int) -> int:
    """Threads of a process."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


@dataclass
class Window:
    """One stretch of time.

    Attributes:
        name: What went on.
        begin: In Unix seconds.
        end: In Unix seconds.
        cpu_seconds: That were used in it, by whom.
        daemon_bytes: Resident memory of the daemon at its end.
        samples_per_second: Of the training.
    """

    name: str
    begin: float = 0.0
    end: float = 0.0
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    daemon_bytes: int = 0
    samples_per_second: float = 0.0

    def cpus(self, who: str) -> float:
        """The CPUs that somebody had in use."""
        return self.cpu_seconds[who] / (self.end - self.begin)


@dataclass(frozen=True)
class Ratio:
    """Ratio of a figure in some windows to that in others.

    Attributes:
        median: Of all pairs: where others use the machine too, single ones are far off.
        error: About the standard error of the median, from the median deviation; NaN for a single pair.
    """

    median: float
    error: float

    def __str__(self) -> str:
        """Formats the ratio in per cent."""
        return f"{self.median:.1%}" if math.isnan(self.error) else f"{self.median:.1%} ± {self.error:.1%}"


def _speed(window: Window) -> float:
    return window.samples_per_second


def training_cpus(window: Window) -> float:
    """The CPUs that the training's processes had in use. Neighbours on the host take nothing of it, as of its speed."""
    return window.cpus("training")


def compare(windows: Sequence[Window], name: str, base: str, figure: Callable[[Window], float] = _speed) -> Ratio:
    """A figure in the windows of one name over that in the windows of another.

    A machine that others use too is faster in one minute than in the next: so each window is compared with those
    between which it lies.

    Args:
        windows: In the order in which they were.
        name: What goes on in the windows.
        base: And in those that they are compared with.
        figure: The training's speed, if nothing else is given.
    """
    ratios = []
    for place, window in enumerate(windows):
        if window.name == name:
            before = [w for w in windows[:place] if w.name == base][-1:]
            after = [w for w in windows[place:] if w.name == base][:1]
            ratios.append(figure(window) / _between(before + after, window, figure))
    middle = median(ratios)
    deviation = median(abs(ratio - middle) for ratio in ratios)
    # For a normal distribution: its standard deviation, and the median's error over the mean's.
    error = 1.4826 * deviation * math.sqrt(math.pi / 2 / len(ratios)) if len(ratios) > 1 else math.nan
    return Ratio(middle, error)


def _between(bases: Sequence[Window], window: Window, figure: Callable[[Window], float]) -> float:
    """Interpolates the figure of a base at the time of a window, from the bases before and after it."""
    if len(bases) == 1 or bases[0].begin == bases[1].begin:
        return mean(map(figure, bases))
    before, after = bases
    share = (_middle(window) - _middle(before)) / (_middle(after) - _middle(before))
    return figure(before) * (1 - share) + figure(after) * share


def _middle(window: Window) -> float:
    return (window.begin + window.end) / 2


def by_name(windows: Iterable[Window]) -> dict[str, list[Window]]:
    """Groups windows by name, in the order of the names' first windows."""
    groups: dict[str, list[Window]] = {}
    for window in windows:
        groups.setdefault(window.name, []).append(window)
    return groups


@contextmanager
def watched_time(name: str, daemon: LocalService, watchers: Sequence[int] = ()) -> Iterator[Window]:
    """The time until the block ends.

    Args:
        name: What goes on.
        daemon: Of the service.
        watchers: Ids of the processes that watch.
    """
    window = Window(name)
    before = _used(daemon, watchers)
    window.begin = time.time()
    yield window
    window.end = time.time()
    after = _used(daemon, watchers)
    window.cpu_seconds = {who: seconds - before[who] for who, seconds in after.items()}
    window.daemon_bytes = resident_bytes(daemon.process.pid)


def _used(daemon: LocalService, watchers: Iterable[int]) -> Mapping[str, float]:
    """CPU seconds since the start of each process, by whose they are."""
    processes = daemon.processes()
    used = {
        who: cpu_seconds(pid for role in roles for pid in pids_of(role, processes)) for who, roles in _ROLES.items()
    }
    used |= {"watchers": cpu_seconds(watchers), "caller": cpu_seconds([os.getpid()])}
    return {**used, "others": all_cpu_seconds() - sum(used.values())}


def samples_per_second(window: Window, epochs: Iterable[HistoryPoint], rows: int) -> float:
    """Speed over those epochs that lie in the window as a whole.

    Args:
        window: Which.
        epochs: Of the training's history.
        rows: Samples of an epoch.

    Raises:
        BenchmarkError: There is none.
    """
    inside = [
        rows / epoch.samples_per_second
        for epoch in epochs
        if window.begin <= (ended := epoch.time.ToNanoseconds() / 1e9) - rows / epoch.samples_per_second
        and ended <= window.end
    ]
    if not inside:
        raise BenchmarkError(f"{window.end - window.begin:.0f} s are too short for an epoch: give more --seconds")
    return len(inside) * rows / sum(inside)
