"""What the service counts itself, over all jobs and since its start."""

from prometheus_client import CollectorRegistry, Counter, disable_created_metrics

from service.outcomes import CAUSES

__all__ = ["Counters"]

# When a counter was made says nothing: all are made at the start.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Counters:
    """Counters that are there from the start, so that a first count shows as an increase.

    Attributes:
        attempts_lost: Attempts that were lost, by cause.
        cluster_losses: How often Ray, or the process that speaks to it, was lost.
        checkpoints: Checkpoints that were written.
        checkpoint_bytes: Their bytes.
        checkpoint_seconds: The seconds that it took to fetch and write them.
        checkpoint_failures: Checkpoints that could not be written.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.attempts_lost = Counter(
            "nablad_attempts_lost", "Attempts that were lost, by what was lost.", ["cause"], registry=registry
        )
        for cause in CAUSES:
            self.attempts_lost.labels(cause)

        def counter(name: str, help_: str) -> Counter:
            return Counter(f"nablad_{name}", help_, registry=registry)

        self.cluster_losses = counter("cluster_losses", "How often Ray, or the process that speaks to it, was lost.")
        self.checkpoints = counter("checkpoints", "Checkpoints that were written.")
        self.checkpoint_bytes = counter("checkpoint_bytes", "Bytes of the checkpoints that were written.")
        self.checkpoint_seconds = counter(
            "checkpoint_seconds", "Seconds that checkpoints took to be fetched and written."
        )
        self.checkpoint_failures = counter("checkpoint_failures", "Checkpoints that could not be written.")
