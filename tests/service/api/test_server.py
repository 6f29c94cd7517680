"""The server of the API: what it answers by itself, and how many clients it takes."""

import asyncio
import logging
from contextlib import suppress
from typing import Any

import grpc
import pytest

from service.rpc.descriptors import connection_options


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


_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # and empty settings


def test_idle_connections_are_let_go(serve: Any, is_alive: Any) -> None:
    """Those that say nothing, and those that speak HTTP/2 and have no call; clients connect anew by themselves."""

    async def use(address: str) -> None:
        host, port = address.split(":")
        silent = await asyncio.open_connection(host, int(port))
        idle = await asyncio.open_connection(host, int(port))
        idle[1].write(_PREFACE)
        async with grpc.aio.insecure_channel(address) as channel:
            check = channel.unary_unary("/grpc.health.v1.Health/Check")
            await check(b"")
            for reader, writer in (silent, idle):
                with suppress(ConnectionResetError):
                    await reader.read()
                writer.close()
            await check(b"")
        assert await is_alive(address)

    serve(use, options=(("grpc.server_handshake_timeout_ms", 200), ("grpc.max_connection_idle_ms", 200)))


def test_one_connection_too_many_is_told_at_once(serve: Any, is_alive: Any) -> None:
    """It does not wait for its deadline; those that are there are served, and a new one when another has gone."""

    async def use(address: str) -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            check = channel.unary_unary("/grpc.health.v1.Health/Check")
            await check(b"")
            host, port = address.split(":")
            others = [await asyncio.open_connection(host, int(port)) for _ in range(9)]
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await is_alive(address)
            assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
            await check(b"")
            for _, writer in others:
                writer.close()
            while not await _is_served(is_alive, address):
                pass

    serve(use, options=(("grpc.max_allowed_incoming_connections", 10),))


async def _is_served(is_alive: Any, address: str) -> bool:
    with suppress(grpc.aio.AioRpcError):
        return bool(await is_alive(address))
    return False


def test_the_server_has_these_bounds() -> None:
    """Without being told: fewer connections than descriptors, and ends for those that say nothing."""
    options = dict(connection_options(100))
    assert options["grpc.max_allowed_incoming_connections"] <= 100
    assert options["grpc.server_handshake_timeout_ms"] <= 30_000
    assert options["grpc.max_connection_idle_ms"] <= 600_000
