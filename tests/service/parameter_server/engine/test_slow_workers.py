"""The engine and workers that are slower than the policy waits for."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from service.parameter_server.scheduling.policies import BackupPolicy
from workers.transport.tickets import Rejection

SIZE = 40_000  # weights that a socket does not take at once


@pytest.fixture
def bench(make_bench: Callable[..., Any]) -> Iterator[Any]:
    """An engine that waits for all but one of three micro-batches."""
    bench = make_bench(size=SIZE, policy=BackupPolicy(1))
    yield bench
    bench.close()


def _start_step(bench: Any, *, shared: bool = True) -> tuple[Any, Any, Any]:
    """Three workers that have just got a ticket each, one of them a spare one; the second is slow."""
    first = bench.peer("first", shared=shared)
    first.listen()
    slow, third = bench.peer("slow", shared=shared), bench.peer("third", shared=shared)
    first.answer()
    first.listen()
    first.answer()
    first.listen()
    third.listen()
    assert bench.coordinator.version == 1
    return first, slow, third


def _finish_together(*peers: Any) -> None:
    with ThreadPoolExecutor(len(peers)) as pool:
        for work in [pool.submit(peer.finish) for peer in peers]:
            work.result()


@pytest.mark.parametrize("shared", [True, False])
def test_a_slow_worker_is_not_waited_for(bench: Any, shared: bool) -> None:
    """The others make all steps; each sample is applied, or dropped and recorded."""
    first, _, third = _start_step(bench, shared=shared)
    _finish_together(first, third)
    told = bench.state()
    assert told.progress.samples + told.progress.dropped_samples == 20
    assert told.progress.dropped_micro_batches == told.statistics.dropped_micro_batches == 6
    assert bench.story()[-1] == "finished"


def test_a_slow_worker_that_says_nothing_is_given_up(bench: Any) -> None:
    """Also when what it held is dropped: its process may hang."""
    first, slow, third = _start_step(bench)
    first.answer()
    third.answer()
    bench.turn()
    assert bench.coordinator.version == 2
    assert bench.call(lambda: bench.coordinator.is_at_work("slow"))
    assert not bench.call(lambda: bench.coordinator.holds_tickets("slow"))
    bench.seconds = 62
    bench.turn()
    assert bench.gone(slow) == "no word of slow for 60 s"


def test_a_slow_worker_is_told_that_it_was_late_with_its_next_tickets(bench: Any) -> None:
    """Nothing of its result counts; then it works like any other."""
    first, slow, third = _start_step(bench)
    slow.listen()
    first.answer()
    third.answer()
    bench.turn()
    before = bench.coordinator.shard.parameters.copy()
    slow.answer()
    bench.turn()
    assert np.array_equal(bench.coordinator.shard.parameters, before)
    assert bench.remove(first)
    assert bench.remove(third)
    slow.listen()
    assert slow.rejections == [Rejection.LATE]
    slow.finish()
    assert bench.state().statistics.rejected == {"late": 1}
    assert bench.story()[-1] == "finished"


def test_a_worker_that_reads_slowly_gets_one_version_of_the_weights(bench: Any) -> None:
    """Weights on their way stay as they were, though its buffer has been written to meanwhile."""
    first, slow, third = _start_step(bench, shared=False)
    weights = bench.coordinator.shard.parameters.copy()
    assert slow.member.connection.has_unsent
    first.answer()
    third.answer()
    first.listen()
    first.answer()  # the short last step of the epoch needs one
    bench.turn()
    assert bench.coordinator.version == 3
    assert not np.array_equal(bench.coordinator.shard.weights.versions[1], weights)
    assert slow.connection.next_order().version == 1
    assert np.array_equal(slow.connection.weights, weights)
