"""Rows of the job board: stragglers, membership of workers, and rejected results."""

from grafana_foundation_sdk.models import units

from deploy.grafana.boards.expressions import increase, of_job, rate, total
from deploy.grafana.boards.frame import Row
from deploy.grafana.boards.panels import Series, graph, stacked

__all__ = ["membership", "stragglers"]


def stragglers() -> Row:
    """Returns lag and speed of each worker."""
    lag, results = (rate(of_job(f"nablad_job_worker_{what}_total")) for what in ("lag_seconds", "results"))
    return Row(
        "Stragglers",
        [
            graph(
                "Lag by worker", "Average delay of a worker's results after the first result of their step. Every "
                "step waits for the slowest worker.", units.Seconds, Series(f"{lag} / {results}", "{{worker}}"),
            ),
            graph(
                "Samples per second by worker", "Fast workers get more tickets if there are more tickets than "
                "workers. A worker at 0 computes nothing.", units.Short,
                Series(rate(of_job("nablad_job_worker_samples_total")), "{{worker}}"),
            ),
        ],
    )  # fmt: skip


def membership() -> Row:
    """Returns live and lost workers, the code that makes the steps, rejected results and staleness."""
    return Row(
        "Workers",
        [
            graph(
                "Workers over time", "Live workers should equal requested ones. A lasting gap means no free CPUs, or "
                "workers that do not start.", units.Number,
                Series(of_job("nablad_job_workers_alive"), "alive"), Series(of_job("nablad_job_workers"), "requested"),
                span=4,
            ),
            stacked(graph(
                "Workers by transport", "Shared: through memory, on the parameter server's host. Inline: through a "
                "socket, which is slower.", units.Number,
                Series(of_job("nablad_job_transport_workers"), "{{transport}}"), span=4,
            )),
            stacked(graph(
                "Steps by core", "Native: in C, many steps without a message. Python: with a message for each result, "
                "which makes short steps longer. The job's events say why. Results are the same.",
                units.CountsPerSecond, Series(rate(of_job("nablad_job_core_steps_total")), "{{core}}"), span=4,
            )),
            graph(
                "Workers lost", "Per interval. A single loss is harmless. If losses repeat, see the job's events for "
                "the reason.", units.Number,
                Series(increase(of_job("nablad_job_workers_lost_total")), "lost"), span=3,
            ),
            graph(
                "Rejected results", "Results without effect, by reason. Duplicate and late follow a lost worker, and "
                "late is usual with the policy backup; not finite means that ε is too large.", units.CountsPerSecond,
                Series(total(rate(of_job("nablad_job_refused_results_total")), "reason"), "{{reason}}"), span=3,
            ),
            graph(
                "Dropped micro-batches", "Parts of steps that the policy did not wait for: they are never applied. "
                "0 in sync mode.", units.CountsPerSecond,
                Series(rate(of_job("nablad_job_dropped_micro_batches_total")), "dropped"), span=3,
            ),
            graph(
                "Staleness", "Age of the weights of a step's oldest gradient, in updates. 0 in sync mode.",
                units.Number, Series(of_job("nablad_job_staleness_updates"), "updates"), span=3,
            ),
        ],
    )  # fmt: skip
