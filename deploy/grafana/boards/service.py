"""Service board: calls, database, disk, checkpoints, recoveries and processes of the service."""

from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.boards import frame, service_storage
from deploy.grafana.boards.expressions import increase, of_service, quantile, rate, total
from deploy.grafana.boards.failures import failed_calls
from deploy.grafana.boards.frame import Row
from deploy.grafana.boards.panels import Series, bad_from, bad_until, graph, named, stat

__all__ = ["board"]


def board() -> Dashboard:
    """Returns the board: calls first, processes last."""
    return frame.assemble(
        frame.SERVICE,
        [frame.data_source(), frame.instance()],
        [_headline(), _calls(), service_storage.storage(), service_storage.checkpoints(), _attempts(), _processes()],
    )


def _headline() -> Row:
    build = of_service("nablad_build_info")
    return Row(
        "Status",
        [
            named(stat(
                "Build", "Release, digest of the training code, Python and gRPC.", units.String,
                Series(build, "{{version}} · {{code}} · Python {{python}} · gRPC {{grpc}}"), span=8,
            )),
            stat(
                "Uptime", "Time since the start of the youngest service. If it keeps falling to 0, the service "
                "crashes.",
                units.DurationSeconds,
                Series(f"time() - {total(of_service('nablad_process_start_time_seconds'), function='max')}", "up"),
                span=4, limits=bad_until(600, warning=60),
            ),
            stat(
                "Watchers", "Open watches of jobs. For a thousand beside a training, set `--watch-interval 5`.",
                units.Number, Series(total(of_service("nablad_watchers")), "watchers"), span=4,
                limits=bad_from(2000, warning=1000),
            ),
            stat(
                "Failed calls", "Present share of calls that fail because of the service.", units.PercentUnit,
                Series(failed_calls(), "failed"), span=4, limits=bad_from(0.05, warning=0.01),
            ),
            stat(
                "Free disk space", "Free share of the file system of the data directory. At 0, checkpoints and models "
                "wait.", units.PercentUnit, Series(service_storage.free_share(), "free"), span=4,
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
                "Calls by method", "Finished calls per second. A sudden rise of one method shows a client that polls.",
                units.OpsPerSecond, Series(total(rate(calls), "method"), "{{method}}"), span=8,
            ),
            graph(
                "Errors by code", "INVALID_ARGUMENT and NOT_FOUND are mistakes of callers; CANCELLED is a client that "
                "left. INTERNAL and UNKNOWN are bugs.", units.OpsPerSecond,
                Series(total(rate(errors), "code"), "{{code}}"), span=8,
            ),
            graph(
                "Calls in progress", "Watches stay open. If another method only rises, its calls hang.",
                units.Number, Series(total(of_service("nablad_rpcs_active"), "method"), "{{method}}"), span=8,
            ),
            *(
                graph(
                    f"Duration of calls, {name}", "By method, without streamed answers. If all rise, check database "
                    "commits; if one rises, check its work.", units.Seconds,
                    Series(quantile(q, buckets, "method"), "{{method}}"), span=8, limits=bad_from(1, warning=0.2),
                )
                for q, name in ((0.5, "median"), (0.9, "90th percentile"), (0.99, "99th percentile"))
            ),
            graph(
                "Watchers by service", "Open watches of jobs. A sudden fall means that the service restarted or "
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
                "Attempts", "Launched and lost attempts, per interval. If both are equal, jobs make no progress. "
                "Set aside: jobs paused because the service died with them three times.",
                units.Number, Series(total(increase(of_service("nablad_attempts_total"))), "launched"),
                Series(total(increase(of_service("nablad_attempts_lost_total"))), "lost"),
                Series(total(increase(of_service("nablad_jobs_set_aside_total"))), "jobs set aside"), span=8,
            ),
            graph(
                "Recovery, median by cause", "Time from the loss of an attempt until the next one runs. Without "
                "losses, there is no line.",
                units.Seconds, Series(quantile(0.5, recoveries, "cause"), "{{cause}}"), span=8,
                limits=bad_from(120, warning=30),
            ),
            graph(
                "Recovery, 90th percentile by cause", "Long recoveries wait for CPUs or for Ray, or back off after "
                "losses in a row.", units.Seconds, Series(quantile(0.9, recoveries, "cause"), "{{cause}}"), span=8,
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
                "CPUs", "CPU seconds per second. Near 1, Python is at its limit and calls are slow.",
                units.Number, *_both("cpu_seconds_total", rated=True), span=8, limits=bad_from(1.5, warning=0.8),
            ),
            graph(
                "File descriptors in use", "Share of the limit. At 1, no connection or file can be opened.",
                units.PercentUnit, *_descriptors(), span=8, limits=bad_from(0.9, warning=0.7),
            ),
        ],
    )  # fmt: skip


_PROCESSES = (("nablad_process", "service"), ("nablad_cluster_process", "cluster process"))


def _both(name: str, *, rated: bool = False) -> list[Series]:
    """Returns a metric of the service's process and of the cluster process."""
    series = [(of_service(f"{prefix}_{name}"), legend) for prefix, legend in _PROCESSES]
    return [Series(rate(each) if rated else each, f"{legend}, {{{{instance}}}}") for each, legend in series]


def _descriptors() -> list[Series]:
    pairs = zip(_both("open_fds"), _both("max_fds"), strict=True)
    return [Series(f"{used.expression} / {limit.expression}", used.legend) for used, limit in pairs]
