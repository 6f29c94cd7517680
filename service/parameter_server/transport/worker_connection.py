"""The parameter server's end of a worker's connection: sends and receives frames without ever blocking."""

import socket
from collections import deque
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.parameter_server.shard.reduction import GradientBuffers
from workers.transport.frames import REPORT_BYTES, Report, ReportKind, encode_order
from workers.transport.run_memory import WorkerMemory
from workers.transport.tickets import Rejection, Ticket, TicketKind

__all__ = ["WorkerConnection", "WorkerConnectionError"]

Vector = NDArray[np.floating]

# Most pieces that may wait to be sent: a worker that reads no more must not fill the memory.
_MOST_UNSENT: Final = 64


class WorkerConnectionError(Exception):
    """The connection closed or violated the protocol."""


class WorkerConnection:
    """The connection of one worker.

    Attributes:
        transport: "shared" or "inline", for metrics.
        run_memory: Memory of the worker's results in runs; None if it cannot make any.
    """

    def __init__(
        self,
        connection: socket.socket,
        versions: Sequence[Vector],
        buffers: GradientBuffers,
        shared_gradient: Vector | None = None,
        run_memory: WorkerMemory | None = None,
    ) -> None:
        """Takes over a connection after its handshake.

        Args:
            connection: Socket; owned from now on, and never blocking.
            versions: Buffers for the versions of the parameter vector, version v in buffer v modulo their number; sent
                to workers that do not share them.
            buffers: Pool of the vectors that gradients are received into.
            shared_gradient: Shared memory that the worker writes its gradient to; None if it sends the gradient.
            run_memory: Memory of the worker's results in runs; None if it cannot make any.
        """
        connection.setblocking(False)
        self.transport = "inline" if shared_gradient is None else "shared"
        self.run_memory = run_memory
        self._socket = connection
        self._versions = [weights.data.cast("B") for weights in versions]
        self._weights_bytes = versions[0].nbytes
        self._buffers = buffers
        self._shared_gradient = shared_gradient
        if shared_gradient is not None:
            self._shared_gradient = shared_gradient.view()
            self._shared_gradient.flags.writeable = False
        self._head = bytearray(REPORT_BYTES)
        self._room = memoryview(self._head)  # to be filled next
        self._report: Report | None = None  # whose gradient is being received
        self._gradient: Vector | None = None  # as far as it was received
        self._missing = self._weights_bytes  # of the gradient; it comes from its end
        self._held_version = -1
        self._unsent: deque[memoryview] = deque()

    def fileno(self) -> int:
        """Returns the file for a selector; -1 when the connection is closed."""
        return self._socket.fileno()

    def close(self) -> None:
        """Closes the connection."""
        self._buffers.return_buffer(self._gradient)
        self._gradient = None
        self._socket.close()

    @property
    def has_unsent(self) -> bool:
        """True while data wait until the worker reads."""
        return bool(self._unsent)

    def send_order(
        self, tickets: Sequence[Ticket], rejections: Sequence[Rejection | None], version: int, run: int = 0
    ) -> None:
        """Sends an order, and the weights if it has tickets and the worker has an older version.

        Args:
            tickets: New tickets of the worker.
            rejections: Acknowledgements of earlier results.
            version: Version of the weights.
            run: Number of the run that begins with the tickets; 0: none.

        Raises:
            WorkerConnectionError: The connection broke, or the worker does not read.
        """
        with_weights = bool(tickets) and self._shared_gradient is None and self._held_version != version
        order = encode_order(tickets, rejections, version, self._weights_bytes if with_weights else 0, run)
        self._unsent.append(memoryview(order))
        if with_weights:
            self._unsent.append(self._versions[version % len(self._versions)])
            self._held_version = version
        if len(self._unsent) > _MOST_UNSENT:
            raise WorkerConnectionError("the worker does not read what it is sent")
        self.flush()

    def flush(self) -> None:
        """Sends as much as the socket takes.

        Raises:
            WorkerConnectionError: The connection broke.
        """
        try:
            while self._unsent:
                sent = self._socket.sendmsg(self._unsent)
                while self._unsent and sent >= len(self._unsent[0]):
                    sent -= len(self._unsent.popleft())
                if sent:
                    self._unsent[0] = self._unsent[0][sent:]
        except BlockingIOError:
            return
        except OSError as error:
            raise WorkerConnectionError(str(error)) from error

    def detach_weights(self) -> None:
        """Copies what is unsent, because the next update may write to its buffer: no mixture of versions is sent."""
        self._unsent = deque(memoryview(bytes(piece)) for piece in self._unsent)

    def receive_report(self) -> Report | None:
        """Returns the next result, with its gradient; None if not all of it has arrived.

        Raises:
            WorkerConnectionError: The connection closed or violated the protocol.
        """
        while self._receive():
            if self._report is None:
                self._report = Report.decode(self._head)
                self._room = self._gradient_room(self._report)
                if self._room:
                    continue
            report, self._report, self._room = self._report, None, memoryview(self._head)
            if report.kind == ReportKind.RESULT:
                self._attach_gradient(report)
                return report
        return None

    def _receive(self) -> bool:
        """Fills the room; returns False if not enough has arrived."""
        try:
            while self._room:
                count = self._socket.recv_into(self._room)
                if not count:
                    raise WorkerConnectionError("the worker closed it")
                self._room = self._room[count:]
        except BlockingIOError:
            return False
        except OSError as error:
            raise WorkerConnectionError(str(error)) from error
        return True

    def _gradient_room(self, report: Report) -> memoryview:
        """Returns the part of a gradient buffer for the numbers that follow the report."""
        if not report.length and report.kind == ReportKind.RESULT:
            return memoryview(b"")
        expected = self._missing - report.offset
        if (
            self.transport == "shared"
            or report.kind not in (ReportKind.PART, ReportKind.RESULT)
            or not 0 < report.length == expected
        ):
            raise WorkerConnectionError(
                f"it announces {report.length} bytes from {report.offset} on, where {max(expected, 0)} are missing"
            )
        self._missing = report.offset
        if self._gradient is None:
            self._gradient = self._buffers.lend_buffer()
        return self._gradient.data.cast("B")[report.offset : report.offset + report.length]

    def _attach_gradient(self, report: Report) -> None:
        """Gives the result its gradient, if it is complete and the ticket asks for one."""
        gradient, complete = self._gradient, self._missing == 0
        if self._shared_gradient is not None:
            gradient, complete = self._shared_gradient, True
        self._gradient, self._missing = None, self._weights_bytes
        if complete and report.result.ticket.kind == TicketKind.GRADIENT:
            report.result.gradient = gradient
        else:
            self._buffers.return_buffer(gradient)
