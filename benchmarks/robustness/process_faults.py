"""Faults of the processes that Ray runs, and of Ray."""

import signal
import time
from collections.abc import Callable

from benchmarks.robustness.fuses import HITS, Fuse
from benchmarks.robustness.roles import pids_of, send
from benchmarks.robustness.run import Run

__all__ = [
    "kill_all_workers",
    "kill_of_ray",
    "kill_parameter_server",
    "kill_parameter_server_at_point",
    "kill_worker_at",
    "stop_worker",
]

_PARAMETER_SERVER_POINTS = tuple(name for name in HITS if name.startswith("ps."))
_LONGEST_STOP_SECONDS = 10.0


def kill_worker_at(point: str) -> Callable[[Run], None]:
    """The first worker that comes to a failpoint for a drawn time."""
    return lambda run: _kill_at(run, point)


def kill_all_workers(run: Run) -> None:
    """At a drawn step."""
    run.submit()
    if run.wait_for_moment():
        run.inject(signal.SIGKILL, run.service.workers())


def kill_parameter_server(run: Run) -> None:
    """At a drawn step."""
    run.submit()
    if run.wait_for_moment():
        run.inject(signal.SIGKILL, run.service.parameter_servers())


def kill_parameter_server_at_point(run: Run) -> None:
    """At each of its failpoints in turn; at the one after a resumption, it is made to resume first."""
    point = _PARAMETER_SERVER_POINTS[run.seed % len(_PARAMETER_SERVER_POINTS)]
    if point != "ps.resumed":
        _kill_at(run, point)
        return
    run.submit()
    if run.wait_for_checkpoints(1) and run.wait_for_moment():
        fuse = Fuse(point, "kill", 1)
        run.service.fuses.arm(fuse)
        run.inject(signal.SIGKILL, run.service.parameter_servers())
        run.wait_until_blown(fuse)


def kill_of_ray(role: str) -> Callable[[Run], None]:
    """A process of Ray's, or the one that speaks to it, at a drawn step; everything that belongs to Ray has to go."""

    def disturb(run: Run) -> None:
        run.submit()
        if run.wait_for_moment():
            pids = pids_of(role, run.service.processes())
            run.service.expect_departure(of_daemon=False)
            run.inject(signal.SIGKILL, pids)

    return disturb


def stop_worker(run: Run) -> None:
    """At a drawn step, for a drawn time."""
    run.submit()
    if run.wait_for_moment() and (workers := sorted(run.service.workers())):
        victim = {run.draw.choice(workers)}
        run.inject(signal.SIGSTOP, victim)
        time.sleep(run.draw.uniform(0.5, _LONGEST_STOP_SECONDS))
        send(signal.SIGCONT, victim)


def _kill_at(run: Run, point: str) -> None:
    fuse = Fuse(point, "kill", run.draw.choice(HITS[point]))
    run.service.fuses.arm(fuse)
    run.submit()
    run.wait_until_blown(fuse)
