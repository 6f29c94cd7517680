"""The daemon: puts the parts together, runs them, and takes them down in order."""

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import TypeVar

import click
import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from nablad.address import DEFAULT_ADDRESS
from nablad.v1 import datasets_pb2, datasets_pb2_grpc, jobs_pb2, jobs_pb2_grpc, models_pb2, models_pb2_grpc
from service.api.datasets import DatasetServicer
from service.api.jobs import JobServicer
from service.api.models import ModelServicer
from service.attempt import AttemptRunner
from service.boundary import RefuseUnreadable
from service.controller import Controller
from service.data_directory import DataDirectory, DataDirectoryError
from service.fleet import Cluster, ClusterError
from service.job_states import State
from service.live import LiveJob, LiveJobs
from service.metrics import JobCollector, MetricsServer
from service.settings import Settings
from service.stores.catalogues import DatasetCatalogue, ModelCatalogue
from service.stores.database import Database, DatabaseError
from service.stores.jobs import JobStore

__all__ = ["StartError", "serve"]

_log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

# Control calls are small; data sets and models go in chunks.
_MESSAGE_BYTES = 4 << 20
_SERVER_OPTIONS = (
    ("grpc.max_receive_message_length", _MESSAGE_BYTES),
    # Else a second daemon could listen at the same address, and get half of the calls.
    ("grpc.so_reuseport", 0),
    # A client may ping every 10 s without a call; more often is refused.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # A client that vanished is noticed, and what it left half done is removed.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)
# Calls that are under way get this long to end when the service goes away.
_GRACE_SECONDS = 2.0

_SERVICES = (
    jobs_pb2.DESCRIPTOR.services_by_name["JobService"].full_name,
    datasets_pb2.DESCRIPTOR.services_by_name["DatasetService"].full_name,
    models_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name,
)


class StartError(Exception):
    """The service cannot start; the message says why and what to do."""


def serve(settings: Settings) -> None:
    """Runs the service until SIGTERM or SIGINT.

    Raises:
        StartError: It cannot start.
    """
    for address in (settings.address, settings.metrics_address):
        _host_and_port(address)
    with ExitStack() as stack:
        try:
            directory = DataDirectory(settings.data_dir)
            stack.callback(directory.close)
            database = Database(directory.database)
            stack.callback(database.close)
            cluster = Cluster(settings.ray, settings.cpus, directory.scratch)
            stack.callback(cluster.close)
        except (DataDirectoryError, DatabaseError, ClusterError) as error:
            raise StartError(str(error)) from error
        asyncio.run(_Service(settings, directory, database, cluster).run())


class _Service:
    """The parts of a running service."""

    def __init__(self, settings: Settings, directory: DataDirectory, database: Database, cluster: Cluster) -> None:
        self._settings = settings
        self._jobs = JobStore(database, _now)
        self._live = LiveJobs(time.monotonic)
        datasets, models = DatasetCatalogue(database), ModelCatalogue(database)
        attempt = AttemptRunner(directory, self._jobs, self._live, datasets, models, _now)
        self._controller = Controller(self._jobs, self._live, cluster, attempt)
        self._job_servicer = JobServicer(self._jobs, self._live, datasets, self._controller)
        self._dataset_servicer = DatasetServicer(directory, datasets, self._jobs, _now)
        self._model_servicer = ModelServicer(directory, models)
        self._health = health.aio.HealthServicer()

    async def run(self) -> None:
        """Until a signal comes."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with AsyncExitStack() as stack:
            metrics = self._metrics()
            # On another thread: a scrape that goes on needs the loop to end.
            stack.push_async_callback(asyncio.to_thread, metrics.close)
            # Taken down in the opposite order: first no more calls, then the fleets.
            controller = asyncio.create_task(self._controller.run())
            stack.push_async_callback(_cancelled, controller)
            address = await stack.enter_async_context(self._grpc())
            click.echo(f"nablad: listening on {address}")
            click.echo(f"nablad: metrics on http://{metrics.address}/metrics")
            click.echo("nablad: ready")
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait([controller, stopping], return_when=asyncio.FIRST_COMPLETED)
            if controller.done():
                controller.result()
            _log.info("going away")

    @asynccontextmanager
    async def _grpc(self) -> AsyncIterator[str]:
        """Serves the API; gives its address."""
        server = grpc.aio.server(interceptors=[RefuseUnreadable()], options=_SERVER_OPTIONS)
        jobs_pb2_grpc.add_JobServiceServicer_to_server(self._job_servicer, server)
        datasets_pb2_grpc.add_DatasetServiceServicer_to_server(self._dataset_servicer, server)
        models_pb2_grpc.add_ModelServiceServicer_to_server(self._model_servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (*_SERVICES, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        host, _ = _host_and_port(self._settings.address)
        try:
            port = server.add_insecure_port(self._settings.address)
        except RuntimeError as error:
            raise StartError(
                f"the address {self._settings.address} cannot be had: give another --address ({error})"
            ) from error
        await server.start()
        for name in ("", *_SERVICES):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        try:
            yield f"{host}:{port}"
        finally:
            await self._health.enter_graceful_shutdown()
            self._job_servicer.go_away()
            await server.stop(_GRACE_SECONDS)

    def _metrics(self) -> MetricsServer:
        host, port = _host_and_port(self._settings.metrics_address)
        collector = JobCollector(_on_loop(asyncio.get_running_loop(), self._snapshot))
        try:
            return MetricsServer(collector, host, port)
        except OSError as error:
            raise StartError(
                f"the address {self._settings.metrics_address} cannot be had: give another --metrics-address "
                f"({error.strerror})"
            ) from error

    def _snapshot(self) -> tuple[Mapping[State, int], Mapping[str, LiveJob]]:
        return self._jobs.counts(), self._live.snapshot()


def _on_loop(loop: asyncio.AbstractEventLoop, function: Callable[[], _Result]) -> Callable[[], _Result]:
    """The function, to be called from other threads, run by the loop's thread: the only one that knows the figures."""

    async def call() -> _Result:
        return function()

    return lambda: asyncio.run_coroutine_threadsafe(call(), loop).result()


async def _cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait([task])


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise StartError(f"{address!r} is not an address: give HOST:PORT, such as {DEFAULT_ADDRESS}")
    return host, int(port)


def _now() -> datetime:
    return datetime.now(UTC)
