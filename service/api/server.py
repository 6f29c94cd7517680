"""GRPC server of the API: its limits, interceptors and services."""

from collections.abc import Iterable
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from nablad.v1 import datasets_pb2, datasets_pb2_grpc, jobs_pb2, jobs_pb2_grpc, models_pb2, models_pb2_grpc
from service.api.reflection import add_reflection
from service.metrics.instruments import Instruments
from service.metrics.rpcs import CountCalls
from service.rpc.descriptors import connection_options
from service.rpc.intake import BoundIntake
from service.rpc.interceptors import RejectUnimplemented, RejectUnreadable, SendBytes

__all__ = ["SERVER_OPTIONS", "SERVICES", "make_server"]

SERVICES: Final = (
    jobs_pb2.DESCRIPTOR.services_by_name["JobService"].full_name,
    datasets_pb2.DESCRIPTOR.services_by_name["DatasetService"].full_name,
    models_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name,
)
"""Full names of the services of the API, each of which has a health of its own."""

# An idle connection takes 17 KB.
_MOST_CONNECTIONS: Final = 4096
# Chunks of data sets and models have a megabyte, and so may a job spec; other messages are small. gRPC rejects a larger
# message before it is complete.
_MESSAGE_BYTES: Final = 2 << 20
_LIMITS: Final = {f"/{SERVICES[0]}/CreateJob": _MESSAGE_BYTES}
SERVER_OPTIONS: Final = (
    ("grpc.max_receive_message_length", _MESSAGE_BYTES),
    # Without this, a second daemon could listen at the same address and get half of the calls.
    ("grpc.so_reuseport", 0),
    # A client may ping every 10 s, with or without a call; the server rejects more pings.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # A client that vanished is noticed, and its unfinished uploads are removed.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)
"""Channel arguments of the server."""


def make_server(
    jobs: jobs_pb2_grpc.JobServiceServicer,
    datasets: datasets_pb2_grpc.DatasetServiceServicer,
    models: models_pb2_grpc.ModelServiceServicer,
    health_servicer: health.aio.HealthServicer,
    instruments: Instruments,
    options: Iterable[tuple[str, int]] = (),
) -> grpc.aio.Server:
    """Makes the server, which has no address yet.

    Args:
        jobs: Serves the calls about jobs.
        datasets: Serves those about data sets.
        models: Serves those about models.
        health_servicer: Serves health checks.
        instruments: Metrics that count all calls.
        options: Channel arguments that replace the server's own, or are added to them.
    """
    interceptors = [
        CountCalls(instruments),
        BoundIntake(_LIMITS),
        RejectUnreadable(),
        SendBytes(),
        RejectUnimplemented(),
    ]
    server = grpc.aio.server(
        interceptors=interceptors,
        options=list((dict(SERVER_OPTIONS) | dict(connection_options(_MOST_CONNECTIONS)) | dict(options)).items()),
    )
    jobs_pb2_grpc.add_JobServiceServicer_to_server(jobs, server)
    datasets_pb2_grpc.add_DatasetServiceServicer_to_server(datasets, server)
    models_pb2_grpc.add_ModelServiceServicer_to_server(models, server)
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    add_reflection((*SERVICES, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name), server)
    return server
