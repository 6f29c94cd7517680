"""Who listens where Ray is said to be."""

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
def test_what_is_no_address_of_ray_is_refused(address: str) -> None:
    """With the address in the sentence."""
    with pytest.raises(ClusterError, match="Ray cluster") as refused:
        require_listener(address)
    assert address in str(refused.value)


def test_an_address_is_taken_while_somebody_listens() -> None:
    """And not afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        require_listener(address)
    with pytest.raises(ClusterError, match="ray start --head"):
        require_listener(address)


def test_the_process_behind_a_unix_socket_is_known() -> None:
    """By its id; nobody is behind one that is not there."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = str(Path(folder, "socket"))
        assert process_at(path) is None
        listener.bind(path)
        listener.listen()
        assert process_at(path) == os.getpid()


def test_only_the_process_that_is_meant_may_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not another one, and not another user's; and somebody has to."""
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
def _asked(address: str) -> Iterator[Any]:
    """A call of gRPC to a method that nobody else has."""
    with grpc.insecure_channel(address) as channel:
        yield partial(channel.unary_unary("/ray.Head/Ask"), b"")


class Head(grpc.GenericRpcHandler):
    """Ends each call with a status."""

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
def test_a_head_is_one_that_answers_or_asks_for_a_token(code: grpc.StatusCode) -> None:
    """What the token is for is Ray's to say."""
    with _serving(Head(code)) as address, _asked(address) as ask:
        require_head(address, ask)


def test_another_service_is_no_head() -> None:
    """A gRPC server without the method, for instance this service itself; the sentence says what to give."""
    with (
        _serving() as address,
        _asked(address) as ask,
        pytest.raises(ClusterError, match="ray start --head") as refused,
    ):
        require_head(address, ask)
    assert f"what listens at {address} is not the head of a Ray cluster (UNIMPLEMENTED" in str(refused.value)


def test_who_listens_and_says_nothing_is_no_head() -> None:
    """After a bounded time."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        ask = stack.enter_context(_asked(address))
        with pytest.raises(ClusterError, match="not the head"):
            require_head(address, ask, seconds=0.1)


def test_without_the_loopback_address_the_sentence_says_what_to_do() -> None:
    """Those of 192.0.2.0/24 are nobody's, as 127.0.0.1 is where there is no IPv4."""
    require_loopback()
    with pytest.raises(ClusterError, match=r"no 192\.0\.2\.1 .* needs IPv4: .* --ray"):
        require_loopback("192.0.2.1")


def test_an_address_of_ipv6_may_stand_in_brackets() -> None:
    """As everywhere."""
    with ExitStack() as stack:
        try:
            listener = stack.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6))
        except OSError:
            pytest.skip("this host has no IPv6")
        require_listener(f"[::1]:{listener.getsockname()[1]}")
