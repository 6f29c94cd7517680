"""Jobs that are silly, many at once, or lose a worker that comes back."""

import os
import signal
import socket
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import pytest

from nablad import Client
from nablad.errors import ConflictError, InvalidRequestError, NotFoundError
from nablad.jobspec import parse
from nablad.v1 import datasets_pb2 as datasets_pb
from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import jobs_pb2_grpc as jobs_grpc
from nablad.v1 import models_pb2 as models_pb
from nablad.v1 import models_pb2_grpc as models_grpc

End = Callable[[Any], grpc.StatusCode]

_SECONDS = 30
_CSV = b"1,2,0\n3,4,1\n5,6,0\n7,9,1\n"


def _submit(client: Client, text: str) -> str:
    spec, violations = parse(text)
    assert not violations
    return client.submit(spec).job_id


def _finish(client: Client, job_id: str) -> jobs_pb.Job:
    for _ in client.watch(job_id):
        pass
    return client.job(job_id)


@pytest.fixture(scope="module")
def small(daemon: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The data sets four-rows and one-row."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "four.csv").write_bytes(_CSV)
    (folder / "one.csv").write_bytes(b"1,2,0\n")
    with Client(daemon.address) as client:
        client.add_dataset("four-rows", [folder / "four.csv"])
        client.add_dataset("one-row", [folder / "one.csv"])


def test_silly_jobs_end_well(client: Client, small: None, channel: grpc.Channel, end: End, tmp_path: Path) -> None:
    """One row, a mini-batch larger than the data, more parts than rows left, one output for two classes: they train."""
    jobs = [
        _submit(client, f"data: {{train: {train}, scaling: standard}}\nmodel: {{layers: {layers}}}\n{rest}")
        for train, layers, rest in [
            ("one-row", "[auto, 3, auto]", "training: {batch_size: 10000000}"),
            ("four-rows", "[auto, 1]", "training: {batch_size: 3}\ndistribution: {micro_batches: 3, workers: 2}"),
        ]
    ]
    done = [_finish(client, job_id) for job_id in jobs]
    assert [job.state for job in done] == [jobs_pb.JOB_STATE_SUCCEEDED] * 2, [job.reason for job in done]
    model_id = done[1].model_id
    _predict_badly(client, model_id, tmp_path / "rows.csv")
    assert end(_predict_what_goes(client, channel, model_id)) == grpc.StatusCode.NOT_FOUND
    with pytest.raises(NotFoundError):
        list(client.predict(model_id, [tmp_path / "rows.csv"]))


def _predict_badly(client: Client, model_id: str, file: Path) -> None:
    for data, sentence in [(b"1\n", "1 columns"), (b"1,x\n", "'x'"), (b"1,2,2\n", "label 2"), (b"1,nan\n", "nan")]:
        file.write_bytes(data)
        with pytest.raises(InvalidRequestError, match=sentence):
            list(client.predict(model_id, [file]))


def _predict_what_goes(client: Client, channel: grpc.Channel, model_id: str) -> Any:
    """Predicts with a model that is deleted on the way."""

    def requests() -> Iterator[models_pb.PredictRequest]:
        described = datasets_pb.DataFiles(files=[datasets_pb.DataFile(filename="a.csv", size_bytes=4)])
        yield models_pb.PredictRequest(header=models_pb.PredictHeader(model_id=model_id, data_files=described))
        yield models_pb.PredictRequest(chunk=b"1")
        client.delete_model(model_id)
        yield models_pb.PredictRequest(chunk=b",2\n")

    return models_grpc.ModelServiceStub(channel).Predict(requests(), timeout=_SECONDS)


def test_a_crowd_of_watchers_and_jobs(
    client: Client, channel: grpc.Channel, daemon: Any, end: End, digits: None
) -> None:
    """200 idle watchers, 100 jobs at once, 50 scrapes and HTTP rubbish; each job is cancelled exactly once."""
    stub = jobs_grpc.JobServiceStub(channel)
    giant = _submit(client, "data: {train: digits-train}\nmodel: {layers: [64, 10]}\ndistribution: {workers: 10000}")
    firsts = (1, 10**18, 2**64 - 1)
    watches = [stub.WatchJob(jobs_pb.WatchJobRequest(job_id=giant, from_event=firsts[n % 3])) for n in range(200)]
    assert [next(watch).events[0].number for watch in watches[::3]] == [1] * 67
    spec = spec_pb.JobSpec(data={"train": "digits-train"}, model={"layers": [0, 8, 0]})
    spec.training.epochs, spec.training.batch_size, spec.distribution.workers = 1_000_000, 1, 4
    calls = [stub.CreateJob.future(jobs_pb.CreateJobRequest(spec=spec), timeout=_SECONDS) for _ in range(100)]
    jobs = [call.result().job.job_id for call in calls]
    try:
        with ThreadPoolExecutor(50) as pool:
            assert all(b"nablad_jobs{" in page for page in pool.map(_scrape, [daemon.metrics_url] * 50))
        _http_rubbish(daemon.metrics_url)
        with pytest.raises(ConflictError, match="is used by job"):
            client.delete_dataset("digits-train")
        cancels = [stub.CancelJob.future(jobs_pb.CancelJobRequest(job_id=id_), timeout=_SECONDS) for id_ in jobs * 2]
        codes = [call.code() for call in cancels]
        assert (codes.count(grpc.StatusCode.OK), codes.count(grpc.StatusCode.FAILED_PRECONDITION)) == (100, 100)
        client.cancel(giant)
        assert {end(watch) for watch in watches} == {grpc.StatusCode.OK}
    finally:  # the tests that follow need the CPUs
        for job_id in (giant, *jobs):
            with suppress(ConflictError):
                client.cancel(job_id)


def _scrape(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=_SECONDS) as page:  # noqa: S310 (the daemon's own address)
        return bytes(page.read())


def _http_rubbish(url: str) -> None:
    address = (urlsplit(url).hostname, urlsplit(url).port)
    for data in (
        b"\0\xff\n" * 100,
        b"GET " + b"/" * 100_000,
        b"POST /metrics HTTP/1.1\r\nContent-Length: 9999\r\n\r\n",
    ):
        # The service may hang up at once.
        with socket.create_connection(address, timeout=_SECONDS) as connection, suppress(OSError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass
    assert b"nablad_jobs{" in _scrape(url)


@pytest.mark.faults
def test_a_stopped_worker_changes_nothing(client: Client, daemon: Any, digits: None) -> None:
    """A worker that is stopped until it counts as lost, and then goes on, leaves the weights of a run without."""
    text = (
        "data: {train: digits-train, scaling: unit}\nmodel: {layers: [64, 30, 10]}\ntraining: {epochs: 40}\n"
        "distribution: {workers: 2, micro_batches: 2}"
    )
    stopped_job = _submit(client, text)
    worker = _stop_a_worker(client, daemon, stopped_job)
    jobs = [stopped_job, _submit(client, text)]
    for news in client.watch(stopped_job):
        if isinstance(news, jobs_pb.Event) and "was lost" in news.message:
            break
    os.kill(worker, signal.SIGCONT)
    done = [_finish(client, job_id) for job_id in jobs]
    assert [(job.state, job.attempt) for job in done] == [(jobs_pb.JOB_STATE_SUCCEEDED, 1)] * 2, done[0].reason
    assert client.model(jobs[0]).sha256 == client.model(jobs[1]).sha256


def _stop_a_worker(client: Client, daemon: Any, job_id: str) -> int:
    """SIGSTOP of a worker of the only job that runs, as soon as it makes steps."""
    next(news for news in client.watch(job_id) if isinstance(news, jobs_pb.Progress) and news.step > 0)
    worker = next(pid for pid, line in daemon.processes().items() if "_WorkerProcess.run" in line)
    os.kill(worker, signal.SIGSTOP)
    return worker
