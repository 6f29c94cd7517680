"""Which code makes the steps is said, with the reason; and who insists on one gets it, or a sentence."""

import mmap
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from nablad.jobspec import rules
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.parameter_server import process
from service.parameter_server.progress import core_news
from workers.native.library import missing_reason
from workers.transport.session import ParameterServerLostError, RejectedError
from workers.transport.shared_memory import SharedMemory

MakeJob = Callable[..., ps_pb.Assignment]
Serve = Callable[..., Any]
PlainTraining = Callable[[ps_pb.Assignment], bytes]

IN_C = "steps are made in C (native step core)"
needs_library = pytest.mark.skipif(bool(missing_reason()), reason=missing_reason())


def _work(served: Any) -> tuple[list[str], dict[str, int]]:
    """Runs a worker to its end; gives what is told of step cores, and the steps of each."""
    served.work()
    told = [event.core_changed.sentence for event in served.follow() if event.HasField("core_changed")]
    return told, {core: steps for core, steps in served.state().statistics.core_steps.items() if steps}


@needs_library
@pytest.mark.parametrize("step_core", ["auto", "native"])
def test_steps_in_c_are_told(serve: Serve, make_job: MakeJob, plain_training: PlainTraining, step_core: str) -> None:
    """Once, and every step is counted."""
    job = make_job(step_core=step_core)
    served = serve(job)
    assert _work(served) == ([IN_C], {"native": 8})
    assert served.weights() == plain_training(job)


@pytest.mark.parametrize(
    ("distribution", "reason"),
    [
        ({"step_core": "python"}, "distribution.step_core is python"),
        ({"transport": "inline"}, "distribution.transport is inline"),
    ],
)
def test_steps_in_python_are_told_with_the_field_that_wants_them(
    serve: Serve, make_job: MakeJob, plain_training: PlainTraining, distribution: dict[str, str], reason: str
) -> None:
    """The bits are the same."""
    job = make_job(**distribution)
    served = serve(job)
    assert _work(served) == ([f"steps are made in Python: {reason}"], {"python": 8})
    assert served.weights() == plain_training(job)


def test_a_missing_library_is_told_with_what_to_do(
    serve: Serve, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence of the library itself."""
    monkeypatch.setattr(process, "missing_reason", lambda: "no native library: gone; install it")
    told, steps = _work(serve(make_job()))
    assert (told, steps) == (["steps are made in Python: no native library: gone; install it"], {"python": 8})


@needs_library
@pytest.mark.parametrize(
    ("patched", "value", "reason"),
    [
        ("native_abi", 0, "worker-1 has no native library, or not the parameter server's"),
        ("native_abi", 1, "worker-1 has no native library, or not the parameter server's"),
        ("host_fingerprint", "elsewhere", "worker-1 sends its gradients inline"),
    ],
)
def test_a_worker_that_cannot_take_part_is_told(
    serve: Serve, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, patched: str, value: object, reason: str
) -> None:
    """By its name."""
    monkeypatch.setattr(f"workers.worker.{patched}", lambda: value)
    assert _work(serve(make_job())) == ([f"steps are made in Python: {reason}"], {"python": 8})


@needs_library
def test_a_change_is_told(
    serve: Serve, make_job: MakeJob, plain_training: PlainTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker without the library makes one step, and leaves the others to one that has it."""
    monkeypatch.setattr(core_news, "_MOMENT_SECONDS", 0.0)
    job = make_job()
    served = serve(job)
    hand = served.hand()
    hand.answer(hand.order())
    hand.order()
    hand.leave()
    told, steps = _work(served)
    assert told == ["steps are made in Python: worker-1 has no native library, or not the parameter server's", IN_C]
    assert steps == {"python": 1, "native": 7}
    assert served.weights() == plain_training(job)


@needs_library
def test_more_micro_batches_than_workers_have_memory_for_are_told(serve: Serve, make_job: MakeJob) -> None:
    """One worker of a job whose share is too large."""
    job = make_job(rows=65, micro_batches=65)
    job.spec.training.batch_size = 65
    (told,), steps = _work(serve(job))
    assert told.startswith("steps are made in Python: the workers have not got all micro-batches of a step at once")
    assert steps == {"python": 2}


@needs_library
@pytest.mark.parametrize(
    ("patched", "value", "sentence"),
    [
        ("native_abi", 0, "it has no native library; install gcc or clang and then nablad-server again on its host"),
        ("native_abi", 1, "its native library has other sources than the parameter server's; install the same"),
        ("host_fingerprint", "elsewhere", "it is on another host than the parameter server; take auto"),
    ],
)
def test_a_worker_that_cannot_take_part_is_rejected_if_the_spec_insists(
    serve: Serve, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, patched: str, value: object, sentence: str
) -> None:
    """It is told what to do, and does not try again."""
    served = serve(make_job(step_core="native"))
    monkeypatch.setattr(f"workers.worker.{patched}", lambda: value)
    with pytest.raises(RejectedError, match=f"distribution.step_core: native wants: {sentence}"):
        served.work()


@needs_library
def test_a_worker_that_sees_other_memory_does_not_come_inline_if_the_spec_insists(
    serve: Serve, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its steps could only be made in Python."""
    served = serve(make_job(step_core="native"))
    monkeypatch.setattr(SharedMemory, "answer_challenge", lambda _: None)
    monkeypatch.setattr("workers.worker._REJOIN_SECONDS", 0)
    with pytest.raises(ParameterServerLostError, match="memory cannot be shared with the parameter server"):
        served.work()


@needs_library
def test_a_worker_cannot_write_the_control_block(serve: Serve, make_job: MakeJob) -> None:
    """Nor can it make any memory of the server shorter: whoever has the file may only read it as it is."""
    serve(make_job(step_core="native"))
    files = [int(name.name) for name in Path("/proc/self/fd").iterdir() if "nablad-control" in _target(name)]
    assert files
    for file in files:
        with pytest.raises(PermissionError):
            mmap.mmap(file, 1, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        for change in (partial(os.write, file, b"x"), partial(os.ftruncate, file, 1)):
            with pytest.raises(PermissionError):
                change()


def _target(file: Path) -> str:
    try:
        return str(file.readlink())
    except FileNotFoundError:  # the listing's own
        return ""


def test_a_parameter_server_without_the_library_does_not_start_if_the_spec_insists(
    serve: Serve, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job fails with the reason."""
    monkeypatch.setattr(process, "missing_reason", lambda: "no native library: gone; install it")
    with pytest.raises(process.StepCoreError, match="step_core: native is impossible here: no native library: gone"):
        serve(make_job(step_core="native"))


def test_specs_are_checked_against_the_room_that_workers_have() -> None:
    """The client's packages know nothing of the parameter server, but the number is the same."""
    assert rules._SHARED_RESULTS == process._MOST_SLOTS
