"""`nabla demo`, against a service that is there already."""

import hashlib
import signal

import grpc
import pytest

from nablad.cli.exits import ExitCode
from nablad.v1 import datasets_pb2, jobs_pb2, models_pb2
from nablad.v1.metrics_pb2 import Metrics


@pytest.fixture
def learned(service):
    """The service takes the digits and the job, and has learned them with a given accuracy."""

    def script(accuracy, state=jobs_pb2.JOB_STATE_SUCCEEDED):
        progress = jobs_pb2.Progress(validation=Metrics(accuracy=accuracy))
        job = jobs_pb2.Job(job_id="digits-1f", model_id="digits-1f", progress=progress)
        ended = jobs_pb2.WatchJobResponse(events=[jobs_pb2.Event(number=1, message="it has ended", state=state)])
        model = models_pb2.Model(model_id="digits-1f", sha256=hashlib.sha256(b"weights").hexdigest())

        def add(requests, _context):
            header = next(requests).header
            list(requests)
            return datasets_pb2.AddDatasetResponse(dataset=datasets_pb2.Dataset(name=header.name))

        def predict(requests, _context):
            list(requests)
            row = models_pb2.Prediction(label=7, outputs=[0.0] * 7 + [0.875])
            yield models_pb2.PredictResponse(predictions=models_pb2.Predictions(rows=[row]))

        service.handlers |= {
            "AddDataset": add,
            "CreateJob": lambda *_: jobs_pb2.CreateJobResponse(job=job),
            "WatchJob": lambda *_: iter([ended]),
            "GetJob": lambda *_: jobs_pb2.GetJobResponse(job=job),
            "GetModel": lambda *_: models_pb2.GetModelResponse(model=model),
            "ExportModel": lambda *_: iter([models_pb2.ExportModelResponse(chunk=b"weights")]),
            "Predict": predict,
        }

    return script


def test_the_demo_goes_from_data_to_a_prediction(nabla, service, learned, tmp_path):
    """It registers, trains, exports, predicts one digit beside its drawing, and ends well."""
    learned(0.975)
    result = nabla("demo", "--server", service.address, "--keep", str(tmp_path))
    assert result.exit_code == ExitCode.SUCCESS
    assert (tmp_path / "demo-model.safetensors").read_bytes() == b"weights"
    for part in ("digits-train", "digits-validation", "it has ended", "█", "reads a 7", "written as a 7", "97.50%"):
        assert part in result.stdout


def test_data_sets_that_are_there_already_are_used(nabla, service, learned, refuse, tmp_path):
    """A second demo on the same service works like the first."""
    learned(0.975)
    service.handlers["AddDataset"] = refuse(grpc.StatusCode.ALREADY_EXISTS, "there is one already")
    dataset = datasets_pb2.Dataset(name="digits-train", rows=1437)
    service.handlers["GetDataset"] = lambda *_: datasets_pb2.GetDatasetResponse(dataset=dataset)
    result = nabla("demo", "--server", service.address, "--keep", str(tmp_path))
    assert result.exit_code == ExitCode.SUCCESS
    assert "1,437 rows" in result.stdout


def test_too_little_accuracy_is_a_failure(nabla, service, learned, tmp_path):
    """A demo that did not learn the digits does not look like one that did."""
    learned(0.9)
    result = nabla("demo", "--server", service.address, "--keep", str(tmp_path))
    assert result.exit_code == ExitCode.JOB_FAILED
    assert "90.00%" in result.stderr


def test_a_failed_job_ends_the_demo(nabla, service, learned, tmp_path):
    """Nothing is exported from a job that failed."""
    learned(0.0, jobs_pb2.JOB_STATE_FAILED)
    assert nabla("demo", "--server", service.address, "--keep", str(tmp_path)).exit_code == ExitCode.JOB_FAILED
    assert list(tmp_path.iterdir()) == []


def test_without_the_server_s_part_the_demo_says_what_to_install(nabla, monkeypatch, tmp_path):
    """A client machine learns which extra is missing."""
    monkeypatch.setattr("nablad.local.find_spec", lambda _: None)
    result = nabla("demo", "--keep", str(tmp_path))
    assert result.exit_code == ExitCode.REFUSED
    assert "pip install '.[server]'" in result.stderr
    assert "--server" in result.stderr


def test_an_interrupted_start_is_announced_at_once(nabla, monkeypatch, capfd, tmp_path):
    """Ctrl-C says that the service is being stopped before that is waited for."""
    said_before = []

    def start(_service):
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            said_before.append(capfd.readouterr().err)

    monkeypatch.setattr("nablad.local.LocalService.start", start)
    assert nabla("demo", "--keep", str(tmp_path)).exit_code == ExitCode.INTERRUPTED
    assert said_before == ["\nStopping the service ...\n"]
