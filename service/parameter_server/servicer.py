"""The gRPC side of a parameter server: streams in and out of the state machine."""

import asyncio
import hmac
import itertools
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc

from nablad.files import CHUNK_BYTES
from nablad.v1 import parameter_server_pb2 as ps_pb
from nablad.v1 import parameter_server_pb2_grpc as ps_grpc
from service.boundary import Context
from service.parameter_server.dispatcher import TicketKey
from service.parameter_server.training import Training
from service.waiting import wait_for_event
from workers.worker import SECRET_KEY, WORKER_ID_KEY

__all__ = ["ParameterServer"]

# Followers see the progress this often, while there is any.
_PROGRESS_SECONDS: Final = 0.25
# A worker that holds tickets and says nothing for so long is given up, and its tickets go to others.
_PATIENCE_SECONDS: Final = 60.0


class ParameterServer(ps_grpc.ParameterServerServiceServicer):
    """Serves one attempt.

    All methods run in one event loop, so that nothing else happens while the state machine works.
    """

    def __init__(self, assignment: ps_pb.Assignment, secret: str, training: Training) -> None:
        self._assignment = assignment
        self._secret = secret
        self._training = training
        self._numbers = itertools.count(1)
        self._joined: dict[str, ps_pb.JoinRequest] = {}
        self._mailboxes: dict[str, asyncio.Queue[list[ps_pb.Ticket]]] = {}
        self._weights = ps_pb.Weights()
        self._happenings: list[ps_pb.FollowResponse] = []
        self._happened = asyncio.Event()
        self._told_end = False
        self._patience_seconds = _PATIENCE_SECONDS

    async def Join(self, request: ps_pb.JoinRequest, context: Context) -> ps_pb.JoinResponse:
        """Gives the worker its number and its assignment."""
        await self._authenticate(context)
        if ps_pb.TRANSPORT_INLINE not in request.transports:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the worker does not offer the inline transport")
        worker = f"worker-{next(self._numbers)}"
        self._joined[worker] = request
        return ps_pb.JoinResponse(
            worker_id=worker,
            assignment=self._assignment,
            transport=ps_pb.TRANSPORT_INLINE,
        )

    # The generated base only knows generators; grpc takes coroutines, too.
    async def Exchange(  # type: ignore[override]
        self, request_iterator: AsyncIterator[ps_pb.ExchangeRequest], context: Context
    ) -> None:
        """Deals tickets to one worker and takes its results, until the training is over or the worker is lost."""
        metadata = await self._authenticate(context)
        worker = str(metadata.get(WORKER_ID_KEY, ""))
        whence = self._joined.pop(worker, None)
        if whence is None:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"{worker!r} has not joined: join first")
        await anext(request_iterator, None)
        if self._training.over:
            return
        self._mailboxes[worker] = asyncio.Queue()
        self._training.join(worker)
        self._happen(worker_joined=f"{worker} joined: process {whence.process_id} on {whence.host_fingerprint}")
        # Not an asynchronous generator: grpc would not close that before it is collected when the stream breaks.
        try:
            await self._converse(worker, request_iterator, context)
        finally:
            del self._mailboxes[worker]
            self._training.leave(worker)
            if not self._training.over:
                self._happen(worker_lost=f"{worker} was lost; its tickets go to others")
            self._deal()

    async def _converse(self, worker: str, requests: AsyncIterator[ps_pb.ExchangeRequest], context: Context) -> None:
        acknowledgements: list[ps_pb.Acknowledgement] = []
        held_version: int | None = None
        self._deal()
        while tickets := await self._mailboxes[worker].get():
            weights = self._message()
            order = ps_pb.ExchangeResponse(tickets=tickets, acknowledgements=acknowledgements)
            if weights.version != held_version:
                order.weights.CopyFrom(weights)
                held_version = weights.version
            await context.write(order)
            acknowledgements = []
            # Results for other tickets are refused like any, and do not count as the answer to one of these.
            missing = {TicketKey.of(ticket) for ticket in tickets}
            while missing:
                request = await self._next_word(worker, requests, context)
                if request is None:
                    return
                self._training.totals.add_worker_seconds(request.seconds)
                missing.discard(TicketKey.of(request.result.ticket))
                acknowledgements.append(self._training.take(worker, request.attempt, request.result))
                self._deal()

    async def _next_word(
        self, worker: str, requests: AsyncIterator[ps_pb.ExchangeRequest], context: Context
    ) -> ps_pb.ExchangeRequest | None:
        """The next request of a worker that holds tickets, None at the end of its stream.

        A worker may hang while its process still answers pings. One that is only slow joins again, and is given twice
        the time.
        """
        try:
            async with asyncio.timeout(self._patience_seconds):
                return await anext(requests, None)
        except TimeoutError:
            waited, self._patience_seconds = self._patience_seconds, 2 * self._patience_seconds
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"no word of {worker} for {waited:.0f} s: join again")

    async def Follow(self, request: ps_pb.FollowRequest, context: Context) -> AsyncIterator[ps_pb.FollowResponse]:
        """Tells what happened, and in between where the training stands, until it is over."""
        await self._authenticate(context)
        seen = min(request.seen, len(self._happenings))
        while True:
            while seen < len(self._happenings):
                seen += 1
                yield self._state(self._happenings[seen - 1])
            if self._told_end:
                return
            self._happened.clear()
            await wait_for_event(self._happened, _PROGRESS_SECONDS)
            if seen == len(self._happenings):
                yield self._state()

    async def FetchWeights(
        self, request: ps_pb.FetchWeightsRequest, context: Context
    ) -> AsyncIterator[ps_pb.FetchWeightsResponse]:
        """The present weights, byte by byte."""
        await self._authenticate(context)
        data = memoryview(self._message().data)
        for start in range(0, len(data), CHUNK_BYTES):
            yield ps_pb.FetchWeightsResponse(chunk=bytes(data[start : start + CHUNK_BYTES]))

    def _deal(self) -> None:
        """Gives out what can be given out, and tells what the last result brought about."""
        for worker, tickets in self._training.deal().items():
            self._mailboxes[worker].put_nowait(tickets)
        for epoch_end in self._training.pop_epoch_ends():
            self._happen(epoch_end=epoch_end)
        if self._training.over and not self._told_end:
            self._told_end = True
            if self._training.failure:
                self._happen(failed=self._training.failure)
            else:
                self._happen(finished=True)
            for mailbox in self._mailboxes.values():
                mailbox.put_nowait([])

    def _message(self) -> ps_pb.Weights:
        """The present weights as a message, made once per version."""
        version = self._training.version
        if not self._weights.data or self._weights.version != version:
            self._weights = ps_pb.Weights(version=version, data=self._training.parameters.tobytes())
        return self._weights

    def _state(self, happening: ps_pb.FollowResponse | None = None) -> ps_pb.FollowResponse:
        """Where the training stands, with something that happened."""
        state = ps_pb.FollowResponse(progress=self._training.progress(), telemetry=self._training.totals.message())
        if happening is not None:
            state.MergeFrom(happening)
        return state

    def _happen(self, **happening: Any) -> None:
        self._happenings.append(ps_pb.FollowResponse(**happening))
        self._happened.set()

    async def _authenticate(self, context: Context) -> dict[str, str | bytes]:
        """The call's metadata, if it carries the job's secret; aborts the call if not."""
        metadata = dict(context.invocation_metadata() or ())
        if not hmac.compare_digest(str(metadata.get(SECRET_KEY, "")).encode(), self._secret.encode()):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "this is not the secret of this job")
        return metadata
