"""`nabla job` receipt, verify."""

import json

import grpc
import pytest

from nablad.cli.exits import ExitCode
from nablad.v1 import job_spec_pb2, jobs_pb2

RECEIPT = jobs_pb2.Receipt(
    job_id="a",
    spec_sha256="5" * 64,
    train_sha256="7" * 64,
    code_version="0.1.0",
    arithmetics=[
        jobs_pb2.Arithmetic(cpu="Xeon", blas="openblas 0.3.30 Haswell", numpy="2.4.0"),
        jobs_pb2.Arithmetic(cpu="EPYC", blas="openblas 0.3.30 Zen", numpy="2.4.0"),
    ],
    first_weights_sha256="0" * 64,
    epoch_weights_sha256=["1" * 64, "2" * 64],
    final_weights_sha256="2" * 64,
    ending="all 2 epochs are done",
    steps=3000,
    step_cores=[job_spec_pb2.STEP_CORE_NATIVE, job_spec_pb2.STEP_CORE_PYTHON],
    attempts=1,
)


@pytest.fixture
def verifying(service):
    """The service takes a verification, and tells of its end in a state with a reason."""

    def script(state, reason=""):
        again = jobs_pb2.Job(job_id="a-again", verifies="a", state=state, reason=reason)
        ended = jobs_pb2.Event(number=1, message=reason, state=state)
        service.handlers |= {
            "VerifyJob": lambda *_: jobs_pb2.VerifyJobResponse(job=again),
            "WatchJob": lambda *_: iter([jobs_pb2.WatchJobResponse(events=[ended])]),
            "GetJob": lambda *_: jobs_pb2.GetJobResponse(job=again),
        }

    return script


def test_a_receipt_shows_every_digest_in_full(nabla, service):
    """Two receipts can be compared by eye or by diff: of inputs, code, arithmetic and the weights of each epoch."""
    service.handlers["GetReceipt"] = lambda *_: jobs_pb2.GetReceiptResponse(receipt=RECEIPT)
    shown = nabla("job", "receipt", "a").stdout
    for part in (
        "nablad 0.1.0",
        "Xeon; openblas 0.3.30 Haswell; numpy 2.4.0",
        "EPYC",
        "all 2 epochs are done",
        "3000",
        "C (native step core) and Python; both cores give the same bits",
    ):
        assert part in shown
    for digit, times in (("5", 1), ("7", 1), ("0", 1), ("1", 1), ("2", 2)):
        assert shown.count(digit * 64) == times
    assert "validation" not in shown
    assert json.loads(nabla("job", "receipt", "a", "-o", "json").stdout)["epoch_weights_sha256"] == ["1" * 64, "2" * 64]


def test_a_receipt_says_what_the_policy_promises(nabla, service):
    """With its parameters, and with what was dropped; nothing of it in a receipt of an earlier release."""
    receipt = jobs_pb2.Receipt(promise="Some may be missing.", dropped_micro_batches=1234, dropped_samples=0)
    receipt.policy.name, receipt.policy.spare_micro_batches = job_spec_pb2.POLICY_BACKUP, 2
    service.handlers["GetReceipt"] = lambda *_: jobs_pb2.GetReceiptResponse(receipt=receipt)
    shown = nabla("job", "receipt", "a").stdout
    for part in ("backup, spare_micro_batches 2", "Some may be missing.", "1,234 micro-batches with 0 samples"):
        assert part in shown
    service.handlers["GetReceipt"] = lambda *_: jobs_pb2.GetReceiptResponse(receipt=RECEIPT)
    shown = nabla("job", "receipt", "a").stdout
    assert not [word for word in ("policy", "promise", "dropped") if word in shown]


def test_a_job_without_a_receipt_is_the_service_s_sentence(nabla, service, refuse):
    """Before a job has succeeded there is nothing to trace."""
    service.handlers["GetReceipt"] = refuse(grpc.StatusCode.NOT_FOUND, "job a has not succeeded")
    result = nabla("job", "receipt", "a")
    assert (result.exit_code, result.stderr) == (ExitCode.REFUSED, "Error: job a has not succeeded\n")


@pytest.mark.parametrize(
    ("state", "exit_code", "verdict"),
    [
        (jobs_pb2.JOB_STATE_SUCCEEDED, ExitCode.SUCCESS, "Verified: none of the weights differ"),
        (jobs_pb2.JOB_STATE_FAILED, ExitCode.JOB_FAILED, "Not verified: epoch 2 differs"),
    ],
)
def test_a_verification_ends_with_a_verdict(nabla, service, verifying, state, exit_code, verdict):
    """The last line, and the exit code, say whether the weights came out again; with the first epoch that did not."""
    verifying(state, "epoch 2 differs")
    result = nabla("job", "verify", "a", "--request-id", "mine")
    assert result.exit_code == exit_code
    assert result.stdout.splitlines()[-1].startswith(verdict)
    assert "retry" not in result.stderr
    (request,) = service.requests("VerifyJob")
    assert (request.job_id, request.request_id) == ("a", "mine")


def test_a_verification_that_was_cancelled_has_no_verdict(nabla, verifying):
    """What was not run to its end says nothing about the weights."""
    verifying(jobs_pb2.JOB_STATE_CANCELLED, "cancelled by the user")
    result = nabla("job", "verify", "a")
    assert result.exit_code == ExitCode.JOB_CANCELLED
    assert "erified" not in result.stdout


def test_programs_read_a_verdict_from_the_last_event(nabla, verifying):
    """With -o json, every line is an object."""
    verifying(jobs_pb2.JOB_STATE_FAILED, "epoch 2 differs")
    result = nabla("job", "verify", "a", "-o", "json")
    assert result.exit_code == ExitCode.JOB_FAILED
    assert [json.loads(line)["event"]["message"] for line in result.stdout.splitlines()] == ["epoch 2 differs"]


def test_a_verification_may_be_left_to_itself(nabla, service, verifying):
    """--no-watch queues it, names its job, and is done."""
    verifying(jobs_pb2.JOB_STATE_QUEUED)
    result = nabla("job", "verify", "a", "--no-watch")
    assert result.exit_code == ExitCode.SUCCESS
    assert "nabla job watch a-again" in result.stdout
    assert json.loads(nabla("job", "verify", "a", "--no-watch", "-o", "json").stdout)["verifies"] == "a"
    assert service.requests("WatchJob") == []
