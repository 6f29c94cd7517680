"""Going on from a checkpoint: from any point, and to the last bit as if nothing had been."""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.checkpoints.image import CheckpointError, Snapshot

MakeJob = Callable[..., ps_pb.Assignment]
Begin = Callable[[ps_pb.Assignment], Any]
Resume = Callable[[ps_pb.Assignment, Snapshot], ps_pb.Assignment]


def _told_before(run: Any) -> list[ps_pb.TrainingEvent]:
    """What a run has told and an attempt that goes on from there does not tell again."""
    return list(run.told) if run.coordinator.version else []  # else the digest of the first weights


def _set_up(job: ps_pb.Assignment, optimizer: str, *, validation: bool) -> None:
    job.spec.training.optimizer.name = spec_pb.Optimizer.Value(f"OPTIMIZER_{optimizer}")
    if validation:
        job.spec.training.stopping.keep_best = True
        job.spec.training.stopping.patience = 100
    else:
        job.ClearField("validation")
        job.spec.data.validation = ""


@pytest.mark.parametrize("validation", [True, False], ids=["validation", "no validation"])
@pytest.mark.parametrize("optimizer", ["SGD", "MOMENTUM", "NESTEROV", "ADAM"])
def test_from_every_point_on_all_is_as_if_nothing_had_been(
    make_job: MakeJob, begin: Begin, resume: Resume, optimizer: str, validation: bool
) -> None:
    """Weights, moments, metrics, history, digests, best weights and ending: before, in and after every epoch's end."""
    job = make_job()
    _set_up(job, optimizer, validation=validation)
    undisturbed, walk = begin(job).finish(), begin(job)
    while not walk.coordinator.over:
        resumed = begin(resume(job, walk.coordinator.snapshot())).finish()
        assert _told_before(walk) + resumed.told == undisturbed.told
        assert resumed.image() == undisturbed.image()
        assert (
            resumed.coordinator.shard.weights.result.tobytes() == undisturbed.coordinator.shard.weights.result.tobytes()
        )
        assert resumed.coordinator.ending == undisturbed.coordinator.ending == "all 2 epochs are done"
        walk.make_round()
    assert walk.coordinator.rounds == 8 + 2 * validation


@pytest.mark.parametrize("dtype", ["FLOAT32", "FLOAT64"])
def test_resuming_again_and_again_changes_nothing(make_job: MakeJob, begin: Begin, resume: Resume, dtype: str) -> None:
    """An attempt for each round."""
    job = make_job()
    job.spec.model.dtype = spec_pb.DType.Value(f"D_TYPE_{dtype}")
    _set_up(job, "ADAM", validation=True)
    undisturbed, run = begin(job).finish(), begin(job)
    while not run.coordinator.over:
        run.make_round()
        if not run.coordinator.over:
            run = begin(resume(job, run.coordinator.snapshot()))
    assert run.image() == undisturbed.image()


def test_an_open_round_is_no_part_of_a_checkpoint(make_job: MakeJob, begin: Begin) -> None:
    """Results that are in, and tickets that are out, leave no trace until the round is complete."""
    job = make_job()
    job.spec.training.optimizer.name = spec_pb.OPTIMIZER_ADAM
    run = begin(job)
    run.make_round()
    before, coordinator = run.image(), run.coordinator
    first, *others = coordinator.deal_tickets()["w"]
    for ticket in (first, *others[:-1]):
        gradient = coordinator.shard.buffers.lend_buffer()
        gradient.fill(1e300)
        coordinator.accept_result(
            "w", 1, run._computation.answer(ticket, coordinator.shard.parameters, coordinator.version, gradient)
        )
        assert run.image() == before


def test_the_seconds_of_all_attempts_count(make_job: MakeJob, begin: Begin, resume: Resume) -> None:
    """Those of earlier attempts, and of this one from its first worker on."""
    job = make_job()
    run = begin(job)
    run.make_round()
    seconds = run.coordinator.snapshot().state.seconds
    again = begin(resume(job, run.coordinator.snapshot()))
    assert again.coordinator.snapshot().state.seconds == seconds > 0
    again.make_round()
    assert again.coordinator.snapshot().state.seconds > seconds


@pytest.mark.parametrize("rounds", [5, 9])
def test_an_attempt_may_have_only_an_evaluation_or_nothing_left_to_do(
    make_job: MakeJob, begin: Begin, resume: Resume, rounds: int
) -> None:
    """A job that is to end at a step ends there, whenever the attempt begins."""
    job = make_job()
    walk = begin(job)
    for _ in range(rounds):
        walk.make_round()
    job.last_step = 4 if rounds == 5 else 8
    resumed = begin(resume(job, walk.coordinator.snapshot())).finish()
    assert resumed.coordinator.rounds == (0 if rounds == 5 else 1)
    assert resumed.coordinator.shard.weights.result.tobytes() == walk.coordinator.shard.parameters.tobytes()
    assert resumed.coordinator.ending == (
        "stopped at step 4, the last one that was asked for" if rounds == 5 else "all 2 epochs are done"
    )


def test_a_warm_start_begins_with_other_weights_at_step_0(make_job: MakeJob, begin: Begin, resume: Resume) -> None:
    """Without moments of its own, the optimizer begins anew; the digest of the first weights is theirs."""
    job = make_job()
    _set_up(job, "ADAM", validation=True)
    weights = begin(job).finish().coordinator.shard.parameters.copy()
    start = Snapshot(ps_pb.TrainingState(), weights.copy())
    warm = begin(resume(job, start))
    assert warm.told[0].first_weights_sha256 == hashlib.sha256(weights).hexdigest()
    assert (warm.coordinator.version, warm.coordinator.progress().epoch) == (0, 0)
    warm.finish()
    assert len(warm.epochs()) == 2


def _other_size(job: ps_pb.Assignment) -> None:
    job.spec.model.layers[1] = 7


def _other_dtype(job: ps_pb.Assignment) -> None:
    job.spec.model.dtype = spec_pb.D_TYPE_FLOAT32


def _other_optimizer(job: ps_pb.Assignment) -> None:
    job.spec.training.optimizer.name = spec_pb.OPTIMIZER_ADAM


def _fewer_epochs(job: ps_pb.Assignment) -> None:
    job.spec.training.epochs = 1


def _no_such_file(job: ps_pb.Assignment) -> None:
    job.start.path += ".gone"


def _other_digest(job: ps_pb.Assignment) -> None:
    job.start.sha256 = "0" * 64


MISFITS = [
    (_other_size, "has 53 weights of type float64, but the job has 73 of type float64"),
    (_other_dtype, "but the job has 53 of type float32"),
    (_other_optimizer, "has 1 moments, but the job's optimizer has 2"),
    (_fewer_epochs, "is of step 6, but the job has 4 steps"),
    (_no_such_file, "is gone"),
    (_other_digest, "is damaged: it has SHA-256"),
]


@pytest.mark.parametrize(("spoil", "sentence"), MISFITS)
def test_a_checkpoint_that_does_not_fit_is_refused(
    make_job: MakeJob, begin: Begin, resume: Resume, spoil: Callable[[ps_pb.Assignment], None], sentence: str
) -> None:
    """Before anything is started, with a sentence that says what does not fit."""
    job = make_job()
    job.spec.training.optimizer.name = spec_pb.OPTIMIZER_MOMENTUM
    run = begin(job)
    for _ in range(7):
        run.make_round()
    job = resume(job, run.coordinator.snapshot())
    spoil(job)
    with pytest.raises(CheckpointError, match=sentence):
        begin(job)
