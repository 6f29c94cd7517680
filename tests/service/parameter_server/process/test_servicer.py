"""The calls of a parameter server: who may call, who belongs to the job, and what followers are told."""

import asyncio
import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.parameter_server.transport.worker_connection import WorkerConnection
from workers.transport.session import SECRET_KEY

MakeJob = Callable[..., ps_pb.Assignment]
Serve = Callable[..., Any]

SECRET = ((SECRET_KEY, "secret"),)
CALLS = ["Join", "Attend", "Follow", "FetchWeights", "FetchCheckpoint", "SetWorkers"]


def test_a_follower_resumes_where_it_was(serve: Serve, make_job: MakeJob) -> None:
    """Events that were seen are not told again, and none is left out."""
    served = serve(make_job())
    served.work()
    assert served.story() == ["worker_joined", "epoch_end", "epoch_end", "finished"]
    everything = served.follow()
    assert [served.follow(seen) for seen in range(len(everything))] == [
        everything[seen:] for seen in range(len(everything))
    ]


def test_a_follower_from_the_future_is_told_where_the_training_stands(serve: Serve, make_job: MakeJob) -> None:
    """Who says to have seen more than there was hears of nothing that happened."""
    served = serve(make_job())
    served.hand()
    served.wait_for("worker_joined")
    told = served.tell(2**64 - 1)
    assert (told.progress.workers_alive, len(told.events)) == (1, 0)


def test_a_follower_is_told_how_each_worker_came(serve: Serve, make_job: MakeJob) -> None:
    """Who, from where, and how its weights and gradients travel."""
    served = serve(make_job(transport="inline"))
    served.hand()
    event, told = served.wait_for("worker_joined")
    assert "worker-1 joined: process " in event.worker_joined
    assert event.worker_joined.endswith("transport inline")
    assert dict(told.statistics.transport_workers) == {"shared": 0, "inline": 1}


def test_statistics_are_sent_on_request(serve: Serve, make_job: MakeJob) -> None:
    """Progress to everybody."""
    served = serve(make_job())
    for seen in (0, 2**64 - 1):  # something has happened, or not
        for statistics in (False, True):
            request = ps_pb.FollowRequest(seen=seen, statistics=statistics)
            told = served.stub.Follow(request, metadata=SECRET)
            assert (told.HasField("progress"), told.HasField("statistics")) == (True, statistics)


def test_a_diverging_training_is_told_as_diverged(serve: Serve, make_job: MakeJob) -> None:
    """Gradients that are not finite end the training with advice, and the worker ends in peace."""
    job = make_job()
    spec = job.spec
    spec.cost.function = spec_pb.COST_FUNCTION_MEAN_SQUARED_ERROR
    spec.model.output_activation = spec.model.activation[0] = spec_pb.ACTIVATION_IDENTITY
    spec.training.learning_rate = 1000
    spec.training.epochs = 100
    served = serve(job)
    served.work()
    assert "training.learning_rate below 1000" in served.follow()[-1].diverged


def test_a_worker_that_comes_when_all_is_done_ends_at_once(serve: Serve, make_job: MakeJob) -> None:
    """It is told that there is nothing to do, and leaves no trace."""
    served = serve(make_job())
    served.work()
    served.work()
    assert served.story() == ["worker_joined", "epoch_end", "epoch_end", "finished"]


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("metadata", [(), ((SECRET_KEY, ""),), ((SECRET_KEY, "guess"),)])
def test_every_call_needs_the_secret(
    serve: Serve, make_job: MakeJob, name: str, metadata: tuple[tuple[str, str], ...]
) -> None:
    """Without the job's secret nothing is told and nothing is taken."""
    served = serve(make_job())
    request = getattr(ps_pb, f"{name}Request")()
    method = getattr(served.stub, name)
    one_answer = name in ("Join", "Follow", "SetWorkers")
    call = method.future(request, metadata=metadata) if one_answer else method(request, metadata=metadata)
    assert call.code() == grpc.StatusCode.UNAUTHENTICATED


def test_bytes_that_are_no_message_are_refused(serve: Serve, make_job: MakeJob) -> None:
    """With the secret or without, never UNKNOWN or INTERNAL."""
    served = serve(make_job())
    with grpc.insecure_channel(served.address) as channel:
        for name in CALLS:
            call = channel.unary_stream(f"/nablad.v1.ParameterServerService/{name}", None, None)
            assert call(b"\xff" * 9, metadata=SECRET).code() == grpc.StatusCode.INVALID_ARGUMENT


def _attend(served: Any, worker: str) -> tuple[grpc.StatusCode, str]:
    call = served.stub.Attend(ps_pb.AttendRequest(worker_id=worker), metadata=SECRET)
    return call.code(), call.details()


def test_attending_needs_a_join_and_a_connection_of_its_own(serve: Serve, make_job: MakeJob) -> None:
    """A worker that was not named, has opened no connection, or attends already, does not belong to the job."""
    served = serve(make_job())
    attending = served.hand()
    attending.order()
    joined = served.stub.Join(ps_pb.JoinRequest(), metadata=SECRET)
    for worker in ("worker-99", "", joined.worker_id, attending.name):
        code, details = _attend(served, worker)
        assert code == grpc.StatusCode.FAILED_PRECONDITION
        assert repr(worker) in details
    assert served.state().progress.workers_alive == 1


def test_stopping_ends_every_call(serve: Serve, make_job: MakeJob) -> None:
    """Workers are told, connections are closed, and whatever the calls had to finish is finished."""
    served = serve(make_job())
    hands = [served.hand() for _ in range(3)]
    hands[0].order()
    waiting = served.stub.Follow.future(ps_pb.FollowRequest(seen=2**64 - 1), metadata=SECRET)
    served.stop()
    assert all(hand.end()[0] != grpc.StatusCode.OK for hand in hands)
    for hand in hands:
        while hand.connection.next_order():  # tickets of the others, perhaps, but then the end
            pass
    assert waiting.done() or waiting.exception()


@pytest.mark.parametrize("transport", ["shared", "inline"])
def test_workers_that_come_and_go_leave_nothing_open(
    serve: Serve, make_job: MakeJob, loop: Any, transport: str
) -> None:
    """Sockets and memory of lost workers are closed while the training goes on."""
    served = serve(make_job(transport=transport))
    counts = []
    for count in range(1, 6):
        served.hand().order()
        served.close()
        served.wait_for("worker_lost", count)
        for _ in range(10):
            loop.run(asyncio.sleep(0))
        gc.collect()
        counts.append(len(list(Path("/proc/self/fd").iterdir())))
    assert counts[1:] == [counts[0]] * 4


def test_a_broken_connection_is_let_go_without_the_garbage_collector(
    serve: Serve, make_job: MakeJob, loop: Any
) -> None:
    """Which may not come for hours: the memory that the worker shared hangs on its connection."""
    served = serve(make_job(transport="shared"))
    gc.collect()
    gc.disable()
    try:
        hand = served.hand()
        hand.order()
        connections = [weakref.ref(each) for each in gc.get_objects() if isinstance(each, WorkerConnection)]
        hand.connection.__exit__()
        assert hand.end()[0] is grpc.StatusCode.UNAVAILABLE
        served.wait_for("worker_lost")
        for _ in range(10):
            loop.run(asyncio.sleep(0))
        assert [connection() for connection in connections] == [None]
    finally:
        gc.enable()


def test_a_method_that_is_not_there_leaves_no_traceback(
    serve: Serve, make_job: MakeJob, caplog: pytest.LogCaptureFixture
) -> None:
    """However often it is called."""
    served = serve(make_job())
    with grpc.insecure_channel(served.address) as channel:
        for _ in range(10):
            call = channel.unary_unary("/nablad.v1.ParameterServerService/NoSuch").future(b"")
            assert call.code() == grpc.StatusCode.UNIMPLEMENTED
    assert len([record for record in caplog.records if "NoSuch" in record.getMessage()]) == 1
    assert all(record.exc_info is None for record in caplog.records)
