"""Rows of the job board: speed and time of steps."""

from grafana_foundation_sdk.builders import timeseries
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import DynamicConfigValue

from deploy.grafana.boards.expressions import of_job, rate, share, total
from deploy.grafana.boards.frame import Row
from deploy.grafana.boards.panels import Series, graph, normalised, percentiles, stacked

__all__ = ["activities", "anatomy", "speed"]

_QUANTILES = (("0.5", "median"), ("0.9", "90th percentile"), ("0.99", "99th percentile"))
_COMPUTE = "compute, by the workers"


def speed() -> Row:
    """Returns the speed of samples and steps, and the time in evaluations."""
    buckets = of_job("nablad_job_step_seconds_bucket")
    mean = f"{rate(of_job('nablad_job_step_seconds_sum'))} / {rate(of_job('nablad_job_step_seconds_count'))}"
    return Row(
        "Speed",
        [
            graph(
                "Samples per second", "Where the lines differ, no steps were made, because of evaluations or lost "
                "workers.", units.Short,
                Series(of_job("nablad_job_samples_per_second"), "in steps of this epoch"),
                Series(rate(of_job("nablad_job_samples_total")), "including pauses"), span=8,
            ),
            graph(
                "Step duration", "From the first ticket to the update. A 99th percentile far above the median shows a "
                "straggler or a busy machine.", units.Seconds,
                *percentiles(buckets),
                Series(mean, "mean"), span=8,
            ),
            graph(
                "Time in evaluations", "Share of time in evaluations, while no steps are made. If it is large, use "
                "fewer validation rows.", units.PercentUnit,
                Series(rate(of_job("nablad_job_evaluation_seconds_total")), "share of time"), span=4,
            ),
            graph(
                "Evaluations", "Evaluations of the validation rows in this attempt: one after each epoch.",
                units.Number,
                Series(of_job("nablad_job_evaluations_total"), "evaluations"), span=4,
            ),
        ],
    )  # fmt: skip


def anatomy() -> Row:
    """Returns the durations of the phases of a step."""
    return Row("Phases of a step", [_mean_step(), *(_phases(q, name) for q, name in _QUANTILES)])


def _phases(quantile_label: str, name: str) -> timeseries.Panel:
    phases = of_job("nablad_job_step_phase_seconds", f'quantile="{quantile_label}"')
    description = (
        f"The {name} of each phase over recent steps. A phase that grows here but not in its median is slow at times: "
        "check what else runs on the machine."
    )
    return graph(f"Phases, {name}", description, units.Seconds, Series(phases, "{{phase}}"), span=8)


def _mean_step() -> timeseries.Panel:
    """Stacks the parameter server's phases, which make up the step; workers compute while it waits."""
    panel = graph(
        "Mean step by phase", "Wait, exchange, reduce and apply add up to the step. Workers compute during wait; the "
        "difference of wait and compute is communication and idle time.", units.Seconds,
        Series(_mean('phase!="compute"'), "{{phase}}"), Series(_mean('phase="compute"'), _COMPUTE), span=24,
    )  # fmt: skip
    apart = [
        DynamicConfigValue("custom.stacking", {"mode": "none"}),
        DynamicConfigValue("custom.fillOpacity", 0),
        DynamicConfigValue("custom.lineWidth", 2),
    ]
    return stacked(panel).override_by_name(_COMPUTE, apart)


def _mean(matcher: str) -> str:
    seconds, steps = (of_job(f"nablad_job_step_phase_seconds_{part}", matcher) for part in ("sum", "count"))
    return f"{total(rate(seconds), 'phase')} / {total(rate(steps), 'phase')}"


def activities() -> Row:
    """Returns the time of workers and parameter server by activity."""
    return Row(
        "Time by activity",
        [
            normalised(graph(
                "Workers' time", "Shares of all workers' time. Computing should dominate; much waiting means too many "
                "workers for this batch size, or a straggler.", units.PercentUnit,
                Series(share(of_job("nablad_job_worker_seconds_total"), "activity"), "{{activity}}"),
            )),
            normalised(graph(
                "Parameter server's time", "Shares of its time in steps. Waiting should dominate; much reducing or "
                "updating means that the parameter server limits the speed.", units.PercentUnit,
                Series(share(of_job("nablad_job_server_seconds_total"), "activity"), "{{activity}}"),
            )),
        ],
    )  # fmt: skip
