"""Tickets, results and rejections: the words that parameter server and workers exchange."""

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.mathematics.sums import SampleSums

__all__ = ["Gradient", "Rejection", "Result", "Ticket", "TicketKind"]

Gradient = NDArray[np.floating]
"""Vector of all gradients of a network, shape (size,)."""


class TicketKind(IntEnum):
    """Kind of work that a ticket asks for."""

    GRADIENT = 1
    """The gradient of one part of a step's mini-batch."""
    EVALUATION = 2
    """The sums alone, over one part of the validation rows."""


class Ticket(NamedTuple):
    """The unit of work; sorts in the order of the work."""

    step: int
    """From 0, over all epochs; for an evaluation, the number of updates that the evaluated weights have seen."""
    kind: int
    """A TicketKind, or any number that came over a connection."""
    micro_batch: int
    """Number of the part, from 0."""


@dataclass(slots=True)
class Result:
    """The answer to one ticket.

    Attributes:
        ticket: The ticket that it answers.
        version: Version of the weights that it was computed with.
        sums: Over the samples of the part.
        gradient: Shape (size,), for gradients only. A read-only one is borrowed: it lies in memory that its
            worker writes to again for its next ticket.
    """

    ticket: Ticket
    version: int
    sums: SampleSums
    gradient: Gradient | None = None


class Rejection(IntEnum):
    """Reason why a result does not count. A rejected result has changed nothing."""

    DUPLICATE = 1
    """A result for this ticket is in already."""
    LATE = 2
    """The ticket's step has been applied already."""
    WRONG_ATTEMPT = 3
    """Not of this attempt."""
    UNKNOWN_TICKET = 4
    """No such ticket was given out."""
    WRONG_SIZE = 5
    """Not as many numbers as the parameter vector has."""
    NOT_FINITE = 6
    """NaN or infinite numbers."""
    WRONG_VERSION = 7
    """Computed from other weights than the present ones."""
    WRONG_COUNT = 8
    """Counts more or fewer samples than the ticket's part has."""
    NOT_HELD = 9
    """The ticket is not one that this worker was given, or it was taken from it."""
