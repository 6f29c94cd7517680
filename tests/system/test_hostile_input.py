"""Hostile and clumsy clients: each call gets a status that fits, the service stays up, and nothing is left behind."""

import asyncio
import os
import random
import signal
import socket
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import urlsplit

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from nablad import Client
from nablad.errors import ConflictError, InvalidRequestError, NotFoundError, TooLargeError
from nablad.spec import complete, parse
from nablad.v1 import datasets_pb2 as datasets_pb
from nablad.v1 import datasets_pb2_grpc as datasets_grpc
from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import jobs_pb2_grpc as jobs_grpc
from nablad.v1 import models_pb2 as models_pb
from nablad.v1 import models_pb2_grpc as models_grpc
from nablad.v1 import parameter_server_pb2 as ps_pb
from nablad.v1 import parameter_server_pb2_grpc as ps_grpc
from service.parameter_server.process import start_parameter_server
from workers import build
from workers.computation import Computation
from workers.worker import SECRET_KEY, WORKER_ID_KEY, work

_OK = grpc.StatusCode.OK
_INVALID = grpc.StatusCode.INVALID_ARGUMENT
_NOT_FOUND = grpc.StatusCode.NOT_FOUND
_TOO_LARGE = grpc.StatusCode.RESOURCE_EXHAUSTED
_SECONDS = 30

_CSV = b"1,2,0\n3,4,1\n5,6,0\n7,9,1\n"
_METHODS = [
    (f"/{service.full_name}/{method.name}", method.client_streaming, method.server_streaming)
    for file in (jobs_pb, datasets_pb, models_pb)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
] + [
    ("/grpc.health.v1.Health/Check", False, False),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", True, True),
]  # fmt: skip


@pytest.fixture
def channel(daemon: Any) -> Iterator[grpc.Channel]:
    """A channel without any of the client's manners."""
    with grpc.insecure_channel(daemon.address) as channel:
        yield channel


@pytest.fixture(autouse=True)
def stays_up(daemon: Any, client: Client) -> Iterator[None]:
    """After every attack the service answers, nothing is staged, and its log has no traceback."""
    before = daemon.log.read_text().count("Traceback")
    yield
    list(client.jobs())
    _until(client, lambda: not list((daemon.data_dir / "staging").iterdir()))
    assert daemon.log.read_text().count("Traceback") == before


def _until(client: Client, condition: Callable[[], bool]) -> None:
    """Waits for something that must come true within a few calls' time."""
    for _ in range(2000):
        if condition():
            return
        list(client.datasets())
    pytest.fail("it did not come true")


def _end(stream: Any) -> grpc.StatusCode:
    """How a call that streams its answers ends."""
    with suppress(grpc.RpcError):
        list(stream)
    return stream.code()


def _call(channel: grpc.Channel, method: str, data: bytes) -> grpc.StatusCode:
    """Calls a method with bytes that need not be a message; gives how it ends."""
    path, many_requests, many_responses = next(each for each in _METHODS if each[0].endswith(method))
    kind = f"{'stream' if many_requests else 'unary'}_{'stream' if many_responses else 'unary'}"
    call = getattr(channel, kind)(path, None, None)
    request = iter([data]) if many_requests else data
    if many_responses:
        return _end(call(request, timeout=_SECONDS))
    return call.future(request, timeout=_SECONDS).code()


# -- messages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [path for path, *_ in _METHODS])
def test_random_bytes_are_refused(channel: grpc.Channel, method: str) -> None:
    """Whatever the bytes, the client is told that they are wrong; never UNKNOWN or INTERNAL."""
    generator = random.Random(method)
    codes = {_call(channel, method, generator.randbytes(size)) for size in (1, 3, 10, 1000, 100_000)}
    assert _INVALID in codes
    assert codes <= {_INVALID, _NOT_FOUND}


def test_too_large_messages_take_no_memory(channel: grpc.Channel, daemon: Any) -> None:
    """A message of 64 MiB, as it is or zipped to nothing, is refused before it is held."""
    before = _peak_mebibytes(daemon)
    request = jobs_pb.GetJobRequest(job_id="x" * (64 << 20))
    jobs = jobs_grpc.JobServiceStub(channel)
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
        call = jobs.GetJob.future(request, timeout=_SECONDS, compression=compression)
        assert call.code() == _TOO_LARGE
    assert _peak_mebibytes(daemon) - before < 32


def _peak_mebibytes(daemon: Any) -> int:
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) >> 10


_JOB, _DATASET, _MODEL = (
    "nablad.v1.JobService/",
    "nablad.v1.DatasetService/",
    "nablad.v1.ModelService/",
)


@pytest.mark.parametrize("name", ["", "\0", "../../etc/passwd", "é" * 1000, "x" * 9_000, "x" * 3_000_000])
def test_names_that_nothing_has_are_not_found(channel: grpc.Channel, name: str) -> None:
    """However long and odd the name, the answer is that there is no such thing."""
    calls = {
        _JOB + "GetJob": jobs_pb.GetJobRequest(job_id=name),
        _JOB + "WatchJob": jobs_pb.WatchJobRequest(job_id=name),
        _JOB + "CancelJob": jobs_pb.CancelJobRequest(job_id=name),
        _JOB + "DeleteJob": jobs_pb.DeleteJobRequest(job_id=name),
        _DATASET + "GetDataset": datasets_pb.GetDatasetRequest(name=name),
        _DATASET + "DeleteDataset": datasets_pb.DeleteDatasetRequest(name=name),
        _MODEL + "GetModel": models_pb.GetModelRequest(model_id=name),
        _MODEL + "ExportModel": models_pb.ExportModelRequest(model_id=name),
        _MODEL + "DeleteModel": models_pb.DeleteModelRequest(model_id=name),
        _MODEL + "Predict": models_pb.PredictRequest(header=models_pb.PredictHeader(model_id=name)),
    }
    assert {method: _call(channel, method, request.SerializeToString()) for method, request in calls.items()} == (
        dict.fromkeys(calls, _NOT_FOUND)
    )


@pytest.mark.parametrize(
    "token", ["rubbish", "é", "\0", "a" * 3_000_000, "_-_=", "LTE=", "OTk5OTk5OTk5OTk5OTk5OTk5OTk="]
)
def test_page_tokens_of_others_are_refused(channel: grpc.Channel, token: str) -> None:
    """Jobs and models know their own tokens; of data sets any name will do, for there is a first one after it."""
    jobs = jobs_pb.ListJobsRequest(page_token=token, page_size=2**32 - 1)
    models = models_pb.ListModelsRequest(page_token=token, page_size=2**32 - 1)
    sets = datasets_pb.ListDatasetsRequest(page_token=token, page_size=2**32 - 1)
    assert _call(channel, _JOB + "ListJobs", jobs.SerializeToString()) == _INVALID
    assert _call(channel, _MODEL + "ListModels", models.SerializeToString()) == _INVALID
    assert _call(channel, _DATASET + "ListDatasets", sets.SerializeToString()) in {_INVALID, _OK}


@pytest.mark.parametrize(
    ("states", "code"), [([1] * 1_000_000, _OK), ([99], _INVALID), ([0, -1], _INVALID), (range(1_000_000), _INVALID)]
)
def test_states_are_looked_at_before_they_are_looked_for(
    channel: grpc.Channel, states: Iterable[int], code: grpc.StatusCode
) -> None:
    """A million states are as good as one; a state that there is not is a mistake."""
    request = jobs_pb.ListJobsRequest(states=states)  # type: ignore[arg-type]
    assert _call(channel, _JOB + "ListJobs", request.SerializeToString()) == code


# -- files -------------------------------------------------------------------------------------------------------------


def _header(*files: tuple[str, int], name: str = "hostile", **options: Any) -> datasets_pb.AddDatasetRequest:
    described = [datasets_pb.DataFile(filename=filename, size_bytes=size) for filename, size in files]
    data_files = datasets_pb.DataFiles(files=described, **options)
    return datasets_pb.AddDatasetRequest(header=datasets_pb.AddDatasetHeader(name=name, data_files=data_files))


def _chunk(data: bytes = _CSV) -> datasets_pb.AddDatasetRequest:
    return datasets_pb.AddDatasetRequest(chunk=data)


_SIZE = len(_CSV)
_WHOLE = _header(("a.csv", _SIZE))
_STREAMS: dict[str, tuple[list[datasets_pb.AddDatasetRequest], str]] = {
    "nothing": ([], "first message must be the header"),
    "no header": ([_chunk()], "first message must be the header"),
    "header twice": ([_WHOLE, _WHOLE, _chunk()], "without a chunk"),
    "header at the end": ([_WHOLE, _chunk(), _WHOLE], "more bytes"),
    "empty chunk": ([_WHOLE, _chunk(b""), _chunk()], "without a chunk"),
    "too few bytes": ([_WHOLE, _chunk(_CSV[:-1])], "ended 1 bytes before"),
    "too many bytes": ([_WHOLE, _chunk(), _chunk(b"1")], "more bytes"),
    "no files": ([_header()], "0 files"),
    "three files": ([_header(*[("a.npy", 1)] * 3), _chunk(b"123")], "3 files"),
    "many files": ([_header(*[("a.npy", 1)] * 100_000)], "100000 files"),
    "an empty file": ([_header(("a.csv", 0))], "empty"),
    "two empty files": ([_header(("a.npy", 0), ("b.npy", 0))], "a.npy"),
    "all there is": ([_header(("a.npy", 2**64 - 1), ("b.npy", 2**64 - 1)), _chunk()], "make room"),
    "odd file name": ([_header(("a\0\n\x1b[31m\u202e/../b.csv", 4)), _chunk(b"1,x\n")], "'a???[31m?/../b.csv'"),
    "long file name": ([_header(("a" * 3_000_000, _SIZE)), _chunk()], "format"),
    "long column name": ([_header(("a.csv", _SIZE), target_column="z" * 3_000_000), _chunk()], "no column"),
    "unknown kind": ([_header(("a.csv", _SIZE), target_kind=77), _chunk()], "breaks rules"),
    "too many classes": ([_header(("a.csv", _SIZE), classes=2**32 - 1), _chunk()], "at most 1,000,000 classes"),
    "long name": ([_header(("a.csv", _SIZE), name="n" * 3_000_000), _chunk()], "breaks rules"),
    "name with NUL": ([_header(("a.csv", _SIZE), name="a\0"), _chunk()], "breaks rules"),
}  # fmt: skip


@pytest.mark.parametrize("case", _STREAMS)
def test_a_wrong_upload_is_refused_and_forgotten(channel: grpc.Channel, client: Client, case: str) -> None:
    """The client is told what was wrong with its stream, and no data set comes of it."""
    requests, sentence = _STREAMS[case]
    call = datasets_grpc.DatasetServiceStub(channel).AddDataset.future(iter(requests), timeout=_SECONDS)
    assert call.code() in {_INVALID, _TOO_LARGE}
    assert sentence in call.details()
    assert "hostile" not in {dataset.name for dataset in client.datasets()}


def test_uploads_that_stop_are_in_nobodys_way(channel: grpc.Channel, client: Client, daemon: Any) -> None:
    """Fifty clients that send half a file and then nothing do not hinder others; when they go, their bytes go."""
    stub, gone = datasets_grpc.DatasetServiceStub(channel), Event()

    def half() -> Iterator[datasets_pb.AddDatasetRequest]:
        yield _header(("a.csv", 1 << 20))
        yield _chunk()
        gone.wait(_SECONDS)

    calls = [stub.AddDataset.future(half()) for _ in range(50)]
    _until(client, lambda: len(list((daemon.data_dir / "staging").iterdir())) == len(calls))
    for call in calls:
        call.cancel()
    gone.set()
    _until(client, lambda: not list((daemon.data_dir / "staging").iterdir()))


# -- specs -------------------------------------------------------------------------------------------------------------

_EXTREMES: dict[int, list[Any]] = {
    FieldDescriptor.CPPTYPE_DOUBLE: [float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 5e-324, 1.7e308],
    FieldDescriptor.CPPTYPE_UINT32: [0, 1, 2**32 - 1],
    FieldDescriptor.CPPTYPE_UINT64: [0, 2**64 - 1],
    FieldDescriptor.CPPTYPE_ENUM: [-(2**31), -1, 77, 2**31 - 1],
    FieldDescriptor.CPPTYPE_STRING: ["\0", "é\u202e\n", "x" * 100_000],
    FieldDescriptor.CPPTYPE_BOOL: [False],
}


def _spec(**data: str) -> spec_pb.JobSpec:
    return spec_pb.JobSpec(data=spec_pb.DataSpec(**data), model=spec_pb.ModelSpec(layers=[0, 8, 0]))


def _extreme_specs(train: str, descriptor: Descriptor, path: tuple[str, ...] = ()) -> Iterator[spec_pb.JobSpec]:
    """Specs that are right but for one number, name or text; and some in which that happens to be right."""
    for field in descriptor.fields:
        if field.message_type and not field.is_repeated:
            yield from _extreme_specs(train, field.message_type, (*path, field.name))
        for extreme in () if field.message_type else _EXTREMES[field.cpp_type]:
            spec = _spec(train=train)
            message: Any = spec
            for name in path:
                message = getattr(message, name)
            if field.is_repeated:
                getattr(message, field.name)[:] = [extreme] * 3
            else:
                setattr(message, field.name, extreme)
            yield spec


def test_extreme_specs_are_judged(channel: grpc.Channel, digits: None) -> None:
    """Every field of a spec at every extreme: a completed spec, or the violation of a rule."""
    codes = set()
    for spec in _extreme_specs("digits-train", spec_pb.JobSpec.DESCRIPTOR):
        request = jobs_pb.CreateJobRequest(spec=spec, validate_only=True)
        codes.add(_call(channel, _JOB + "CreateJob", request.SerializeToString()))
    assert codes == {_OK, _INVALID}


def _with_inner(terms: int, **fields: Any) -> spec_pb.JobSpec:
    spec = _spec(train="digits-train")
    spec.cost.inner.extend([spec_pb.InnerTerm(**fields)] * terms)
    return spec


def _absurd_specs() -> dict[str, spec_pb.JobSpec]:
    many, terabytes, wordy = _spec(train="digits-train"), _spec(train="digits-train"), _spec(train="é" * 300)
    many.model.layers[:] = [2] * 1_000_000
    terabytes.model.layers[:] = [0, *[1_000_000] * 98, 0]
    wordy.model.layers[:], wordy.model.activation[:] = [2**32 - 1] * 100, [99] * 99  # type: ignore[list-item]
    return {
        "empty": spec_pb.JobSpec(),
        "many layers": many,
        "terabytes of weights": terabytes,
        "many and long violations": wordy,
        "many bad terms": _with_inner(100, layer=77, term=99, weight=float("nan"), target=9, nodes=[2**32 - 1] * 30),
        "one node often": _with_inner(1, layer=1, term=1, weight=1, nodes=[0] * 300_000),
    }


@pytest.mark.parametrize("case", _absurd_specs())
def test_absurd_specs_are_refused(client: Client, digits: None, case: str) -> None:
    """However many rules are broken, the answer fits into a status."""
    with pytest.raises(InvalidRequestError) as refused:
        client.submit(_absurd_specs()[case])
    assert refused.value.violations


def test_what_would_bloat_every_list_is_refused(client: Client, channel: grpc.Channel, digits: None) -> None:
    """A spec of megabytes, and a request id of megabytes, are not kept."""
    with pytest.raises(TooLargeError, match="at most 1,048,576"):
        client.submit(_with_inner(100, layer=1, term=1, weight=1, nodes=[0] * 30_000))
    request = jobs_pb.CreateJobRequest(spec=_spec(train="digits-train"), request_id="r" * 1_000_000)
    assert _call(channel, _JOB + "CreateJob", request.SerializeToString()) == _INVALID


# -- jobs --------------------------------------------------------------------------------------------------------------


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


def test_silly_jobs_end_well(client: Client, small: None, channel: grpc.Channel, tmp_path: Path) -> None:
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
    _predict_badly(client, channel, done[1].model_id, tmp_path / "rows.csv")


def _predict_badly(client: Client, channel: grpc.Channel, model_id: str, file: Path) -> None:
    for data, sentence in [(b"1\n", "1 columns"), (b"1,x\n", "'x'"), (b"1,2,2\n", "label 2"), (b"1,nan\n", "nan")]:
        file.write_bytes(data)
        with pytest.raises(InvalidRequestError, match=sentence):
            list(client.predict(model_id, [file]))
    stub = models_grpc.ModelServiceStub(channel)

    def deleted_on_the_way() -> Iterator[models_pb.PredictRequest]:
        described = datasets_pb.DataFiles(files=[datasets_pb.DataFile(filename="a.csv", size_bytes=4)])
        yield models_pb.PredictRequest(header=models_pb.PredictHeader(model_id=model_id, data_files=described))
        yield models_pb.PredictRequest(chunk=b"1")
        client.delete_model(model_id)
        yield models_pb.PredictRequest(chunk=b",2\n")

    assert _end(stub.Predict(deleted_on_the_way(), timeout=_SECONDS)) == _NOT_FOUND
    with pytest.raises(NotFoundError):
        list(client.predict(model_id, [file]))


def test_a_crowd_of_watchers_and_jobs(client: Client, channel: grpc.Channel, daemon: Any, digits: None) -> None:
    """200 idle watchers, 100 jobs at once, 50 scrapes and HTTP rubbish; each job is cancelled exactly once."""
    stub = jobs_grpc.JobServiceStub(channel)
    giant = _submit(client, "data: {train: digits-train}\nmodel: {layers: [64, 10]}\ndistribution: {workers: 10000}")
    firsts = (1, 10**18, 2**64 - 1)
    watches = [stub.WatchJob(jobs_pb.WatchJobRequest(job_id=giant, from_event=firsts[n % 3])) for n in range(200)]
    assert [next(watch).event.number for watch in watches[::3]] == [1] * 67
    spec = _spec(train="digits-train")
    spec.training.epochs, spec.training.batch_size, spec.distribution.workers = 1_000_000, 1, 8
    calls = [stub.CreateJob.future(jobs_pb.CreateJobRequest(spec=spec), timeout=_SECONDS) for _ in range(100)]
    jobs = [call.result().job.job_id for call in calls]
    with ThreadPoolExecutor(50) as pool:
        assert all(b"nablad_jobs{" in page for page in pool.map(_scrape, [daemon.metrics_url] * 50))
    _http_rubbish(daemon.metrics_url)
    with pytest.raises(ConflictError, match="is used by job"):
        client.delete_dataset("digits-train")
    cancels = [stub.CancelJob.future(jobs_pb.CancelJobRequest(job_id=id_), timeout=_SECONDS) for id_ in jobs * 2]
    codes = [call.code() for call in cancels]
    assert (codes.count(_OK), codes.count(grpc.StatusCode.FAILED_PRECONDITION)) == (100, 100)
    client.cancel(giant)
    assert {_end(watch) for watch in watches} == {_OK}


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
        with socket.create_connection(address, timeout=_SECONDS) as connection, suppress(ConnectionError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass
    assert b"nablad_jobs{" in _scrape(url)


def test_a_stopped_worker_changes_nothing(client: Client, daemon: Any, digits: None) -> None:
    """A worker that is stopped until it counts as lost, and then goes on, leaves the weights of a run without."""
    text = (
        "data: {train: digits-train, scaling: unit}\nmodel: {layers: [64, 30, 10]}\ntraining: {epochs: 100}\n"
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


# -- the parameter server ----------------------------------------------------------------------------------------------


def test_rubbish_results_are_refused_one_by_one(
    assignment: Callable[..., ps_pb.Assignment], plain_training: Callable[[ps_pb.Assignment], bytes]
) -> None:
    """Each wrong result gets its reason, the tickets that it leaves open are given out again, and no weight changes."""
    spec, violations = parse(
        "data: {train: train, validation: validation, scaling: standard}\n"
        "model: {layers: [6, 5, 3], activation: sigmoid, output_activation: sigmoid, dtype: float64}\n"
        "cost: {function: log_loss}\n"
        "training: {epochs: 2, batch_size: 16, learning_rate: 0.5, seed: 3}\ndistribution: {micro_batches: 4}"
    )
    assert not violations
    job = assignment(complete(spec, None))
    weights = asyncio.run(_train_against_rubbish(job))
    assert weights == plain_training(job)


async def _train_against_rubbish(job: ps_pb.Assignment) -> bytes:
    server, address = await start_parameter_server(job, "secret", "127.0.0.1")
    secret = (SECRET_KEY, "secret")
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            unreadable = channel.unary_unary("/nablad.v1.ParameterServerService/Join", None, None)
            assert await unreadable(b"\xff" * 9, metadata=(secret,)).code() == _INVALID
            stub = ps_grpc.ParameterServerServiceStub(channel)
            far_ahead = stub.Follow(ps_pb.FollowRequest(seen=2**64 - 1), metadata=(secret,))
            joined = await stub.Join(ps_pb.JoinRequest(transports=[ps_pb.TRANSPORT_INLINE]), metadata=(secret,))
            call = stub.Exchange(metadata=(secret, (WORKER_ID_KEY, joined.worker_id)))
            await call.write(ps_pb.ExchangeRequest(attempt=1))
            await _send_rubbish(call, job)
            call.cancel()
            far_ahead.cancel()
            await work(address, "secret", threads=1, message_bytes=build.message_bytes(job))
            fetched = stub.FetchWeights(ps_pb.FetchWeightsRequest(), metadata=(secret,))
            return b"".join([response.chunk async for response in fetched])
    finally:
        await server.stop(None)


async def _send_rubbish(call: Any, job: ps_pb.Assignment) -> None:
    order = await call.read()
    computation, parameters = Computation(job), build.first_parameters(job.spec)
    right = [computation.answer(ticket, parameters, 0) for ticket in order.tickets]
    unknown, not_finite = ps_pb.Result(ticket=ps_pb.Ticket(step=2**63)), ps_pb.Result()
    not_finite.CopyFrom(right[2])
    not_finite.gradient = b"\xff" * len(not_finite.gradient)
    for attempt, result in [(7, right[0]), (1, unknown), (1, right[1]), (1, right[1]), (1, not_finite), (1, right[3])]:
        await call.write(ps_pb.ExchangeRequest(attempt=attempt, result=result))
    again = await call.read()
    assert [ps_pb.Refusal.Name(each.refusal) for each in again.acknowledgements] == [
        "REFUSAL_WRONG_ATTEMPT", "REFUSAL_UNKNOWN_TICKET", "REFUSAL_UNSPECIFIED", "REFUSAL_DUPLICATE",
        "REFUSAL_NOT_FINITE", "REFUSAL_UNSPECIFIED",
    ]  # fmt: skip
    assert sorted(ticket.micro_batch for ticket in again.tickets) == [0, 2]
