"""Bounds on messages of clients, on a real server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from nablad.client.translation import translate
from nablad.errors import InvalidRequestError, TooLargeError
from service.rpc.intake import BoundIntake

_SECONDS = 60
_LARGE = b"x" * 100_000


class _Methods:
    """One method of each kind, which answers with the length of its messages; and one that waits for `go_on`."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.begun = asyncio.Semaphore(0)

    async def one_one(self, message: bytes, context: Any) -> bytes:
        return b"one-one %d" % len(message)

    async def one_many(self, message: bytes, context: Any) -> AsyncIterator[bytes]:
        for _ in range(2):
            yield b"one-many %d" % len(message)

    async def many_one(self, messages: AsyncIterator[bytes], context: Any) -> bytes:
        return b"many-one %d" % sum([len(message) async for message in messages])

    async def many_many(self, messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for message in messages:
            yield b"many-many %d" % len(message)

    async def wait(self, message: bytes, context: Any) -> bytes:
        self.begun.release()
        await self.go_on.wait()
        return b"done"

    def handlers(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            "T",
            {
                "OneOne": grpc.unary_unary_rpc_method_handler(self.one_one),
                "OneMany": grpc.unary_stream_rpc_method_handler(self.one_many),
                "ManyOne": grpc.stream_unary_rpc_method_handler(self.many_one),
                "ManyMany": grpc.stream_stream_rpc_method_handler(self.many_many),
                "Wait": grpc.unary_unary_rpc_method_handler(self.wait),
            },
        )


def _serve(intake: BoundIntake, use: Callable[[grpc.aio.Channel, _Methods], Awaitable[None]]) -> None:
    async def run() -> None:
        methods = _Methods()
        server = grpc.aio.server(interceptors=[intake])
        server.add_generic_rpc_handlers((methods.handlers(),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await use(channel, methods)
        await server.stop(None)

    asyncio.run(asyncio.wait_for(run(), _SECONDS))


async def _error(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as rejected:
        await call
    return rejected.value


def _is_busy(error: grpc.aio.AioRpcError) -> bool:
    """Returns whether the status says that the call may be repeated, to people and to programs."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None
    retries = [detail for detail in status.details if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR)]
    return error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and len(retries) == 1 and "try again" in status.message


def test_methods_of_every_kind_get_what_was_sent() -> None:
    """The messages are the same as if gRPC had read them."""

    async def use(channel: grpc.aio.Channel, _: _Methods) -> None:
        assert await channel.unary_unary("/T/OneOne")(b"abc") == b"one-one 3"
        assert [answer async for answer in channel.unary_stream("/T/OneMany")(b"abc")] == [b"one-many 3"] * 2
        assert await channel.stream_unary("/T/ManyOne")(iter([b"abc", b"", b"d"])) == b"many-one 4"
        answers = channel.stream_stream("/T/ManyMany")(iter([b"abc", b"d"]))
        assert [answer async for answer in answers] == [b"many-many 3", b"many-many 1"]
        assert await channel.stream_unary("/T/ManyOne")(iter([])) == b"many-one 0"

    _serve(BoundIntake(), use)


def test_a_call_without_its_message_is_rejected() -> None:
    """A stub of gRPC cannot make such a call, but a fuzzer can."""

    async def use(channel: grpc.aio.Channel, _: _Methods) -> None:
        error = await _error(channel.stream_unary("/T/OneOne")(iter([])))
        assert isinstance(translate(error, "here"), InvalidRequestError)

    _serve(BoundIntake(), use)


def test_a_message_may_be_as_large_as_its_method_allows() -> None:
    """The default is 64 KiB; a larger message never reaches the method."""

    async def use(channel: grpc.aio.Channel, _: _Methods) -> None:
        assert await channel.unary_unary("/T/OneOne")(b"x" * (64 << 10)) == b"one-one 65536"
        error = await _error(channel.unary_unary("/T/OneOne")(b"x" * (64 << 10) + b"x"))
        assert isinstance(translate(error, "here"), TooLargeError)
        assert "65,537 bytes" in str(error.details())
        many = channel.unary_stream("/T/OneMany")(_LARGE)
        assert [answer async for answer in many] == [b"one-many 100000"] * 2

    _serve(BoundIntake({"/T/OneMany": 100_000}), use)


def test_bytes_in_use_are_bounded() -> None:
    """A surplus large message is rejected as BUSY; small ones are accepted, and large ones again afterwards."""
    intake = BoundIntake({"/T/Wait": len(_LARGE)}, most_bytes=2 * len(_LARGE))

    async def use(channel: grpc.aio.Channel, methods: _Methods) -> None:
        wait = channel.unary_unary("/T/Wait")
        held = [wait(_LARGE) for _ in range(2)]
        for _ in held:
            await methods.begun.acquire()
        assert intake._bytes.held == 2 * len(_LARGE)
        assert _is_busy(await _error(wait(_LARGE)))
        assert await channel.unary_unary("/T/OneOne")(b"abc") == b"one-one 3"
        methods.go_on.set()
        assert [await call for call in held] == [b"done"] * 2
        assert await wait(_LARGE) == b"done"

    _serve(intake, use)
    assert intake._bytes.held == 0


def test_chunks_of_files_count_only_while_they_are_in_use() -> None:
    """A file may have many more bytes than the bound."""
    intake = BoundIntake(most_bytes=len(_LARGE))

    async def use(channel: grpc.aio.Channel, _: _Methods) -> None:
        assert await channel.stream_unary("/T/ManyOne")(iter([_LARGE] * 20)) == b"many-one 2000000"
        error = await _error(channel.stream_unary("/T/ManyOne")(iter([_LARGE, _LARGE + b"x"])))
        assert _is_busy(error)

    _serve(intake, use)
    assert intake._chunks.held == 0


def test_a_file_is_not_rejected_for_messages_of_others() -> None:
    """Half of the file may have been sent already."""
    intake = BoundIntake({"/T/Wait": len(_LARGE)}, most_bytes=len(_LARGE))

    async def use(channel: grpc.aio.Channel, methods: _Methods) -> None:
        held = channel.unary_unary("/T/Wait")(_LARGE)
        await methods.begun.acquire()
        assert await channel.stream_unary("/T/ManyOne")(iter([_LARGE] * 3)) == b"many-one 300000"
        methods.go_on.set()
        assert await held == b"done"

    _serve(intake, use)


@pytest.mark.parametrize(("method", "bounds"), [("OneOne", {"arriving": 3}), ("ManyOne", {"streams": 3})])
def test_a_surplus_call_replaces_the_one_that_has_waited_longest(method: str, bounds: dict[str, int]) -> None:
    """Clients that start calls and send nothing do not block others."""
    intake = BoundIntake(**bounds)  # type: ignore[arg-type]
    waiting = intake._arrivals if method == "OneOne" else intake._streams

    async def silent() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    async def use(channel: grpc.aio.Channel, _: _Methods) -> None:
        call = channel.stream_unary(f"/T/{method}")
        calls = []
        for number in range(10):
            calls.append(call(silent()))
            if number >= 3:
                assert _is_busy(await _error(calls[number - 3]))
            while len(waiting._waiting) < min(number + 1, 3):  # noqa: ASYNC110 (there is no event)
                await asyncio.sleep(0)
        assert [call.done() for call in calls] == [True] * 7 + [False] * 3
        assert (await call(iter([b"abc"]))).endswith(b" 3")
        for silent_call in calls:
            silent_call.cancel()

    _serve(intake, use)
    assert not waiting._waiting
