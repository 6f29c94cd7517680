"""The soak as a document; README.md says how to read it."""

from collections.abc import Mapping
from statistics import median

from benchmarks.report.tables import machine_section, table
from benchmarks.soak.reading import Reading
from benchmarks.soak.run import Soak

__all__ = ["grown", "markdown"]

# Of what there must not be more than before. Memory is only told; what jobs leave on purpose goes when they do.
_BOUNDED = (
    *(f"{who}: {what}" for who in ("daemon", "cluster process") for what in ("processes", "descriptors", "threads")),
    "Ray actors: processes",
    "Ray: processes",
    "shared memory: files",
    "staging/: files",
)
_TIMED_JOBS = 10


def grown(soak: Soak) -> dict[str, int]:
    """Returns the growth of what should not have grown."""
    before, after = soak.readings[0].figures(), soak.readings[-1].figures()
    return {name: after[name] - before[name] for name in _BOUNDED if after[name] > before[name]}


def markdown(soak: Soak, machine: Mapping[str, str]) -> str:
    """The whole document."""
    first, last = soak.readings[0].jobs, soak.readings[-1].jobs
    more = ", ".join(f"{name} (+{count})" for name, count in grown(soak).items())
    return "\n\n".join(
        [
            "# Soak\n\nMade by `make bench-soak`; [README.md](../README.md#soak) says how to read it.",
            machine_section(machine),
            f"## Before and after\n\nAfter {first} jobs, after {last}, and when all jobs and models were deleted. "
            f"Of processes, descriptors, threads of the service, shared memory and unfinished files, more was there "
            f"than before of: {more or 'nothing'}.\n\n{_before_and_after(soak)}",
            f"## Memory and time on the way\n\nResident memory in MB, and the median seconds of the last {_TIMED_JOBS} "
            f"jobs.\n\n{_on_the_way(soak)}",
        ]
    )


def _before_and_after(soak: Soak) -> str:
    first, last = soak.readings[0], soak.readings[-1]
    cleared = soak.cleared or last
    before, after, at_end = first.figures(), last.figures(), cleared.figures()
    rows = [
        [
            name,
            f"{before[name]:,}",
            f"{after[name]:,}",
            f"{(after[name] - before[name]) / (last.jobs - first.jobs):+,.1f}",
            f"{at_end[name]:,}",
        ]
        for name in before
    ]
    return table(["what", "before", "after", "for each job", "deleted"], rows)


def _on_the_way(soak: Soak) -> str:
    who = ("daemon", "cluster process", "Ray")
    rows = [
        [str(reading.jobs), *(_mb(reading, name) for name in who), _seconds(soak, reading)] for reading in soak.readings
    ]
    return table(["jobs", *who, "seconds"], rows, words=0)


def _mb(reading: Reading, who: str) -> str:
    return f"{reading.processes[who].resident_bytes / 1e6:.1f}"


def _seconds(soak: Soak, reading: Reading) -> str:
    return f"{median(soak.job_seconds[max(reading.jobs - _TIMED_JOBS, 0) : reading.jobs]):.2f}"
