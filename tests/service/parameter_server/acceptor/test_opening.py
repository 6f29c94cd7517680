"""Where connections are opened, and for whom: only for workers that were named, and once."""

import asyncio
import gc
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nablad.v1 import job_spec_pb2 as spec_pb
from workers.mathematics.sums import SampleSums
from workers.transport.frames import WORKER_STATISTICS
from workers.transport.handshake import HANDSHAKE
from workers.transport.server_connection import ServerConnectionError
from workers.transport.tickets import Result, Ticket

MakeBench = Callable[..., Any]
HangsUp = Callable[[socket.socket], bool]

TICKET = Ticket(0, 1, 0)
AUTO, SHARED, INLINE = spec_pb.TRANSPORT_AUTO, spec_pb.TRANSPORT_SHARED, spec_pb.TRANSPORT_INLINE

both_ways = pytest.mark.parametrize("shared", [True, False], ids=["shared", "inline"])


OFFERS = [
    (AUTO, True, True, {"shared_connection", "inline_connection"}),
    (AUTO, True, False, {"inline_connection"}),
    (AUTO, False, True, {"inline_connection"}),
    (SHARED, True, True, {"shared_connection"}),
    (SHARED, True, False, set()),
    (SHARED, False, True, set()),
    (INLINE, False, True, {"inline_connection"}),
    (INLINE, False, False, {"inline_connection"}),
]


@pytest.mark.parametrize(("transport", "memory", "same_host", "offered"), OFFERS)
def test_the_spec_and_the_host_say_which_connections_are_offered(
    make_acceptor_bench: MakeBench,
    transport: spec_pb.Transport.ValueType,
    memory: bool,
    same_host: bool,
    offered: set[str],
) -> None:
    """Memory only on the same host and where the system has it; messages unless the spec wants memory alone."""
    bench = make_acceptor_bench(transport, memory=memory)
    joined = bench.join(same_host=same_host)
    assert {field.name for field, _ in joined.ListFields()} - {"worker_id", "token"} == offered
    assert bench.possible == bool(offered)


@pytest.mark.parametrize("same_host", [True, False])
def test_a_connection_brings_weights_and_takes_gradients(make_acceptor_bench: MakeBench, same_host: bool) -> None:
    """A worker on the same host reads and writes memory, one on another host is sent and sends the same."""
    bench = make_acceptor_bench()
    with bench.open(bench.join(same_host=same_host)) as worker:
        connection = bench.take()
        assert connection is not None
        assert worker.shared == (connection.transport == "shared") == same_host
        bench.weights[:] = np.arange(bench.weights.size)
        connection.send_order([TICKET], [], 1)
        order = worker.next_order()
        assert order is not None
        assert np.array_equal(worker.weights, bench.weights)
        worker.start_gradient()
        worker.gradient[:] = 2 * worker.weights
        worker.send_result(
            Result(TICKET, 1, SampleSums(1.5, 10, 4), worker.gradient), 1, [0.0] * len(WORKER_STATISTICS)
        )
        while (report := connection.receive_report()) is None:
            pass
        assert np.array_equal(report.result.gradient, 2 * bench.weights)
        connection.close()


@both_ways
@pytest.mark.parametrize("token", [bytes(32), b"\xff" * 32, b"x" * 10_000])
def test_a_wrong_token_opens_nothing(
    make_acceptor_bench: MakeBench, hangs_up: HangsUp, shared: bool, token: bytes
) -> None:
    """Whoever was not named is turned away without a word, and not given any file."""
    bench = make_acceptor_bench()
    joined = bench.join()
    with bench.connect(joined, shared=shared) as stranger:
        stranger.sendall(token)
        assert hangs_up(stranger)
    assert bench.take() is None


@both_ways
def test_a_token_opens_the_connection_of_its_own_worker(make_acceptor_bench: MakeBench, shared: bool) -> None:
    """Who has another one's token opens the other one's connection."""
    bench = make_acceptor_bench()
    bench.join("a")
    with bench.open(bench.join("b", same_host=shared)):
        assert bench.take("a") is None
        connection = bench.take("b")
        assert connection is not None
        connection.close()


@both_ways
def test_a_token_is_worth_nothing_once_its_worker_attends(make_acceptor_bench: MakeBench, shared: bool) -> None:
    """Nobody comes after it."""
    bench = make_acceptor_bench()
    joined = bench.join(same_host=shared)
    with bench.open(joined):
        connection = bench.take()
        assert connection is not None
        with pytest.raises(ServerConnectionError):
            bench.open(joined)
        assert bench.take() is None
        connection.close()


@both_ways
def test_a_second_connection_of_a_worker_takes_the_place_of_the_first(
    make_acceptor_bench: MakeBench, shared: bool
) -> None:
    """A worker that fell back, or tried again, has one connection."""
    bench = make_acceptor_bench()
    joined = bench.join(same_host=shared)
    with bench.open(joined) as first, bench.open(joined) as second:
        assert first.next_order() is None
        connection = bench.take()
        assert connection is not None
        connection.send_order([TICKET], [], 0)
        assert second.next_order() is not None
        connection.close()


@both_ways
@pytest.mark.parametrize("said", ["nothing", "half a token"])
def test_silence_is_turned_away(
    make_acceptor_bench: MakeBench, hangs_up: HangsUp, impatience: None, shared: bool, said: str
) -> None:
    """Who connects and says nothing, or half of what it should, is not waited for for ever."""
    bench = make_acceptor_bench()
    joined = bench.join()
    with bench.connect(joined, shared=shared) as silent:
        silent.sendall(joined.token[: 16 if said == "half a token" else 0])
        assert hangs_up(silent)


def test_a_challenge_must_be_answered(make_acceptor_bench: MakeBench, hangs_up: HangsUp, impatience: None) -> None:
    """Who takes the files and says nothing has no connection."""
    bench = make_acceptor_bench()
    joined = bench.join()
    with bench.connect(joined, shared=True) as silent:
        silent.sendall(joined.token)
        assert silent.recv(1) == HANDSHAKE  # the files with it are left to the kernel
        assert hangs_up(silent)
    assert bench.take() is None


@both_ways
def test_a_worker_that_does_not_attend_has_its_connection_closed(
    make_acceptor_bench: MakeBench, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    """It died after it was let in, and nobody else would ever know."""
    monkeypatch.setattr("service.parameter_server.transport.acceptor._ATTEND_SECONDS", 0.01)
    bench = make_acceptor_bench()
    with bench.open(bench.join(same_host=shared)) as worker:
        assert worker.next_order() is None
        assert bench.take() is None


@both_ways
def test_a_worker_that_attends_keeps_its_connection(make_acceptor_bench: MakeBench, shared: bool) -> None:
    """Nobody waits any more for it to attend."""
    bench = make_acceptor_bench()
    with bench.open(bench.join(same_host=shared)):
        bench.settle()
        _, timer = bench.acceptor._connections["a"]
        connection = bench.take()
        assert connection is not None
        assert timer.cancelled()
        connection.close()


@both_ways
def test_few_may_say_nothing_at_a_time(
    make_acceptor_bench: MakeBench, hangs_up: HangsUp, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    """Who comes when there are too many waits until one of them is turned away, and is served then."""
    monkeypatch.setattr("service.parameter_server.transport.acceptor._OPEN_SECONDS", 0.1)
    monkeypatch.setattr("service.parameter_server.transport.acceptor._MOST_UNKNOWN", 2)
    bench = make_acceptor_bench()
    joined = bench.join(same_host=shared)
    silent = [bench.connect(joined, shared=shared) for _ in range(5)]
    with bench.open(joined):
        connection = bench.take()
        assert connection is not None
        connection.close()
    for connection in silent:
        assert hangs_up(connection)
        connection.close()


def _open_files() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def test_nothing_is_left_open(make_acceptor_bench: MakeBench, hangs_up: HangsUp) -> None:
    """Lines that nobody took, connections that said nothing, listeners and memory go with the acceptor."""
    bench = make_acceptor_bench()
    before = _open_files() - 2  # the listeners
    joined = [bench.join(name, same_host=name == "a") for name in ("a", "b", "c")]
    silent = [bench.connect(joined[0], shared=shared) for shared in (True, False)]
    with bench.open(joined[0]), bench.open(joined[1]):
        pass
    with bench.open(joined[2]) as worker:
        bench.close()
        assert worker.next_order() is None
    for connection in silent:
        assert hangs_up(connection)
        connection.close()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as late, pytest.raises(ConnectionRefusedError):
        late.connect(b"\0" + joined[0].shared_connection.socket_name)
    assert _open_files() == before


def test_a_moment_without_files_is_survived(
    make_acceptor_bench: MakeBench, loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the process has no more files to open, it accepts again as soon as it can."""
    accept, rejected = asyncio.SelectorEventLoop.sock_accept, []

    async def accept_later(self: asyncio.SelectorEventLoop, listener: socket.socket) -> Any:
        if not rejected:
            rejected.append(listener)
            raise OSError(24, "Too many open files")
        return await accept(self, listener)

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_accept", accept_later)
    monkeypatch.setattr("service.parameter_server.transport.acceptor._PAUSE_SECONDS", 0)
    bench = make_acceptor_bench(SHARED)
    with bench.open(bench.join()):
        assert rejected
