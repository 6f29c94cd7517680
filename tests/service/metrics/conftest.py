"""Fixtures: status of a job with all fields set, and a metrics server with it."""

from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from nablad.learning_metrics import LEARNING_METRICS
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from nablad.v1.metrics_pb2 import Metrics
from service.events.live_status import JobStatus
from service.metrics.instruments import Instruments
from service.metrics.page import MetricsServer


def _all_known(value: float) -> Metrics:
    return Metrics(**{metric.name: value / number for number, metric in enumerate(LEARNING_METRICS, 1)})


@pytest.fixture
def live_job() -> JobStatus:
    """Status of a job with two layers and one worker."""
    usage = ps_pb.ProcessStatistics(cpu_seconds=3.5, resident_memory_bytes=1 << 27)
    statistics = ps_pb.AttemptStatistics(
        step_seconds_bounds=[0.1, 1.0],
        step_seconds_counts=[5, 2, 1],
        step_seconds_sum=3.0,
        phases=[ps_pb.PhaseStatistics(phase="compute", p50=0.25, p90=0.5, p99=0.75, seconds_sum=2, steps=8)],
        layers=[ps_pb.LayerStatistics(weight_norm=layer + 1, gradient_norm=(layer + 1) / 10) for layer in range(2)],
        workers=[ps_pb.WorkerStatistics(worker_id="worker-1", results=8, samples=80, lag_seconds=0.5, process=usage)],
        process=usage,
    )
    progress = jobs_pb.Progress(
        epoch=2, epochs=9, step=108, steps=900, samples=1080, samples_per_second=50, learning_rate=0.5, gradient_norm=2,
        training=_all_known(0.25), validation=_all_known(0.75), workers_alive=1,
    )  # fmt: skip
    return JobStatus(
        progress,
        statistics,
        attempt=2,
        workers=3,
        checkpoints=4,
        checkpoint_failures=1,
        checkpoint_step=100,
        checkpoint_time=1.75e9,
        checkpoint_interval=30.0,
        begun_at=(100, 1000),
    )


@pytest.fixture
def address(live_job: JobStatus) -> Iterator[str]:
    """Address of a server with the instruments and one job."""
    registry = CollectorRegistry()
    Instruments(registry).attempts.inc()
    own = MetricsServer(registry, lambda: {"j": live_job}, "127.0.0.1", 0)
    yield f"http://{own.address}"
    own.close()
