"""Memory that is handed over: to the same user and host, for what it is for, and to nobody else."""

import fcntl
import mmap
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from nablad.v1 import job_spec_pb2 as spec_pb
from workers.transport.handshake import HANDSHAKE
from workers.transport.server_connection import ServerConnectionError
from workers.transport.shared_memory import SharedMemory

MakeBench = Callable[..., Any]
HangsUp = Callable[[socket.socket], bool]

BYTES = 8 * 53  # the weights of layers 6, 5 and 3 with biases
RESULT_BYTES = 7 * 64 + 64 + 128  # a gradient in lines of the cache, its slot, and statistics
SHARED = spec_pb.TRANSPORT_SHARED


def test_memory_is_not_shared_with_another_user(
    make_acceptor_bench: MakeBench, hangs_up: HangsUp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The kernel says who is at the other end; such a worker may still use messages."""
    bench, own = make_acceptor_bench(), os.geteuid()
    joined = bench.join()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    with bench.connect(joined, shared=True) as other:
        with suppress(BrokenPipeError):  # it may have been turned away already
            other.sendall(joined.token)
        assert hangs_up(other)
    assert f"shared with user {own + 1} only, but user {own} is at the other end" in caplog.text
    with bench.open(joined) as worker:
        assert not worker.shared


def test_a_worker_that_sees_other_memory_falls_back(
    make_acceptor_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hosts may look alike: a memory that does not answer the challenge is not used."""
    monkeypatch.setattr(SharedMemory, "answer_challenge", lambda _: None)
    bench = make_acceptor_bench()
    with bench.open(bench.join()) as worker:
        connection = bench.take()
        assert connection is not None
        assert (worker.shared, connection.transport) == (False, "inline")
        connection.close()


def test_a_worker_that_sees_other_memory_has_no_connection_if_the_spec_wants_memory(
    make_acceptor_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told that memory cannot be shared."""
    monkeypatch.setattr(SharedMemory, "answer_challenge", lambda _: None)
    bench = make_acceptor_bench(SHARED)
    with pytest.raises(ServerConnectionError, match="memory cannot be shared"):
        bench.open(bench.join())
    assert bench.take() is None


def test_a_worker_that_goes_at_the_last_moment_has_no_connection(make_acceptor_bench: MakeBench, loop: Any) -> None:
    """It answers the challenge and is gone before it is told that all is well."""
    bench = make_acceptor_bench()
    joined = bench.join()
    with bench.connect(joined, shared=True) as worker:
        worker.sendall(joined.token)
        _, files, _, _ = socket.recv_fds(worker, 1, 2)
        SharedMemory(files[0], BYTES, writable=False)
        SharedMemory(files[1], BYTES, writable=True).answer_challenge()
        with loop.busy():
            worker.sendall(HANDSHAKE)
            worker.close()
    bench.settle()
    assert bench.take() is None


@pytest.fixture
def files(make_acceptor_bench: MakeBench) -> Iterator[tuple[int, int]]:
    """Those of weights and gradient that a worker is given."""
    bench = make_acceptor_bench()
    joined = bench.join()
    with bench.connect(joined, shared=True) as worker:
        worker.sendall(joined.token)
        _, files, _, _ = socket.recv_fds(worker, 1, 2)
        yield files[0], files[1]
    for file in files:
        os.close(file)


def _open_again(file: int) -> int:
    """The same file, opened for reading and writing."""
    return os.open(f"/proc/self/fd/{file}", os.O_RDWR)


@pytest.mark.parametrize("reopened", [False, True])
def test_a_worker_cannot_write_the_weights(files: tuple[int, int], reopened: bool) -> None:
    """Neither through a mapping nor through the file, however it was opened."""
    weights = _open_again(files[0]) if reopened else os.dup(files[0])
    with pytest.raises(PermissionError):
        mmap.mmap(weights, BYTES, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    with pytest.raises(PermissionError):
        os.pwrite(weights, b"x", 0)
    mmap.mmap(weights, BYTES, prot=mmap.PROT_READ).close()
    os.close(weights)


def test_nobody_resizes_a_memory(files: tuple[int, int]) -> None:
    """Who has mapped it may rely on its bytes; and who has it cannot take that back."""
    for file, length in zip(files, (BYTES, RESULT_BYTES), strict=True):
        assert os.fstat(file).st_size == length
        for size in (0, length - 1, length + 1):
            with pytest.raises(PermissionError):
                os.ftruncate(file, size)
        with pytest.raises(PermissionError):
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


def test_regions_are_private_and_have_no_name(files: tuple[int, int]) -> None:
    """Only their owner may open them, and they lie in no folder."""
    for file in files:
        status = os.fstat(file)
        assert (status.st_mode & 0o777, status.st_nlink) == (0o600, 0)
        assert Path(f"/proc/self/fd/{file}").readlink().name.startswith("memfd:nablad-")
    assert not list(Path("/dev/shm").glob("*nablad*"))  # noqa: S108 (where memory with names would lie)
