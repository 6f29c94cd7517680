"""Whatever comes over a connection, the parameter server tells a result or breaks the connection, and nothing else."""

import math
import random
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.parameter_server.coordinator import Coordinator
from service.parameter_server.transport.members import Member
from service.parameter_server.transport.worker_connection import WorkerConnectionError
from workers.mathematics.sums import SampleSums
from workers.plan import Plan
from workers.transport.frames import REPORT_BYTES, WORKER_STATISTICS, Report
from workers.transport.tickets import Result, Ticket

SIZE = 6
BYTES = 8 * SIZE
PLAN = Plan(rows=10, batch_size=4, micro_batches=3, epochs=2, seed=1, validation_rows=5)

# Mostly numbers that mean something, sometimes any at all.
_small, _word, _double = st.integers(0, 3), st.integers(0, 2**32 - 1), st.floats(width=64)
_wide = st.integers(0, 9) | st.sampled_from([BYTES - 8, BYTES, BYTES + 8, 2**64 - 8]) | st.integers(0, 2**64 - 1)
_reports = st.builds(
    Report,
    kind=_small | st.integers(0, 255),
    attempt=st.just(2) | _word,
    result=st.builds(
        Result,
        ticket=st.builds(Ticket, _small | _wide, _small | st.integers(0, 255), _small | _word),
        version=_small | _wide,
        sums=st.builds(SampleSums, _double, _small | _wide, _small | _wide),
    ),
    offset=st.sampled_from([0, 8, 40, BYTES]) | _wide,
    length=st.sampled_from([0, 8, 40, BYTES]) | _wide,
    statistics=st.lists(_double, min_size=len(WORKER_STATISTICS), max_size=len(WORKER_STATISTICS)),
)
_pieces = st.lists(st.binary(max_size=2 * REPORT_BYTES) | _reports.map(Report.encode), max_size=8)

# The fixture makes a new connection at each call.
_many = settings(max_examples=3 * settings().max_examples, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _results(pair: Any, pieces: Iterable[bytes]) -> list[Report]:
    """What is told of the pieces until they end or break the connection."""
    told = []
    try:
        for piece in pieces:
            pair.worker.send(piece)
            while report := pair.connection.receive_report():
                told.append(report)
    except WorkerConnectionError:
        pass
    pair.connection.close()
    pair.worker.close()
    return told


@_many
@given(pieces=_pieces, shared=st.booleans())
def test_random_bytes_are_results_or_break_the_connection(
    ends: Callable[..., Any], pieces: list[bytes], shared: bool
) -> None:
    """A result that is told has a whole gradient or none, and every buffer that was taken is with one or free."""
    pair = ends(SIZE, shared=shared)
    gradients = [report.result.gradient for report in _results(pair, pieces) if report.result.gradient is not None]
    assert all(gradient.shape == (SIZE,) for gradient in gradients)
    assert not any(gradient.flags.writeable for gradient in gradients) or not shared
    buffers = [id(vector) for vector in (*pair.buffers._free, *([] if shared else gradients))]
    assert len(buffers) == len(set(buffers))


@_many
@given(pieces=_pieces, seed=st.integers(0, 2**32))
def test_random_results_change_no_weight_unless_they_are_right(
    ends: Callable[..., Any], make_coordinator: Callable[..., Coordinator], pieces: list[bytes], seed: int
) -> None:
    """The training takes or rejects each, moves with what it took alone, and can always say where it stands."""
    coordinator, chance = make_coordinator(PLAN, SIZE), random.Random(seed)
    for worker in ("a", "b"):
        coordinator.add_worker(worker)
    coordinator.deal_tickets()
    pair = ends(SIZE)
    members = [Member(worker, pair.connection, "") for worker in "ab"]
    for report in _results(pair, pieces):
        version, member = coordinator.version, chance.choice(members)
        computed = member.record_report(report, 0.0)
        with np.errstate(over="ignore", invalid="ignore"):
            rejection = coordinator.accept_result(member.worker, report.attempt, report.result, computed)
        coordinator.deal_tickets()
        coordinator.record_rounds()
        told = coordinator.counters.message(
            [member.seconds], coordinator.stopwatch.seconds, ["shared"], coordinator.rejected
        )
        coordinator.steps.write_to(told)
        told.workers.append(member.counters.message(member.worker, member.usage))
        coordinator.progress()
        assert rejection is None or coordinator.version == version
        assert all(0 <= statistics.seconds_sum < math.inf for statistics in told.phases)
    assert coordinator.version > 0 or not coordinator.shard.parameters.any()
