"""The parameter server's ends of its workers' lines: frames in and out, never waiting for anybody."""

import socket
from collections import deque
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.parameter_server.shard.reduction import Buffers
from workers.transport.frames import REPORT_BYTES, Report, ReportKind, encode_order
from workers.transport.tickets import Rejection, Ticket, TicketKind

__all__ = ["WorkerConnection", "WorkerConnectionError"]

Vector = NDArray[np.floating]

# What may lie unsent beside weights: a worker that reads no more is not written to without end.
_MOST_UNSENT: Final = 64


class WorkerConnectionError(Exception):
    """The worker closed its line, or says what no worker says."""


class WorkerConnection:
    """One worker's line.

    Attributes:
        transport: "shared" or "inline", for metrics.
    """

    def __init__(
        self, connection: socket.socket, weights: Vector, buffers: Buffers, shared_gradient: Vector | None = None
    ) -> None:
        """A line that is open already.

        Args:
            connection: Taken over, and never waited for from now on.
            weights: The parameter vector, which changes in place; sent to workers that do not share it.
            buffers: What gradients are received into.
            shared_gradient: Where the worker writes its gradient; None if it sends it.
        """
        connection.setblocking(False)
        self.transport = "inline" if shared_gradient is None else "shared"
        self._connection = connection
        self._weights = weights.data.cast("B")
        self._buffers = buffers
        self._shared_gradient = shared_gradient
        if shared_gradient is not None:
            self._shared_gradient = shared_gradient.view()
            self._shared_gradient.flags.writeable = False
        self._head = bytearray(REPORT_BYTES)
        self._room = memoryview(self._head)  # what is received next
        self._report: Report | None = None  # whose gradient is being received
        self._gradient: Vector | None = None  # as far as it came
        self._missing = self._weights.nbytes  # of the gradient; it comes from its end
        self._held_version = -1
        self._unsent: deque[memoryview] = deque()

    def fileno(self) -> int:
        """For a selector."""
        return self._connection.fileno()

    def close(self) -> None:
        """Ends the line."""
        self._buffers.give(self._gradient)
        self._gradient = None
        self._connection.close()

    @property
    def unsent(self) -> bool:
        """Whether something waits until the worker reads."""
        return bool(self._unsent)

    def send(self, tickets: Sequence[Ticket], refusals: Sequence[Rejection | None], version: int) -> None:
        """Sends an order, and the weights if it has tickets and the worker has an older version.

        Raises:
            WorkerConnectionError: The worker is gone, or does not read.
        """
        must_have = bool(tickets) and self._shared_gradient is None and self._held_version != version
        order = encode_order(tickets, refusals, version, self._weights.nbytes if must_have else 0)
        self._unsent.append(memoryview(order))
        if must_have:
            self._unsent.append(self._weights)
            self._held_version = version
        if len(self._unsent) > _MOST_UNSENT:
            raise WorkerConnectionError("it does not read what it is sent")
        self.flush()

    def flush(self) -> None:
        """Sends as much as goes.

        Raises:
            WorkerConnectionError: The worker is gone.
        """
        try:
            while self._unsent:
                sent = self._connection.sendmsg(self._unsent)
                while self._unsent and sent >= len(self._unsent[0]):
                    sent -= len(self._unsent.popleft())
                if sent:
                    self._unsent[0] = self._unsent[0][sent:]
        except BlockingIOError:
            return
        except OSError as error:
            raise WorkerConnectionError(str(error)) from error

    def report(self) -> Report | None:
        """The next result, with its gradient; None if it is not all in yet.

        Raises:
            WorkerConnectionError: The worker is gone, or says what no worker says.
        """
        while self._receive():
            if self._report is None:
                self._report = Report.decode(self._head)
                self._room = self._gradient_room(self._report)
                if self._room:
                    continue
            report, self._report, self._room = self._report, None, memoryview(self._head)
            if report.kind == ReportKind.RESULT:
                self._hand_over(report)
                return report
        return None

    def _receive(self) -> bool:
        """Whether all that is to be received next has come."""
        try:
            while self._room:
                count = self._connection.recv_into(self._room)
                if not count:
                    raise WorkerConnectionError("it was closed")
                self._room = self._room[count:]
        except BlockingIOError:
            return False
        except OSError as error:
            raise WorkerConnectionError(str(error)) from error
        return True

    def _gradient_room(self, report: Report) -> memoryview:
        """Where the numbers that follow the report belong."""
        if not report.length and report.kind == ReportKind.RESULT:
            return memoryview(b"")
        expected = self._missing - report.offset
        if (
            self.transport == "shared"
            or report.kind not in (ReportKind.PART, ReportKind.RESULT)
            or not 0 < report.length == expected
        ):
            raise WorkerConnectionError(
                f"it says {report.length} bytes from {report.offset} on, where {max(expected, 0)} are missing"
            )
        self._missing = report.offset
        if self._gradient is None:
            self._gradient = self._buffers.take()
        return self._gradient.data.cast("B")[report.offset : report.offset + report.length]

    def _hand_over(self, report: Report) -> None:
        """Gives the result its gradient, if it is complete and asked for."""
        gradient, complete = self._gradient, self._missing == 0
        if self._shared_gradient is not None:
            gradient, complete = self._shared_gradient, True
        self._gradient, self._missing = None, self._weights.nbytes
        if complete and report.result.ticket.kind == TicketKind.GRADIENT:
            report.result.gradient = gradient
        else:
            self._buffers.give(gradient)
