"""Rows of the service board: database, disk and checkpoints."""

from grafana_foundation_sdk.models import units

from deploy.grafana.boards.expressions import increase, of_service, rate, total
from deploy.grafana.boards.frame import Row
from deploy.grafana.boards.panels import Series, bad_from, bad_until, graph, percentiles

__all__ = ["checkpoints", "free_share", "storage"]


def free_share() -> str:
    """Free share of the fullest file system of the chosen services, from 0 to 1."""
    free, size = (of_service(f"nablad_data_directory_{what}_bytes") for what in ("free", "size"))
    return total(f"{free} / {size}", function="min")


def storage() -> Row:
    """Returns the database and its file system."""
    commits = of_service("nablad_store_commit_seconds_bucket")
    return Row(
        "Storage",
        [
            graph(
                "Database commits", "Duration of commits, including the sync to disk. Every change of a job waits for "
                "one. Above 0.1 s, the disk is slow or busy.", units.Seconds,
                *percentiles(commits), span=6,
                limits=bad_from(1, warning=0.1),
            ),
            graph(
                "Database size", "Database with its write-ahead log. It grows with jobs and their events.",
                units.BytesIEC,
                Series(of_service("nablad_store_bytes"), "{{instance}}"), span=6,
            ),
            graph(
                "Free disk space over time", "Free share of the file system of the data directory. Free some "
                "before it reaches 0.", units.PercentUnit, Series(free_share(), "free"), span=6,
                limits=bad_until(0.2, warning=0.1),
            ).max(1),
            graph(
                "Disk reserve", "Space kept for calls that free space or stop work. It shrinks only while the disk is "
                "full.", units.BytesIEC,
                Series(of_service("nablad_data_directory_reserve_bytes"), "{{instance}}"), span=6,
            ),
        ],
    )  # fmt: skip


def checkpoints() -> Row:
    """Returns rate, size, duration and failures of checkpoints."""
    durations = of_service("nablad_checkpoint_seconds_bucket")
    return Row(
        "Checkpoints",
        [
            graph(
                "Checkpoints per second", "Written checkpoints over all jobs. At 0 while jobs run, none is due or "
                "none can be written.", units.OpsPerSecond,
                Series(total(rate(of_service("nablad_checkpoints_total"))), "written"), span=6,
            ),
            graph(
                "Bytes of checkpoints", "Bytes per second over all jobs. Near the speed of the disk, use longer "
                "intervals between checkpoints.", units.BytesPerSecondIEC,
                Series(total(rate(of_service("nablad_checkpoint_bytes_total"))), "written"), span=6,
            ),
            graph(
                "Duration of checkpoints", "Fetching and writing. Steps go on meanwhile; the next checkpoint waits.",
                units.Seconds, *percentiles(durations), span=6,
                limits=bad_from(30, warning=10),
            ),
            graph(
                "Failed checkpoints", "Per interval. The jobs' events have the error; check the free disk space "
                "first.", units.Number,
                Series(total(increase(of_service("nablad_checkpoint_failures_total"))), "failed"), span=6,
            ),
        ],
    )  # fmt: skip
