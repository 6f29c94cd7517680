"""Step cores: steps that are made in C have the results, events and checkpoints of those that are made in Python."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from workers.native.library import missing_reason

MakeJob = Callable[..., ps_pb.Assignment]
Serve = Callable[..., Any]
PlainTraining = Callable[[ps_pb.Assignment], bytes]

pytestmark = pytest.mark.skipif(bool(missing_reason()), reason=missing_reason())

CORES = ("native", "python")
both_cores = pytest.mark.parametrize("core", CORES)


class Outcome(NamedTuple):
    """All that a training leaves but times: weights, and events without those of workers."""

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
        elif event.WhichOneof("what") in ("worker_joined", "worker_left", "worker_lost", "arithmetic"):
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
    first = served.hand()
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
