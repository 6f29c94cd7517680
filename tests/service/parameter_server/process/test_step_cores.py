"""Step cores: steps that are made in C have the results, events and checkpoints of those that are made in Python."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.checkpoints.image import read_image
from workers.native.library import missing_reason

MakeJob = Callable[..., ps_pb.Assignment]
Serve = Callable[..., Any]
PlainTraining = Callable[[ps_pb.Assignment], bytes]

pytestmark = pytest.mark.skipif(bool(missing_reason()), reason=missing_reason())

CORES = ("native", "python")
both_cores = pytest.mark.parametrize("core", CORES)


_OF_PROCESSES = ("worker_joined", "worker_left", "worker_lost", "arithmetic", "step_core", "core_changed")


class Outcome(NamedTuple):
    """All that a training leaves but times: weights, and events without those of processes and their step cores."""

    weights: bytes
    events: list[ps_pb.TrainingEvent]


def _outcome(served: Any) -> Outcome:
    events = []
    for event in served.follow():
        if event.HasField("step"):
            event.step.ClearField("time")
            event.step.attempt = 0
        elif event.HasField("epoch_end"):
            event.epoch_end.progress.samples_per_second = event.epoch_end.progress.workers_alive = 0
        elif event.WhichOneof("what") in _OF_PROCESSES:
            continue
        events.append(event)
    return Outcome(served.weights(), events)


@pytest.fixture
def make_long_job(make_job: MakeJob) -> MakeJob:
    """Makes a job of 26 steps, whose epochs end with a step of fewer parts."""

    def make(core: str = "native", **distribution: int | str) -> ps_pb.Assignment:
        return make_job(200 + 2, **{"transport": "shared", "step_core": core} | distribution)

    return make


def _with_core(job: ps_pb.Assignment, core: str) -> ps_pb.Assignment:
    other = ps_pb.Assignment()
    other.CopyFrom(job)
    other.spec.distribution.step_core = spec_pb.StepCore.Value(f"STEP_CORE_{core.upper()}")
    return other


def _work_together(served: Any, workers: int) -> None:
    """Has so many workers make all steps but the first ones, which one of them may have made alone."""
    first = served.hand(native=True)
    first.order()
    with ThreadPoolExecutor(workers) as pool:
        work = [pool.submit(served.work) for _ in range(workers)]
        try:
            served.wait_for("worker_joined", 1 + workers)
        finally:
            first.leave()
        for each in work:
            each.result()


# -- results -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["SGD", "MOMENTUM", "NESTEROV", "ADAM"])
@pytest.mark.parametrize("dtype", ["FLOAT32", "FLOAT64"])
@pytest.mark.parametrize("workers", [1, 3])
def test_both_cores_have_the_same_outcome(
    serve: Serve, make_long_job: MakeJob, workers: int, dtype: str, optimizer: str
) -> None:
    """Weights, history and the digests and metrics of each epoch, for every rule and type."""
    outcomes, job = [], make_long_job()
    job.spec.training.optimizer.name = spec_pb.Optimizer.Value(f"OPTIMIZER_{optimizer}")
    job.spec.model.dtype = spec_pb.DType.Value(f"D_TYPE_{dtype}")
    for core in CORES:
        served = serve(_with_core(job, core))
        _work_together(served, workers)
        outcomes.append(_outcome(served))
    assert outcomes[0] == outcomes[1]


@both_cores
@pytest.mark.parametrize(("workers", "micro_batches"), [(1, 1), (2, 2), (2, 16), (4, 4), (4, 3), (6, 4)])
def test_any_number_of_workers_and_parts_is_one_loop(
    serve: Serve, make_long_job: MakeJob, plain_training: PlainTraining, workers: int, micro_batches: int, core: str
) -> None:
    """Also more workers than parts."""
    job = make_long_job(core, micro_batches=micro_batches)
    served = serve(job)
    _work_together(served, workers)
    assert served.weights() == plain_training(job)


@both_cores
def test_an_evaluation_with_the_parts_of_a_step_is_made(
    serve: Serve, make_long_job: MakeJob, plain_training: PlainTraining, core: str
) -> None:
    """One part of each for one worker: it is told of the evaluation, and does not go on with the next step."""
    job = make_long_job(core, micro_batches=1)
    served = serve(job)
    served.work()
    assert served.weights() == plain_training(job)
    ends = [event.epoch_end.progress for event in _outcome(served).events if event.HasField("epoch_end")]
    assert [end.validation.HasField("cost") for end in ends] == [True, True]


@both_cores
def test_the_last_step_ends_the_training(serve: Serve, make_long_job: MakeJob, core: str) -> None:
    """Exactly there, in the middle of an epoch."""
    job = make_long_job(core)
    job.last_step = 9
    served = serve(job)
    served.work()
    assert served.state().progress.step == 9
    assert served.follow()[-1].HasField("finished")


@both_cores
def test_the_time_limit_ends_the_training(serve: Serve, make_long_job: MakeJob, core: str) -> None:
    """After any step, with an evaluation of the weights that are there."""
    job = make_long_job(core)
    job.spec.limits.wall_time_seconds = 1e-9
    served = serve(job)
    served.work()
    assert "limits.wall_time_seconds" in served.follow()[-1].finished
    assert 0 < served.state().progress.step < 26
    assert served.state().progress.validation.HasField("cost")


# -- workers that come and go ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reported", [(), (0,), (1,), (0, 1)], ids=str)
def test_workers_that_come_and_go_in_a_run_change_no_bit(
    serve: Serve, make_long_job: MakeJob, plain_training: PlainTraining, reported: tuple[int, ...]
) -> None:
    """A step is made anew without the one that is lost, whichever results of it were in; a run begins with all."""
    job = make_long_job()
    served = serve(job)
    hand, steps = served.hand(native=True), (0, 3, 6, 12, 20)
    for number, step in enumerate(steps):
        order = hand.work_until(step)
        other = served.hand(native=True)
        served.wait_for("worker_joined", 2 + number)
        hand.make_steps(order, step + 1)
        orders = hand.work_until(step + 1), other.order()
        assert [len(order.tickets) for order in orders] == [2, 2]
        for each in reported:
            (hand, other)[each].report(orders[each], step + 1)
        other.leave()
    hand.work()
    assert served.weights() == plain_training(job)


def test_too_many_workers_leave_a_run_in_peace(
    serve: Serve, make_long_job: MakeJob, plain_training: PlainTraining
) -> None:
    """The run ends after the step, and the next one begins without them."""
    job = make_long_job()
    served = serve(job)
    hand = served.hand(native=True)
    order = hand.order()
    with ThreadPoolExecutor(2) as pool:
        others = [pool.submit(served.work) for _ in range(2)]
        served.wait_for("worker_joined", 3)
        hand.make_steps(order, 1)
        order = hand.order()
        assert (bool(order.run), len(order.tickets)) == (True, 2)
        served.set_workers(1)
        hand.make_steps(order, 2)
        for other in others:
            other.result()
        hand.work()
    assert served.weights() == plain_training(job)
    assert "worker_lost" not in served.story()


def test_a_worker_that_makes_no_runs_has_all_steps_made_with_messages(
    serve: Serve, make_long_job: MakeJob, plain_training: PlainTraining
) -> None:
    """As long as it is there."""
    job = make_long_job("auto")
    served = serve(job)
    hand = served.hand(native=True)
    order, other = hand.work_until(3), served.hand()
    served.wait_for("worker_joined", 2)
    hand.make_steps(order, 4)
    orders = hand.order(), other.order()
    assert [order.run for order in orders] == [0, 0]
    hand.answer(orders[0])
    other.leave()
    served.wait_for("worker_lost")
    hand.answer(hand.order())
    assert hand.work_until(6).run
    hand.report(order, 6)
    served.wait_for("worker_joined", 2)
    hand.leave()
    served.work()
    assert served.weights() == plain_training(job)


# -- checkpoints -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0, 1, 12, 13, 17])
def test_checkpoints_are_the_same_and_either_core_goes_on_from_them(
    serve: Serve, make_long_job: MakeJob, resume: Callable[..., ps_pb.Assignment], step: int
) -> None:
    """One of now within a step of a run, of which some results are in."""
    job = make_long_job()
    job.spec.training.optimizer.name = spec_pb.OPTIMIZER_ADAM
    whole = serve(job)
    whole.work()
    expected, contents = _outcome(whole), []
    for core, other in (CORES, CORES[::-1]):
        served = serve(_with_core(job, core))
        hand = served.hand(native=True)
        order = hand.work_until(step)
        assert bool(order.run) == (core == "native")
        if order.run:
            hand.report(order._replace(tickets=order.tickets[:2]), step)
        state, image = served.checkpoint(now=True)
        assert state.step == step
        served.stop()
        following = _with_core(resume(job, image), other)
        contents.append(_contents(following.start))
        again = serve(following)
        again.work()
        outcome = _outcome(again)
        assert outcome.weights == expected.weights
        assert outcome.events == expected.events[-len(outcome.events) :]
    assert contents[0] == contents[1]


def _contents(checkpoint: ps_pb.CheckpointSource) -> tuple[ps_pb.TrainingState, list[bytes]]:
    """All of a checkpoint but times."""
    snapshot = read_image(Path(checkpoint.path), checkpoint.sha256)
    snapshot.state.seconds = snapshot.state.epoch.seconds = 0
    return snapshot.state, [vector.tobytes() for vector in (snapshot.parameters, *snapshot.moments)]
