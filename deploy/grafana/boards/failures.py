"""What went wrong, over all jobs."""

from grafana_foundation_sdk.models import units

from deploy.grafana.boards.expressions import increase, of_service, rate, total
from deploy.grafana.boards.frame import Row
from deploy.grafana.boards.panels import Series, bad_from, graph

__all__ = ["failed_calls", "failures"]

# Codes that are not the caller's fault.
_FAULTS = 'code=~"INTERNAL|UNKNOWN|UNAVAILABLE|DATA_LOSS"'


def failed_calls() -> str:
    """The share of calls that failed by the service's fault; 0 where there are none."""
    failed, calls = (total(rate(of_service("nablad_rpcs_total", *codes))) for codes in ((_FAULTS,), ()))
    return f"({failed} or vector(0)) / clamp_min({calls}, 1e-9)"


def failures() -> Row:
    """Losses, recoveries, failed calls and failed checkpoints over time."""
    return Row(
        "What went wrong",
        [
            graph(
                "Lost attempts by cause", "Within each interval. Workers: look at their machines' memory; ray: at the "
                "cluster; service: at its restarts.", units.Number,
                Series(total(increase(of_service("nablad_attempts_lost_total")), "cause"), "{{cause}}"), span=6,
            ),
            graph(
                "Recoveries by cause", "Lost attempts whose next one runs, within each interval. Fewer than lost ones: "
                "jobs wait for room, or failed.", units.Number,
                Series(total(increase(of_service("nablad_recovery_seconds_count")), "cause"), "{{cause}}"), span=6,
            ),
            graph(
                "Share of failed calls", "By the service's fault. Callers' mistakes do not count; the service board "
                "has every code.", units.PercentUnit, Series(failed_calls(), "failed"), span=6,
                limits=bad_from(0.05, warning=0.01),
            ),
            graph(
                "Failed checkpoints", "Within each interval. Until they are written again, a loss costs ever more.",
                units.Number, Series(total(increase(of_service("nablad_checkpoint_failures_total"))), "failed"), span=6,
            ),
        ],
    )  # fmt: skip
