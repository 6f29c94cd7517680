"""Real workers: however many, and however weights and gradients travel, the result is that of a plain loop."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import parameter_server_pb2 as ps_pb

MakeJob = Callable[..., ps_pb.Assignment]
Serve = Callable[..., Any]
PlainTraining = Callable[[ps_pb.Assignment], bytes]


def _train(served: Any, workers: int) -> dict[str, int]:
    """Trains with so many workers, all there from the first step on; gives how many there were by transport."""
    first = served.hand()
    first.order()  # it has all tickets of the first step, and leaves when the others are there
    with ThreadPoolExecutor(workers) as pool:
        runs = [pool.submit(served.work) for _ in range(workers)]
        try:
            _, told = served.wait_for("worker_joined", 1 + workers)
        finally:
            first.leave()
        for run in runs:
            run.result()
    return _present(told)


def _present(told: ps_pb.FollowResponse) -> dict[str, int]:
    return {transport: workers for transport, workers in told.statistics.transport_workers.items() if workers}


@pytest.mark.parametrize(
    ("transport", "core", "part_bytes"),
    [("shared", "auto", 0), ("shared", "python", 0), ("inline", "auto", 1 << 20), ("inline", "auto", 1)],
)
@pytest.mark.parametrize("workers", [1, 2, 3, 4, 8])
def test_the_result_is_that_of_a_plain_numpy_loop(
    serve: Serve,
    make_job: MakeJob,
    plain_training: PlainTraining,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
    transport: str,
    core: str,
    part_bytes: int,
) -> None:
    """Any number of workers gives, bit for bit, the float64 weights of one loop; also with gradients layer by layer."""
    monkeypatch.setattr("workers.transport.server_connection._PART_BYTES", part_bytes)
    job = make_job(transport=transport, step_core=core)
    served = serve(job)
    assert _train(served, workers) == {transport: workers + 1}
    assert served.weights() == plain_training(job)


@pytest.mark.parametrize("micro_batches", [1, 2, 3, 5, 16])
def test_workers_with_both_transports_work_together(
    serve: Serve,
    make_job: MakeJob,
    plain_training: PlainTraining,
    monkeypatch: pytest.MonkeyPatch,
    micro_batches: int,
) -> None:
    """A worker on this host and one that seems to be on another one: the same bits, for any number of parts."""
    job = make_job(micro_batches=micro_batches)
    served = serve(job)
    here = served.hand()
    with monkeypatch.context() as patch, ThreadPoolExecutor(1) as pool:
        patch.setattr("workers.worker.host_fingerprint", lambda: "elsewhere")
        there = pool.submit(served.work)
        _, told = served.wait_for("worker_joined", 2)
        here.work()
        there.result()
    assert _present(told) == {"shared": 1, "inline": 1}
    assert served.weights() == plain_training(job)


@pytest.mark.parametrize("transport", ["shared", "inline"])
def test_an_order_holds_few_tickets_however_many_there_are(
    serve: Serve, make_job: MakeJob, plain_training: PlainTraining, transport: str
) -> None:
    """A step of 150 parts goes to one worker in three orders."""
    job = make_job(rows=150, transport=transport, micro_batches=150)
    job.spec.training.batch_size = 150
    served = serve(job)
    hand, sizes = served.hand(), []
    while sum(sizes) < 150:
        order = hand.order()
        sizes.append(len(order.tickets))
        hand.answer(order)
    assert sizes == [64, 64, 22]
    hand.work()
    assert served.weights() == plain_training(job)


@pytest.mark.parametrize("optimizer", ["SGD", "MOMENTUM", "NESTEROV", "ADAM"])
@pytest.mark.parametrize("dtype", ["FLOAT32", "FLOAT64"])
def test_transports_end_with_the_same_bits(serve: Serve, make_job: MakeJob, optimizer: str, dtype: str) -> None:
    """For every update rule and type."""
    results, job = [], make_job()
    job.spec.training.optimizer.name = spec_pb.Optimizer.Value(f"OPTIMIZER_{optimizer}")
    job.spec.model.dtype = spec_pb.DType.Value(f"D_TYPE_{dtype}")
    for transport in (spec_pb.TRANSPORT_SHARED, spec_pb.TRANSPORT_INLINE):
        job.spec.distribution.transport = transport
        served = serve(job)
        served.work()
        results.append(served.weights())
    assert results[0] == results[1]
