"""Overview board: health of the service, running and queued jobs, cluster and failures."""

from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.boards import frame, job_table
from deploy.grafana.boards.expressions import increase, of_service, quantile, total
from deploy.grafana.boards.failures import failed_calls, failures
from deploy.grafana.boards.frame import Row
from deploy.grafana.boards.panels import Series, bad_from, graph, mapped, stacked, stat

__all__ = ["board"]


def board() -> Dashboard:
    """Returns the board: the present state first, then the time range."""
    return frame.assemble(
        frame.OVERVIEW,
        [frame.data_source(), frame.instance()],
        [_now(), Row("Running jobs", [job_table.running_jobs()]), _jobs(), _queue(), _cluster(), failures()],
    )


def _now() -> Row:
    running, queued = (total(of_service("nablad_jobs", f'state="{state}"')) for state in ("running", "queued"))
    return Row(
        "Now",
        [
            mapped(stat(
                "Ray", "While Ray is away, no job makes steps. The service answers calls and reconnects by itself.",
                units.Number, Series(total(of_service("nablad_cluster_up"), function="min"), "Ray"), span=2,
                limits=((0, "red"), (1, "green")),
            ), {0: "away", 1: "up"}),
            stat("Running", "Jobs that make steps.", units.Number, Series(running, "running"), span=2),
            stat("Queued", "Jobs that wait for CPUs, or for their next attempt.", units.Number,
                 Series(queued, "queued"), span=2),
            stat(
                "Longest wait", "Longest wait of a queued job. If it is long with free CPUs, the first job requests "
                "more than is free, or more CPUs per worker than a node has.", units.Seconds,
                Series(total(of_service("nablad_queue_oldest_seconds"), function="max"), "oldest"),
                limits=bad_from(3600, warning=600),
            ),
            stat(
                "Failed jobs", "Jobs that failed in the time range. `nabla job get` shows the reason; `nabla job "
                "retry` queues a job again.",
                units.Number, Series(_within("nablad_jobs_ended_total", 'state="failed"'), "failed"),
                limits=bad_from(0.5), span=3,
            ),
            stat(
                "Checkpoint failures", "Checkpoints that could not be written in the time range. Check the free disk "
                "space.", units.Number, Series(_within("nablad_checkpoint_failures_total"), "failed"),
                limits=bad_from(0.5),
            ),
            stat(
                "Lost attempts", "Attempts lost in the time range. Another attempt follows each.",
                units.Number, Series(_within("nablad_attempts_lost_total"), "lost"),
                limits=bad_from(10, warning=0.5),
            ),
            stat(
                "Ray losses", "Losses of Ray or of the cluster process in the time range.",
                units.Number, Series(_within("nablad_cluster_losses_total"), "lost"),
                limits=bad_from(3, warning=0.5),
            ),
            stat(
                "Failed calls", "Present share of calls that fail because of the service.", units.PercentUnit,
                Series(failed_calls(), "failed"), limits=bad_from(0.05, warning=0.01),
            ),
        ],
    )  # fmt: skip


def _within(counter: str, *matchers: str) -> str:
    """Increase of a counter in the board's time range."""
    return total(f"increase({of_service(counter, *matchers)}[$__range])")


def _jobs() -> Row:
    return Row(
        "Jobs",
        [
            stacked(graph(
                "Jobs by state", "If jobs stay in state starting, their processes do not start.",
                units.Number, Series(total(of_service("nablad_jobs"), "state"), "{{state}}"),
            )),
            graph(
                "Jobs that ended", "Per interval, by final state. If only some jobs fail, compare job files. If all "
                "fail, check the service.", units.Number,
                Series(total(increase(of_service("nablad_jobs_ended_total")), "state"), "{{state}}"),
            ),
        ],
    )  # fmt: skip


def _queue() -> Row:
    return Row(
        "Queue",
        [
            stacked(graph(
                "Queue by priority", "Low is below 0, high is above 0. If the queue only grows, add CPUs or submit "
                "fewer jobs.", units.Number, Series(total(of_service("nablad_queue_jobs"), "priority"), "{{priority}}"),
                span=8,
            )),
            graph(
                "Oldest job in the queue", "By priority. Low-priority jobs wait behind others. High-priority jobs "
                "wait only for CPUs.", units.Seconds,
                Series(total(of_service("nablad_queue_oldest_seconds"), "priority", function="max"), "{{priority}}"),
                span=8, limits=bad_from(3600, warning=600),
            ),
            graph(
                "Wait before the start", "90th percentile over started jobs, by priority. Without starts, there is no "
                "line.", units.Seconds,
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
                "CPUs", "Used and free CPUs of Ray. If CPUs are free while jobs wait, the first job needs "
                "more of them.", units.Number, Series(f"{cpus} - {free}", "used"), Series(free, "free"),
            )),
            graph(
                "Nodes", "Nodes of the Ray cluster. When a node is lost, its jobs continue elsewhere.",
                units.Number, Series(total(of_service("nablad_cluster_nodes")), "nodes"), span=6,
            ),
            graph(
                "Ray up", "1 while Ray is connected. After a loss, running jobs continue from their newest "
                "checkpoints.", units.Number,
                Series(total(of_service("nablad_cluster_up"), "instance", function="min"), "{{instance}}"), span=6,
                limits=((0, "red"), (1, "green")),
            ).max(1),
        ],
    )  # fmt: skip
