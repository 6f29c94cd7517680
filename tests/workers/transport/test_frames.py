"""Frames: what one end says is what the other reads, byte for byte the same on every machine."""

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.mathematics.sums import SampleSums
from workers.transport.frames import (
    ORDER_BYTES,
    REPORT_BYTES,
    WORKER_STATISTICS,
    Order,
    Report,
    ReportKind,
    encode_order,
    order_rest_bytes,
)
from workers.transport.tickets import Rejection, Result, Ticket, TicketKind

UINT8, UINT32, UINT64 = st.integers(0, 2**8 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
FLOAT64 = st.floats(allow_nan=False)
TICKETS = st.builds(Ticket, UINT64, UINT8, UINT32)
TICKET_BYTES = 13

orders = st.builds(
    Order,
    st.lists(TICKETS, max_size=5),
    st.lists(st.none() | st.sampled_from(Rejection), max_size=5),
    UINT64,
    UINT64,
    UINT64,
)
reports = st.builds(
    Report,
    UINT8,
    UINT32,
    st.builds(Result, TICKETS, UINT64, st.builds(SampleSums, FLOAT64, UINT64, UINT64)),
    UINT64,
    UINT64,
    st.tuples(*[FLOAT64] * len(WORKER_STATISTICS)),
)


@given(orders)
def test_an_order_is_read_as_it_was_written(order: Order) -> None:
    """Whatever its tickets, rejections, version and weights; its first bytes tell how many there are."""
    frame = encode_order(*order)
    head, rest = frame[:ORDER_BYTES], frame[ORDER_BYTES:]
    assert len(rest) == order_rest_bytes(head) == TICKET_BYTES * len(order.tickets) + len(order.rejections)
    assert Order.decode(head, rest) == order
    assert Order.decode(bytearray(head), bytearray(rest)) == order


@given(reports)
def test_a_report_is_read_as_it_was_written(report: Report) -> None:
    """Whatever its result, its place in the gradient and the worker's statistics; its size is always the same."""
    frame = report.encode()
    assert len(frame) == REPORT_BYTES
    assert Report.decode(frame) == report
    assert Report.decode(bytearray(frame)) == report


@given(st.binary(min_size=REPORT_BYTES, max_size=REPORT_BYTES))
def test_any_bytes_are_a_report(frame: bytes) -> None:
    """Whoever sends what no worker sends is judged by what it says: reading it loses no bit and is never an error."""
    assert Report.decode(frame).encode() == frame


def test_a_part_says_where_it_belongs_and_nothing_else() -> None:
    """The result that it is a part of follows later."""
    part = Report.decode(Report.part(4096, 512).encode())
    assert (part.kind, part.offset, part.length) == (ReportKind.PART, 4096, 512)
    assert part.result == Result(Ticket(0, 0, 0), 0, SampleSums(0.0, 0))
    assert sum(part.statistics) == 0


def test_a_result_that_is_not_finite_arrives_as_it_is() -> None:
    """The parameter server must see that a training diverges."""
    for cost in (math.inf, -math.inf, math.nan):
        report = Report(
            ReportKind.RESULT, 1, Result(Ticket(0, 1, 0), 0, SampleSums(cost, 1)), 0, 0, [0.0] * len(WORKER_STATISTICS)
        )
        assert struct.pack("<d", Report.decode(report.encode()).result.sums.cost_sum) == struct.pack("<d", cost)


def test_a_refusal_that_is_none_is_an_error() -> None:
    """Only the reasons that there are can be told."""
    frame = bytearray(encode_order([], [Rejection.LATE], 0))
    frame[-1] = max(Rejection) + 1
    with pytest.raises(ValueError, match=f"{max(Rejection) + 1} is not a valid Rejection"):
        Order.decode(frame[:ORDER_BYTES], frame[ORDER_BYTES:])


def test_the_bytes_of_an_order() -> None:
    """Golden bytes: the worker at the other end may be of another build."""
    tickets = [Ticket(258, TicketKind.GRADIENT, 3), Ticket(259, TicketKind.EVALUATION, 4)]
    frame = encode_order(tickets, [None, Rejection.NOT_FINITE], 257, 24340, 7)
    assert frame == (
        b"\x02\0\0\0" b"\x02\0\0\0" b"\x01\x01\0\0\0\0\0\0" b"\x14\x5f\0\0\0\0\0\0"  # counts, version, weights
        b"\x07\0\0\0\0\0\0\0"  # run
        b"\x02\x01\0\0\0\0\0\0" b"\x01" b"\x03\0\0\0"  # step, kind, micro-batch
        b"\x03\x01\0\0\0\0\0\0" b"\x02" b"\x04\0\0\0"
        b"\x00" b"\x06"  # taken; not finite
    )  # fmt: skip
    assert ORDER_BYTES == 32


def test_the_bytes_of_a_report() -> None:
    """Golden bytes: the parameter server at the other end may be of another build."""
    result = Result(Ticket(258, TicketKind.GRADIENT, 3), 257, SampleSums(1.5, 250, 17))
    frame = Report(ReportKind.RESULT, 2, result, 8, 24332, [0.5, 1.0, 2.0, 4.0, 8.0, 4096.0]).encode()
    assert frame == (
        b"\x02" b"\x01" b"\x02\0\0\0" b"\x03\0\0\0"  # kinds of report and ticket, attempt, micro-batch
        b"\x02\x01\0\0\0\0\0\0" b"\x01\x01\0\0\0\0\0\0"  # step, version
        b"\x08\0\0\0\0\0\0\0" b"\x0c\x5f\0\0\0\0\0\0"  # offset and length of the gradient
        b"\0\0\0\0\0\0\xf8\x3f" b"\xfa\0\0\0\0\0\0\0" b"\x11\0\0\0\0\0\0\0"  # cost sum, samples, right ones
        b"\0\0\0\0\0\0\xe0\x3f" b"\0\0\0\0\0\0\xf0\x3f" b"\0\0\0\0\0\0\0\x40" b"\0\0\0\0\0\0\x10\x40"  # seconds
        b"\0\0\0\0\0\0\x20\x40" b"\0\0\0\0\0\0\xb0\x40"  # CPU seconds and resident bytes
    )  # fmt: skip
    assert REPORT_BYTES == 114
