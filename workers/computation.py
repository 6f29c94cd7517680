"""Computation of results: a pure function from ticket and weights, without a connection."""

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
    """Computes results for the tickets of an assignment; no state that it keeps changes a result.

    Keeps buffers and mapped rows from one ticket to the next.
    """

    def __init__(self, assignment: ps_pb.Assignment) -> None:
        """Maps the rows of the assignment.

        Raises:
            FileNotFoundError: The data directory cannot be reached from this host.
            ValueError: The files are not the data sets of the assignment.
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
        """Reads the rows of a ticket, unless they are those read last."""
        if ticket == self._gathered:
            return
        self._gathered = None
        if ticket.kind == TicketKind.EVALUATION:
            part = self._plan.evaluation(ticket.micro_batch)
            self._rows = self._validation.read_slice(part.start, part.stop)
        else:
            self._rows = self._train.read_rows(self._plan.micro_batch(ticket.step, ticket.micro_batch))
        self._gathered = ticket

    def gather_next(self, ticket: Ticket) -> None:
        """Reads ahead the rows of the ticket that will probably follow this one, if there is one."""
        step = ticket.step + (
            ticket.kind == TicketKind.GRADIENT
        )  # an evaluation already has the number of the next step
        if step < self._plan.steps and ticket.micro_batch < self._plan.parts(step):
            self.gather(Ticket(step, TicketKind.GRADIENT, ticket.micro_batch))

    # A diverging training overflows; the parameter server detects it, and ends it with advice.
    @np.errstate(over="ignore", invalid="ignore")  # in half the time of a `with`
    def answer(
        self,
        ticket: Ticket,
        weights: Vector,
        version: int,
        gradient: Vector,
        layer_done: Callable[[int], None] | None = None,
    ) -> Result:
        """Computes the result for a ticket.

        Args:
            ticket: Ticket to compute.
            weights: Parameter vector, shape (size,).
            version: Version of the weights.
            gradient: Buffer of shape (size,); written to, and part of the result, if the ticket asks for a gradient.
            layer_done: Called with N when the gradient of W(N) and b(N) is written, from the last layer on.
        """
        self.gather(ticket)
        if ticket.kind == TicketKind.EVALUATION:
            return Result(ticket, version, self._back_propagation.evaluate(weights, *self._rows))
        sums = self._back_propagation.gradient(weights, *self._rows, gradient, layer_done)
        return Result(ticket, version, sums, gradient)
