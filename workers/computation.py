"""A worker without its line: a pure function from ticket and weights to a result."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nablad.v1 import parameter_server_pb2 as ps_pb
from workers import from_spec
from workers.rows import Rows
from workers.transport.tickets import Result, Ticket, TicketKind

__all__ = ["Computation"]

Vector = NDArray[np.floating]


class Computation:
    """Answers the tickets of one assignment. Keeps buffers and memory-mapped rows, but nothing that matters."""

    def __init__(self, assignment: ps_pb.Assignment) -> None:
        """Maps the rows.

        Raises:
            FileNotFoundError: The data directory cannot be reached from this host.
            ValueError: Its files are not the data sets of the assignment.
        """
        self.dtype = from_spec.dtype(assignment.spec)
        self._plan = from_spec.plan(assignment)
        self._back_propagation = from_spec.back_propagation(assignment.spec)
        self.layout = self._back_propagation.layout
        self._train = Rows(assignment.train, assignment.scaling, self.dtype)
        self._validation = (
            Rows(assignment.validation, assignment.scaling, self.dtype)
            if assignment.HasField("validation")
            else self._train
        )
        self._gathered: Ticket | None = None
        self._rows: tuple[NDArray[Any], NDArray[Any]]

    def gather(self, ticket: Ticket) -> None:
        """Reads the rows of a ticket; nothing to do if they were read last."""
        if ticket == self._gathered:
            return
        self._gathered = None
        # What the type cannot hold becomes infinite, and so does the cost: that is told with the row, see `overflow`.
        with np.errstate(over="ignore", invalid="ignore"):
            if ticket.kind == TicketKind.EVALUATION:
                part = self._plan.evaluation(ticket.micro_batch)
                self._rows = self._validation.slice(part.start, part.stop)
            else:
                self._rows = self._train.take(self._plan.micro_batch(ticket.step, ticket.micro_batch))
        self._gathered = ticket

    def gather_next(self, ticket: Ticket) -> None:
        """Reads the rows of the ticket that will probably follow this one, if that can be told."""
        step = ticket.step + (ticket.kind == TicketKind.GRADIENT)  # that of an evaluation is the next one's already
        if step < self._plan.steps and ticket.micro_batch < self._plan.parts(step):
            self.gather(Ticket(step, TicketKind.GRADIENT, ticket.micro_batch))

    def answer(
        self,
        ticket: Ticket,
        weights: Vector,
        version: int,
        gradient: Vector,
        layer_done: Callable[[int], None] | None = None,
    ) -> Result:
        """The result for a ticket.

        Args:
            ticket: What to compute.
            weights: Shape (size,).
            version: Of the weights.
            gradient: Shape (size,); written to, and part of the result, if the ticket asks for a gradient.
            layer_done: Called with N when the gradient of W(N) and b(N) is written, from the last layer on.
        """
        self.gather(ticket)
        # A training that diverges overflows. The parameter server finds what is not finite, and ends it with advice.
        with np.errstate(over="ignore", invalid="ignore"):
            if ticket.kind == TicketKind.EVALUATION:
                return Result(ticket, version, self._back_propagation.evaluate(weights, *self._rows))
            sums = self._back_propagation.gradient(weights, *self._rows, gradient, layer_done)
        return Result(ticket, version, sums, gradient)
