"""The life of a job: paused, scaled, stopped early, started from another, run again; the bits stay what they were."""

import csv
import io
import itertools
import json
import re
from collections.abc import Callable, Iterator
from subprocess import CompletedProcess
from typing import Any

import pytest

from nablad import Client
from nablad.errors import ConflictError, InvalidRequestError
from nablad.jobspec import parse
from nablad.v1 import jobs_pb2 as jobs_pb
from tests.harness.processes import wait_until_gone

Nabla = Callable[..., "CompletedProcess[str]"]

BASE = """
name: life
data: {train: digits-train, validation: digits-validation, scaling: unit}
model: {layers: [64, 40, 10], activation: sigmoid, output_activation: sigmoid, initialisation_scale: 4}
cost: {function: log_loss}
training: {epochs: EPOCHS, batch_size: 50, learning_rate: 0.01, seed: 11, optimizer: {name: adam}MORE}
distribution: {workers: WORKERS, micro_batches: 4}
"""
LONG_EPOCHS = 150


def _submit(client: Client, *, epochs: int = 5, workers: int = 1, more: str = "", top: str = "") -> jobs_pb.Job:
    text = BASE.replace("EPOCHS", str(epochs)).replace("WORKERS", str(workers)).replace("MORE", more)
    spec, violations = parse(text + top)
    assert not violations, violations
    return client.submit(spec)


def _finish(client: Client, job: jobs_pb.Job) -> jobs_pb.Job:
    for _ in client.watch(job.job_id):
        pass
    done = client.job(job.job_id)
    assert done.state == jobs_pb.JOB_STATE_SUCCEEDED, (done.reason, done.last_error_lines)
    return done


def _digests(client: Client, job: jobs_pb.Job) -> list[str]:
    return [point.weights_sha256 for point in client.history(job.job_id)]


def _figures(client: Client, job: jobs_pb.Job) -> list[tuple[float, ...]]:
    """What the history says of costs, to the last bit."""
    return [
        (p.epoch, p.step, p.training.cost, p.training.accuracy, p.validation.cost) for p in client.history(job.job_id)
    ]


def _events(client: Client, job_id: str, from_event: int = 1) -> Iterator[jobs_pb.Event]:
    return (news for news in client.watch(job_id, from_event) if isinstance(news, jobs_pb.Event))


def _messages(client: Client, job: jobs_pb.Job) -> list[str]:
    return [event.message for event in _events(client, job.job_id)]


def _wait_for(client: Client, job_id: str, pattern: str, count: int = 1) -> jobs_pb.Event:
    """The event with whose message the pattern has been matched so often."""
    matching = (event for event in _events(client, job_id) if re.search(pattern, event.message))
    event = next(itertools.islice(matching, count - 1, None), None)
    assert event is not None, f"{pattern} never happened: {client.job(job_id).reason}"
    return event


@pytest.fixture(scope="module")
def undisturbed(daemon: Any, digits: None) -> jobs_pb.Job:
    """A long job that nothing happened to."""
    with Client(daemon.address) as client:
        return _finish(client, _submit(client, epochs=LONG_EPOCHS))


def _model(daemon: Any, job: jobs_pb.Job) -> bytes:
    return (daemon.data_directory / "models" / f"{job.model_id}.safetensors").read_bytes()


def test_a_paused_and_resumed_job_ends_with_the_same_bits(
    client: Client, daemon: Any, undisturbed: jobs_pb.Job
) -> None:
    """Paused twice in the middle of epochs: weights of every epoch, figures and model file are the same."""
    job = _submit(client, epochs=LONG_EPOCHS)
    for epoch in (10, 60):
        _wait_for(client, job.job_id, f"epoch {epoch} of")
        paused = client.pause(job.job_id)
        assert paused.state == jobs_pb.JOB_STATE_PAUSED
        assert re.search(r"it goes on from step \d+", paused.reason), paused.reason
        wait_until_gone(daemon.processes(), "_WorkerProcess|_ParameterServerProcess")
        with pytest.raises(ConflictError, match="only a failed job"):
            client.retry(job.job_id)
        client.resume(job.job_id)
    done = _finish(client, job)
    assert done.attempt == 3
    assert _digests(client, done) == _digests(client, undisturbed)
    assert _figures(client, done) == _figures(client, undisturbed)
    assert _model(daemon, done) == _model(daemon, undisturbed)


def test_scaling_from_one_worker_to_three_to_two_changes_no_bit(
    client: Client, daemon: Any, undisturbed: jobs_pb.Job
) -> None:
    """Workers come and leave in order while the steps go on, in one attempt."""
    job = _submit(client, epochs=LONG_EPOCHS)
    _wait_for(client, job.job_id, "epoch 5 of")
    assert client.scale(job.job_id, 3).spec.distribution.workers == 3
    _wait_for(client, job.job_id, r"worker-\d+ joined", 3)
    client.scale(job.job_id, 2)
    _wait_for(client, job.job_id, r"worker-\d+ left")
    done = _finish(client, job)
    assert done.attempt == 1
    assert not [message for message in _messages(client, done) if "lost" in message]
    assert _digests(client, done) == _digests(client, undisturbed)
    assert _model(daemon, done) == _model(daemon, undisturbed)
    with pytest.raises(ConflictError, match="has not ended"):
        client.scale(job.job_id, 1)
    with pytest.raises(InvalidRequestError, match="number of workers"):
        client.scale(job.job_id, 0)


def test_early_stopping_keeps_the_best_weights(client: Client, undisturbed: jobs_pb.Job) -> None:
    """Up to its end the weights are those of the run without it, and the model's those of the best epoch."""
    job = _submit(client, epochs=LONG_EPOCHS, more=", stopping: {patience: 4}")
    done = _finish(client, job)
    points = list(client.history(done.job_id))
    costs = [point.validation.cost for point in points]
    best = costs.index(min(costs))
    assert len(points) == best + 1 + 4 < LONG_EPOCHS
    assert _digests(client, done) == _digests(client, undisturbed)[: len(points)]
    assert client.receipt(done.job_id).final_weights_sha256 == points[best].weights_sha256
    model = client.model(done.model_id)
    assert (model.epoch, model.validation.cost) == (best + 1, costs[best])
    assert done.reason.endswith(f"with the weights of epoch {best + 1}")


@pytest.mark.parametrize("target", ["target_accuracy: 0.9", "target_cost: 0.6"])
def test_a_target_ends_the_training_when_it_is_reached(client: Client, undisturbed: jobs_pb.Job, target: str) -> None:
    """After the first epoch that reaches it, with the weights of the run without it."""
    done = _finish(client, _submit(client, epochs=LONG_EPOCHS, more=f", stopping: {{{target}}}"))
    points = list(client.history(done.job_id))
    ends = [point.validation for point in points]
    reached = [end.accuracy >= 0.9 if "accuracy" in target else end.cost <= 0.6 for end in ends]
    assert reached == [False] * (len(points) - 1) + [True]
    assert _digests(client, done) == _digests(client, undisturbed)[: len(points)]
    assert client.receipt(done.job_id).final_weights_sha256 == points[-1].weights_sha256


def test_a_limit_of_time_ends_the_training_with_what_it_has(client: Client, undisturbed: jobs_pb.Job) -> None:
    """In the middle of an epoch; up to there the weights are those of the run without it, as a verification shows."""
    done = _finish(client, _submit(client, epochs=LONG_EPOCHS, top="limits: {wall_time_seconds: 0.5}"))
    assert "limits.wall_time_seconds" in done.reason
    digests = _digests(client, done)
    assert 0 < len(digests) < LONG_EPOCHS
    assert digests == _digests(client, undisturbed)[: len(digests)]
    verified = _finish(client, client.verify(done.job_id))
    assert verified.reason.startswith("verified: ")


def test_a_result_can_be_verified(client: Client, daemon: Any, undisturbed: jobs_pb.Job, nabla: Nabla) -> None:
    """Run again with more workers, every epoch has the same weights; no second model is left."""
    said = nabla("job", "verify", undisturbed.job_id)
    assert said.returncode == 0, said.stdout + said.stderr
    assert f"the weights after each of {LONG_EPOCHS} epochs" in said.stdout
    with pytest.raises(ConflictError, match="only a job that has succeeded"):
        client.verify(next(job.job_id for job in client.jobs() if job.verifies))
    receipt = client.receipt(undisturbed.job_id)
    assert len(receipt.epoch_weights_sha256) == LONG_EPOCHS
    assert receipt.final_weights_sha256 == receipt.epoch_weights_sha256[-1]
    assert [bool(kind.cpu and kind.blas and kind.numpy) for kind in receipt.arithmetics] == [True]
    assert len(list(client.models())) == len(list((daemon.data_directory / "models").glob("*.safetensors")))


@pytest.mark.happy
def test_a_warm_start_goes_on_from_a_model(client: Client, digits: None) -> None:
    """Its first weights are the model's, whatever becomes of the model, and a verification begins with them too."""
    first = _finish(client, _submit(client))
    job = _submit(client, more=f", warm_start: {{model: {first.model_id}}}")
    client.delete_model(first.model_id)
    done = _finish(client, job)
    receipt = client.receipt(done.job_id)
    assert receipt.first_weights_sha256 == client.receipt(first.job_id).final_weights_sha256
    costs = [[point.training.cost for point in client.history(each.job_id)] for each in (first, done)]
    assert costs[1][0] < costs[0][0]
    assert _finish(client, client.verify(done.job_id)).reason.startswith("verified: ")


def test_a_warm_start_from_a_job_that_has_succeeded_takes_its_model(client: Client, digits: None) -> None:
    """And not what that job began with, which is all that is left of its checkpoints."""
    first = _finish(client, _submit(client))
    second = _finish(client, _submit(client, more=f", warm_start: {{model: {first.model_id}}}"))
    third = _finish(client, _submit(client, more=f", warm_start: {{checkpoint_of: {second.job_id}}}"))
    receipts = [client.receipt(job.job_id) for job in (second, third)]
    assert receipts[1].first_weights_sha256 == receipts[0].final_weights_sha256


def test_a_warm_start_that_does_not_fit_is_refused(client: Client, digits: None) -> None:
    """With what is wrong, before anything is queued."""
    spec, _ = parse(
        BASE.replace("EPOCHS", "1").replace("WORKERS", "1").replace("MORE", ", warm_start: {model: none-such}")
    )
    with pytest.raises(InvalidRequestError) as unknown:
        client.submit(spec)
    assert "there is no model 'none-such'" in str(unknown.value.violations[0])
    model = _finish(client, _submit(client, epochs=1)).model_id
    spec.training.warm_start.model = model
    spec.model.layers[1] = 41
    with pytest.raises(InvalidRequestError) as other:
        client.submit(spec)
    assert "model.layers: got [64, 41, 10]" in str(other.value.violations[0])


@pytest.mark.happy
def test_checkpoints_are_listed_and_go_with_the_job(client: Client, daemon: Any, digits: None, nabla: Nabla) -> None:
    """By epochs while the job runs, the newest two; a job can start from them; deleting the job removes them."""
    job = _submit(client, epochs=1_000_000, top="checkpoints: {every_epochs: 3}")
    _wait_for(client, job.job_id, "checkpoint of step", 3)
    client.pause(job.job_id)
    listed = client.checkpoints(job.job_id)
    assert len(listed) == 2
    assert all(not checkpoint.damage for checkpoint in listed)
    assert listed[0].step > listed[1].step
    table = nabla("checkpoint", "list", job.job_id).stdout
    assert all(str(checkpoint.step) in table for checkpoint in listed)
    warm = _submit(client, epochs=1, more=f", warm_start: {{checkpoint_of: {job.job_id}}}")
    assert _finish(client, warm).reason
    client.cancel(job.job_id)
    client.delete_job(job.job_id)
    assert not (daemon.data_directory / "checkpoints" / job.job_id).exists()


@pytest.mark.happy
def test_history_is_there_for_a_job_shorter_than_a_scrape(client: Client, digits: None, nabla: Nabla) -> None:
    """As a table, CSV and JSON, by epochs and by steps."""
    job = _finish(client, _submit(client, epochs=2))
    rows = list(csv.DictReader(io.StringIO(nabla("job", "history", job.job_id, "--output", "csv").stdout)))
    points = list(client.history(job.job_id))
    assert [float(row["training_cost"]) for row in rows] == [point.training.cost for point in points]
    steps = json.loads(nabla("job", "history", job.job_id, "--steps", "--output", "json").stdout)
    assert [int(step["step"]) for step in steps] == list(range(1, points[-1].step + 1))
    assert all(step["gradient_norm"] > 0 for step in steps)
    assert f"{points[-1].training.cost:.4g}" in nabla("job", "history", job.job_id).stdout


def test_what_happened_is_told_by_get(client: Client, digits: None, nabla: Nabla) -> None:
    """When, what, and in which state the job is."""
    job = _submit(client, epochs=1_000_000)
    _wait_for(client, job.job_id, "epoch 1 of")
    client.pause(job.job_id)
    shown = nabla("job", "get", job.job_id).stdout
    for words in ("paused by a client; it goes on from step", "worker-1 joined", "queued: waits for its turn"):
        assert words in shown
    client.cancel(job.job_id)


def test_jobs_of_higher_priority_go_first(client: Client, digits: None) -> None:
    """Whatever their age."""
    blocker = _submit(client, epochs=1_000_000, workers=4)
    _wait_for(client, blocker.job_id, "running")
    jobs = {priority: _submit(client, epochs=1, workers=4, top=f"priority: {priority}") for priority in (-5, 0, 7)}
    client.cancel(blocker.job_id)
    started = {priority: _finish(client, job).start_time.ToNanoseconds() for priority, job in jobs.items()}
    assert started[7] < started[0] < started[-5]
