"""Jobs of every kind through the whole service, and what is left when they end."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from nablad import Client
from nablad.errors import ConflictError, NotFoundError
from nablad.jobspec import parse
from nablad.v1 import jobs_pb2 as jobs_pb
from tests.harness.processes import wait_until_gone

Nabla = Callable[..., "CompletedProcess[str]"]


def _submit(client: Client, text: str) -> jobs_pb.Job:
    spec, violations = parse(text)
    assert not violations
    return client.submit(spec)


def _finish(client: Client, job_id: str) -> jobs_pb.Job:
    for _ in client.watch(job_id):
        pass
    return client.job(job_id)


def _long_job(client: Client, workers: int = 1) -> str:
    """A job that ends only when it is told to."""
    return _submit(
        client,
        "name: long\ndata: {train: digits-train}\nmodel: {layers: [64, 10]}\ntraining: {epochs: 1000000}\n"
        f"distribution: {{workers: {workers}}}",
    ).job_id


def _wait_running(client: Client, job_id: str) -> None:
    for news in client.watch(job_id):
        if isinstance(news, jobs_pb.Progress) and news.step > 0:
            return
    pytest.fail(f"the job ended: {client.job(job_id).reason}")


def test_costs_on_inner_layers_train(client: Client, digits: None) -> None:
    """Terms on two inner layers, one on a cluster of nodes, are part of the cost and bring it down."""
    job = _submit(
        client,
        """
        name: inner
        data: {train: digits-train, validation: digits-validation, scaling: unit}
        model: {layers: [64, 30, 20, 10], activation: sigmoid, initialisation_scale: 4}
        cost:
          inner:
            - {layer: 1, term: sparsity, target: 0.2, weight: 0.05, nodes: [0, 1, 2, 3, 4, 5, 6, 7]}
            - {layer: 2, term: squared_activity, weight: 0.01}
        training: {epochs: 15, batch_size: 32, learning_rate: 0.5}
        distribution: {workers: 2}
        """,
    )
    ends = [
        news.epoch_end
        for news in client.watch(job.job_id)
        if isinstance(news, jobs_pb.Event) and news.HasField("epoch_end")
    ]
    assert client.job(job.job_id).state == jobs_pb.JOB_STATE_SUCCEEDED
    assert ends[-1].training.cost < ends[0].training.cost / 2
    assert ends[-1].validation.accuracy > 0.9


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "nesterov", "adam"])
def test_every_optimizer_trains(client: Client, digits: None, optimizer: str) -> None:
    """With its defaults alone, each brings the cost down."""
    job = _submit(
        client,
        "data: {train: digits-train, scaling: unit}\nmodel: {layers: [64, 30, 10]}\n"
        f"training: {{epochs: 5, batch_size: 32, optimizer: {{name: {optimizer}}}}}",
    )
    ends = [
        news.epoch_end
        for news in client.watch(job.job_id)
        if isinstance(news, jobs_pb.Event) and news.HasField("epoch_end")
    ]
    assert ends[-1].training.cost < ends[0].training.cost / 2


@pytest.mark.happy
def test_a_regression_on_csv_trains_and_predicts(client: Client, tmp_path: Path) -> None:
    """Values as targets: identity outputs and squared error by default, no accuracy, predictions near the truth."""
    rows = [(x / 50 - 1, y / 10 - 1) for x in range(100) for y in range(20)]
    file = tmp_path / "plane.csv"
    file.write_text("a,b,target\n" + "".join(f"{a},{b},{2 * a - b + 0.25}\n" for a, b in rows))
    client.add_dataset("plane", [file])
    job = _submit(client, "name: plane\ndata: {train: plane}\nmodel: {layers: [auto, auto]}\ntraining: {epochs: 20}")
    done = _finish(client, job.job_id)
    assert done.state == jobs_pb.JOB_STATE_SUCCEEDED, done.reason
    assert not done.progress.training.HasField("accuracy")
    predicted = client.predict(done.model_id, [file])
    first = next(predicted)
    assert not first.HasField("label")
    assert first.outputs[0] == pytest.approx(2 * -1 + 1 + 0.25, abs=0.01)
    assert list(predicted)
    assert predicted.comparison is not None
    assert predicted.comparison.cost < 1e-4


def test_a_diverging_job_fails_with_advice(client: Client, digits: None) -> None:
    """Infinite weights end the job, and the reason says what to do."""
    job = _submit(
        client,
        "data: {train: digits-train}\n"
        "model: {layers: [64, 30, 10], activation: identity, output_activation: identity}\n"
        "cost: {function: mean_squared_error}\ntraining: {epochs: 50, learning_rate: 500}",
    )
    done = _finish(client, job.job_id)
    assert done.state == jobs_pb.JOB_STATE_FAILED
    assert "training.learning_rate below 500" in done.reason
    assert done.failure_kind == jobs_pb.FAILURE_KIND_DETERMINISTIC


def test_a_cancelled_job_leaves_no_process(client: Client, daemon: Any, digits: None) -> None:
    """The fleet of a cancelled job ends, and the CPUs are free for the next job."""
    job_id = _long_job(client, workers=4)
    _wait_running(client, job_id)
    assert client.cancel(job_id).state == jobs_pb.JOB_STATE_CANCELLED
    wait_until_gone(daemon.processes(), "_WorkerProcess|_ParameterServerProcess")
    next_job = _long_job(client, workers=4)
    _wait_running(client, next_job)
    client.cancel(next_job)
    with pytest.raises(ConflictError, match="has ended already"):
        client.cancel(job_id)


def test_what_does_not_fit_waits_its_turn(client: Client, digits: None) -> None:
    """Two jobs that need all CPUs run one after the other; one that needs more than there are is told so."""
    first, second, giant = _long_job(client, 4), _long_job(client, 4), _long_job(client, 5)
    _wait_running(client, first)
    assert client.job(second).state == jobs_pb.JOB_STATE_QUEUED
    client.cancel(first)
    _wait_running(client, second)
    client.cancel(second)
    last = _long_job(client)
    _wait_running(client, last)
    assert client.job(giant).state == jobs_pb.JOB_STATE_QUEUED
    assert "needs 5 workers with 1 CPU each, but the cluster has room for 4" in client.job(giant).reason
    for job_id in (giant, last):
        client.cancel(job_id)


def test_a_job_that_is_too_big_for_the_cluster_says_so_at_once(client: Client, digits: None) -> None:
    """In the answer, also when it is only checked, and in the watch; with fewer workers it runs and ends."""
    text = "data: {train: digits-train}\nmodel: {layers: [auto, auto]}\ntraining: {batch_size: 100, epochs: 1}\n"
    spec, violations = parse(f"{text}distribution: {{workers: 64, micro_batches: 64}}")
    assert not violations
    checked, job = client.submit(spec, validate_only=True), client.submit(spec)
    for warned, job_id in ((checked, "ID"), (job, job.job_id)):
        (warning,) = warned.warnings
        assert warning.message.startswith("needs 64 workers with 1 CPU each, but the cluster has room for 4: ")
        assert f"`nabla job scale {job_id} 4`" in warning.message
    waiting = next(news for news in client.watch(job.job_id) if isinstance(news, jobs_pb.Waiting))
    assert waiting.reason == client.job(job.job_id).reason == job.warnings[0].message
    assert client.scale(job.job_id, 4).warnings == []
    assert _finish(client, job.job_id).state == jobs_pb.JOB_STATE_SUCCEEDED


def test_a_deleted_job_is_gone(client: Client, digits: None) -> None:
    """Only an ended job can be deleted."""
    job_id = _long_job(client)
    with pytest.raises(ConflictError, match="nabla job cancel"):
        client.delete_job(job_id)
    client.cancel(job_id)
    client.delete_job(job_id)
    with pytest.raises(NotFoundError):
        client.job(job_id)


@pytest.mark.faults
def test_a_lost_parameter_server_costs_an_attempt_and_not_the_result(client: Client, daemon: Any, digits: None) -> None:
    """SIGKILL of the parameter server: the job runs again from its beginning and ends."""
    job = _submit(
        client,
        "name: lost\ndata: {train: digits-train}\nmodel: {layers: [64, 30, 10]}\ntraining: {epochs: 60}\n"
        "distribution: {workers: 2}",
    )
    _wait_running(client, job.job_id)
    (parameter_server,) = [pid for pid, line in daemon.processes().items() if "_ParameterServerProcess" in line]
    os.kill(parameter_server, signal.SIGKILL)
    done = _finish(client, job.job_id)
    assert (done.state, done.attempt) == (jobs_pb.JOB_STATE_SUCCEEDED, 2), done.reason
    messages = [news.message for news in client.watch(job.job_id) if isinstance(news, jobs_pb.Event)]
    assert any("the parameter server was lost" in message for message in messages)


@pytest.mark.happy
def test_watchers_see_the_same_events_from_any_number_on(client: Client, digits: None) -> None:
    """Ordered, unique, without gaps; a late watcher sees the rest of what an early one saw."""
    job = _submit(client, "data: {train: digits-train}\nmodel: {layers: [64, 10]}\ntraining: {epochs: 8}")
    seen: dict[int, list[jobs_pb.Event]] = {}

    def watch(first: int) -> None:
        seen[first] = [news for news in client.watch(job.job_id, first) if isinstance(news, jobs_pb.Event)]

    watchers = [threading.Thread(target=watch, args=(first,)) for first in (1, 3, 7)]
    for watcher in watchers:
        watcher.start()
    for watcher in watchers:
        watcher.join(60)
    assert [event.number for event in seen[1]] == list(range(1, len(seen[1]) + 1))
    assert seen[1][-1].state == jobs_pb.JOB_STATE_SUCCEEDED
    assert seen[3] == seen[1][2:]
    assert seen[7] == seen[1][6:]
