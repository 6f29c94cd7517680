"""The server of the API: what it answers by itself, and how many clients it takes."""

import logging
from typing import Any

import grpc
import pytest


def test_methods_that_are_not_there_leave_no_traceback(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Health/List is in the contract of health checks, and the package that answers them leaves it out."""

    async def use(address: str) -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            for method in ("/grpc.health.v1.Health/List", "/nablad.v1.JobService/NoSuch"):
                for _ in range(10):
                    assert await channel.unary_unary(method)(b"").code() == grpc.StatusCode.UNIMPLEMENTED

    with caplog.at_level(logging.INFO):
        serve(use)
    (line,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "/grpc.health.v1.Health/List" in line.getMessage()
