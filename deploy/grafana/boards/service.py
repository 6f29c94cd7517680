"""The service board: calls, database, disk, checkpoints, recoveries and processes of the service."""

from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.boards import frame, service_storage, variables
from deploy.grafana.boards.expressions import increase, of_service, quantile, rate, total
from deploy.grafana.boards.failures import failed_calls
from deploy.grafana.boards.frame import Row
from deploy.grafana.boards.panels import Series, bad_from, bad_until, graph, named, stat

__all__ = ["board"]


def board() -> Dashboard:
    """From what clients feel down to the processes."""
    return frame.assemble(
        frame.SERVICE,
        [variables.data_source(), variables.instance()],
        [_headline(), _calls(), service_storage.storage(), service_storage.checkpoints(), _attempts(), _processes()],
    )


def _headline() -> Row:
    build = of_service("nablad_build_info")
    return Row(
        "Where it stands",
        [
            named(stat(
                "Build", "What runs: release, digest of the code that makes steps, Python and gRPC.", units.String,
                Series(build, "{{version}} · {{code}} · Python {{python}} · gRPC {{grpc}}"), span=8,
            )),
            stat(
                "Up for", "Since the start of the youngest service. Small again and again: something ends it.",
                units.DurationSeconds,
                Series(f"time() - {total(of_service('nablad_process_start_time_seconds'), function='max')}", "up"),
                span=4, limits=bad_until(600, warning=60),
            ),
            stat(
                "Watchers", "Clients that watch jobs. A thousand cost the training beside them a few percent.",
                units.Number, Series(total(of_service("nablad_watchers")), "watchers"), span=4,
                limits=bad_from(2000, warning=1000),
            ),
            stat(
                "Failed calls", "Share of calls that failed by the service's fault, as of now.", units.PercentUnit,
                Series(failed_calls(), "failed"), span=4, limits=bad_from(0.05, warning=0.01),
            ),
            stat(
                "Room on the disk", "What is free on the file system of the data directory. At 0, checkpoints and "
                "models wait for room.", units.PercentUnit, Series(service_storage.free_share(), "free"), span=4,
                limits=bad_until(0.2, warning=0.1),
            ),
        ],
    )  # fmt: skip


def _calls() -> Row:
    calls = of_service("nablad_rpcs_total")
    buckets = of_service("nablad_rpc_seconds_bucket")
    errors = of_service("nablad_rpcs_total", 'code!="OK"')
    return Row(
        "Calls",
        [
            graph(
                "Calls by method", "Calls that ended, per second. A leap of one method: a client asks in a loop.",
                units.OpsPerSecond, Series(total(rate(calls), "method"), "{{method}}"), span=8,
            ),
            graph(
                "Errors by code", "INVALID_ARGUMENT and NOT_FOUND are callers' mistakes, CANCELLED is a client that "
                "left. INTERNAL and UNKNOWN should not exist.", units.OpsPerSecond,
                Series(total(rate(errors), "code"), "{{code}}"), span=8,
            ),
            graph(
                "Calls under way", "Watches stay; other methods should come and go. A line that only rises: calls that "
                "hang.", units.Number, Series(total(of_service("nablad_rpcs_active"), "method"), "{{method}}"), span=8,
            ),
            *(
                graph(
                    f"Duration of calls, {name}", "Of calls with one answer, by method. Where all rise together, look "
                    "at the database; where one does, at what it does.", units.Seconds,
                    Series(quantile(q, buckets, "method"), "{{method}}"), span=8, limits=bad_from(1, warning=0.2),
                )
                for q, name in ((0.5, "median"), (0.9, "90th percentile"), (0.99, "99th percentile"))
            ),
            graph(
                "Watchers by service", "Clients that watch jobs. A cliff: the service has ended its watches, or "
                "clients left.", units.Number,
                Series(total(of_service("nablad_watchers"), "instance"), "{{instance}}"), span=24,
            ),
        ],
    )  # fmt: skip


def _attempts() -> Row:
    recoveries = of_service("nablad_recovery_seconds_bucket")
    return Row(
        "Attempts and recoveries",
        [
            graph(
                "Attempts", "Launched and lost, within each interval. As many lost as launched: no job gets anywhere. "
                "Set aside: jobs that the service had ended with again and again.",
                units.Number, Series(total(increase(of_service("nablad_attempts_total"))), "launched"),
                Series(total(increase(of_service("nablad_attempts_lost_total"))), "lost"),
                Series(total(increase(of_service("nablad_jobs_set_aside_total"))), "jobs set aside"), span=8,
            ),
            graph(
                "Recovery, median by cause", "From the loss of an attempt until the next one runs. No line where none "
                "was lost.", units.Seconds, Series(quantile(0.5, recoveries, "cause"), "{{cause}}"), span=8,
                limits=bad_from(120, warning=30),
            ),
            graph(
                "Recovery, 90th percentile by cause", "Long ones wait: for CPUs, for Ray to come back, or longer after "
                "each loss in a row.", units.Seconds, Series(quantile(0.9, recoveries, "cause"), "{{cause}}"), span=8,
                limits=bad_from(120, warning=30),
            ),
        ],
    )  # fmt: skip


def _processes() -> Row:
    return Row(
        "Processes",
        [
            graph(
                "Memory", "Resident memory. Steady growth over days is a leak.", units.BytesIEC,
                *_both("resident_memory_bytes"), span=8,
            ),
            graph(
                "CPUs", "CPU seconds per second. Near 1: Python has no more to give, and calls get slow.",
                units.Number, *_both("cpu_seconds_total", rated=True), span=8, limits=bad_from(1.5, warning=0.8),
            ),
            graph(
                "Descriptors in use", "Share of the limit. At 1 no connection and no file can be opened.",
                units.PercentUnit, *_descriptors(), span=8, limits=bad_from(0.9, warning=0.7),
            ),
        ],
    )  # fmt: skip


_PROCESSES = (("nablad_process", "service"), ("nablad_cluster_process", "speaks to Ray"))


def _both(name: str, *, rated: bool = False) -> list[Series]:
    """Of the service's process and of the one that speaks to Ray."""
    series = [(of_service(f"{prefix}_{name}"), legend) for prefix, legend in _PROCESSES]
    return [Series(rate(each) if rated else each, f"{legend}, {{{{instance}}}}") for each, legend in series]


def _descriptors() -> list[Series]:
    pairs = zip(_both("open_fds"), _both("max_fds"), strict=True)
    return [Series(f"{used.expression} / {limit.expression}", used.legend) for used, limit in pairs]
