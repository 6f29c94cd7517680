"""Checkpoints over the wire, and parameter servers that begin with them."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from nablad.v1 import parameter_server_pb2 as ps_pb
from service.checkpoints.image import CheckpointError, describe_image
from service.parameter_server import servicer as servicer_module
from workers.from_spec import spec_digest
from workers.transport.session import SECRET_KEY

MakeJob = Callable[..., ps_pb.Assignment]
Serve = Callable[..., Any]
PlainTraining = Callable[[ps_pb.Assignment], bytes]

SECRET = ((SECRET_KEY, "secret"),)


def _work_until(served: Any, step: int) -> Any:
    """A worker that has brought the training to a step, and holds tickets of the next one."""
    hand = served.hand()
    order = hand.order()
    while order.tickets[0].step < step:
        hand.answer(order)
        order = hand.order()
    return hand


@pytest.mark.parametrize("transport", ["shared", "inline"])
@pytest.mark.parametrize("step", [0, 1, 3, 4, 6])
def test_a_second_attempt_ends_with_the_bits_of_an_undisturbed_one(
    serve: Serve,
    make_job: MakeJob,
    plain_training: PlainTraining,
    resume: Callable[..., ps_pb.Assignment],
    monkeypatch: pytest.MonkeyPatch,
    transport: str,
    step: int,
) -> None:
    """Whatever the first one did after its checkpoint, which goes in as many chunks as it needs."""
    monkeypatch.setattr(servicer_module, "CHUNK_BYTES", 100)
    job = make_job(transport=transport)
    served = serve(job)
    hand = _work_until(served, step)
    state, image = served.checkpoint(now=True)
    assert state.step == step
    assert len(image) > 100
    hand.leave()
    served.stop()
    again = serve(resume(job, image))
    again.work()
    assert again.weights() == plain_training(job)
    assert again.follow()[-1].finished == "all 2 epochs are done"


def test_a_checkpoint_says_what_it_belongs_to(serve: Serve, make_job: MakeJob, tmp_path: Path) -> None:
    """Job, attempt and the digest of what decides the result."""
    job = make_job()
    _, image = serve(job).checkpoint(now=True)
    path = tmp_path / "image"
    path.write_bytes(image)
    description = describe_image(path)
    assert {key: description[key] for key in ("job_id", "attempt", "spec_sha256")} == {
        "job_id": job.job_id, "attempt": job.attempt, "spec_sha256": spec_digest(job),
    }  # fmt: skip


def test_one_that_is_due_and_one_of_now_go_to_those_who_asked(serve: Serve, make_job: MakeJob) -> None:
    """At the same time, and each is complete."""
    job = make_job()
    job.spec.checkpoints.every_epochs = 1
    served = serve(job)
    with ThreadPoolExecutor(2) as pool:
        due = [pool.submit(served.checkpoint, now=False) for _ in range(2)]
        assert served.checkpoint(now=True)[0].step == 0
        served.work()
        for waiting in due:
            told = waiting.result()
            assert told is None or told[0].step == 4  # None: it asked when all was done


def test_the_end_ends_the_calls(serve: Serve, make_job: MakeJob) -> None:
    """Who waits for a checkpoint is told nothing more, and nobody gets one afterwards."""
    served = serve(make_job())
    hand = served.hand()
    call = served.stub.FetchCheckpoint(ps_pb.FetchCheckpointRequest(), metadata=SECRET, timeout=30)
    hand.work()
    assert list(call) == []
    assert served.checkpoint(now=True) is None


def test_who_goes_away_is_forgotten(serve: Serve, make_job: MakeJob) -> None:
    """The next one who asks is served as if nobody had been there."""
    served = serve(make_job())
    call = served.stub.FetchCheckpoint(ps_pb.FetchCheckpointRequest(), metadata=SECRET)
    call.cancel()
    assert call.code() == grpc.StatusCode.CANCELLED
    assert served.checkpoint(now=True)[0].step == 0


def test_a_checkpoint_for_which_there_is_no_memory_is_told(
    serve: Serve, make_job: MakeJob, plain_training: PlainTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training goes on."""

    def fail(*_: object) -> bytearray:
        raise MemoryError

    monkeypatch.setattr("service.parameter_server.checkpoints.make_image", fail)
    job = make_job()
    served = serve(job)
    with pytest.raises(grpc.RpcError, match="no memory for a checkpoint"):
        served.checkpoint(now=True)
    served.work()
    assert served.weights() == plain_training(job)


@pytest.mark.parametrize("transport", ["shared", "inline"])
def test_the_weights_that_a_training_leaves_are_the_best_ones(serve: Serve, make_job: MakeJob, transport: str) -> None:
    """If they are kept; also when it began with a checkpoint."""
    job = make_job(transport=transport)
    job.spec.training.stopping.patience = 1
    job.spec.training.stopping.minimum_improvement = 10
    job.spec.training.epochs = 5
    served = serve(job)
    served.work()
    digests = [each.epoch_end.weights_sha256 for each in served.follow() if each.HasField("epoch_end")]
    assert hashlib.sha256(served.weights()).hexdigest() == digests[0] != digests[1]
    assert len(digests) == 2


def test_a_damaged_checkpoint_is_no_beginning(
    serve: Serve, make_job: MakeJob, resume: Callable[..., ps_pb.Assignment]
) -> None:
    """Nothing is started."""
    job = make_job()
    _, image = serve(job).checkpoint(now=True)
    following = resume(job, image)
    Path(following.start.path).write_bytes(image[:-1])
    with pytest.raises(CheckpointError, match="is damaged"):
        serve(following)


def test_weights_of_a_checkpoint_lie_in_a_memory(
    serve: Serve, make_job: MakeJob, resume: Callable[..., ps_pb.Assignment]
) -> None:
    """Where memory is shared, as drawn ones do."""
    job = make_job(transport="shared")
    _, image = serve(job).checkpoint(now=True)
    served = serve(resume(job, image))
    served.work()
    assert served.wait_for("worker_joined")[0].worker_joined.endswith("transport shared")
