"""Views of a job for people: a row of a table, and a page with its recent events."""

from collections.abc import Sequence
from textwrap import indent

import click

from nablad.cli.metrics import MEASURES, cells, headings, performance, position
from nablad.cli.output import moment, print_fields
from nablad.jobspec import to_yaml
from nablad.jobspec.names import name_of
from nablad.v1 import jobs_pb2

COLUMNS = (
    "JOB",
    "STATE",
    "PRIORITY",
    "LAST EPOCH",
    *headings(MEASURES),
    "CREATED",
)


def row(job: jobs_pb2.Job) -> tuple[str, ...]:
    """Returns a job as the row of a table with `COLUMNS`."""
    if job.damage:
        return (job.job_id, "damaged", *[""] * (len(COLUMNS) - 2))
    progress = job.progress
    return (
        job.job_id,
        _state(job),
        str(job.spec.priority),
        f"{progress.epoch}/{job.spec.training.epochs}",
        *cells(progress, MEASURES),
        moment(job.create_time),
    )


def print_job(job: jobs_pb2.Job, events: Sequence[jobs_pb2.Event]) -> None:
    """Prints a job: its fields, the last log lines of a failed process, its recent events and its spec."""
    print_fields(_fields(job))
    if job.last_error_lines:
        click.echo(f"\nlast error lines:\n{indent(job.last_error_lines.rstrip(), '    ')}")
    if events:
        click.echo("\nrecent events:")
        for event in events:
            click.echo(f"{event.number:>6}  {moment(event.time)}  {event.message}")
    click.echo(f"\n{to_yaml(job.spec)}", nl=False)


def _fields(job: jobs_pb2.Job) -> list[tuple[str, str]]:
    started = bool(job.progress.steps)
    return [
        ("job", job.job_id),
        ("verifies", job.verifies),
        ("state", _state(job)),
        ("reason", job.reason),
        *(("warning", warning.message) for warning in job.warnings if warning.message != job.reason),
        ("created", moment(job.create_time)),
        ("started", moment(job.start_time)),
        ("ended", moment(job.end_time)),
        ("attempt", str(job.attempt or "")),
        ("lost attempts", f"{job.lost_attempts} of {job.spec.limits.attempts}" if job.lost_attempts else ""),
        ("lost with Ray", str(job.lost_with_ray or "")),
        ("next try", moment(job.retry_time)),
        ("progress", position(job.progress) if started else ""),
        ("metrics", performance(job.progress) if started else ""),
        ("model", job.model_id),
    ]


def _state(job: jobs_pb2.Job) -> str:
    return name_of(jobs_pb2.JobState.DESCRIPTOR, job.state)
