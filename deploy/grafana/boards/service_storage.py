"""Of the service board: database, disk and checkpoints."""

from grafana_foundation_sdk.models import units

from deploy.grafana.boards.expressions import increase, of_service, rate, total
from deploy.grafana.boards.frame import Row
from deploy.grafana.boards.panels import Series, bad_from, bad_until, graph, percentiles

__all__ = ["checkpoints", "free_share", "storage"]


def free_share() -> str:
    """Of the fullest file system of the chosen services, from 0 to 1."""
    free, size = (of_service(f"nablad_data_directory_{what}_bytes") for what in ("free", "size"))
    return total(f"{free} / {size}", function="min")


def storage() -> Row:
    """The database, and the file system that it is on."""
    commits = of_service("nablad_store_commit_seconds_bucket")
    return Row(
        "Storage",
        [
            graph(
                "Database commits", "How long transactions take to reach the disk; every change of a job waits for "
                "one. Above 0.1 s the disk is slow or busy.", units.Seconds,
                *percentiles(commits), span=6,
                limits=bad_from(1, warning=0.1),
            ),
            graph(
                "Database size", "With its log. It grows with jobs and their events.", units.BytesIEC,
                Series(of_service("nablad_store_bytes"), "{{instance}}"), span=6,
            ),
            graph(
                "Room on the disk over time", "Free share of the file system of the data directory. Make room "
                "before it reaches 0.", units.PercentUnit, Series(free_share(), "free"), span=6,
                limits=bad_until(0.2, warning=0.1),
            ).max(1),
            graph(
                "Reserve on the disk", "Kept for what frees room or stops work. Below its size: the disk is full, and "
                "cancelling, pausing and deleting live on it.", units.BytesIEC,
                Series(of_service("nablad_data_directory_reserve_bytes"), "{{instance}}"), span=6,
            ),
        ],
    )  # fmt: skip


def checkpoints() -> Row:
    """How many, how large, how slow, and how many failed."""
    durations = of_service("nablad_checkpoint_seconds_bucket")
    return Row(
        "Checkpoints",
        [
            graph(
                "Checkpoints per second", "Written, over all jobs. Falls to 0 while jobs run: none is due, or none can "
                "be written.", units.OpsPerSecond,
                Series(total(rate(of_service("nablad_checkpoints_total"))), "written"), span=6,
            ),
            graph(
                "Bytes of checkpoints", "Per second, over all jobs. Near what the disk can write: longer intervals "
                "between checkpoints help.", units.BytesPerSecondIEC,
                Series(total(rate(of_service("nablad_checkpoint_bytes_total"))), "written"), span=6,
            ),
            graph(
                "Duration of checkpoints", "Fetching and writing. The next one waits for it, the steps do not.",
                units.Seconds, *percentiles(durations), span=6,
                limits=bad_from(30, warning=10),
            ),
            graph(
                "Failed checkpoints", "Within each interval. Events of the jobs say why; the room on the disk is the "
                "first place to look.", units.Number,
                Series(total(increase(of_service("nablad_checkpoint_failures_total"))), "failed"), span=6,
            ),
        ],
    )  # fmt: skip
