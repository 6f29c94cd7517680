"""Checks of listeners, against real sockets."""

import os
import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from service.cluster.errors import ClusterError
from service.cluster.listeners import process_at, require_head, require_listener, require_loopback, require_process


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999", ":"])
def test_a_text_that_is_no_address_is_rejected(address: str) -> None:
    """The sentence names the text."""
    with pytest.raises(ClusterError, match="Ray cluster") as rejected:
        require_listener(address)
    assert address in str(rejected.value)


def test_an_address_is_accepted_while_a_process_listens() -> None:
    """It is rejected afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        require_listener(address)
    with pytest.raises(ClusterError, match="ray start --head"):
        require_listener(address)


def test_the_process_behind_a_unix_socket_is_known() -> None:
    """The kernel gives its id; a socket that is not there has no process."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = str(Path(folder, "socket"))
        assert process_at(path) is None
        listener.bind(path)
        listener.listen()
        assert process_at(path) == os.getpid()


def test_only_the_expected_process_may_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    """No listener, another process and another user are errors."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path, own = Path(folder, "socket"), os.geteuid()
        with pytest.raises(ClusterError, match="cannot be reached"):
            require_process(path, os.getpid())
        listener.bind(str(path))
        listener.listen()
        require_process(path, os.getpid())
        with pytest.raises(ClusterError, match=f"process {os.getpid()} of user {own} listens .* in place of"):
            require_process(path, os.getppid())
        monkeypatch.setattr(os, "geteuid", lambda: own + 1)
        with pytest.raises(ClusterError, match=f"process {os.getpid()} of user {own} listens .* TMPDIR"):
            require_process(path, os.getpid())


@contextmanager
def _call_to(address: str) -> Iterator[Any]:
    """Client side of a method that only `Head` has."""
    with grpc.insecure_channel(address) as channel:
        yield partial(channel.unary_unary("/ray.Head/Ask"), b"")


class Head(grpc.GenericRpcHandler):
    """Handler that ends each call with a status."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def service(self, handler_call_details: Any) -> Any:
        def answer(request: bytes, context: Any) -> bytes:
            if self._code is not grpc.StatusCode.OK:
                context.abort(self._code, "no")
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


@contextmanager
def _serving(*handlers: grpc.GenericRpcHandler) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(1), handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.mark.parametrize("code", [grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED])
def test_a_head_answers_or_asks_for_a_token(code: grpc.StatusCode) -> None:
    """A missing token is reported later, by Ray itself."""
    with _serving(Head(code)) as address, _call_to(address) as call:
        require_head(address, call)


def test_another_service_is_no_head() -> None:
    """A gRPC server without the method, such as this service, is rejected; the sentence says which address to give."""
    with (
        _serving() as address,
        _call_to(address) as call,
        pytest.raises(ClusterError, match="ray start --head") as rejected,
    ):
        require_head(address, call)
    assert f"what listens at {address} is not the head of a Ray cluster (UNIMPLEMENTED" in str(rejected.value)


def test_a_silent_listener_is_no_head() -> None:
    """It is rejected after a bounded time."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        call = stack.enter_context(_call_to(address))
        with pytest.raises(ClusterError, match="not the head"):
            require_head(address, call, seconds=0.1)


def test_without_the_loopback_address_the_sentence_says_what_to_do() -> None:
    """No host has 192.0.2.1, as none without IPv4 has 127.0.0.1."""
    require_loopback()
    with pytest.raises(ClusterError, match=r"no 192\.0\.2\.1 .* needs IPv4: .* --ray"):
        require_loopback("192.0.2.1")


def test_an_address_of_ipv6_may_stand_in_brackets() -> None:
    """The brackets are removed before the address is used."""
    with ExitStack() as stack:
        try:
            listener = stack.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6))
        except OSError:
            pytest.skip("this host has no IPv6")
        require_listener(f"[::1]:{listener.getsockname()[1]}")
