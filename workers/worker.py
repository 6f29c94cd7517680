"""The worker: joins a parameter server and turns tickets into results until there are no more."""

import logging
import os
import time
from collections import deque

import grpc
from threadpoolctl import threadpool_limits

from nablad.v1 import parameter_server_pb2 as ps_pb
from nablad.v1 import parameter_server_pb2_grpc as ps_grpc
from workers.computation import Computation
from workers.runtime.failpoints import failpoint
from workers.runtime.host import host_fingerprint, numeric_environment, use_batch_scheduling
from workers.runtime.process_statistics import Stopwatch, UsageMeter
from workers.transport.frames import ACTIVITIES
from workers.transport.handshake import connect_to_server
from workers.transport.server_connection import ServerConnection, ServerConnectionError
from workers.transport.tickets import Ticket

__all__ = [
    "SECRET_KEY",
    "ParameterServerLostError",
    "RejectedError",
    "channel_options",
    "work",
]

SECRET_KEY = "nablad-secret"  # noqa: S105 (the name of a metadata entry)

# A worker that was cut off tries to join again for this long: a parameter server that is gone for good never answers.
_REJOIN_SECONDS = 30.0
_REJOIN_PAUSE_SECONDS = 0.5
# Room of a message beside one assignment, and the highest limit that gRPC accepts.
_MESSAGE_OVERHEAD_BYTES = 1 << 20
_MOST_MESSAGE_BYTES = (1 << 31) - 1
# Codes that a call ends with when its connection breaks; INTERNAL if that happens in the middle of a message.
_LOST = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL)

_log = logging.getLogger(__name__)


class ParameterServerLostError(Exception):
    """The parameter server cannot be reached any more."""


class RejectedError(Exception):
    """The parameter server rejected this worker."""


def channel_options(message_bytes: int) -> list[tuple[str, int]]:
    """Returns options for both ends of a parameter server's channels: messages fit, and a dead peer is noticed.

    A peer is pinged every 5 s, however long it computes, and is lost when it does not answer within 5 s.

    Args:
        message_bytes: Size of the largest content of a message: the assignment, or a chunk of weights.
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
    ]


def work(address: str, secret: str, *, threads: int, message_bytes: int) -> None:
    """Computes for the parameter server at `address` until the job is done.

    Args:
        address: host:port.
        secret: The job's.
        threads: Number of BLAS threads; it is part of the arithmetic, so exactly these are used.
        message_bytes: Size of the largest content of a message.

    Raises:
        ParameterServerLostError: It could not be reached for 30 s.
        RejectedError: It rejected this worker.
        FileNotFoundError: The data directory cannot be reached from this host.
        ValueError: Its files are not the data sets of the assignment.
    """
    use_batch_scheduling()
    deadline = time.monotonic() + _REJOIN_SECONDS
    with threadpool_limits(threads):
        while True:
            with grpc.insecure_channel(address, channel_options(message_bytes)) as channel:
                session = _Session(ps_grpc.ParameterServerServiceStub(channel), secret)
                try:
                    session.run()
                except (grpc.RpcError, ServerConnectionError) as error:
                    _require_passing(error)
                    if session.attended:
                        deadline = time.monotonic() + _REJOIN_SECONDS
                    if time.monotonic() > deadline:
                        raise ParameterServerLostError(_sentence(error)) from error
                    _log.warning("lost the parameter server at %s, joining again: %s", address, _sentence(error))
                else:
                    return
            time.sleep(_REJOIN_PAUSE_SECONDS)


def _require_passing(error: grpc.RpcError | ServerConnectionError) -> None:
    if isinstance(error, grpc.RpcError) and error.code() not in _LOST:
        raise RejectedError(_sentence(error)) from error


def _sentence(error: grpc.RpcError | ServerConnectionError) -> str:
    return str(error.details() if isinstance(error, grpc.RpcError) else error)


class _Session:
    """Session of a worker, from one Join to the end of its membership.

    Attributes:
        attended: Whether an order came, so that the parameter server was there until then.
    """

    def __init__(self, stub: ps_grpc.ParameterServerServiceStub, secret: str) -> None:
        self.attended = False
        self._stub = stub
        self._metadata = ((SECRET_KEY, secret),)
        self._stopwatch = Stopwatch(ACTIVITIES)
        self._usage = UsageMeter()

    def run(self) -> None:
        request = ps_pb.JoinRequest(
            host_fingerprint=host_fingerprint(), process_id=os.getpid(), arithmetic=numeric_environment()
        )
        joined = self._stub.Join(request, metadata=self._metadata)
        computation = Computation(joined.assignment)
        with connect_to_server(joined, computation.layout, computation.dtype) as connection:
            membership = self._stub.Attend(ps_pb.AttendRequest(worker_id=joined.worker_id), metadata=self._metadata)
            # No orders come after the end of the membership.
            if not membership.add_callback(connection.close):
                connection.close()
            self._serve(computation, connection, joined.assignment.attempt)
            connection.close()
            for _ in membership:  # yields nothing; its end says whether the job is done
                pass

    def _serve(self, computation: Computation, connection: ServerConnection, attempt: int) -> None:
        """Answers one ticket after each order, until the connection is closed; an order follows every result."""
        lap, tickets = self._stopwatch.lap, deque[Ticket]()
        while order := connection.next_order():
            self.attended = True
            lap("waiting")
            for rejection in filter(None, order.rejections):
                _log.warning("a result was rejected: %s", rejection.name)
            tickets.extend(order.tickets)
            if not tickets:
                continue
            failpoint("worker.ordered")
            ticket = tickets.popleft()
            computation.gather(ticket)
            lap("gathering")
            connection.start_gradient()
            result = computation.answer(
                ticket, connection.weights, order.version, connection.gradient, connection.layer_done
            )
            lap("computing")
            failpoint("worker.computing")
            connection.send_result(result, attempt, [*self._stopwatch.seconds.values(), *self._usage.read()])
            lap("exchanging")
            failpoint("worker.reported")
            # The parameter server is at work meanwhile.
            if tickets:
                computation.gather(tickets[0])
            else:
                computation.gather_next(ticket)
            lap("gathering")
