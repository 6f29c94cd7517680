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
from workers.native.library import native_abi
from workers.runtime.failpoints import failpoint
from workers.runtime.host import host_fingerprint, numeric_environment, use_batch_scheduling
from workers.runtime.process_statistics import Stopwatch, UsageMeter
from workers.transport.frames import ACTIVITIES, Order
from workers.transport.handshake import connect_to_server
from workers.transport.run_memory import RunEnd
from workers.transport.server_connection import ServerConnection, ServerConnectionError
from workers.transport.session import SECRET_KEY, ParameterServerLostError, RejectedError, channel_options
from workers.transport.tickets import Rejection, Ticket, TicketKind

__all__ = ["work"]

# A worker that was cut off tries to join again for this long: a parameter server that is gone for good never answers.
_REJOIN_SECONDS = 30.0
_REJOIN_PAUSE_SECONDS = 0.5
# Time between two looks whether the parameter server is still there, while a worker waits in a run.
_LOOK_SECONDS = 0.05
# Codes that a call ends with when its connection breaks; INTERNAL if that happens in the middle of a message.
_LOST = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL)

_log = logging.getLogger(__name__)


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
            host_fingerprint=host_fingerprint(),
            process_id=os.getpid(),
            arithmetic=numeric_environment(),
            native_abi=native_abi(),
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
                level = logging.INFO if rejection == Rejection.LATE else logging.WARNING
                _log.log(level, "a result was rejected: %s", rejection.name)
            if order.run and connection.run_end:
                self._make_steps(computation, connection, connection.run_end, order)
                continue
            if order.tickets:  # in place of what is left of an older step, which was applied without it
                tickets = deque(order.tickets)
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
            connection.send_result(result, attempt, self._statistics())
            lap("exchanging")
            failpoint("worker.reported")
            # The parameter server is at work meanwhile.
            if tickets:
                computation.gather(tickets[0])
            else:
                computation.gather_next(ticket)
            lap("gathering")

    def _make_steps(self, computation: Computation, connection: ServerConnection, end: RunEnd, order: Order) -> None:
        """Answers the tickets of an order, and those of the same parts of later steps, until the run is over."""
        lap, step = self._stopwatch.lap, order.tickets[0].step
        parts = [ticket.micro_batch for ticket in order.tickets]
        while True:
            tickets = [Ticket(step, TicketKind.GRADIENT, part) for part in parts]
            for slot, ticket in enumerate(tickets):
                failpoint("worker.ordered")
                before = self._computed
                computation.gather(ticket)
                lap("gathering")
                result = computation.answer(ticket, connection.weights, step, end.gradients[slot])
                lap("computing")
                failpoint("worker.computing")
                if slot == len(tickets) - 1:
                    end.statistics[:] = self._statistics()
                end.report_result(slot, order.run, step, result.sums, self._computed - before)
                lap("exchanging")
                failpoint("worker.reported")
                # Others compute, or the parameter server is at work, meanwhile.
                if slot + 1 < len(tickets):
                    computation.gather(tickets[slot + 1])
                else:
                    computation.gather_next(tickets[0])
                lap("gathering")
            step += 1
            if not _await_version(connection, end, order.run, step):
                return
            lap("waiting")

    @property
    def _computed(self) -> float:
        """Seconds of gathering and computing so far."""
        seconds = self._stopwatch.seconds
        return seconds["gathering"] + seconds["computing"]

    def _statistics(self) -> list[float]:
        return [*self._stopwatch.seconds.values(), *self._usage.read()]


def _await_version(connection: ServerConnection, end: RunEnd, run: int, version: int) -> bool:
    """Waits for a version of the weights; returns False if the run is over, or the parameter server is gone."""
    while (ready := end.wait_for_version(run, version, _LOOK_SECONDS)) is None:
        if not connection.is_open():
            return False
    return ready
