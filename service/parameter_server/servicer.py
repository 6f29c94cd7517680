"""The gRPC side of a parameter server: membership of workers, and reports to the service."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from typing import Any, Final

import grpc
import numpy as np
from numpy.typing import NDArray

from nablad.files import CHUNK_BYTES
from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from nablad.v1 import parameter_server_pb2_grpc as ps_grpc
from service.parameter_server.coordinator import Coordinator
from service.parameter_server.engine import PATIENCE_SECONDS, Engine
from service.parameter_server.shard.step_core import StepCore
from service.parameter_server.transport.acceptor import Acceptor
from service.parameter_server.transport.members import Member
from service.parameter_server.transport.worker_connection import WorkerConnection
from service.rpc.error_translation import Context, require_secret
from workers.native.library import native_abi
from workers.runtime.concurrency import wait_for_event
from workers.runtime.failpoints import failpoint
from workers.runtime.host import host_fingerprint, numeric_environment

__all__ = ["ParameterServerServicer"]

# Time, in seconds, after which followers get the progress although no event has happened.
_PROGRESS_SECONDS: Final = 0.25


class ParameterServerServicer(ps_grpc.ParameterServerServiceServicer):
    """Serves the calls of one attempt."""

    def __init__(
        self,
        assignment: ps_pb.Assignment,
        secret: str,
        coordinator: Coordinator,
        acceptor: Acceptor,
        description: Mapping[str, Any],
        patience_seconds: float = PATIENCE_SECONDS,
        core: StepCore | None = None,
        obstacle: str = "",
    ) -> None:
        """Starts the engine, which the coordinator belongs to from now on.

        Args:
            assignment: Assignment that every worker gets.
            secret: Secret of the job; calls without it are rejected.
            coordinator: Coordinator of the attempt.
            acceptor: Opens the workers' connections.
            description: Description of the job, for checkpoints.
            patience_seconds: Time that a worker with tickets may be silent.
            core: Native step core of the coordinator's shard; None: all steps are made in Python.
            obstacle: Why there is no core, as a sentence.
        """
        self._assignment = assignment
        self._secret = secret
        self._coordinator = coordinator
        self._acceptor = acceptor
        self._numbers = itertools.count(1)
        self._joined: dict[str, ps_pb.JoinRequest] = {}
        self._new_events = asyncio.Event()
        self._engine = Engine(
            coordinator,
            patience_seconds,
            assignment.spec.checkpoints,
            description,
            numeric_environment(),
            self._notify_followers,
            core,
            obstacle,
        )

    async def close(self) -> None:
        """Stops listening, and ends the engine."""
        await self._acceptor.close()
        await self._engine.close()

    async def Join(self, request: ps_pb.JoinRequest, context: Context) -> ps_pb.JoinResponse:
        """Gives the worker its name, its assignment, and the ways to open its connection."""
        await self._authenticate(context)
        response = ps_pb.JoinResponse(worker_id=f"worker-{next(self._numbers)}", assignment=self._assignment)
        same_host = request.host_fingerprint == host_fingerprint()
        can_run = request.native_abi == native_abi() != 0
        if self._assignment.spec.distribution.step_core == spec_pb.STEP_CORE_NATIVE and not (same_host and can_run):
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, _core_rejection(request, same_host=same_host))
        if not self._acceptor.offer_connection(response, same_host=same_host, can_run=can_run):
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                "this worker cannot share memory with the parameter server, as distribution.transport: shared wants; "
                "take auto or inline",
            )
        self._joined[response.worker_id] = request
        return response

    # The generated base has a generator here, but grpc closes one when it is collected, not when the stream breaks.
    async def Attend(self, request: ps_pb.AttendRequest, context: Context) -> None:  # type: ignore[override]
        """Keeps the worker in the job until the job is done, or the worker is lost."""
        await self._authenticate(context)
        code, reason = await self._attend(request.worker_id)
        if reason:
            # gRPC keeps this error, and with it this frame, until the garbage is collected: so it holds no connection,
            # and no memory of the worker's.
            await context.abort(code, reason)

    async def _attend(self, worker: str) -> tuple[grpc.StatusCode, str]:
        """Returns the end of its call when the worker has left; the reason is empty for a good end."""
        connection = self._acceptor.claim_connection(worker)
        if connection is None:
            sentence = f"{worker!r} has not joined, or not opened its connection: do that first"
            return grpc.StatusCode.FAILED_PRECONDITION, sentence
        member = _member(worker, self._joined.pop(worker), connection)
        try:
            await self._engine.add_worker(member)
            await member.gone.wait()
        finally:
            await self._engine.remove_worker(member)
        return grpc.StatusCode.UNAVAILABLE, f"{member.reason}: join again" if member.reason else ""

    async def Follow(self, request: ps_pb.FollowRequest, context: Context) -> ps_pb.FollowResponse:
        """Returns new events at once, or after a moment the progress alone."""
        await self._authenticate(context)
        new_events = self._new_events
        engine, options = self._engine, {"with_statistics": request.statistics}
        report = await engine.call(partial(engine.report_if_new, request.seen, **options))
        if report is None:
            await wait_for_event(new_events, _PROGRESS_SECONDS)
            report = await engine.call(partial(engine.report, request.seen, **options))
        return report

    async def FetchWeights(
        self, request: ps_pb.FetchWeightsRequest, context: Context
    ) -> AsyncIterator[ps_pb.FetchWeightsResponse]:
        """Streams the weights, chunk by chunk."""
        await self._authenticate(context)
        weights = await self._engine.call(self._final_or_present_weights)
        for chunk in _chunks(weights.data.cast("B")):
            yield ps_pb.FetchWeightsResponse(chunk=chunk)

    async def FetchCheckpoint(
        self, request: ps_pb.FetchCheckpointRequest, context: Context
    ) -> AsyncIterator[ps_pb.FetchCheckpointResponse]:
        """Streams the next checkpoint that is due, or one of now; nothing when the training is over."""
        await self._authenticate(context)
        try:
            checkpoint = await self._engine.take_checkpoint(now=request.now)
        except MemoryError:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "the parameter server has no memory for a checkpoint beside the training: give its host more",
            )
        if checkpoint is None:
            return
        failpoint("ps.checkpoint_taken")
        yield ps_pb.FetchCheckpointResponse(state=checkpoint.state, events=checkpoint.events)
        for chunk in _chunks(memoryview(checkpoint.image)):
            yield ps_pb.FetchCheckpointResponse(chunk=chunk)

    async def SetWorkers(self, request: ps_pb.SetWorkersRequest, context: Context) -> ps_pb.SetWorkersResponse:
        """Limits the number of workers: those beyond it leave at the end of the step."""
        await self._authenticate(context)
        if not request.workers:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "workers must be at least 1, but is 0")
        await self._engine.set_workers(request.workers)
        return ps_pb.SetWorkersResponse()

    def _final_or_present_weights(self) -> NDArray[np.floating]:
        """Returns the weights that the training leaves if it is over, else a copy of the present ones."""
        shard = self._coordinator.shard
        return shard.weights.result if self._coordinator.over else shard.parameters.copy()

    def _notify_followers(self) -> None:
        """Wakes the followers that wait now; later ones wait for the next event."""
        new_events, self._new_events = self._new_events, asyncio.Event()
        new_events.set()

    async def _authenticate(self, context: Context) -> None:
        await require_secret(context, self._secret, "job")


def _member(worker: str, request: ps_pb.JoinRequest, connection: WorkerConnection) -> Member:
    origin = f"process {request.process_id} on {request.host_fingerprint}"
    arrival = f"{worker} joined: {origin}, transport {connection.transport}"
    return Member(worker, connection, arrival, request.arithmetic if request.HasField("arithmetic") else None)


def _core_rejection(request: ps_pb.JoinRequest, *, same_host: bool) -> str:
    """Returns why a worker is rejected under `step_core: native`, and what to do."""
    if not same_host:
        why = "it is on another host than the parameter server; take auto"
    elif not request.native_abi:
        why = "it has no native library; install gcc or clang and then nablad-server again on its host, or take auto"
    else:
        why = (
            "its native library has other sources than the parameter server's; install the same nablad-server on both "
            "hosts, or take auto"
        )
    return f"this worker cannot make steps in C, as distribution.step_core: native wants: {why}"


def _chunks(data: memoryview) -> Iterator[bytes]:
    for start in range(0, len(data), CHUNK_BYTES):
        yield bytes(data[start : start + CHUNK_BYTES])
