"""Everybody's speed on the same works, in turns; and how fast weights and gradients travel in messages."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.contestants import CONTESTANTS, REFERENCE, Contestant, check_costs, largest_difference
from benchmarks.figures import Measurement, Spread, steady
from benchmarks.machine import Stage
from benchmarks.mnist_files import FirstRows
from benchmarks.peer_process import run_peer
from benchmarks.service_jobs import JobRun, running_service
from benchmarks.works import WORKERS, Work

__all__ = ["Contest", "measure", "messages"]


@dataclass
class Contest:
    """Repeated measurements of one work.

    Attributes:
        work: What everybody does.
        measured: The runs of each contestant, by its name.
        jobs: Those of them that were jobs of the service.
    """

    work: Work
    measured: dict[str, list[Measurement]] = field(default_factory=dict)
    jobs: dict[str, list[JobRun]] = field(default_factory=dict)

    @property
    def contestants(self) -> list[Contestant]:
        """Contestants in the order of their turns."""
        return [CONTESTANTS[name] for name in self.work.contestants]

    def add_job(self, name: str, job: JobRun) -> None:
        """Keeps a run of the service."""
        self.jobs.setdefault(name, []).append(job)
        self.measured.setdefault(name, []).append(job.measurement)

    def check_costs(self) -> None:
        """Holds the costs of everybody who trained against those of the reference.

        Raises:
            CostsDisagreeError: Somebody did other work.
        """
        for name, costs in self._costs().items():
            who = f"{CONTESTANTS[name].title} on {self.work.title}"
            check_costs(who, costs, self._reference, CONTESTANTS[name].tolerance)

    def report(self) -> dict[str, Any]:
        """The figures over all repetitions; of speeds, the first epoch of each left out."""
        differences = {name: largest_difference(costs, self._reference) for name, costs in self._costs().items()}
        return {
            "title": self.work.title,
            "rows": self.work.rows,
            "epochs": self.work.epochs,
            "learning_rate": self.work.learning_rate,
            "samples_per_second": {name: steady(runs) for name, runs in self.measured.items()},
            "last_cost": self._reference[-1],
            "cost_differences": differences,
            "jobs": {name: _job_report(runs) for name, runs in self.jobs.items()},
        }

    @property
    def _reference(self) -> list[float]:
        return self.measured[REFERENCE][0].costs

    def _costs(self) -> dict[str, list[list[float]]]:
        """Returns the costs of every contestant that trained, for each run."""
        return {name: [run.costs for run in runs] for name, runs in self.measured.items() if runs[0].costs}


def measure(works: Sequence[Work], rows: FirstRows, repetitions: int, stage: Stage) -> list[Contest]:
    """Measures everything `repetitions` times, in turns.

    Each time the service is a new one, and there is none while its rivals run.

    Raises:
        CostsDisagreeError: Somebody did other work.
        PeerError: A rival failed.
        JobError: A job of the service failed.
    """
    contests = [Contest(work) for work in works]
    for number in range(1, repetitions + 1):
        for contest in contests:
            _take_turns(contest, rows, f"Repetition {number}: {contest.work.title}", stage)
            contest.check_costs()
    return contests


def _take_turns(contest: Contest, rows: FirstRows, what: str, stage: Stage) -> None:
    """Everybody once, the service last: it stays for all of its turns."""
    work, spec = contest.work, contest.work.spec()
    for peer in contest.contestants:
        if peer.module:
            stage.clear(f"{what}: {peer.title}")
            run = run_peer(peer, spec, rows.folder(work.rows), work.rows)
            contest.measured.setdefault(peer.name, []).append(run)
    with running_service({spec.data.train: rows.files(work.rows)}) as service:
        service.run(work.spec(epochs=1))  # Ray is up and warm after its first job
        for contestant in contest.contestants:
            if not contestant.module:
                spec.distribution.transport = contestant.transport
                spec.distribution.workers = contestant.processes
                stage.clear(f"{what}: {contestant.title}")
                contest.add_job(contestant.name, service.run(spec))


def _job_report(runs: Sequence[JobRun]) -> dict[str, Any]:
    profiles = [run.profile for run in runs]
    return {
        "start_s": Spread.of([run.start_s for run in runs]),
        "step_us": median(profile.step_us for profile in profiles),
        "messages_us": Spread.of([profile.messages_us for profile in profiles]),
        "worker_us": _medians([profile.worker_us for profile in profiles]),
        "server_us": _medians([profile.server_us for profile in profiles]),
        "transports": [run.transports for run in runs],
    }


def _medians(figures: Sequence[dict[str, float]]) -> dict[str, float]:
    """Activity by activity."""
    return {activity: median(of_run[activity] for of_run in figures) for activity in figures[0]}


def messages(contest: Contest) -> dict[str, Any]:
    """Bytes per second of the inline transport and of the sockets.

    The service's are the bytes of a step over the time of a step in which a worker neither gathers nor computes.

    Args:
        contest: Of the work whose steps are all whole mini-batches, with both of them.
    """
    step_bytes = 2 * WORKERS * contest.work.weights_bytes  # weights down, gradients up
    ours = Spread.of([1e6 * step_bytes / run.profile.messages_us for run in contest.jobs["service-inline"]])
    samples = steady(contest.measured["loopback-limit"])
    limit = Spread(
        *(step_bytes * speed / contest.work.batch_size for speed in (samples.median, samples.minimum, samples.maximum))
    )
    return {
        "step_bytes": step_bytes,
        "service_bytes_per_second": ours,
        "loopback_bytes_per_second": limit,
        "ratio": ours.median / limit.median,
    }
