"""Search for the row of a ticket, and the number in it, that makes the cost or gradient infinite."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nablad.v1 import parameter_server_pb2 as ps_pb
from workers import from_spec
from workers.mathematics.back_propagation import BackPropagation
from workers.rows import Rows
from workers.transport.tickets import Ticket, TicketKind

__all__ = ["find_overflow"]

Vector = NDArray[np.floating]

# Scaled features are not much above 1; if such features overflow, the weights are the cause.
_MODERATE = 1000.0


def find_overflow(assignment: ps_pb.Assignment, ticket: Ticket, weights: Vector) -> str:
    """Returns the number in the data that makes the result of a ticket infinite, and what to do about it.

    Such a number overflows already with the first weights. The cause of a later overflow is the training.

    Args:
        assignment: Assignment of the job.
        ticket: Ticket whose cost or gradient is not finite.
        weights: Weights that the result was computed with, shape (size,).

    Returns:
        A sentence without its full stop; empty if the data are not the cause.

    Raises:
        FileNotFoundError: The rows cannot be reached from this host.
        ValueError: The rows are not those that the assignment describes.
    """
    first = _first_weights(assignment, ticket, weights)
    if first is None:
        return ""
    with np.errstate(all="ignore"):
        suspects = _Suspects.of(assignment, ticket)
        return suspects.beyond_type() or suspects.beyond_arithmetic(first)


def _first_weights(assignment: ps_pb.Assignment, ticket: Ticket, weights: Vector) -> Vector | None:
    """Returns the weights of step 0; None after step 0 of a warm start, because the spec does not determine them."""
    if ticket.step == 0:
        return weights
    return None if assignment.spec.training.HasField("warm_start") else from_spec.first_parameters(assignment.spec)


@dataclass(frozen=True)
class _Suspects:
    """Rows of a ticket, in the order of their numbers.

    Attributes:
        assignment: Assignment of the job.
        dataset: Name of the data set of the rows.
        numbers: Row numbers from 0, shape (n,).
        stored: Features and targets as they are in the data set: (n, features), and (n,) or (n, columns).
        computed: Features and targets scaled and in the type of the computation, same shapes.
        differentiated: True if the ticket asks for a gradient.
    """

    assignment: ps_pb.Assignment
    dataset: str
    numbers: NDArray[np.intp]
    stored: tuple[NDArray[Any], NDArray[Any]]
    computed: tuple[NDArray[Any], NDArray[Any]]
    differentiated: bool

    @classmethod
    def of(cls, assignment: ps_pb.Assignment, ticket: Ticket) -> "_Suspects":
        plan, evaluates = from_spec.plan(assignment), ticket.kind == TicketKind.EVALUATION
        source = assignment.validation if evaluates else assignment.train
        rows = Rows(source, assignment.scaling, from_spec.dtype(assignment.spec))
        if evaluates:
            part = plan.evaluation(ticket.micro_batch)
            numbers = np.arange(part.start, part.stop)
        else:
            numbers = np.sort(plan.micro_batch(ticket.step, ticket.micro_batch))
        return cls(
            assignment, source.dataset.name, numbers, rows.stored(numbers), rows.read_rows(numbers), not evaluates
        )

    def beyond_type(self) -> str:
        """Describes a number that the job's type cannot hold, before or after scaling; empty if there is none."""
        for stored, computed, name in zip(self.stored, self.computed, ("feature", "target"), strict=True):
            places = np.argwhere(~np.isfinite(computed))
            if len(places):
                return self._sentence(name, tuple(places[0]), stored, "which {dtype} cannot hold")
        return ""

    def beyond_arithmetic(self, weights: Vector) -> str:
        """Describes a number whose cost or gradient overflows although the type holds it; empty if there is none."""
        propagation = from_spec.back_propagation(self.assignment.spec)
        room = np.empty_like(weights) if self.differentiated else None
        tips = partial(self._overflows, propagation, weights, room)
        if not tips(0, len(self.numbers)):
            return ""
        row = self._first_tipping(tips)
        x, targets = (part[row : row + 1] for part in self.computed)
        alone = tips(row, row + 1)
        if alone and not np.isfinite(propagation.outputs(weights, x)).all():
            return self._too_much(row, "feature") if np.abs(x).max() > _MODERATE else self._heavy(weights)
        values = targets.dtype.kind == "f"
        larger = "target" if values and np.abs(targets).max() >= np.abs(x).max() else "feature"
        if larger == "feature" and np.abs(x).max() <= _MODERATE:
            return self._heavy(weights)
        return self._too_much(row, larger)

    def _first_tipping(self, tips: partial[bool]) -> int:
        """Returns the first row that overflows, alone or together with the rows before it."""
        low, high = 0, len(self.numbers)  # the first `high` rows overflow, the first `low` rows do not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if tips(0, middle) else (middle, high)
        return low

    def _overflows(
        self, propagation: BackPropagation, weights: Vector, gradient: Vector | None, start: int, stop: int
    ) -> bool:
        """Returns True if the cost of these rows is not finite, or their gradient, if there is a buffer for it."""
        x, targets = (part[start:stop] for part in self.computed)
        if gradient is None:
            return not np.isfinite(propagation.evaluate(weights, x, targets).cost_sum)
        cost = propagation.gradient(weights, x, targets, gradient).cost_sum
        return not (np.isfinite(cost) and np.isfinite(gradient).all())

    def _too_much(self, row: int, name: str) -> str:
        """Describes the largest feature or target of a row as the cause."""
        which = ("feature", "target").index(name)
        column = int(np.abs(self.computed[which][row]).argmax())
        text = "whose cost or gradient is more than {dtype} can hold with the first weights already"
        return self._sentence(name, (row, column), self.stored[which], text)

    def _heavy(self, weights: Vector) -> str:
        return (
            "the features and targets are not large, but the weights that the job began with, of up to "
            f"{np.abs(weights).max():.3g}, are: give a smaller model.initialisation_scale, another model.activation, "
            "or another training.warm_start if there is one"
        )

    def _sentence(self, name: str, place: tuple[int, ...], stored: NDArray[Any], text: str) -> str:
        row, *column = place
        dtype = from_spec.dtype(self.assignment.spec).name
        where = f"{name} {column[0]} of row {self.numbers[row]} (both counted from 0)"
        wider = ", or model.dtype: float64" if dtype == "float32" else ""
        remedy = "give data.scaling, or features" if name == "feature" else "give targets"
        return (
            f"in the data set {self.dataset!r}, {where} is {stored[place]:g}, {text.format(dtype=dtype)}; correct it "
            f"if it is a mistake, else {remedy} in a larger unit{wider}"
        )
