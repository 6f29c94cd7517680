"""How fast weights and gradients travel in messages, beside plain sockets that move the same bytes."""

from typing import Any

from benchmarks.figures import Spread, steady
from benchmarks.speed import Contest
from benchmarks.works import WORKERS

__all__ = ["report"]


def report(contest: Contest) -> dict[str, Any]:
    """Bytes per second of the inline transport and of the sockets.

    The service's are the bytes of a step over the time of a step in which a worker neither gathers nor computes.

    Args:
        contest: Of the work whose steps are all whole mini-batches.
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
