"""What only the service has: the parts of a step, messages, starts and memory of its jobs."""

from collections import Counter
from typing import Any

from benchmarks.contestants import CONTESTANTS
from benchmarks.report.tables import spread, table

__all__ = ["memory", "messages", "starts", "steps"]

_MB = 10**6


def steps(speed: dict[str, Any]) -> str:
    """Worker and parameter server side by side."""
    jobs = [(work["title"], name, job) for work in speed.values() for name, job in work["jobs"].items()]
    sides = {"a worker": "worker_us", "parameter server": "server_us"}
    activities = list(dict.fromkeys(name for _, _, job in jobs for side in sides.values() for name in job[side]))
    rows = [
        [
            f"{title}: {CONTESTANTS[name].title}",
            side,
            f"{job['step_us']:,.0f}",
            *(_microseconds(job[figures], activity) for activity in activities),
        ]
        for title, name, job in jobs
        for side, figures in sides.items()
    ]
    used = "\n".join(f"- {title}, {CONTESTANTS[name].title}: {_transports(job)}" for title, name, job in jobs)
    return (
        "## Where a step's time goes\n\nMicroseconds of a mean step, and what each side does in them: median over the "
        "repetitions, the first epoch left out; of a worker, the mean of both.\n\n"
        f"{table(['job', 'side', 'a step', *activities], rows, words=2)}\n\n"
        f"Workers by how weights and gradients reached them, seen after the first epoch of each repetition:\n\n{used}"
    )


def messages(figures: dict[str, Any]) -> str:
    """The inline transport beside plain sockets."""
    heads = ["what moves the bytes", "MB per second"]
    rows = [
        ["nablad, inline", spread(figures["service_bytes_per_second"], ",.0f", _MB)],
        ["plain TCP on the loopback", spread(figures["loopback_bytes_per_second"], ",.0f", _MB)],
    ]
    return (
        f"## Messages\n\nThe {figures['step_bytes'] / _MB:.1f} MB of a step: weights down, gradients up. For nablad "
        "over the time of a step in which a worker neither gathers nor computes, so that reduction, update "
        "and waiting are in it; for the sockets over all of their time. "
        f"The ratio is {figures['ratio']:.2f}.\n\n{table(heads, rows)}"
    )


def starts(start_s: dict[str, Any]) -> str:
    """From acceptance to the first step."""
    return (
        "## Start\n\nFrom the acceptance of a job until its first worker was there and steps were made, all jobs but "
        f"the first of each service: {spread(start_s, '.2f')} s."
    )


def memory(figures: dict[str, Any]) -> str:
    """Of the processes of one job."""
    heads = ["process", "peak, MB", "at most, MB", "proportional, MB"]
    rows = [
        [
            role,
            f"{process['largest']['peak'] / _MB:.0f}",
            f"{process['limit'] / _MB:.0f}",
            f"{process['largest']['proportional'] / _MB:.0f}",
        ]
        for role, process in figures["processes"].items()
    ]
    return (
        f"## Memory\n\n{figures['title']}; {figures['weights_bytes'] / _MB:.1f} MB of weights and biases, "
        f"{figures['rows_bytes'] / _MB:.1f} MB of rows. The peak is the largest resident memory (VmHWM): it counts "
        "the pages that processes share, regions and rows among them, in each of them. The proportional size (Pss) "
        f"counts each once, in parts. Of the workers, the largest.\n\n{table(heads, rows)}"
    )


def _microseconds(figures: dict[str, float], activity: str) -> str:
    return f"{figures[activity]:,.0f}" if activity in figures else ""


def _transports(job: dict[str, Any]) -> str:
    """Of all repetitions; a job may be too short to be seen."""
    seen = Counter[str]()
    for of_run in job["transports"]:
        seen.update(of_run)
    return ", ".join(f"{number} {transport}" for transport, number in seen.items()) or "not seen"
