"""Tickets are answered with sums that depend on ticket and weights alone, whatever was read ahead."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nablad.v1 import parameter_server_pb2 as ps_pb
from workers import from_spec
from workers.computation import Computation
from workers.plan import Plan
from workers.rows import Rows
from workers.transport.tickets import Result, Ticket, TicketKind

STEPS, LAST_PARTS = 8, 2  # the last step of an epoch has only two micro-batches, the others three
VALIDATION_ROWS = 1200  # two evaluation tickets


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows were read, each time that any were."""
    counts: list[int] = []
    take, part = Rows.read_rows, Rows.read_slice

    def take_counted(self: Rows, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        counts.append(len(index))
        return take(self, index)

    def slice_counted(self: Rows, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        counts.append(stop - start)
        return part(self, start, stop)

    monkeypatch.setattr(Rows, "read_rows", take_counted)
    monkeypatch.setattr(Rows, "read_slice", slice_counted)
    return counts


def _gradient_ticket(step: int, micro_batch: int) -> Ticket:
    return Ticket(step, TicketKind.GRADIENT, micro_batch)


def _all_tickets(plan: Plan) -> list[Ticket]:
    """Every ticket of the job, in their order."""
    tickets = []
    for step in range(plan.steps):
        tickets += [_gradient_ticket(step, part) for part in range(plan.parts(step))]
        if plan.ends_epoch(step):
            tickets += [Ticket(step + 1, TicketKind.EVALUATION, part) for part in range(plan.evaluation_parts)]
    return tickets


def _answer(computation: Computation, ticket: Ticket) -> tuple[Result, bytes]:
    """The answer to a ticket, and its gradient's bytes, at weights that are not the first."""
    weights = np.linspace(-1, 1, computation.layout.size)
    gradient = np.full(computation.layout.size, np.nan)
    result = computation.answer(ticket, weights, 9, gradient)
    if result.gradient is None:
        return result, b""
    assert result.gradient is gradient
    result.gradient = None
    return result, gradient.tobytes()


def test_a_gradient_ticket_is_answered_with_the_sums_of_its_rows(small_assignment: ps_pb.Assignment) -> None:
    """Cost, counts and gradient are those of back-propagation on the plan's rows, in the plan's order."""
    computation, plan = Computation(small_assignment), from_spec.plan(small_assignment)
    rows = Rows(small_assignment.train, small_assignment.scaling, np.float64)
    for ticket in (_gradient_ticket(0, 1), _gradient_ticket(7, 0)):
        x, targets = rows.read_rows(plan.micro_batch(ticket.step, ticket.micro_batch))
        expected = np.empty(computation.layout.size)
        weights = np.linspace(-1, 1, computation.layout.size)
        sums = from_spec.back_propagation(small_assignment.spec).gradient(weights, x, targets, expected)
        result, gradient = _answer(computation, ticket)
        assert result == Result(ticket, 9, sums)
        assert gradient == expected.tobytes()


def test_an_evaluation_ticket_is_answered_without_a_gradient(small_assignment: ps_pb.Assignment) -> None:
    """Cost and counts over consecutive validation rows; the vector for the gradient is not touched."""
    computation = Computation(small_assignment)
    rows = Rows(small_assignment.validation, small_assignment.scaling, np.float64)
    weights, untouched = np.linspace(-1, 1, computation.layout.size), np.full(computation.layout.size, np.nan)
    for part, (start, stop) in enumerate([(0, 1000), (1000, VALIDATION_ROWS)]):
        ticket = Ticket(4, TicketKind.EVALUATION, part)
        sums = from_spec.back_propagation(small_assignment.spec).evaluate(weights, *rows.read_slice(start, stop))
        result = computation.answer(ticket, weights, 9, untouched)
        assert result == Result(ticket, 9, sums)
    assert np.isnan(untouched).all()


def test_layers_are_told_as_they_are_done(small_assignment: ps_pb.Assignment) -> None:
    """From the last on, each when its part of the gradient stands and the earlier ones do not yet."""
    computation, told = Computation(small_assignment), []
    gradient = np.full(computation.layout.size, np.nan)

    def layer_done(layer: int) -> None:
        start = computation.layout.starts[layer]
        told.append((layer, bool(np.isfinite(gradient[start:]).all()), bool(np.isnan(gradient[:start]).all())))

    computation.answer(_gradient_ticket(0, 0), np.ones(computation.layout.size), 0, gradient, layer_done)
    assert told == [(1, True, True), (0, True, True)]


def test_reading_ahead_changes_no_answer(small_assignment: ps_pb.Assignment) -> None:
    """Whatever tickets are read or answered before, in any order, the answer to each is the same."""
    tickets = _all_tickets(from_spec.plan(small_assignment))
    expected = {ticket: _answer(Computation(small_assignment), ticket) for ticket in tickets}
    computation = Computation(small_assignment)
    ahead = st.sampled_from([computation.gather, computation.gather_next])

    @given(st.lists(st.tuples(ahead, st.sampled_from(tickets)), max_size=3), st.sampled_from(tickets))
    def check(before: list[tuple[Callable[[Ticket], None], Ticket]], ticket: Ticket) -> None:
        for gather, other in before:
            gather(other)
        assert _answer(computation, ticket) == expected[ticket]

    check()


@pytest.mark.parametrize(
    ("ticket", "following"),
    [
        (_gradient_ticket(0, 2), _gradient_ticket(1, 2)),
        (_gradient_ticket(2, 1), _gradient_ticket(3, 1)),  # to the last, smaller mini-batch
        (_gradient_ticket(3, 1), _gradient_ticket(4, 1)),  # to the next epoch
        (Ticket(4, TicketKind.EVALUATION, 1), _gradient_ticket(4, 1)),  # the step that the evaluation came before
    ],
)
def test_what_follows_is_read_ahead(
    small_assignment: ps_pb.Assignment, read: list[int], ticket: Ticket, following: Ticket
) -> None:
    """The next ticket of a worker is most often the same part of the next step: its rows are there by then."""
    computation = Computation(small_assignment)
    computation.gather(ticket)
    computation.gather_next(ticket)
    read.clear()
    _answer(computation, following)
    assert read == []


@pytest.mark.parametrize(
    "ticket",
    [
        _gradient_ticket(STEPS - 1, 0),  # the plan ends
        Ticket(STEPS, TicketKind.EVALUATION, 0),
        _gradient_ticket(2, LAST_PARTS),  # no such part of the last, smaller mini-batch
    ],
)
def test_where_nothing_follows_nothing_is_read(
    small_assignment: ps_pb.Assignment, read: list[int], ticket: Ticket
) -> None:
    """At the end of the plan, and where the next mini-batch has fewer parts."""
    computation = Computation(small_assignment)
    computation.gather(ticket._replace(step=0, kind=TicketKind.GRADIENT))
    read.clear()
    computation.gather_next(ticket)
    assert read == []


def test_rows_that_were_read_last_are_not_read_again(small_assignment: ps_pb.Assignment, read: list[int]) -> None:
    """Tickets that are done again, as after a rejection, and those that were read ahead."""
    computation, ticket = Computation(small_assignment), _gradient_ticket(0, 0)
    computation.gather(ticket)
    for _ in range(2):
        _answer(computation, ticket)
    assert read == [5]
    _answer(computation, _gradient_ticket(0, 2))
    _answer(computation, ticket)
    assert read == [5, 6, 5]


def test_rows_that_could_not_be_read_are_not_taken_for_read(
    small_assignment: ps_pb.Assignment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor are those that they have partly overwritten."""
    computation, take = Computation(small_assignment), Rows.read_rows

    def take_and_fail(self: Rows, index: np.ndarray) -> None:
        take(self, index)
        raise OSError("the disk failed")

    right = _answer(computation, _gradient_ticket(0, 0))
    with monkeypatch.context() as patch:
        patch.setattr(Rows, "read_rows", take_and_fail)
        with pytest.raises(OSError, match="the disk failed"):
            computation.gather(_gradient_ticket(0, 1))
    assert _answer(computation, _gradient_ticket(0, 0)) == right


def test_without_validation_there_is_nothing_to_map(small_assignment: ps_pb.Assignment) -> None:
    """Gradients are answered as with it."""
    expected = _answer(Computation(small_assignment), _gradient_ticket(0, 0))
    small_assignment.ClearField("validation")
    assert _answer(Computation(small_assignment), _gradient_ticket(0, 0)) == expected


def test_data_that_cannot_be_reached_is_said_at_once(small_assignment: ps_pb.Assignment, tmp_path: Path) -> None:
    """Before any ticket."""
    small_assignment.validation.directory = str(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="from every host"):
        Computation(small_assignment)
