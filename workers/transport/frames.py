"""The frames on a connection: fixed records, little-endian, that either end reads straight into its own buffers.

Server to worker, an order::

    order     tickets, acknowledgements, version of the weights, bytes of weights that follow, run that begins
    ticket    × tickets: what to compute with these weights
    rejection × acknowledgements: one byte for each result since the last order; 0 if it was accepted
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

from workers.mathematics.sums import SampleSums
from workers.runtime.process_statistics import Usage
from workers.transport.tickets import Rejection, Result, Ticket

__all__ = [
    "ACTIVITIES",
    "ORDER_BYTES",
    "REPORT_BYTES",
    "TRANSPORTS",
    "WORKER_STATISTICS",
    "Order",
    "Report",
    "ReportKind",
    "encode_order",
    "order_rest_bytes",
]

TRANSPORTS = ("shared", "inline")
"""Ways of vectors over a connection: in shared memory, or inline after the frames."""

ACTIVITIES = ("gathering", "computing", "waiting", "exchanging")
"""Activities that a worker's time goes into: reading rows, the mathematics, waiting for an order, sending a result."""

WORKER_STATISTICS = (*ACTIVITIES, *Usage._fields)
"""Statistics that a worker reports: seconds by activity since it joined, and what its process has used."""

_ORDER = Struct("<IIQQQ")
_TICKET = Struct("<QBI")
_SUMS = get_type_hints(SampleSums)
_REPORT = Struct(
    "<BBIIQQQQ" + "".join({float: "d", int: "Q"}[kind] for kind in _SUMS.values()) + "d" * len(WORKER_STATISTICS)
)
_SUMS_END = 8 + len(_SUMS)
_numbers_of = attrgetter(*_SUMS)

ORDER_BYTES = _ORDER.size
REPORT_BYTES = _REPORT.size


class Order(NamedTuple):
    """Message of the parameter server: tickets, and acknowledgements of earlier results."""

    tickets: list[Ticket]
    rejections: list[Rejection | None]
    """One for each result since the last order; None if it was accepted."""
    version: int
    """Version of the weights that the tickets are computed with."""
    weights_bytes: int = 0
    """Bytes of weights that follow."""
    run: int = 0
    """Number of the run that begins with the tickets; 0: none."""

    @classmethod
    def decode(cls, head: bytes | bytearray, rest: bytes | bytearray) -> "Order":
        """Decodes a frame's first ORDER_BYTES and the `order_rest_bytes` that follow them."""
        tickets, rejections, version, weights_bytes, run = _ORDER.unpack(head)
        end = tickets * _TICKET.size
        return cls(
            [Ticket(*fields) for fields in _TICKET.iter_unpack(rest[:end])],
            [Rejection(code) if code else None for code in rest[end : end + rejections]],
            version,
            weights_bytes,
            run,
        )


def encode_order(
    tickets: Sequence[Ticket],
    rejections: Sequence[Rejection | None],
    version: int,
    weights_bytes: int = 0,
    run: int = 0,
) -> bytes:
    """Encodes the frame of an order, without the weights; arguments as the fields of `Order`."""
    head = _ORDER.pack(len(tickets), len(rejections), version, weights_bytes, run)
    codes = bytes([rejection or 0 for rejection in rejections])
    return b"".join([head, *[_TICKET.pack(*ticket) for ticket in tickets], codes])


def order_rest_bytes(head: bytes | bytearray) -> int:
    """Returns how many bytes of tickets and rejections follow the first ORDER_BYTES of an order."""
    tickets, rejections, *_ = _ORDER.unpack(head)
    rest: int = tickets * _TICKET.size + rejections
    return rest


class ReportKind(IntEnum):
    """Kind of a report."""

    PART = 1
    """A part of the gradient of the result that follows."""
    RESULT = 2
    """A result, with the rest of its gradient."""


class Report(NamedTuple):
    """Message of a worker: a result, or a part of its gradient."""

    kind: int
    attempt: int
    result: Result
    """The result without its gradient; meaningless in a PART."""
    offset: int
    """Offset in the parameter vector of the gradient that follows, in bytes."""
    length: int
    """Length of the gradient that follows, in bytes."""
    statistics: Sequence[float]
    """Statistics of the worker, in the order of WORKER_STATISTICS."""

    def encode(self) -> bytes:
        """Encodes the frame, without the gradient."""
        result = self.result
        step, kind, micro_batch = result.ticket
        return _REPORT.pack(
            self.kind, kind, self.attempt, micro_batch, step, result.version, self.offset, self.length,
            *_numbers_of(result.sums), *self.statistics,
        )  # fmt: skip

    @classmethod
    def part(cls, offset: int, length: int) -> "Report":
        """Returns the report of a part of a gradient."""
        return cls(
            ReportKind.PART, 0, Result(Ticket(0, 0, 0), 0, SampleSums()), offset, length, [0.0] * len(WORKER_STATISTICS)
        )

    @classmethod
    def decode(cls, frame: bytes | bytearray) -> "Report":
        """Decodes the REPORT_BYTES of a frame."""
        numbers = _REPORT.unpack(frame)
        report_kind, kind, attempt, micro_batch, step, version, offset, length = numbers[:8]
        result = Result(Ticket(step, kind, micro_batch), version, SampleSums(*numbers[8:_SUMS_END]))
        return cls(report_kind, attempt, result, offset, length, numbers[_SUMS_END:])
