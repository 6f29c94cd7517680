"""`nabla job`."""

import json
import re
import time

import grpc
import pytest

from nablad import Violation
from nablad.cli.exits import ExitCode
from nablad.cli.job import HIGHEST_PRIORITY, LOWEST_PRIORITY, STATES
from nablad.jobspec import names
from nablad.jobspec.fields import constraint_of
from nablad.v1 import job_spec_pb2, jobs_pb2

GOOD = """
name: digits
data: {train: digits-train, scaling: unit}
model: {layers: [64, 50, 30, 10], activation: sigmoid}
training: {epochs: 60}
"""
FOUR_MISTAKES = """
data: {train: digits-train, scalling: unit}
model: {layers: [64, 50, 30, 10], activation: sigmoyd}
training: {epochs: 0, batch_size: many}
"""


@pytest.fixture
def two_hours_east(monkeypatch):
    """This machine's clock is two hours ahead of UTC."""
    with monkeypatch.context() as context:
        context.setenv("TZ", "UTC-2")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def accepting(service, digits_job):
    """The service takes every job."""
    service.handlers["CreateJob"] = lambda *_: jobs_pb2.CreateJobResponse(job=digits_job)
    return service


def test_state_names_are_the_contract_s():
    """--state takes every state that a job can have."""
    assert sorted(STATES) == names(jobs_pb2.JobState.DESCRIPTOR)


def test_priorities_are_the_contract_s():
    """--priority takes every priority that a job can have."""
    constraint = constraint_of(job_spec_pb2.JobSpec.DESCRIPTOR.fields_by_name["priority"])
    assert (constraint.minimum, constraint.maximum) == (LOWEST_PRIORITY, HIGHEST_PRIORITY)


@pytest.mark.parametrize(("options", "priority"), [([], 3), (["--priority", "-7"], -7), (["--priority", "0"], 0)])
def test_the_option_priority_wins_over_the_file(nabla, accepting, options, priority):
    """A job file can be submitted with another priority than it says, 0 among them."""
    nabla("job", "submit", "-", *options, stdin=GOOD + "priority: 3\n")
    assert accepting.requests("CreateJob")[0].spec.priority == priority


def test_a_submitted_job_is_named_with_how_to_watch_it(nabla, accepting, tmp_path):
    """Submitting prints the id and the next command, and sends what the file says."""
    file = tmp_path / "job.yaml"
    file.write_text(GOOD)
    result = nabla("job", "submit", str(file), "--request-id", "mine")
    assert result.exit_code == ExitCode.SUCCESS
    assert "digits-1f" in result.stdout
    assert "nabla job watch digits-1f" in result.stdout
    (request,) = accepting.requests("CreateJob")
    assert (request.request_id, list(request.spec.model.layers)) == ("mine", [64, 50, 30, 10])


@pytest.mark.parametrize("options", [[], ["-o", "json"], ["--watch"]])
def test_a_job_that_is_probably_not_meant_so_is_accepted_with_a_warning(nabla, accepting, digits_job, options):
    """What the service warns of stands on stderr at once, however the job is shown."""
    digits_job.warnings.add(field="distribution.workers", message="needs 64 workers, but the cluster has room for 2")
    ended = jobs_pb2.Event(number=1, message="succeeded", state=jobs_pb2.JOB_STATE_SUCCEEDED)
    accepting.handlers["WatchJob"] = lambda *_: iter([jobs_pb2.WatchJobResponse(events=[ended])])
    result = nabla("job", "submit", "-", *options, stdin=GOOD)
    assert result.exit_code == ExitCode.SUCCESS
    assert result.stderr == ("Warning: distribution.workers: needs 64 workers, but the cluster has room for 2.\n")


def test_a_warning_that_is_the_reason_is_shown_once(nabla, service, digits_job):
    """`get` shows the warnings of a job, but for what stands above them as its reason."""
    for message in ("steps are being made", "2 workers have nothing to do"):
        digits_job.warnings.add(field="distribution.workers", message=message)
    service.handlers["GetJob"] = lambda *_: jobs_pb2.GetJobResponse(job=digits_job)
    shown = nabla("job", "get", "digits-1f").stdout
    warnings = [line for line in shown.splitlines() if line.startswith("warning")]
    assert [line.split(maxsplit=1)[1].rstrip() for line in warnings] == ["2 workers have nothing to do"]
    assert shown.count("steps are being made") == 1


def test_a_job_file_may_come_from_stdin_and_the_job_go_out_as_json(nabla, accepting):
    """A program can pipe a spec in and read the job."""
    result = nabla("job", "submit", "-", "-o", "json", stdin=GOOD)
    assert json.loads(result.stdout)["job_id"] == "digits-1f"


def test_all_mistakes_of_a_file_are_named_at_once_also_those_only_the_service_sees(nabla, service, refuse):
    """Four mistakes and an unknown data set make five lines, each field once, whoever sees it."""
    found = [Violation("data.train", "there is no data set"), Violation("training.epochs", "got 0")]
    service.handlers["CreateJob"] = refuse(grpc.StatusCode.INVALID_ARGUMENT, "the spec breaks 2 rules", found)
    result = nabla("job", "submit", "-", stdin=FOUR_MISTAKES)
    heading, *lines = result.stderr.splitlines()
    assert (result.exit_code, heading) == (ExitCode.INVALID, "Error: 5 mistakes:")
    assert [line.partition(":")[0].strip() for line in lines] == [
        "data.train",
        "data.scalling",
        "model.activation[0]",
        "training.epochs",
        "training.batch_size",
    ]
    assert service.requests("CreateJob")[0].validate_only


def test_mistakes_are_named_without_a_service_too(nabla, nowhere):
    """Where no service can be reached, the mistakes that need none are named, and what was not checked is said."""
    result = nabla("job", "submit", "-", stdin=FOUR_MISTAKES, address=nowhere)
    assert result.exit_code == ExitCode.INVALID
    assert all(name in result.stderr for name in ("scalling", "sigmoyd", "epochs", "batch_size", nowhere))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a: [", b"just words", b""])
def test_a_file_that_is_no_job_file_is_one_clear_error(nabla, service, refuse, tmp_path, content):
    """Whatever the bytes, the answer is a sentence."""
    service.handlers["CreateJob"] = refuse(grpc.StatusCode.INVALID_ARGUMENT, "the spec breaks rules")
    file = tmp_path / "job.yaml"
    file.write_bytes(content)
    result = nabla("job", "submit", str(file))
    assert result.exit_code == ExitCode.INVALID
    assert result.stderr.startswith("Error: ")


def test_a_missing_file_is_wrong_usage(nabla):
    """A misspelt path is named."""
    result = nabla("job", "submit", "missing.yaml")
    assert result.exit_code == ExitCode.INVALID
    assert "missing.yaml" in result.stderr


def test_a_list_for_people_and_for_programs(nabla, service, digits_job):
    """The table and the JSON array hold the same jobs; the filter reaches the service."""
    service.handlers["ListJobs"] = lambda *_: jobs_pb2.ListJobsResponse(jobs=[digits_job] * 2)
    lines = nabla("job", "list").stdout.splitlines()
    assert lines[1].split()[:6] == ["digits-1f", "running", "5", "2/60", "1.5", "75.00%"]
    jobs = json.loads(nabla("job", "list", "-o", "json", "--state", "running", "--state", "queued").stdout)
    assert [(job["job_id"], job["state"]) for job in jobs] == [("digits-1f", "JOB_STATE_RUNNING")] * 2
    assert list(service.requests("ListJobs")[1].states) == [jobs_pb2.JOB_STATE_RUNNING, jobs_pb2.JOB_STATE_QUEUED]


def test_costs_of_the_training_and_of_the_validation_have_columns_of_their_own(nabla, service, digits_job):
    """Jobs with and without validation stand in one table, and no column means now this and now that."""
    validated = jobs_pb2.Job()
    validated.CopyFrom(digits_job)
    validated.progress.validation.cost, validated.progress.validation.accuracy = 0.25, 0.5
    service.handlers["ListJobs"] = lambda *_: jobs_pb2.ListJobsResponse(jobs=[digits_job, validated])
    head, first, second = nabla("job", "list").stdout.splitlines()
    columns = ["LAST EPOCH", "TRAINING COST", "VALIDATION COST", "TRAINING ACCURACY", "VALIDATION ACCURACY"]
    starts = [head.index(column) for column in columns]
    assert [first[start:].split("  ")[0].strip() for start in starts] == ["2/60", "1.5", "", "75.00%", ""]
    assert [second[start:].split("  ")[0].strip() for start in starts] == ["2/60", "1.5", "0.25", "75.00%", "50.00%"]


def test_an_empty_list_is_an_empty_array(nabla, service):
    """Programs get valid JSON where there is nothing."""
    service.handlers["ListJobs"] = lambda *_: jobs_pb2.ListJobsResponse()
    assert json.loads(nabla("job", "list", "-o", "json").stdout) == []


def test_long_ids_are_never_cut_in_pipes(nabla, service, digits_job):
    """What is piped on holds the whole id, however long, on one line."""
    digits_job.job_id = "x" * 500
    service.handlers["ListJobs"] = lambda *_: jobs_pb2.ListJobsResponse(jobs=[digits_job])
    assert nabla("job", "list").stdout.splitlines()[1].split()[0] == "x" * 500


def test_one_job_in_full(nabla, service, digits_job):
    """`get` shows state, reason, progress and the spec as a job file; -o json the job itself."""
    service.handlers["GetJob"] = lambda *_: jobs_pb2.GetJobResponse(job=digits_job)
    shown = nabla("job", "get", "digits-1f").stdout
    for part in (
        "running",
        "steps are being made",
        "epoch 2/60, step 50/2700",
        "training cost 1.5, training accuracy 75.00%",
        "epochs: 60",
    ):
        assert part in shown
    assert json.loads(nabla("job", "get", "digits-1f", "-o", "json").stdout)["spec"]["name"] == "digits"


def test_warnings_stand_with_the_job_also_after_it_has_succeeded(nabla, service, digits_job):
    """A model that cannot be trusted is not told from a good one by the state of its job."""
    digits_job.state = jobs_pb2.JOB_STATE_SUCCEEDED
    for message in ("no gradient reaches W0", "the training cost is 6.9e+19"):
        digits_job.warnings.add(message=message)
    service.handlers["GetJob"] = lambda *_: jobs_pb2.GetJobResponse(job=digits_job)
    lines = [re.split("  +", line.strip()) for line in nabla("job", "get", "digits-1f").stdout.splitlines()]
    assert ["warning", "no gradient reaches W0"] in lines
    assert ["warning", "the training cost is 6.9e+19"] in lines


def test_a_job_without_troubles_shows_none(nabla, service, digits_job):
    """Who looks at a job that runs well reads nothing of attempts lost, errors or events."""
    service.handlers["GetJob"] = lambda *_: jobs_pb2.GetJobResponse(job=digits_job)
    shown = nabla("job", "get", "digits-1f").stdout
    assert all(word not in shown for word in ("lost", "next try", "error", "what happened", "verifies", "warning"))


@pytest.mark.usefixtures("two_hours_east")
def test_a_job_in_trouble_says_what_happened_and_when(nabla, service, digits_job):
    """`get` shows the attempts lost, when the next one comes, a process's last words and the events of late."""
    digits_job.MergeFrom(jobs_pb2.Job(lost_attempts=2, last_error_lines="Traceback:\n  MemoryError\n", verifies="b-2e"))
    digits_job.spec.limits.attempts = 3
    digits_job.retry_time.FromSeconds(1_700_000_060)
    lost = jobs_pb2.Event(number=12, message="the parameter server was lost", notice=True)
    lost.time.FromSeconds(1_700_000_000)
    service.handlers["GetJob"] = lambda *_: jobs_pb2.GetJobResponse(job=digits_job, recent_events=[lost])
    lines = nabla("job", "get", "digits-1f").stdout.splitlines()
    fields = dict(re.split(r"  +", line.strip(), maxsplit=1) for line in lines[: lines.index("")])
    assert fields["lost attempts"] == "2 of 3"
    assert fields["next try"] == "2023-11-15 00:14:20"
    assert fields["verifies"] == "b-2e"
    assert {"    Traceback:", "      MemoryError"} <= set(lines)
    assert "    12  2023-11-15 00:13:20  the parameter server was lost" in lines


def test_a_damaged_job_is_shown_as_such(nabla, service):
    """Of which nothing but the id can be read; for programs with the sentence."""
    damaged = jobs_pb2.Job(job_id="digits-2e", damage="job 'digits-2e' is damaged in the database")
    service.handlers["ListJobs"] = lambda *_: jobs_pb2.ListJobsResponse(jobs=[damaged])
    assert nabla("job", "list").stdout.splitlines()[1].split() == ["digits-2e", "damaged"]
    assert json.loads(nabla("job", "list", "-o", "json").stdout)[0]["damage"] == damaged.damage
