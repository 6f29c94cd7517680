"""What README.md shows is what works."""

import re
from pathlib import Path

import pytest

from nablad.address import DEFAULT_ADDRESS
from nablad.errors import InvalidRequestError
from nablad.jobspec import check, parse
from nablad.v1 import job_spec_pb2, jobs_pb2

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def _blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


(JOB_FILE,) = (block for block in _blocks("yaml") if block.startswith("# job.yaml"))


@pytest.fixture
def run(service, tmp_path, monkeypatch):
    """Runs the Python example on a job file, with the scripted service where the example expects one."""
    (example,) = _blocks("python")
    assert example.count(f'"{DEFAULT_ADDRESS}"') == 1
    monkeypatch.chdir(tmp_path)

    def execute(job_file):
        Path("job.yaml").write_text(job_file, encoding="utf-8")
        exec(compile(example.replace(DEFAULT_ADDRESS, service.address), "README.md", "exec"), {})  # noqa: S102

    return execute


def test_the_python_example_submits_the_job_file_and_watches_it(run, service, capsys):
    """It sends what the job file says, and prints what the watch tells, whatever kind of update it is."""
    queued = jobs_pb2.Event(number=1, message="queued: it waits", state=jobs_pb2.JOB_STATE_QUEUED)
    ended = jobs_pb2.Event(number=2, message="succeeded: all epochs", state=jobs_pb2.JOB_STATE_SUCCEEDED)
    service.handlers["CreateJob"] = lambda *_: jobs_pb2.CreateJobResponse(job=jobs_pb2.Job(job_id="mnist-1f"))
    service.handlers["WatchJob"] = lambda *_: iter(
        [
            jobs_pb2.WatchJobResponse(events=[queued], waiting=jobs_pb2.Waiting(reason="waits for 2 workers")),
            jobs_pb2.WatchJobResponse(progress=jobs_pb2.Progress(step=41)),
            jobs_pb2.WatchJobResponse(events=[ended]),
        ]
    )
    service.handlers["GetJob"] = lambda *_: jobs_pb2.GetJobResponse(job=jobs_pb2.Job(reason="the last word"))
    run(JOB_FILE)
    (request,) = service.requests("CreateJob")
    assert (request.spec.name, request.spec.data.train) == ("mnist", "mnist-train")
    assert request.spec.model.output_activation == job_spec_pb2.ACTIVATION_SIGMOID
    assert service.requests("WatchJob")[0].job_id == "mnist-1f"
    shown = capsys.readouterr().out
    assert all(part in shown for part in ("it waits", "waits for 2 workers", "step: 41", "all epochs", "the last word"))


def test_the_python_example_refuses_a_file_with_two_typos(run, service):
    """Both are named, and nothing is submitted."""
    with pytest.raises(InvalidRequestError) as refused:
        run(JOB_FILE.replace("scaling:", "scalling:").replace("epochs:", "epoch:"))
    assert [violation.field for violation in refused.value.violations] == ["data.scalling", "training.epoch"]
    assert all(name in str(refused.value) for name in ("2 mistakes", "data.scalling", "training.epoch"))
    assert service.calls == []


@pytest.mark.parametrize("block", _blocks("yaml"))
def test_every_piece_of_a_job_file_is_read(block):
    """All keys and values are those of the contract; the whole job file breaks no rule either."""
    spec, unread = parse(block)
    assert unread == []
    assert block is not JOB_FILE or check(spec).violations == []
