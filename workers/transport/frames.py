"""The frames on a line: fixed records, little-endian, that either end reads straight into its own buffers.

Server to worker, an order::

    order     tickets, acknowledgements, version of the weights, bytes of weights that follow
    ticket    × tickets: what to compute with these weights
    refusal   × acknowledgements: one byte for each result since the last order; 0 if it was taken
    weights   the parameter vector; none when the worker has this version, or shares memory

Worker to server, a report; the gradient follows the fields that say where in the parameter vector it belongs::

    report    a part of the gradient (PART), or the result itself (RESULT) with the rest of it
    gradient  the numbers; none when the worker shares memory, or the ticket asks for no gradient

The parts of a gradient come from the end of the vector to its beginning, as back-propagation makes them.
"""

from collections.abc import Sequence
from enum import IntEnum
from operator import attrgetter
from struct import Struct
from typing import NamedTuple, get_type_hints

from workers.mathematics.sums import Sums
from workers.runtime.process_usage import Usage
from workers.transport.tickets import Rejection, Result, Ticket

__all__ = [
    "ACTIVITIES",
    "FIGURES",
    "ORDER_BYTES",
    "REPORT_BYTES",
    "TRANSPORTS",
    "Order",
    "Report",
    "ReportKind",
    "encode_order",
    "order_rest_bytes",
]

TRANSPORTS = ("shared", "inline")
"""How vectors pass a connection: in shared memory, or with the frames."""

ACTIVITIES = ("gathering", "computing", "waiting", "exchanging")
"""What a worker's time goes into: reading rows, the mathematics, waiting for an order, sending a result."""

FIGURES = (*ACTIVITIES, *Usage._fields)
"""What a worker tells of itself: seconds by activity since it joined, and what its process has used."""

_ORDER = Struct("<IIQQ")
_TICKET = Struct("<QBI")
_SUMS = get_type_hints(Sums)
_REPORT = Struct("<BBIIQQQQ" + "".join({float: "d", int: "Q"}[kind] for kind in _SUMS.values()) + "d" * len(FIGURES))
_SUMS_END = 8 + len(_SUMS)
_numbers_of = attrgetter(*_SUMS)

ORDER_BYTES = _ORDER.size
REPORT_BYTES = _REPORT.size


class Order(NamedTuple):
    """What the parameter server says: tickets, and what became of earlier results."""

    tickets: list[Ticket]
    refusals: list[Rejection | None]
    """One for each result since the last order; None if it was taken."""
    version: int
    """Of the weights that the tickets are to be computed with."""
    weights_bytes: int = 0
    """How much of weights follows."""

    @classmethod
    def decode(cls, head: bytes | bytearray, rest: bytes | bytearray) -> "Order":
        """The order in a frame's first ORDER_BYTES and the `order_rest_bytes` that follow them."""
        tickets, refusals, version, weights_bytes = _ORDER.unpack(head)
        end = tickets * _TICKET.size
        return cls(
            [Ticket(*fields) for fields in _TICKET.iter_unpack(rest[:end])],
            [Rejection(code) if code else None for code in rest[end : end + refusals]],
            version,
            weights_bytes,
        )


def encode_order(
    tickets: Sequence[Ticket], refusals: Sequence[Rejection | None], version: int, weights_bytes: int = 0
) -> bytes:
    """The frame of an order, without the weights; arguments as the fields of `Order`."""
    head = _ORDER.pack(len(tickets), len(refusals), version, weights_bytes)
    codes = bytes([refusal or 0 for refusal in refusals])
    return b"".join([head, *[_TICKET.pack(*ticket) for ticket in tickets], codes])


def order_rest_bytes(head: bytes | bytearray) -> int:
    """How many bytes of tickets and refusals follow the first ORDER_BYTES of an order."""
    tickets, refusals, _, _ = _ORDER.unpack(head)
    rest: int = tickets * _TICKET.size + refusals
    return rest


class ReportKind(IntEnum):
    """What a report is."""

    PART = 1
    """A part of the gradient of the result that comes."""
    RESULT = 2
    """A result, with what is left of its gradient."""


class Report(NamedTuple):
    """What a worker says."""

    kind: int
    attempt: int
    result: Result
    """Without its gradient; means nothing in a PART."""
    offset: int
    """Where in the parameter vector the gradient that follows begins, in bytes."""
    length: int
    """How much of the gradient follows, in bytes."""
    figures: Sequence[float]
    """Of the worker, by FIGURES."""

    def encode(self) -> bytes:
        """The frame, without the gradient."""
        result = self.result
        step, kind, micro_batch = result.ticket
        return _REPORT.pack(
            self.kind, kind, self.attempt, micro_batch, step, result.version, self.offset, self.length,
            *_numbers_of(result.sums), *self.figures,
        )  # fmt: skip

    @classmethod
    def part(cls, offset: int, length: int) -> "Report":
        """A part of a gradient."""
        return cls(ReportKind.PART, 0, Result(Ticket(0, 0, 0), 0, Sums()), offset, length, [0.0] * len(FIGURES))

    @classmethod
    def decode(cls, frame: bytes | bytearray) -> "Report":
        """The report in the REPORT_BYTES of a frame."""
        numbers = _REPORT.unpack(frame)
        report_kind, kind, attempt, micro_batch, step, version, offset, length = numbers[:8]
        result = Result(Ticket(step, kind, micro_batch), version, Sums(*numbers[8:_SUMS_END]))
        return cls(report_kind, attempt, result, offset, length, numbers[_SUMS_END:])
