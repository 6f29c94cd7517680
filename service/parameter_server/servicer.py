"""The gRPC side of a parameter server: who belongs to the job, and how it gets on. The steps are the engine's."""

import asyncio
import hmac
import itertools
from collections.abc import AsyncIterator
from typing import Final

import grpc
import numpy as np
from numpy.typing import NDArray

from nablad.files import CHUNK_BYTES
from nablad.v1 import parameter_server_pb2 as ps_pb
from nablad.v1 import parameter_server_pb2_grpc as ps_grpc
from service.boundary import Context
from service.parameter_server.engine import PATIENCE_SECONDS, Engine, Member
from service.parameter_server.lines import Line
from service.parameter_server.reception import Reception
from service.parameter_server.training import Training
from service.waiting import wait_for_event
from workers.worker import SECRET_KEY, host_fingerprint

__all__ = ["ParameterServer"]

# Followers see the progress this often, while there is any.
_PROGRESS_SECONDS: Final = 0.25


class ParameterServer(ps_grpc.ParameterServerServiceServicer):
    """Serves one attempt."""

    def __init__(
        self,
        assignment: ps_pb.Assignment,
        secret: str,
        training: Training,
        reception: Reception,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        """Starts the engine, which the training belongs to from now on."""
        self._assignment = assignment
        self._secret = secret
        self._training = training
        self._reception = reception
        self._engine = Engine(training, patience_seconds, self._happen)
        self._numbers = itertools.count(1)
        self._joined: dict[str, ps_pb.JoinRequest] = {}
        self._happenings: list[ps_pb.FollowResponse] = []
        self._happened = asyncio.Event()
        self._ended = False

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
        worker = request.worker_id
        line = self._reception.take(worker)
        if line is None:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION, f"{worker!r} has not joined, or not opened its line: do that first"
            )
        member = Member(worker, line, _arrival(worker, self._joined.pop(worker), line))
        try:
            await self._engine.add(member)
            await member.gone.wait()
            if member.reason:
                await context.abort(grpc.StatusCode.UNAVAILABLE, f"{member.reason}: join again")
        finally:
            await self._engine.remove(member)

    async def Follow(self, request: ps_pb.FollowRequest, context: Context) -> AsyncIterator[ps_pb.FollowResponse]:
        """Tells what happened, and in between where the training stands, until it is over."""
        await self._authenticate(context)
        seen = min(request.seen, len(self._happenings))
        while True:
            while seen < len(self._happenings):
                told = await self._engine.call(self._engine.state)
                told.MergeFrom(self._happenings[seen])
                seen += 1
                yield told
            if self._ended:
                return
            self._happened.clear()
            await wait_for_event(self._happened, _PROGRESS_SECONDS)
            if seen == len(self._happenings):
                yield await self._engine.call(self._engine.state)

    async def FetchWeights(
        self, request: ps_pb.FetchWeightsRequest, context: Context
    ) -> AsyncIterator[ps_pb.FetchWeightsResponse]:
        """The present weights, byte by byte."""
        await self._authenticate(context)
        weights = await self._engine.call(self._standing_weights)
        data = weights.data.cast("B")
        for start in range(0, len(data), CHUNK_BYTES):
            yield ps_pb.FetchWeightsResponse(chunk=bytes(data[start : start + CHUNK_BYTES]))

    def _standing_weights(self) -> NDArray[np.floating]:
        """Weights that do not change any more: the training's own when it is over."""
        parameters = self._training.parameters
        return parameters if self._training.over else parameters.copy()

    def _happen(self, happening: ps_pb.FollowResponse) -> None:
        self._happenings.append(happening)
        self._ended = self._ended or happening.WhichOneof("happening") in ("finished", "failed")
        self._happened.set()

    async def _authenticate(self, context: Context) -> dict[str, str | bytes]:
        """The call's metadata, if it carries the job's secret; aborts the call if not."""
        metadata = dict(context.invocation_metadata() or ())
        if not hmac.compare_digest(str(metadata.get(SECRET_KEY, "")).encode(), self._secret.encode()):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "this is not the secret of this job")
        return metadata


def _arrival(worker: str, whence: ps_pb.JoinRequest, line: Line) -> str:
    return f"{worker} joined: process {whence.process_id} on {whence.host_fingerprint}, transport {line.transport}"
