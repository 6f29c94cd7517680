"""Messages that are none, too large, or name what there is not."""

import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import grpc
import pytest

from nablad.v1 import datasets_pb2 as datasets_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import jobs_pb2_grpc as jobs_grpc
from nablad.v1 import models_pb2 as models_pb

Call = Callable[[str, Any], grpc.StatusCode]

_OK = grpc.StatusCode.OK
_INVALID = grpc.StatusCode.INVALID_ARGUMENT
_NOT_FOUND = grpc.StatusCode.NOT_FOUND
_TOO_LARGE = grpc.StatusCode.RESOURCE_EXHAUSTED
_SECONDS = 30


def test_random_bytes_are_refused(call: Call, method: str) -> None:
    """Whatever the bytes, the client is told that they are wrong; never UNKNOWN or INTERNAL."""
    generator = random.Random(method)
    codes = {call(method, generator.randbytes(size)) for size in (1, 3, 10, 1000, 60_000)}
    assert _INVALID in codes
    assert codes <= {_INVALID, _NOT_FOUND}


def test_too_large_messages_take_no_memory(channel: grpc.Channel, daemon: Any) -> None:
    """A message of 64 MiB, as it is or zipped to nothing, is refused before it is held."""
    before = _peak_mebibytes(daemon)
    request = jobs_pb.GetJobRequest(job_id="x" * (64 << 20))
    jobs = jobs_grpc.JobServiceStub(channel)
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
        answer = jobs.GetJob.future(request, timeout=_SECONDS, compression=compression)
        assert answer.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert _peak_mebibytes(daemon) - before < 32


def _peak_mebibytes(daemon: Any) -> int:
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) >> 10


@pytest.mark.parametrize(
    ("name", "code"),
    [(name, _NOT_FOUND) for name in ("", "\0", "../../etc/passwd", "é" * 1000, "x" * 9_000, "x" * 60_000)]
    + [("x" * 3_000_000, _TOO_LARGE)],
)
def test_names_that_nothing_has_are_not_found(call: Call, name: str, code: grpc.StatusCode) -> None:
    """However long and odd the name, the answer is that there is no such thing; or that no name is as long as that."""
    calls = {
        "JobService/GetJob": jobs_pb.GetJobRequest(job_id=name),
        "JobService/WatchJob": jobs_pb.WatchJobRequest(job_id=name),
        "JobService/CancelJob": jobs_pb.CancelJobRequest(job_id=name),
        "JobService/DeleteJob": jobs_pb.DeleteJobRequest(job_id=name),
        "DatasetService/GetDataset": datasets_pb.GetDatasetRequest(name=name),
        "DatasetService/DeleteDataset": datasets_pb.DeleteDatasetRequest(name=name),
        "ModelService/GetModel": models_pb.GetModelRequest(model_id=name),
        "ModelService/ExportModel": models_pb.ExportModelRequest(model_id=name),
        "ModelService/DeleteModel": models_pb.DeleteModelRequest(model_id=name),
        "ModelService/Predict": models_pb.PredictRequest(header=models_pb.PredictHeader(model_id=name)),
    }
    codes = {method: call(method, request) for method, request in calls.items()}
    assert codes == dict.fromkeys(calls, code)


@pytest.mark.parametrize("token", ["rubbish", "é", "\0", "a" * 60_000, "_-_=", "LTE=", "OTk5OTk5OTk5OTk5OTk5OTk5OTk="])
def test_page_tokens_of_others_are_refused(call: Call, token: str) -> None:
    """Jobs and models know their own tokens; of data sets any name will do, for there is a first one after it."""
    jobs = jobs_pb.ListJobsRequest(page_token=token, page_size=2**32 - 1)
    models = models_pb.ListModelsRequest(page_token=token, page_size=2**32 - 1)
    sets = datasets_pb.ListDatasetsRequest(page_token=token, page_size=2**32 - 1)
    assert call("JobService/ListJobs", jobs) == _INVALID
    assert call("ModelService/ListModels", models) == _INVALID
    assert call("DatasetService/ListDatasets", sets) in {_INVALID, _OK}


@pytest.mark.parametrize(
    ("states", "code"),
    [
        ([1] * 60_000, _OK),
        ([99], _INVALID),
        ([0, -1], _INVALID),
        (range(20_000), _INVALID),
        ([1] * 1_000_000, _TOO_LARGE),
    ],
)
def test_states_are_looked_at_before_they_are_looked_for(
    call: Call, states: Iterable[int], code: grpc.StatusCode
) -> None:
    """Thousands of states are as good as one; a state that there is not is a mistake, and a million are too many."""
    request = jobs_pb.ListJobsRequest(states=states)  # type: ignore[arg-type]
    assert call("JobService/ListJobs", request) == code
