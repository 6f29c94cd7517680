"""Native step core: what its calls end with, and that results that may not count change nothing."""

import ctypes
import itertools
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.parameter_server.shard.step_core import Status
from workers.mathematics.sums import SampleSums

Pair = Any  # of conftest.py
MakePair = Callable[..., Any]

DTYPES = ("float32", "float64")
BLOCK = 128 * 1024
# Several threads inspect vectors from 1 MiB on.
LARGE_SIZE = 3 * BLOCK + 5
SECONDS = 30.0
ENOUGH = 1000

# -- records -----------------------------------------------------------------------------------------------------------


def test_sums_are_added_in_the_order_of_the_parts(make_pair: MakePair) -> None:
    """However they arrive: the cost has the bits of the Python path."""
    results = set()
    for order in itertools.islice(itertools.permutations(range(5)), 0, None, 17):
        pair = make_pair(parts=5)
        sums = [pair.sums(0, part) for part in range(5)]
        for part in order:
            pair.report(part)
        made = pair.core.make_steps(pair.wanted(1), SECONDS).made
        assert made.sums == [SampleSums.total(sums)]
        results.add(sum(sums[part].cost_sum for part in order))
    assert len(results) > 1


def test_the_longest_computation_is_that_of_a_worker_with_all_its_parts(make_pair: MakePair) -> None:
    """Two parts of one worker count together."""
    pair = make_pair(parts=3)
    pair.core.begin_run(2, [part._replace(owner=part.owner // 2) for part in pair.parts], 0.0, 0.0)
    for part in range(3):
        pair.report(part, run=2)
    made = pair.core.make_steps(pair.wanted(1), SECONDS).made
    assert made.times(0)[1] == 0.5


@pytest.mark.parametrize("time", [-1e5, 0.0, np.nan, -np.inf, np.inf, 1e300], ids=str)
def test_a_wrong_time_of_a_result_is_nobody_elses_lag(make_pair: MakePair, time: float) -> None:
    """A worker may write any time into its slot: the others came no later for that, and itself not for ever."""
    pair = make_pair(parts=2)
    pair.core.times[:] = begun = perf_counter()
    pair.report(0)
    pair.report(1)
    ctypes.c_double.from_address(pair.parts[0].slot + 40).value = time
    assert pair.core.make_steps(pair.wanted(1), SECONDS).status == Status.DONE
    most = perf_counter() - begun
    assert all(0 <= pair.core.lag(part) <= most for part in range(2))


def test_the_last_step_may_have_other_numbers_of_samples(make_pair: MakePair) -> None:
    """Only the last one of a call: elsewhere these are wrong."""
    pair = make_pair(parts=1)
    wanted = replace(pair.wanted(1), last_samples=[3])
    pair.report(0, samples=3)
    assert pair.core.make_steps(replace(wanted, measured=[True, True]), SECONDS).status == Status.REJECTED
    pair.begin_run()
    pair.report(0, samples=3)
    report = pair.core.make_steps(wanted, SECONDS)
    assert (report.status, report.made.sums[0].samples) == (Status.DONE, 3)


# -- ends of a call ----------------------------------------------------------------------------------------------------


def test_workers_wait_for_a_version_that_is_not_published(make_pair: MakePair) -> None:
    """Until it is; the steps before are published at once."""
    pair = make_pair(parts=1)
    pair.report(0)
    assert pair.core.make_steps(pair.wanted(1, publish_last=False), SECONDS).status == Status.DONE
    assert pair.ends[0].wait_for_version(1, 1, 0.0) is None
    assert pair.ends[0].wait_for_version(1, 0, 0.0)
    pair.core.publish_version()
    assert pair.ends[0].wait_for_version(1, 1, 0.0)
    pair.report(0)
    assert pair.core.make_steps(pair.wanted(1), SECONDS).status == Status.DONE
    assert pair.ends[0].wait_for_version(1, 2, 0.0)
    pair.require_equal()


def test_a_call_whose_time_is_over_keeps_what_has_arrived(make_pair: MakePair) -> None:
    """The next one goes on with it."""
    pair, before = make_pair(parts=3), make_pair().state()
    pair.report(1)
    report = pair.core.make_steps(pair.wanted(2), 0.001)
    assert (report.status, report.made.sums) == (Status.LATER, [])
    assert report.spent["waiting"] > 0
    assert [pair.core.has_result(part) for part in range(3)] == [False, True, False]
    assert pair.state() == before
    pair.ends[1].gradients[0][:] = pair.gradient(0, 1)
    pair.report(0)
    pair.report(2)
    report = pair.core.make_steps(pair.wanted(2), 0.0)
    assert (report.status, len(report.made.sums)) == (Status.LATER, 1)
    assert not any(map(pair.core.has_result, range(3)))
    pair.require_equal()


def test_an_interrupt_ends_one_call(make_pair: MakePair) -> None:
    """Also one that came when there was no call; results that are there count first."""
    pair = make_pair(parts=1)
    pair.core.interrupt()
    assert pair.core.make_steps(pair.wanted(1), SECONDS).status == Status.INTERRUPTED
    assert pair.core.make_steps(pair.wanted(1), 0.0).status == Status.LATER
    pair.core.interrupt()
    pair.report(0)
    report = pair.core.make_steps(pair.wanted(2), SECONDS)
    assert (report.status, len(report.made.sums)) == (Status.INTERRUPTED, 1)
    pair.require_equal()


def test_an_interrupt_wakes_a_call_that_sleeps(make_pair: MakePair) -> None:
    """From any thread."""
    pair = make_pair()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(pair.core.make_steps, pair.wanted(1), 1e6)
        pair.core.interrupt()
        assert call.result(SECONDS).status == Status.INTERRUPTED


def test_the_end_of_a_run_wakes_workers(make_pair: MakePair) -> None:
    """They do not wait for a version any more, nor does it help that the next run has it."""
    pair = make_pair(parts=2)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(end.wait_for_version, 1, 1, 1e6) for end in pair.ends]
        pair.core.end_run()
        assert [each.result(SECONDS) for each in waiting] == [False, False]
    pair.begin_run()
    assert pair.ends[0].wait_for_version(1, 0, 0.0) is False
    assert pair.ends[0].wait_for_version(2, 0, 0.0)


_AT_EXIT = """
import atexit, threading, time
from tests.service.parameter_server.shard.conftest import Pair

atexit.register(time.sleep, 0.1)  # registered first, called last: the thread goes on after the rest was cleaned up
pair = Pair()


def work():
    while True:
        pair.core.make_steps(pair.wanted(1), 0.001)


threading.Thread(target=work, daemon=True).start()
"""


def test_the_interpreter_may_end_while_steps_are_made(make_pair: MakePair) -> None:
    """As when a parameter server's process is told to stop: the thread that makes the steps keeps the core."""
    del make_pair  # skips where there can be no core
    environment = os.environ | {"MALLOC_PERTURB_": "165", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", _AT_EXIT], env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


# -- results that do not count -----------------------------------------------------------------------------------------

WRONG_SUMS = [{"cost_sum": np.nan}, {"cost_sum": np.inf}, {"cost_sum": -np.inf}, {"samples": 0}, {"samples": ENOUGH}]
WRONG_SUMS += [{"correct_count": ENOUGH}, {"samples": 2**64 - 1}, {"correct_count": 2**64 - 1}]


@pytest.mark.parametrize("part", [0, 2])
@pytest.mark.parametrize("wrong", WRONG_SUMS, ids=str)
def test_wrong_sums_change_nothing(make_pair: MakePair, wrong: dict[str, Any], part: int) -> None:
    """Neither weights nor moments; the next run makes the step."""
    _require_rejection(make_pair(), part, lambda pair: pair.ring(part, **wrong))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("size", "place", "value"),
    [(50, 0, np.nan), (50, 31, -np.inf), (50, 49, np.inf), (LARGE_SIZE, BLOCK, np.nan), (LARGE_SIZE, -1, np.inf)],
)
def test_numbers_that_are_not_finite_change_nothing(
    make_pair: MakePair, size: int, place: int, value: float, dtype: str
) -> None:
    """Wherever they are in the gradient."""

    def report(pair: Pair) -> None:
        pair.ends[1].gradients[0][place] = value
        pair.ring(1)

    _require_rejection(make_pair(dtype=dtype, size=size, parts=2), 1, report)


def _require_rejection(pair: Pair, wrong: int, report_wrong: Callable[[Pair], None]) -> None:
    """Makes one step, then one with a wrong result, which is made anew."""
    pair.make_step()
    before, others = pair.state(), [part for part in range(len(pair.parts)) if part != wrong]
    pair.ends[wrong].gradients[0][:] = pair.gradient(1, wrong)
    report_wrong(pair)
    for part in others:
        pair.report(part)
    report = pair.core.make_steps(pair.wanted(4), SECONDS)
    assert (report.status, report.made.sums) == (Status.REJECTED, [])
    assert pair.state() == before
    pair.core.end_run()
    pair.begin_run()
    pair.make_step()
    pair.require_equal()


def test_results_of_other_runs_and_steps_do_not_count(make_pair: MakePair) -> None:
    """Of a run before, whether they came in time or too late, and of steps before and after."""
    pair = make_pair(parts=1)
    pair.report(0)
    pair.begin_run()
    for run, step in [(2, 1), (1, 0), (1, 1), (3, 0), (0, 0)]:
        assert pair.core.make_steps(pair.wanted(1), 0.0).status == Status.LATER
        pair.report(0, step, run)
    assert pair.core.make_steps(pair.wanted(1), 0.0).status == Status.LATER
    pair.make_step()
    pair.report(0, 0)  # again
    assert pair.core.make_steps(pair.wanted(1), 0.0).status == Status.LATER
    pair.require_equal()


def test_a_run_that_ends_within_a_step_leaves_nothing_of_it(make_pair: MakePair) -> None:
    """Results that had arrived are awaited again; their time is not counted in the next run."""
    pair = make_pair(parts=2)
    pair.report(0)
    assert pair.core.make_steps(pair.wanted(1), 0.0).status == Status.LATER
    pair.core.end_run()
    pair.ends[0].gradients[0][:] = np.nan
    pair.begin_run()
    assert not pair.core.has_result(0)
    pair.report(1)
    assert pair.core.make_steps(pair.wanted(1), 0.0).status == Status.LATER
    pair.make_step()
    pair.require_equal()


@given(st.data())
def test_garbage_in_a_slot_changes_nothing(make_pair: MakePair, data: st.DataObject) -> None:
    """Whatever bytes a worker leaves in its slot and in the bell, also below the stamp of the present step."""
    pair = make_pair(parts=2)
    pair.report(0)
    garbage = data.draw(st.binary(min_size=64, max_size=64))
    stamp = struct.pack("<Q", (pair.run << 40) + pair.shard.version)
    slot = (ctypes.c_char * 64).from_address(pair.parts[1].slot)
    slot.raw = stamp + garbage[8:] if data.draw(st.booleans()) else garbage
    ctypes.memmove(pair.bell, data.draw(st.binary(min_size=64, max_size=64)), 64)
    before = pair.state()
    report = pair.core.make_steps(pair.wanted(2), 0.0)
    _, samples, correct = struct.unpack("<dQQ", slot.raw[8:32])
    if slot.raw[:8] != stamp:
        assert report.status == Status.LATER
    elif samples != 11 or correct > 11:
        assert report.status == Status.REJECTED
    assert report.made.sums or pair.state() == before
    assert not report.made.sums or (samples == 11 and correct <= 11)
    pair.core.end_run()
    assert np.isfinite(pair.shard.parameters).all()
