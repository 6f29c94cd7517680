"""The gRPC side of a parameter server: who belongs to the job, and how it gets on. The steps are the engine's."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from typing import Any, Final

import grpc
import numpy as np
from numpy.typing import NDArray

from nablad.files import CHUNK_BYTES
from nablad.v1 import parameter_server_pb2 as ps_pb
from nablad.v1 import parameter_server_pb2_grpc as ps_grpc
from service.parameter_server.engine import PATIENCE_SECONDS, Engine
from service.parameter_server.training import Training
from service.parameter_server.transport.acceptor import Acceptor
from service.parameter_server.transport.members import Member
from service.parameter_server.transport.worker_connection import WorkerConnection
from service.rpc.error_translation import Context, require_secret
from workers.runtime.concurrency import wait_for_event
from workers.runtime.failpoints import failpoint
from workers.runtime.numeric_environment import numeric_environment
from workers.worker import host_fingerprint

__all__ = ["ParameterServer"]

# Followers see the progress this often, when nothing else happens.
_PROGRESS_SECONDS: Final = 0.25


class ParameterServer(ps_grpc.ParameterServerServiceServicer):
    """Serves one attempt."""

    def __init__(
        self,
        assignment: ps_pb.Assignment,
        secret: str,
        training: Training,
        reception: Acceptor,
        description: Mapping[str, Any],
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        """Starts the engine, which the training belongs to from now on.

        Args:
            assignment: Handed to every worker.
            secret: Calls without it are refused.
            training: The attempt.
            reception: Where workers open their lines.
            description: What checkpoints belong to.
            patience_seconds: How long a worker that holds tickets may say nothing.
        """
        self._assignment = assignment
        self._secret = secret
        self._training = training
        self._reception = reception
        self._numbers = itertools.count(1)
        self._joined: dict[str, ps_pb.JoinRequest] = {}
        self._news = asyncio.Event()
        self._engine = Engine(
            training,
            patience_seconds,
            assignment.spec.checkpoints,
            description,
            numeric_environment(),
            self._spread_news,
        )

    async def close(self) -> None:
        """Ends everything that was started."""
        await self._reception.close()
        await self._engine.close()

    async def Join(self, request: ps_pb.JoinRequest, context: Context) -> ps_pb.JoinResponse:
        """Gives the worker its number, its assignment, and the way to open its line."""
        await self._authenticate(context)
        response = ps_pb.JoinResponse(worker_id=f"worker-{next(self._numbers)}", assignment=self._assignment)
        if not self._reception.expect(response, same_host=request.host_fingerprint == host_fingerprint()):
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                "this worker cannot share memory with the parameter server, as distribution.transport: shared wants; "
                "take auto or inline",
            )
        self._joined[response.worker_id] = request
        return response

    # The generated base only knows generators; but grpc would close one only when it is collected, not when the stream
    # breaks.
    async def Attend(self, request: ps_pb.AttendRequest, context: Context) -> None:  # type: ignore[override]
        """The worker belongs to the job until it is done, or the worker is lost."""
        await self._authenticate(context)
        code, reason = await self._attend(request.worker_id)
        if reason:
            # gRPC keeps this error, and with it this frame, until the garbage is collected: so it holds no connection,
            # and no memory of the worker's.
            await context.abort(code, reason)

    async def _attend(self, worker: str) -> tuple[grpc.StatusCode, str]:
        """Returns when the worker has left, with how its call is to end, and why; an empty reason for a good end."""
        line = self._reception.take(worker)
        if line is None:
            sentence = f"{worker!r} has not joined, or not opened its line: do that first"
            return grpc.StatusCode.FAILED_PRECONDITION, sentence
        member = _member(worker, self._joined.pop(worker), line)
        try:
            await self._engine.add(member)
            await member.gone.wait()
        finally:
            await self._engine.remove(member)
        return grpc.StatusCode.UNAVAILABLE, f"{member.reason}: join again" if member.reason else ""

    async def Follow(self, request: ps_pb.FollowRequest, context: Context) -> ps_pb.FollowResponse:
        """Tells what happened, or after a moment only where the training stands."""
        await self._authenticate(context)
        news = self._news
        engine, asked = self._engine, {"with_telemetry": request.telemetry}
        told = await engine.call(partial(engine.tell_news, request.seen, **asked))
        if told is None:
            await wait_for_event(news, _PROGRESS_SECONDS)
            told = await engine.call(partial(engine.tell, request.seen, **asked))
        return told

    async def FetchWeights(
        self, request: ps_pb.FetchWeightsRequest, context: Context
    ) -> AsyncIterator[ps_pb.FetchWeightsResponse]:
        """The present weights, byte by byte."""
        await self._authenticate(context)
        weights = await self._engine.call(self._standing_weights)
        for chunk in _chunks(weights.data.cast("B")):
            yield ps_pb.FetchWeightsResponse(chunk=chunk)

    async def FetchCheckpoint(
        self, request: ps_pb.FetchCheckpointRequest, context: Context
    ) -> AsyncIterator[ps_pb.FetchCheckpointResponse]:
        """The next checkpoint that is due, or one of now; nothing when the training is over."""
        await self._authenticate(context)
        try:
            checkpoint = await self._engine.checkpoint(now=request.now)
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
        """Those who are too many leave at the end of the step; others join by themselves."""
        await self._authenticate(context)
        if not request.workers:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "workers must be at least 1, but is 0")
        await self._engine.set_workers(request.workers)
        return ps_pb.SetWorkersResponse()

    def _standing_weights(self) -> NDArray[np.floating]:
        """Weights that do not change any more: those that the training leaves when it is over."""
        training = self._training
        return training.result if training.over else training.parameters.copy()

    def _spread_news(self) -> None:
        """Wakes those who wait for news now; later ones wait for the next."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _authenticate(self, context: Context) -> None:
        await require_secret(context, self._secret, "job")


def _member(worker: str, whence: ps_pb.JoinRequest, line: WorkerConnection) -> Member:
    arrival = f"{worker} joined: process {whence.process_id} on {whence.host_fingerprint}, transport {line.transport}"
    return Member(worker, line, arrival, whence.arithmetic if whence.HasField("arithmetic") else None)


def _chunks(data: memoryview) -> Iterator[bytes]:
    for start in range(0, len(data), CHUNK_BYTES):
        yield bytes(data[start : start + CHUNK_BYTES])
