"""The overview: is the service well, what runs, what waits, what went wrong?"""

from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.boards import frame, job_table, variables
from deploy.grafana.boards.expressions import increase, of_service, quantile, total
from deploy.grafana.boards.failures import failed_calls, failures
from deploy.grafana.boards.frame import Row
from deploy.grafana.boards.panels import Series, bad_from, graph, mapped, stacked, stat

__all__ = ["board"]


def board() -> Dashboard:
    """From the state of now to what happened in the time range."""
    return frame.assemble(
        frame.OVERVIEW,
        [variables.data_source(), variables.instance()],
        [_now(), Row("Running jobs", [job_table.running_jobs()]), _jobs(), _queue(), _cluster(), failures()],
    )


def _now() -> Row:
    running, queued = (total(of_service("nablad_jobs", f'state="{state}"')) for state in ("running", "queued"))
    return Row(
        "Now",
        [
            mapped(stat(
                "Ray", "Away: no job makes steps. The service goes on answering, and looks for Ray until it is back.",
                units.Number, Series(total(of_service("nablad_cluster_up"), function="min"), "Ray"), span=2,
                limits=((0, "red"), (1, "green")),
            ), {0: "away", 1: "up"}),
            stat("Running", "Jobs that make steps.", units.Number, Series(running, "running"), span=2),
            stat("Queued", "Jobs that wait for CPUs, or for their next attempt.", units.Number,
                 Series(queued, "queued"), span=2),
            stat(
                "Longest wait", "Of the jobs in the queue. Long with free CPUs: the job at the head asks for more than "
                "one node has.", units.Seconds,
                Series(total(of_service("nablad_queue_oldest_seconds"), function="max"), "oldest"),
                limits=bad_from(3600, warning=600),
            ),
            stat(
                "Failed jobs", "Jobs that failed in the time range. `nabla job get` says why; `nabla job retry` tries "
                "again.", units.Number, Series(_within("nablad_jobs_ended_total", 'state="failed"'), "failed"),
                limits=bad_from(0.5), span=3,
            ),
            stat(
                "Checkpoint failures", "Checkpoints that could not be written in the time range: look at the room on "
                "the disk.", units.Number, Series(_within("nablad_checkpoint_failures_total"), "failed"),
                limits=bad_from(0.5),
            ),
            stat(
                "Lost attempts", "Attempts that were lost in the time range; each is followed by another one.",
                units.Number, Series(_within("nablad_attempts_lost_total"), "lost"),
                limits=bad_from(10, warning=0.5),
            ),
            stat(
                "Ray losses", "How often Ray, or the process that speaks to it, was lost in the time range.",
                units.Number, Series(_within("nablad_cluster_losses_total"), "lost"),
                limits=bad_from(3, warning=0.5),
            ),
            stat(
                "Failed calls", "Share of calls that failed by the service's fault, as of now.", units.PercentUnit,
                Series(failed_calls(), "failed"), limits=bad_from(0.05, warning=0.01),
            ),
        ],
    )  # fmt: skip


def _within(counter: str, *matchers: str) -> str:
    """How often something happened in the board's time range."""
    return total(f"increase({of_service(counter, *matchers)}[$__range])")


def _jobs() -> Row:
    return Row(
        "Jobs",
        [
            stacked(graph(
                "Jobs by state", "Queued should come and go. Starting that stays: processes do not come up.",
                units.Number, Series(total(of_service("nablad_jobs"), "state"), "{{state}}"),
            )),
            graph(
                "Jobs that ended", "Within each interval, by last state. Failed beside succeeded: compare the two job "
                "files; only failed: look at the service.", units.Number,
                Series(total(increase(of_service("nablad_jobs_ended_total")), "state"), "{{state}}"),
            ),
        ],
    )  # fmt: skip


def _queue() -> Row:
    return Row(
        "Queue",
        [
            stacked(graph(
                "Queue by priority", "Low is below 0, high above. A queue that only grows needs more CPUs or fewer "
                "jobs.", units.Number, Series(total(of_service("nablad_queue_jobs"), "priority"), "{{priority}}"),
                span=8,
            )),
            graph(
                "Oldest job in the queue", "By priority. Low may wait behind the others; high that waits does not find "
                "room.", units.Seconds,
                Series(total(of_service("nablad_queue_oldest_seconds"), "priority", function="max"), "{{priority}}"),
                span=8, limits=bad_from(3600, warning=600),
            ),
            graph(
                "Wait before the start", "90th percentile of the jobs that started, by priority. No line where none "
                "started.", units.Seconds,
                Series(quantile(0.9, of_service("nablad_queue_wait_seconds_bucket"), "priority"), "{{priority}}"),
                span=8,
            ),
        ],
    )  # fmt: skip


def _cluster() -> Row:
    cpus, free = (total(of_service(f"nablad_cluster_{what}")) for what in ("cpus", "free_cpus"))
    return Row(
        "Cluster",
        [
            stacked(graph(
                "CPUs", "Used and free together are all that Ray has. Free ones beside a queue: what waits is too big "
                "for them.", units.Number, Series(f"{cpus} - {free}", "used"), Series(free, "free"),
            )),
            graph(
                "Nodes", "Nodes of the Ray cluster. A step down: a machine is gone, and its jobs start anew.",
                units.Number, Series(total(of_service("nablad_cluster_nodes")), "nodes"), span=6,
            ),
            graph(
                "Ray up", "1 while Ray is there. Every dip costs the running jobs what they did since their "
                "checkpoints.", units.Number,
                Series(total(of_service("nablad_cluster_up"), "instance", function="min"), "{{instance}}"), span=6,
                limits=((0, "red"), (1, "green")),
            ).max(1),
        ],
    )  # fmt: skip
