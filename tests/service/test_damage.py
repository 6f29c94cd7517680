"""Errors of what is gone or damaged: one tree, which passes between processes and becomes one status."""

import asyncio
import pickle
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import jobs_pb2_grpc as jobs_grpc
from service.errors import CheckpointError, DamagedError, DatabaseRowError, ModelFileError, StoredDatasetError
from service.rpc.error_translation import answer_errors

KINDS = [ModelFileError, CheckpointError, StoredDatasetError, DatabaseRowError]
SECONDS = 20


@pytest.mark.parametrize("kind", KINDS)
def test_errors_pass_between_processes(kind: type[DamagedError]) -> None:
    """With sentence and metadata: parameter servers meet damaged checkpoints."""
    again = pickle.loads(pickle.dumps(kind("it is gone", path="/x")))  # noqa: S301 (made here)
    assert (type(again), str(again), again.metadata) == (kind, "it is gone", {"path": "/x"})


async def test_clients_are_told_of_data_loss() -> None:
    """Whatever the kind: DATA_LOSS with the sentence, and for programs what it is about."""

    @answer_errors
    class Jobs(jobs_grpc.JobServiceServicer):
        async def GetJob(self, request: Any, context: Any) -> Any:  # noqa: N802 (gRPC's)
            raise KINDS[int(request.job_id)]("it is gone: restore it", path="/x")

    async def run() -> None:
        server = grpc.aio.server()
        jobs_grpc.add_JobServiceServicer_to_server(Jobs(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            for kind in range(len(KINDS)):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await jobs_grpc.JobServiceStub(channel).GetJob(jobs_pb.GetJobRequest(job_id=str(kind)))
                status, info = rpc_status.from_call(caught.value), error_details_pb2.ErrorInfo()
                assert caught.value.code() is grpc.StatusCode.DATA_LOSS
                assert caught.value.details() == "it is gone: restore it"
                assert status.details[0].Unpack(info)
                assert (info.reason, dict(info.metadata)) == ("DAMAGED", {"path": "/x"})
        await server.stop(None)

    await asyncio.wait_for(run(), SECONDS)
