"""A worker without its connection: a pure function from ticket and weights to a result."""

import numpy as np
from numpy.typing import NDArray

from nablad.v1 import parameter_server_pb2 as ps_pb
from workers import build
from workers.rows import Rows

__all__ = ["Computation"]


class Computation:
    """Answers the tickets of one assignment. Keeps buffers and memory-mapped rows, but nothing that matters."""

    def __init__(self, assignment: ps_pb.Assignment) -> None:
        """Maps the rows.

        Raises:
            FileNotFoundError: The data directory cannot be reached from this host.
            ValueError: Its files are not the data sets of the assignment.
        """
        self.dtype = build.dtype(assignment.spec)
        self._plan = build.plan(assignment)
        self._back_propagation = build.back_propagation(assignment.spec)
        self._gradient = np.empty(self._back_propagation.layout.size, self.dtype)
        self._train = self._rows(assignment, assignment.train)
        self._validation = (
            self._rows(assignment, assignment.validation) if assignment.HasField("validation") else self._train
        )

    def answer(self, ticket: ps_pb.Ticket, parameters: NDArray[np.floating], version: int) -> ps_pb.Result:
        """The result for a ticket, computed with the weights (size,) of a version."""
        # A training that diverges overflows. The parameter server finds what is not finite, and ends it with advice.
        with np.errstate(over="ignore", invalid="ignore"):
            result = self._compute(ticket, parameters)
        result.version = version
        return result

    def _compute(self, ticket: ps_pb.Ticket, parameters: NDArray[np.floating]) -> ps_pb.Result:
        if ticket.kind == ps_pb.TICKET_KIND_EVALUATION:
            part = self._plan.evaluation(ticket.micro_batch)
            sums = self._back_propagation.evaluate(parameters, *self._validation.slice(part.start, part.stop))
            return ps_pb.Result(
                ticket=ticket, cost_sum=sums.cost, sample_count=sums.samples, correct_count=sums.correct
            )
        x, targets = self._train.take(self._plan.micro_batch(ticket.step, ticket.micro_batch))
        sums = self._back_propagation.gradient(parameters, x, targets, self._gradient)
        return ps_pb.Result(
            ticket=ticket,
            cost_sum=sums.cost,
            sample_count=sums.samples,
            correct_count=sums.correct,
            gradient=self._gradient.tobytes(),
        )

    def _rows(self, assignment: ps_pb.Assignment, source: ps_pb.DataSource) -> Rows:
        return Rows(source, assignment.scaling, self.dtype)
