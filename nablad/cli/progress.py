"""Where a job stands, in words."""

from nablad.cli.output import number, share
from nablad.v1 import jobs_pb2


def position(progress: jobs_pb2.Progress) -> str:
    """How far the job is."""
    return f"epoch {progress.epoch}/{progress.epochs}, step {progress.step}/{progress.steps}"


def figures(progress: jobs_pb2.Progress) -> str:
    """Returns how well and how fast it goes, in the words of the tables; what is not known yet is left out."""
    measures = [
        (f"{rows} {what}", show(progress, f"{rows}_{what}"))
        for rows in ("training", "validation")
        for what, show in (("cost", number), ("accuracy", share))
    ]
    known = [
        *(f"{name} {value}" for name, value in measures if value),
        f"{progress.samples_per_second:,.0f} samples/s" if progress.samples_per_second else "",
        f"{progress.workers_alive} worker{'s' * (progress.workers_alive != 1)}" if progress.workers_alive else "",
    ]
    return ", ".join(filter(None, known))


def progress_line(progress: jobs_pb2.Progress) -> str:
    """Returns one line: how far the job is, how well and how fast it goes."""
    return ": ".join(filter(None, (position(progress), figures(progress))))
