"""Daemon: builds the service from its rooms, runs it, and shuts it down in order."""

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from datetime import UTC, datetime
from enum import Enum, auto
from functools import partial
from typing import Final

import click
from grpc_health.v1 import health, health_pb2
from prometheus_client import CollectorRegistry

from service.api.datasets import DatasetServicer
from service.api.jobs import JobServicer
from service.api.models import ModelServicer
from service.api.server import SERVICES, make_server
from service.cluster.capacity import NodeCache
from service.cluster.client import ClusterClient, ClusterError
from service.control.admission import Admission
from service.control.attempt import Attempt, AttemptContext
from service.control.controller import Controller
from service.control.receipts import code_version
from service.control.submission import Submission
from service.control.warm_start import WarmStarts
from service.daemon.settings import DaemonSettings
from service.daemon.startup import (
    StartError,
    clean_up_after_crash,
    explain_unusable,
    native_library_notice,
    split_address,
)
from service.errors import DamagedError
from service.events.live_status import LiveStatus
from service.events.publisher import EventPublisher
from service.events.watches import Watches
from service.metrics.collector import StatusReader
from service.metrics.event_metrics import EventMetrics
from service.metrics.instruments import Instruments
from service.metrics.page import MetricsServer, serve_metrics
from service.rpc.descriptors import raise_descriptor_limit
from service.storage.data_directory import DataDirectory, DataDirectoryError
from service.storage.private_files import OTHERS
from service.storage.reserve import Reserve
from service.storage.scratch import ScratchError
from service.stores.catalogues import DatasetCatalogue, ModelCatalogue
from service.stores.database import Database, DatabaseError
from service.stores.jobs import JobStore
from workers.runtime.failpoints import check_failpoints

__all__ = ["StopOrder", "StopSignals", "serve"]

_log = logging.getLogger(__name__)

# Time for running calls to end when the service shuts down.
_GRACE_SECONDS = 2.0
# Wrappers send a signal to the process and to its group, or repeat one of the terminal: several within a millisecond
# mean one. A person needs longer than this to lose patience.
_REPEAT_SECONDS: Final = 1.0


def serve(settings: DaemonSettings) -> None:
    """Runs the service until SIGTERM or SIGINT.

    Raises:
        StartError: It cannot start.
    """
    for address in (settings.address, settings.metrics_address):
        split_address(address)
    check_failpoints()
    raise_descriptor_limit()
    # Files of the service and of all its processes, Ray's included, are accessible to its user only.
    os.umask(OTHERS)
    with ExitStack() as stack:
        try:
            directory = DataDirectory(settings.data_dir)
            stack.callback(directory.close)
            registry = CollectorRegistry()
            instruments = Instruments(registry)
            reserve = Reserve(directory.reserve)
            database = Database(directory.database, instruments.store_commit_seconds.observe, reserve)
            stack.callback(database.close)
            service = _Service(settings, directory, database, reserve, registry, instruments)
        except (DataDirectoryError, DatabaseError, ScratchError, DamagedError) as error:
            raise StartError(str(error)) from error
        asyncio.run(service.run())


class StopOrder(Enum):
    """Meaning of one signal."""

    IN_ORDER = auto()
    """End in order."""
    REPEATED = auto()
    """Ignore: the signal repeats the one before."""
    AT_ONCE = auto()
    """End at once."""


class StopSignals:
    """Interprets each signal by the time since the first."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Has seen no signal yet; `clock` returns monotonic seconds."""
        self._clock = clock
        self._first: float | None = None

    def interpret_signal(self) -> StopOrder:
        """Returns the meaning of the signal that has just come.

        A signal within a second of the first repeats it; a later one ends the service at once.
        """
        now = self._clock()
        if self._first is None:
            self._first = now
            return StopOrder.IN_ORDER
        return StopOrder.REPEATED if now - self._first < _REPEAT_SECONDS else StopOrder.AT_ONCE


class _Service:
    """A running service, built from its rooms."""

    def __init__(
        self,
        settings: DaemonSettings,
        directory: DataDirectory,
        database: Database,
        reserve: Reserve,
        registry: CollectorRegistry,
        instruments: Instruments,
    ) -> None:
        self._settings = settings
        self._directory = directory
        self._reserve = reserve
        self._registry = registry
        self._instruments = instruments
        self._jobs = JobStore(database, _now)
        self._live = LiveStatus(time.monotonic)
        event_metrics = EventMetrics(instruments, time.monotonic)
        events = EventPublisher(self._jobs, self._live.receive, event_metrics.receive)
        self._watches = Watches(self._jobs, self._live, time.monotonic, settings.watch_interval)
        datasets, models = DatasetCatalogue(database), ModelCatalogue(database)
        clean_up_after_crash(directory, self._jobs, models)
        self._jobs.load_datasets_in_use()
        context = AttemptContext(directory, self._jobs, events, datasets, models, _now)
        self._cluster = ClusterClient(settings.ray, settings.cpus, directory.scratch, self._cluster_changed)
        self._controller = Controller(
            self._jobs,
            events,
            self._cluster,
            partial(Attempt, context),
            _now,
            time.monotonic,
            Admission(),
        )
        self._status_reader = StatusReader(self._jobs, self._live, self._watches, self._cluster, _now)
        self._database_file = directory.database
        submission = Submission(directory, self._jobs, events, datasets, WarmStarts(directory, self._jobs, models))
        self._job_servicer = JobServicer(
            directory,
            self._jobs,
            self._live,
            submission,
            self._controller,
            self._watches,
            NodeCache(self._cluster, time.monotonic),
        )
        self._dataset_servicer = DatasetServicer(directory, datasets, self._jobs, _now)
        self._model_servicer = ModelServicer(directory, models)
        self._health = health.aio.HealthServicer()
        self._stop = asyncio.Event()
        self._signals = StopSignals(time.monotonic)

    async def run(self) -> None:
        """Runs until a signal comes."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._signalled, number)
        async with AsyncExitStack() as stack:
            # The shutdown runs in the opposite order: first the API, then the jobs, then their processes.
            stack.push_async_callback(_cancelled, asyncio.create_task(self._reserve.keep_filled()))
            metrics = self._metrics()
            # On another thread, because a running scrape needs the event loop to end.
            stack.push_async_callback(asyncio.to_thread, metrics.close)
            await self._start_cluster()
            stack.push_async_callback(self._cluster.close)
            after_crash = not self._directory.consume_stop_note()
            controller = asyncio.create_task(self._controller.run(after_crash=after_crash))
            stack.push_async_callback(_cancelled, controller)
            stack.push_async_callback(self._controller.drain)
            try:
                address = await stack.enter_async_context(self._grpc())
            except StartError:
                if not after_crash:
                    # The next start must find the same stop note as this one.
                    self._directory.record_stop()
                raise
            click.echo(f"nablad: listening on {address}")
            click.echo(f"nablad: metrics on http://{metrics.address}/metrics")
            click.echo(f"nablad: {native_library_notice()}")
            click.echo("nablad: ready")
            stopping = asyncio.create_task(self._stop.wait())
            await asyncio.wait([controller, stopping], return_when=asyncio.FIRST_COMPLETED)
            if controller.done():
                controller.result()
            self._directory.record_stop()
            _log.info("going away: jobs that run are written down first; a later signal ends this at once")

    def _signalled(self, number: int) -> None:
        """Handles a signal: the first shuts down in order, a later one at once, without loss of data."""
        if self._signals.interpret_signal() is StopOrder.AT_ONCE:
            _log.warning("going away at once: jobs go on from their last checkpoints")
            # The cluster process notices the end of this one, and ends Ray.
            os._exit(128 + number)
        self._stop.set()

    async def _start_cluster(self) -> None:
        try:
            await self._cluster.start()
        except ClusterError as error:
            raise StartError(str(error)) from error

    def _cluster_changed(self, sentence: str) -> None:
        _log.warning("%s", sentence)
        if not self._cluster.up.is_set():
            self._instruments.cluster_losses.inc()
        self._controller.wake()

    @asynccontextmanager
    async def _grpc(self) -> AsyncIterator[str]:
        """Serves the API; yields its address."""
        server = make_server(
            self._job_servicer, self._dataset_servicer, self._model_servicer, self._health, self._instruments
        )
        host, wanted = split_address(self._settings.address)
        if reason := explain_unusable(host, wanted):
            raise StartError(f"cannot listen on {self._settings.address}: {reason}. Choose another with --address")
        try:
            port = server.add_insecure_port(self._settings.address)
        except RuntimeError as error:
            raise StartError(
                f"cannot listen on {self._settings.address}: {error} Choose another with --address"
            ) from error
        await server.start()
        for name in ("", *SERVICES):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        try:
            yield f"{host}:{port}"
        finally:
            await self._health.enter_graceful_shutdown()
            self._watches.go_away()
            await server.stop(_GRACE_SECONDS)

    def _metrics(self) -> MetricsServer:
        address = split_address(self._settings.metrics_address)
        try:
            return serve_metrics(
                self._registry,
                self._status_reader,
                self._database_file,
                code_version(),
                lambda: self._cluster.pid,
                address,
            )
        except OSError as error:
            raise StartError(
                f"cannot listen on {self._settings.metrics_address}: {error.strerror}. Choose another with "
                "--metrics-address"
            ) from error


async def _cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait([task])


def _now() -> datetime:
    return datetime.now(UTC)
