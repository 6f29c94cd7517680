"""Faults that scenarios inject: of workers, parameter servers, Ray, the service and its disk; calls like a pause."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

from nablad.local import pids_of
from nablad.v1 import jobs_pb2
from tests.harness.fuses import HITS, SERVICE_POINTS, Fuse
from tests.harness.processes import send
from tests.harness.run import Run
from tests.harness.works import MOST_WORKERS

_PARAMETER_SERVER_POINTS = tuple(name for name in HITS if name.startswith("ps."))
_LONGEST_STOP_SECONDS = 10.0
# Of the points that a job comes to before its first step.
_EARLY_POINTS = frozenset({"job.committing", "job.committed", "attempt.starting"})
_AT_ONCE_SECONDS = 10.0
_GONE_SECONDS = 60.0
# Signals that come closer to the first count as the first.
_SIGNALS_APART_SECONDS = 1.0


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


def kill_service(run: Run) -> None:
    """At any moment from the submission on: half of the time before the first steps."""
    run.submit()
    if run.draw.random() < 0.5:
        time.sleep(run.draw.uniform(0.0, 1.5))
    else:
        run.wait_for_moment()
    run.kill_service()
    run.service.restart()


def kill_service_at_point(run: Run) -> None:
    """At each of its failpoints in turn, the first time that it comes there after a drawn moment."""
    fuse = Fuse(SERVICE_POINTS[run.seed % len(SERVICE_POINTS)])
    first = run.service.daemon.process
    if fuse.name in _EARLY_POINTS:
        run.service.fuses.arm(fuse)
        run.submit()
    else:
        run.submit()
        run.wait_for_moment(latest=0.5)
        run.service.fuses.arm(fuse)
    # If it died while the job was submitted, it is there again.
    if run.wait_until_blown(fuse) and run.service.daemon.process is first:
        run.service.wait_until_dead()
        run.service.restart()


def drain(run: Run) -> None:
    """SIGTERM, once or twice at the same moment: it ends by itself and says that all went well."""
    run.submit()
    if run.wait_for_moment():
        run.faults += 1
        if run.draw.random() < 0.5:
            run.service.daemon.process.send_signal(signal.SIGTERM)
        if code := run.service.daemon.stop():
            run.broken.append(f"the drained service ended with exit code {code}")
        run.service.restart()


def terminate_twice(run: Run) -> None:
    """The second SIGTERM ends it at once, if it has not ended by then."""
    run.submit()
    if run.wait_for_moment():
        run.service.daemon.process.send_signal(signal.SIGTERM)
        time.sleep(_SIGNALS_APART_SECONDS + run.draw.uniform(0.0, 0.5))
        run.service.daemon.process.send_signal(signal.SIGTERM)
        run.faults += 1
        if not run.service.wait_until_dead(_AT_ONCE_SECONDS):
            run.broken.append(f"the service was there {_AT_ONCE_SECONDS:.0f} s after the second SIGTERM")
            run.service.daemon.kill()
        run.service.restart()


def fill_disk(run: Run) -> None:
    """The disk has no room for one to three checkpoints in a row, and then has room again."""
    run.submit()
    run.wait_for_moment(latest=0.4)
    fuse = Fuse("checkpoint.writing", "enospc")
    for _ in range(run.draw.randint(1, 3)):
        run.service.fuses.arm(fuse)
        if not run.wait_until_blown(fuse):
            return
    damaged = [each.damage for each in run.service.client.checkpoints(run.trace.job_id) if each.damage]
    run.broken += [f"a checkpoint is damaged: {damage}" for damage in damaged]


def damage_checkpoint(run: Run) -> None:
    """The newest one is truncated, or one byte of it changed, while the service is down after SIGKILL."""
    run.submit()
    if run.wait_for_checkpoints(2) and run.wait_for_moment():
        run.service.daemon.kill()
        newest = max((run.service.data_directory / "checkpoints" / run.trace.job_id).glob("*.safetensors"))
        _damage(newest, run)
        run.faults += 1
        run.service.restart()


def _damage(path: Path, run: Run) -> None:
    content = bytearray(path.read_bytes())
    place = run.draw.randrange(len(content))
    if run.draw.random() < 0.5:
        del content[place:]
    else:
        content[place] ^= run.draw.randint(1, 255)
    path.write_bytes(content)


def pause(run: Run) -> None:
    """At a drawn step; its processes go, and it is resumed."""
    run.submit()
    if not run.wait_for_moment():
        return
    run.service.client.pause(run.trace.job_id)
    run.faults += 1
    if not run.wait_for_state(jobs_pb2.JOB_STATE_PAUSED):
        run.broken.append("the job was not paused")
    deadline = time.monotonic() + _GONE_SECONDS
    while left := run.service.fleet():
        if time.monotonic() > deadline:
            run.broken.append(f"the paused job has processes: {left}")
            break
        time.sleep(0.05)
    run.service.client.resume(run.trace.job_id)


def scale(run: Run) -> None:
    """Three times at drawn steps, to a drawn number of workers."""
    run.submit()
    total = run.work.arithmetic.steps
    for step in sorted(run.draw.sample(range(total * 6 // 10), 3)):
        if not run.wait_for_step(step):
            return
        run.service.client.scale(run.trace.job_id, run.draw.randint(1, MOST_WORKERS))
        run.faults += 1
