"""Prints docs/metrics.md, from the table."""

import click

from service.metrics.table import JOB_METRICS, PROCESS_METRICS, SERVICE_METRICS, Metric

__all__ = ["page"]

_HEAD = """# Metrics

Served at `/metrics`, on 127.0.0.1:7472 if nothing else was said (`--metrics-address`), in Prometheus's text format, and
gzipped for those who ask for that.

Made from the table in `service/metrics/table.py` by `python -m service.metrics.reference > docs/metrics.md`; a test
holds it fresh.

- The label of a job is `job_id`: Prometheus gives a label `job` a meaning of its own.
- The series of a job are there from the beginning of its first attempt, and go away 15 minutes after its end. While it
  is in the queue between two attempts, or paused, it has none. Counters of a job begin at 0 with each attempt.
- The first 64 workers of a job have series of their own; those of all others are summed up as `others`.
- Counters whose labels are known are there from the start of the service, so that a first count shows as an increase.
- What the parameter server tells of a job beside its progress is a second old, or a little more.
- Shorter jobs than the interval of scraping are not lost: `nabla job history` has the figures of every epoch.
"""
_SECTIONS = (("Jobs", JOB_METRICS), ("The service", SERVICE_METRICS), ("Processes of the service", PROCESS_METRICS))


def page() -> str:
    """The page."""
    parts = [_HEAD]
    for title, metrics in _SECTIONS:
        parts.append(f"\n## {title}\n\n| name | type | labels | unit | |\n| --- | --- | --- | --- | --- |\n")
        parts.extend(_line(metric) for metric in metrics)
    return "".join(parts)


def _line(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.type} | {labels} | {metric.unit} | {metric.help} |\n"


if __name__ == "__main__":
    click.echo(page(), nl=False)
