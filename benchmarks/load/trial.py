"""The whole trial: a training alone, then with a queue and watchers, then with calls on top; again and again."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.load.calls import CallTimes, Latencies, Queue, make_calls
from benchmarks.load.crowd import CrowdSize, watching
from benchmarks.load.training import service, start_training
from benchmarks.load.watchers import Heard
from benchmarks.load.windows import Ratio, Window, compare, samples_per_second, training_cpus, watched_time
from benchmarks.mnist_files import FirstRows
from benchmarks.works import PAPER_500
from nablad import Client
from nablad.local import LocalService

__all__ = ["ALONE", "CALLED", "WATCHED", "Extent", "Trial", "run_trial"]

ALONE, WATCHED, CALLED = "alone", "queue and watchers", "and calls"

# The training's first epochs, and what comes after a crowd has gone, do not count.
_SETTLING_SECONDS = 3.0


@dataclass(frozen=True)
class Extent:
    """Extent of a trial.

    Attributes:
        queued: Jobs in the queue.
        crowd: Who watches.
        seconds: Of each window.
        rounds: Of all three windows.
        started: Jobs whose order of starting is looked at.
    """

    queued: int = 1000
    crowd: CrowdSize = field(default_factory=lambda: CrowdSize(1000, 100))
    seconds: float = 15.0
    rounds: int = 8
    started: int = 8


@dataclass
class Trial:
    """Results of a trial.

    Attributes:
        extent: How much was done.
        windows: In the order in which they were.
        times: Seconds of every call.
        heard: What the watchers heard, process by process.
        started: The first jobs that started when the training ended, in order.
        expected: Those that had to.
        daemon_bytes_after: Resident memory of the daemon at the end, when queue and crowd are gone.
    """

    extent: Extent
    windows: list[Window] = field(default_factory=list)
    times: CallTimes = field(default_factory=dict)
    heard: list[Heard] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    daemon_bytes_after: int = 0

    def ratio(self, name: str) -> Ratio:
        """The training's speed in the windows of a name, over that alone."""
        return compare(self.windows, name, ALONE)

    def cpu_ratio(self, name: str) -> Ratio:
        """The CPU time that the training has in the windows of a name, over that alone."""
        return compare(self.windows, name, ALONE, training_cpus)

    @property
    def latencies(self) -> dict[str, Latencies]:
        """Latencies of each kind of call."""
        return {call: Latencies.of(seconds) for call, seconds in self.times.items()}

    @property
    def in_order(self) -> bool:
        """True if jobs started by priority and age."""
        return self.started == self.expected


def run_trial(rows: FirstRows, extent: Extent, say: Callable[[str], None]) -> Trial:
    """Does everything with a daemon of its own.

    Args:
        rows: Of MNIST.
        extent: How much.
        say: Is told what comes next.

    Raises:
        BenchmarkError: The daemon or the watchers did not start, or jobs did not.
    """
    trial = Trial(extent)
    with service(rows) as (daemon, client):
        training, queue = start_training(client), Queue()
        for number in range(1, extent.rounds + 1):
            say(f"Round {number} of {extent.rounds}")
            _make_round(trial, daemon, client, training, queue)
        trial.windows.append(_alone(daemon, extent))
        epochs = list(client.history(training))
        for window in trial.windows:
            window.samples_per_second = samples_per_second(window, epochs, PAPER_500.rows)
        say("Order of starting")
        _see_order(trial, client, training, queue)
        with watched_time("after", daemon) as after:
            time.sleep(_SETTLING_SECONDS)
        trial.daemon_bytes_after = after.daemon_bytes
    return trial


def _make_round(trial: Trial, daemon: LocalService, client: Client, training: str, queue: Queue) -> None:
    extent = trial.extent
    trial.windows.append(_alone(daemon, extent))
    queue.fill(client, extent.queued)
    # Every epoch that ended is an event: there is one with this number, and there are few after it.
    newest = client.job(training).progress.epoch
    with watching(daemon.address, training, newest, extent.crowd) as crowd:
        with watched_time(WATCHED, daemon, crowd.pids) as watched:
            time.sleep(extent.seconds)
        with watched_time(CALLED, daemon, crowd.pids) as called:
            times = make_calls(daemon.address, training, queue, extent.seconds)
    queue.clear(client)
    trial.windows += [watched, called]
    trial.heard += crowd.heard
    for call, seconds in times.items():
        trial.times.setdefault(call, []).extend(seconds)


def _alone(daemon: LocalService, extent: Extent) -> Window:
    time.sleep(_SETTLING_SECONDS)
    with watched_time(ALONE, daemon) as window:
        time.sleep(extent.seconds)
    return window


def _see_order(trial: Trial, client: Client, training: str, queue: Queue) -> None:
    """Ends the training, and sees who comes next."""
    queue.fill(client, trial.extent.queued)
    trial.expected = queue.in_order(client)[: trial.extent.started]
    client.cancel(training)
    trial.started = queue.await_ends(client, trial.extent.started)
    queue.clear(client)
