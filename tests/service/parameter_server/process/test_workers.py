"""Changing the number of workers while they work."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from nablad.v1 import parameter_server_pb2 as ps_pb
from workers.runtime.host import numeric_environment

MakeJob = Callable[..., ps_pb.Assignment]
Serve = Callable[..., Any]
PlainTraining = Callable[[ps_pb.Assignment], bytes]


@pytest.mark.parametrize("transport", ["shared", "inline"])
def test_workers_that_are_too_many_end_in_peace(
    serve: Serve, make_job: MakeJob, plain_training: PlainTraining, transport: str
) -> None:
    """From one to three to one: real workers come and return, and the result is that of one."""
    job = make_job(transport=transport)
    served = serve(job)
    first = served.hand()
    order = first.order()
    with ThreadPoolExecutor(2) as pool:
        others = [pool.submit(served.work) for _ in range(2)]
        served.wait_for("worker_joined", 3)
        served.set_workers(1)
        first.answer(order)  # the step ends with it
        for other in others:
            other.result()
        first.work()
    assert first.end()[0] == grpc.StatusCode.OK
    assert served.weights() == plain_training(job)
    story = served.story()
    assert story[:5] == ["worker_joined"] * 3 + ["worker_left"] * 2
    assert "worker_lost" not in story
    assert served.state().statistics.workers_lost == 0


def test_no_workers_at_all_cannot_be_wanted(serve: Serve, make_job: MakeJob) -> None:
    """A job without workers is paused, or cancelled."""
    with pytest.raises(grpc.RpcError, match="workers must be at least 1") as rejected:
        serve(make_job()).set_workers(0)
    assert rejected.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_workers_say_what_they_compute_with(serve: Serve, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind is told once: the parameter server's own, and that of workers on another kind of host."""
    other = numeric_environment()
    other.cpu = "abacus"
    monkeypatch.setattr("workers.worker.numeric_environment", lambda: other)
    served = serve(make_job())
    first = served.hand()
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(served.work) for _ in range(2)]
        served.wait_for("worker_joined", 3)
        first.leave()
        for run in runs:
            run.result()
    told = [event.arithmetic for event in served.follow() if event.HasField("arithmetic")]
    assert told == [numeric_environment(), other]
