"""Of the job board: which workers are there, which lag behind, and what was refused."""

from grafana_foundation_sdk.models import units

from deploy.grafana.boards.expressions import increase, of_job, rate, total
from deploy.grafana.boards.frame import Row
from deploy.grafana.boards.panels import Series, graph, stacked

__all__ = ["membership", "stragglers"]


def stragglers() -> Row:
    """Each worker against the others."""
    lag, results = (rate(of_job(f"nablad_job_worker_{what}_total")) for what in ("lag_seconds", "results"))
    return Row(
        "Stragglers",
        [
            graph(
                "Lag by worker", "How long after the first result of their step a worker's results come, on average. "
                "All steps wait for the top line.", units.Seconds, Series(f"{lag} / {results}", "{{worker}}"),
            ),
            graph(
                "Samples per second by worker", "Who is fast gets more tickets, where there are more tickets than "
                "workers. A worker at 0 computes nothing.", units.Short,
                Series(rate(of_job("nablad_job_worker_samples_total")), "{{worker}}"),
            ),
        ],
    )  # fmt: skip


def membership() -> Row:
    """Who is there, and what was not taken."""
    return Row(
        "Workers",
        [
            graph(
                "Workers over time", "Alive should be what is asked for. A gap that stays: no free CPUs, or workers "
                "that do not come up.", units.Number,
                Series(of_job("nablad_job_workers_alive"), "alive"), Series(of_job("nablad_job_workers"), "asked for"),
                span=6,
            ),
            stacked(graph(
                "Workers by transport", "Shared: on the parameter server's host, through memory. Inline: through a "
                "socket, which is slower.", units.Number,
                Series(of_job("nablad_job_transport_workers"), "{{transport}}"), span=6,
            )),
            graph(
                "Workers lost", "Lost within each interval. Now and then is nothing to worry about; again and again, "
                "look at the job's events for the reason.", units.Number,
                Series(increase(of_job("nablad_job_workers_lost_total")), "lost"), span=4,
            ),
            graph(
                "Refused results", "Results that changed nothing, by reason. Duplicate and late follow a lost worker; "
                "not finite means that ε is too large.", units.CountsPerSecond,
                Series(total(rate(of_job("nablad_job_refused_results_total")), "reason"), "{{reason}}"), span=4,
            ),
            graph(
                "Staleness", "How many updates old the weights of a step's oldest gradient were. 0 in sync mode.",
                units.Number, Series(of_job("nablad_job_staleness_updates"), "updates"), span=4,
            ),
        ],
    )  # fmt: skip
