"""Which way weights and gradients take, as the spec wants and the hosts allow."""

import mmap
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from nablad.v1 import parameter_server_pb2 as ps_pb
from workers.transport.session import ParameterServerLostError, RejectedError
from workers.transport.shared_memory import SharedMemory

MakeJob = Callable[..., ps_pb.Assignment]
Serve = Callable[..., Any]
PlainTraining = Callable[[ps_pb.Assignment], bytes]


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers seem to be on another host."""
    monkeypatch.setattr("workers.worker.host_fingerprint", lambda: "elsewhere")


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers seem to be on the same host, but see other memory; and do not try for ever."""
    monkeypatch.setattr(SharedMemory, "answer_challenge", lambda _: None)
    monkeypatch.setattr("workers.worker._REJOIN_SECONDS", 0)


def _trained_by(served: Any) -> str:
    """Runs a worker; gives the transport that it had."""
    served.work()
    joined: str = served.wait_for("worker_joined")[0].worker_joined
    return joined.rpartition(" ")[2]


@pytest.mark.parametrize(("transport", "taken"), [("auto", "shared"), ("shared", "shared"), ("inline", "inline")])
def test_the_spec_says_how_a_worker_on_this_host_is_reached(
    serve: Serve, make_job: MakeJob, plain_training: PlainTraining, transport: str, taken: str
) -> None:
    """In shared memory unless it wants messages."""
    job = make_job(transport=transport)
    served = serve(job)
    assert _trained_by(served) == taken
    assert served.weights() == plain_training(job)


@pytest.mark.parametrize("transport", ["auto", "inline"])
def test_a_worker_on_another_host_is_reached_inline(
    serve: Serve, make_job: MakeJob, plain_training: PlainTraining, elsewhere: None, transport: str
) -> None:
    """Its fingerprint says that there is no other way."""
    job = make_job(transport=transport)
    served = serve(job)
    assert _trained_by(served) == "inline"
    assert served.weights() == plain_training(job)


def test_a_worker_on_another_host_is_rejected_if_the_spec_wants_memory(
    serve: Serve, make_job: MakeJob, elsewhere: None
) -> None:
    """It is told what to change, and does not try again."""
    served = serve(make_job(transport="shared"))
    with pytest.raises(RejectedError, match="transport: shared wants; take auto or inline"):
        served.work()


def test_a_worker_that_cannot_see_the_region_is_reached_inline(
    serve: Serve, make_job: MakeJob, plain_training: PlainTraining, blind: None
) -> None:
    """Two containers that only look alike."""
    job = make_job()
    served = serve(job)
    assert _trained_by(served) == "inline"
    assert served.weights() == plain_training(job)


def test_a_worker_that_cannot_see_the_region_gives_up_if_the_spec_wants_memory(
    serve: Serve, make_job: MakeJob, blind: None
) -> None:
    """It says why."""
    served = serve(make_job(transport="shared"))
    with pytest.raises(ParameterServerLostError, match="memory cannot be shared with the parameter server"):
        served.work()


def _no_memory(name: str, size: int, *, others_may_write: bool) -> SharedMemory:
    raise OSError(38, "Function not implemented")


def test_a_system_without_such_memory_is_served_inline(
    serve: Serve, make_job: MakeJob, plain_training: PlainTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else changes."""
    monkeypatch.setattr(SharedMemory, "create", _no_memory)
    job = make_job()
    served = serve(job)
    assert _trained_by(served) == "inline"
    assert served.weights() == plain_training(job)


def test_a_worker_for_which_there_is_no_more_memory_is_reached_inline(
    serve: Serve, make_job: MakeJob, plain_training: PlainTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that have their memory keep them."""
    job = make_job()
    served = serve(job)
    first = served.hand()
    monkeypatch.setattr(SharedMemory, "create", _no_memory)
    second = served.hand()
    assert (first.connection.shared, second.connection.shared) == (True, False)
    served.wait_for("worker_joined", 2)
    second.leave()
    first.work()
    assert served.weights() == plain_training(job)


def _open_files(name: str) -> list[int]:
    """Those of this process, which is parameter server and worker at a time, that have such a name."""
    found = []
    for file in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the listing's own
            if name in str(file.readlink()):
                found.append(int(file.name))
    return found


def test_a_worker_cannot_write_the_weights(serve: Serve, make_job: MakeJob) -> None:
    """Neither through what it has mapped, nor by mapping what it was given once more."""
    served = serve(make_job(transport="shared"))
    hand = served.hand()
    assert not hand.connection.weights.flags.writeable
    files = _open_files("nablad-weights")
    assert files
    for file in files:
        with pytest.raises(PermissionError):
            mmap.mmap(file, 1, prot=mmap.PROT_READ | mmap.PROT_WRITE)
