"""The worker: joins a parameter server and turns its tickets into results until there are no more."""

import asyncio
import contextlib
import logging
import os
import platform
import time
from collections.abc import Iterable
from pathlib import Path

import grpc
import numpy as np
from threadpoolctl import threadpool_limits

from nablad.v1 import parameter_server_pb2 as ps_pb
from nablad.v1 import parameter_server_pb2_grpc as ps_grpc
from workers.computation import Computation

__all__ = ["SECRET_KEY", "WORKER_ID_KEY", "channel_options", "work"]

SECRET_KEY = "nablad-secret"  # noqa: S105 (the name of a metadata entry)
WORKER_ID_KEY = "nablad-worker-id"

# A worker that was cut off tries to join again for this long; a parameter server that is gone for good does not answer.
_REJOIN_SECONDS = 30.0
_REJOIN_PAUSE_SECONDS = 0.5
# What a message holds beside one parameter vector or one assignment, and the most that gRPC can be told.
_MESSAGE_OVERHEAD_BYTES = 1 << 20
_MOST_MESSAGE_BYTES = (1 << 31) - 1
# How a call ends when its connection breaks; INTERNAL when that happens in the middle of a message.
_LOST = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL)

_log = logging.getLogger(__name__)

_Call = grpc.aio.StreamStreamCall[ps_pb.ExchangeRequest, ps_pb.ExchangeResponse]


def channel_options(message_bytes: int) -> list[tuple[str, int]]:
    """Options for both ends of a parameter server's channels: messages fit, and a dead peer is noticed.

    A peer is asked every 5 s, however long it computes, and taken for lost when it does not answer within 5 s.

    Args:
        message_bytes: The largest thing that a message carries: the parameter vector, or the assignment.
    """
    most = min(message_bytes + _MESSAGE_OVERHEAD_BYTES, _MOST_MESSAGE_BYTES)
    return [
        ("grpc.max_receive_message_length", most),
        ("grpc.max_send_message_length", most),
        ("grpc.enable_http_proxy", 0),
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", 5_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        # Else a ping is given a minute, whatever keepalive says.
        ("grpc.http2.ping_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
    ]


def host_fingerprint() -> str:
    """Tells this host from others: its name, its boot and the namespace of its shared memory."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{platform.node()}/{boot}/{Path('/proc/self/ns/ipc').readlink()}"


async def work(address: str, secret: str, *, threads: int, message_bytes: int) -> None:
    """Works for the parameter server at `address` until the job is done.

    Args:
        address: host:port.
        secret: The job's.
        threads: BLAS threads; part of the arithmetic, so exactly these are used.
        message_bytes: The largest thing that a message carries.

    Raises:
        grpc.aio.AioRpcError: The parameter server refused this worker, or could not be reached for 30 s.
        FileNotFoundError: The data directory cannot be reached from this host.
        ValueError: Its files are not the data sets of the assignment.
    """
    deadline = time.monotonic() + _REJOIN_SECONDS
    with threadpool_limits(threads):
        while True:
            async with grpc.aio.insecure_channel(address, channel_options(message_bytes)) as channel:
                session = _Session(ps_grpc.ParameterServerServiceStub(channel), secret)
                try:
                    await session.run()
                except grpc.aio.AioRpcError as error:
                    if session.joined:
                        deadline = time.monotonic() + _REJOIN_SECONDS
                    if error.code() not in _LOST or time.monotonic() > deadline:
                        raise
                    _log.warning("lost the parameter server at %s, joining again: %s", address, error.details())
                else:
                    return
            await asyncio.sleep(_REJOIN_PAUSE_SECONDS)


class _Session:
    """From one Join to the end of its stream."""

    def __init__(self, stub: "ps_grpc.ParameterServerServiceAsyncStub", secret: str) -> None:
        self.joined = False
        self._stub = stub
        self._secret = (SECRET_KEY, secret)
        self._stopwatch = _Stopwatch()

    async def run(self) -> None:
        request = ps_pb.JoinRequest(
            host_fingerprint=host_fingerprint(), process_id=os.getpid(), transports=[ps_pb.TRANSPORT_INLINE]
        )
        joined = await self._stub.Join(request, metadata=(self._secret,))
        self.joined = True
        attempt = joined.assignment.attempt
        computation = Computation(joined.assignment)
        parameters, version = np.empty(0, computation.dtype), 0
        call = self._stub.Exchange(metadata=(self._secret, (WORKER_ID_KEY, joined.worker_id)))
        await call.write(ps_pb.ExchangeRequest(attempt=attempt))
        self._stopwatch.lap()
        while isinstance(order := await call.read(), ps_pb.ExchangeResponse):
            self._stopwatch.seconds.waiting += self._stopwatch.lap()
            if order.HasField("weights"):
                parameters, version = np.frombuffer(order.weights.data, computation.dtype), order.weights.version
            for ticket in order.tickets:
                result = computation.answer(ticket, parameters, version)
                self._stopwatch.seconds.computing += self._stopwatch.lap()
                await self._send(call, ps_pb.ExchangeRequest(attempt=attempt, result=result))
            _log_refusals(order.acknowledgements)

    async def _send(self, call: _Call, request: ps_pb.ExchangeRequest) -> None:
        request.seconds.CopyFrom(self._stopwatch.seconds)
        self._stopwatch.seconds.Clear()
        # A call that has ended says how at the next read.
        with contextlib.suppress(asyncio.InvalidStateError):
            await call.write(request)
        self._stopwatch.seconds.exchanging += self._stopwatch.lap()


class _Stopwatch:
    """Where the time goes: each lap is counted as one of three."""

    def __init__(self) -> None:
        self.seconds = ps_pb.WorkerSeconds()
        self._mark = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last lap."""
        now = time.perf_counter()
        seconds, self._mark = now - self._mark, now
        return seconds


def _log_refusals(acknowledgements: Iterable[ps_pb.Acknowledgement]) -> None:
    for acknowledgement in acknowledgements:
        if not acknowledgement.accepted:
            _log.warning("a result was refused: %s", ps_pb.Refusal.Name(acknowledgement.refusal))
