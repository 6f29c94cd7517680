"""Parameter server and workers over real gRPC, in one process and without Ray."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc
import pytest

from nablad.spec import complete, parse
from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from nablad.v1 import parameter_server_pb2_grpc as ps_grpc
from service.parameter_server import servicer
from service.parameter_server.process import start_parameter_server
from workers import build
from workers.computation import Computation
from workers.worker import SECRET_KEY, WORKER_ID_KEY, work

MakeAssignment = Callable[..., ps_pb.Assignment]

SECRET = ((SECRET_KEY, "secret"),)
JOB_FILE = """
name: small
data: {train: train, validation: validation, scaling: standard}
model: {layers: [6, 5, 3], activation: sigmoid, output_activation: sigmoid, dtype: float64}
cost: {function: log_loss}
training: {epochs: 2, batch_size: 16, learning_rate: 0.5, seed: 3}
distribution: {micro_batches: 4}
"""


def _spec() -> spec_pb.JobSpec:
    spec, violations = parse(JOB_FILE)
    assert not violations
    return complete(spec, None)


@asynccontextmanager
async def _parameter_server(
    assignment: ps_pb.Assignment,
) -> AsyncIterator[tuple[str, ps_grpc.ParameterServerServiceStub]]:
    server, address = await start_parameter_server(assignment, "secret", "127.0.0.1")
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            yield address, ps_grpc.ParameterServerServiceStub(channel)
    finally:
        await server.stop(None)


async def _work(address: str, assignment: ps_pb.Assignment) -> None:
    await work(address, "secret", threads=1, message_bytes=build.message_bytes(assignment))


async def _weights(stub: ps_grpc.ParameterServerServiceStub) -> bytes:
    call = stub.FetchWeights(ps_pb.FetchWeightsRequest(), metadata=SECRET)
    return b"".join([response.chunk async for response in call])


async def _follow(stub: ps_grpc.ParameterServerServiceStub, seen: int = 0) -> list[ps_pb.FollowResponse]:
    call = stub.Follow(ps_pb.FollowRequest(seen=seen), metadata=SECRET)
    return [told async for told in call if told.WhichOneof("happening")]


async def _join(stub: ps_grpc.ParameterServerServiceStub) -> ps_pb.JoinResponse:
    request = ps_pb.JoinRequest(host_fingerprint="here", process_id=1, transports=[ps_pb.TRANSPORT_INLINE])
    return await stub.Join(request, metadata=SECRET)


def _exchange(
    stub: ps_grpc.ParameterServerServiceStub, worker_id: str
) -> "grpc.aio.StreamStreamCall[ps_pb.ExchangeRequest, ps_pb.ExchangeResponse]":
    return stub.Exchange(metadata=(*SECRET, (WORKER_ID_KEY, worker_id)))


async def _open(
    stub: ps_grpc.ParameterServerServiceStub,
) -> "tuple[grpc.aio.StreamStreamCall[ps_pb.ExchangeRequest, ps_pb.ExchangeResponse], ps_pb.ExchangeResponse]":
    """Joins as a worker by hand; gives its stream and its first order."""
    joined = await _join(stub)
    call = _exchange(stub, joined.worker_id)
    await call.write(ps_pb.ExchangeRequest(attempt=1))
    order = await call.read()
    assert isinstance(order, ps_pb.ExchangeResponse)
    return call, order


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 8])
def test_the_result_is_that_of_a_plain_numpy_loop(
    workers: int, assignment: MakeAssignment, plain_training: Callable[[ps_pb.Assignment], bytes]
) -> None:
    """Any number of workers gives, bit for bit, the float64 weights of one loop in one process."""
    job = assignment(_spec())

    async def train() -> bytes:
        async with _parameter_server(job) as (address, stub):
            await asyncio.gather(*(_work(address, job) for _ in range(workers)))
            return await _weights(stub)

    assert asyncio.run(train()) == plain_training(job)


def test_a_worker_that_breaks_off_is_replaced_without_a_trace(
    assignment: MakeAssignment, plain_training: Callable[[ps_pb.Assignment], bytes]
) -> None:
    """A stream that ends with tickets open changes nothing in the result, and is told as a happening."""
    job = assignment(_spec())

    async def train() -> tuple[bytes, list[ps_pb.FollowResponse]]:
        async with _parameter_server(job) as (address, stub):
            call, order = await _open(stub)
            result = Computation(job).answer(order.tickets[0], build.first_parameters(job.spec), 0)
            await call.write(ps_pb.ExchangeRequest(attempt=1, result=result))
            call.cancel()
            await _work(address, job)
            return await _weights(stub), await _follow(stub)

    weights, told = asyncio.run(train())
    assert weights == plain_training(job)
    assert [each.WhichOneof("happening") for each in told] == [
        "worker_joined", "worker_lost", "worker_joined", "epoch_end", "epoch_end", "finished",
    ]  # fmt: skip
    assert told[-1].telemetry.workers_lost == 1


def test_a_worker_that_hangs_is_given_up(
    assignment: MakeAssignment,
    plain_training: Callable[[ps_pb.Assignment], bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that holds tickets and says nothing is told to join again, and the others do its work."""
    monkeypatch.setattr(servicer, "_PATIENCE_SECONDS", 0.1)
    job = assignment(_spec())

    async def train() -> tuple[bytes, grpc.StatusCode]:
        async with _parameter_server(job) as (address, stub):
            call, order = await _open(stub)
            assert order.tickets
            code = await call.code()
            await _work(address, job)
            return await _weights(stub), code

    assert asyncio.run(train()) == (plain_training(job), grpc.StatusCode.UNAVAILABLE)


def test_refused_results_do_not_disturb_the_training(
    assignment: MakeAssignment, plain_training: Callable[[ps_pb.Assignment], bytes]
) -> None:
    """A worker that sends rubbish first is told so, and the result is as without it."""
    job = assignment(_spec())

    async def train() -> tuple[bytes, list[ps_pb.FollowResponse]]:
        async with _parameter_server(job) as (address, stub):
            call, order = await _open(stub)
            for ticket in order.tickets:
                await call.write(ps_pb.ExchangeRequest(attempt=1, result=ps_pb.Result(ticket=ticket, sample_count=1)))
            again = await call.read()
            assert [each.refusal for each in again.acknowledgements] == [ps_pb.REFUSAL_WRONG_COUNT] * len(order.tickets)
            assert {ticket.micro_batch for ticket in again.tickets} == {ticket.micro_batch for ticket in order.tickets}
            call.cancel()
            await _work(address, job)
            return await _weights(stub), await _follow(stub)

    weights, told = asyncio.run(train())
    assert weights == plain_training(job)
    assert told[-1].telemetry.refused == {"wrong_count": 4}


def test_a_follower_resumes_where_it_was(assignment: MakeAssignment) -> None:
    """Happenings that were seen are not told again, and none is left out."""
    job = assignment(_spec())

    async def train() -> tuple[list[ps_pb.FollowResponse], list[ps_pb.FollowResponse]]:
        async with _parameter_server(job) as (address, stub):
            await _work(address, job)
            return await _follow(stub), await _follow(stub, seen=2)

    everything, rest = asyncio.run(train())
    assert len(everything) == 4
    assert rest == everything[2:]
    assert rest[0].epoch_end.epoch == 2


def test_a_diverging_training_is_told_as_failed(assignment: MakeAssignment) -> None:
    """Gradients that are not finite end the training with advice, and the worker ends in peace."""
    spec = _spec()
    spec.cost.function = spec_pb.COST_FUNCTION_MEAN_SQUARED_ERROR
    spec.model.output_activation = spec.model.activation[0] = spec_pb.ACTIVATION_IDENTITY
    spec.training.learning_rate = 1000
    spec.training.epochs = 100
    job = assignment(spec)

    async def train() -> list[ps_pb.FollowResponse]:
        async with _parameter_server(job) as (address, stub):
            await _work(address, job)
            return await _follow(stub)

    told = asyncio.run(train())
    assert told[-1].WhichOneof("happening") == "failed"
    assert "training.learning_rate below 1000" in told[-1].failed


def test_a_worker_that_comes_when_all_is_done_ends_at_once(assignment: MakeAssignment) -> None:
    """It is told that there is nothing to do, and leaves no trace."""
    job = assignment(_spec())

    async def train() -> list[ps_pb.FollowResponse]:
        async with _parameter_server(job) as (address, stub):
            await _work(address, job)
            await asyncio.wait_for(_work(address, job), 10)
            return await _follow(stub)

    assert [told.WhichOneof("happening") for told in asyncio.run(train())][-1] == "finished"


@pytest.mark.parametrize("call", ["Join", "Exchange", "Follow", "FetchWeights"])
def test_every_call_needs_the_secret(call: str, assignment: MakeAssignment) -> None:
    """Without the job's secret nothing is told and nothing is taken."""
    job = assignment(_spec())

    async def ask() -> grpc.StatusCode:
        async with _parameter_server(job) as (_, stub):
            metadata = ((SECRET_KEY, "guess"),)
            calls = {
                "Join": lambda: stub.Join(ps_pb.JoinRequest(), metadata=metadata),
                "Exchange": lambda: stub.Exchange(metadata=metadata),
                "Follow": lambda: stub.Follow(ps_pb.FollowRequest(), metadata=metadata),
                "FetchWeights": lambda: stub.FetchWeights(ps_pb.FetchWeightsRequest(), metadata=metadata),
            }
            return await calls[call]().code()

    assert asyncio.run(ask()) == grpc.StatusCode.UNAUTHENTICATED


def test_an_exchange_needs_a_join_of_its_own(assignment: MakeAssignment) -> None:
    """A worker id that was not given out, or is in use already, opens no stream."""
    job = assignment(_spec())

    async def ask() -> list[grpc.StatusCode]:
        codes = []
        async with _parameter_server(job) as (_, stub):
            joined = await _join(stub)
            first = _exchange(stub, joined.worker_id)
            await first.write(ps_pb.ExchangeRequest(attempt=1))
            await first.read()
            for worker_id in ("worker-99", joined.worker_id):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await _exchange(stub, worker_id).read()
                codes.append(refused.value.code())
            first.cancel()
        return codes

    assert asyncio.run(ask()) == [grpc.StatusCode.FAILED_PRECONDITION] * 2
