"""Row of failures over all jobs, for the overview."""

from grafana_foundation_sdk.models import units

from deploy.grafana.boards.expressions import increase, of_service, rate, total
from deploy.grafana.boards.frame import Row
from deploy.grafana.boards.panels import Series, bad_from, graph

__all__ = ["failed_calls", "failures"]

# Codes that are not the caller's fault.
_FAULTS = 'code=~"INTERNAL|UNKNOWN|UNAVAILABLE|DATA_LOSS"'


def failed_calls() -> str:
    """Share of calls that failed because of the service; 0 where there are no calls."""
    failed, calls = (total(rate(of_service("nablad_rpcs_total", *codes))) for codes in ((_FAULTS,), ()))
    return f"({failed} or vector(0)) / clamp_min({calls}, 1e-9)"


def failures() -> Row:
    """Returns lost attempts, recoveries, failed calls and failed checkpoints over time."""
    return Row(
        "Failures",
        [
            graph(
                "Lost attempts by cause", "Per interval. For workers, check the memory of their nodes; for ray, the "
                "cluster; for service, its restarts.", units.Number,
                Series(total(increase(of_service("nablad_attempts_lost_total")), "cause"), "{{cause}}"), span=6,
            ),
            graph(
                "Recoveries by cause", "Lost attempts whose successor runs, per interval. If they are fewer than lost "
                "attempts, jobs wait for CPUs or have failed.", units.Number,
                Series(total(increase(of_service("nablad_recovery_seconds_count")), "cause"), "{{cause}}"), span=6,
            ),
            graph(
                "Share of failed calls", "Calls that failed because of the service, not because of the caller. The "
                "service board shows every code.", units.PercentUnit, Series(failed_calls(), "failed"), span=6,
                limits=bad_from(0.05, warning=0.01),
            ),
            graph(
                "Failed checkpoints", "Per interval. Until a checkpoint is written again, a loss repeats more and more "
                "work.",
                units.Number, Series(total(increase(of_service("nablad_checkpoint_failures_total"))), "failed"), span=6,
            ),
        ],
    )  # fmt: skip
