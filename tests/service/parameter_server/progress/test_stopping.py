"""When a training ends before its last epoch, which weights it leaves, and that nothing is different until then."""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nablad.v1 import parameter_server_pb2 as ps_pb
from nablad.v1.metrics_pb2 import Metrics
from service.parameter_server.progress.stopping import Stopping, StoppingRules, stopping_rules

MakeJob = Callable[..., ps_pb.Assignment]
Begin = Callable[[ps_pb.Assignment], Any]


def _enter(stopping: Stopping, costs: list[float]) -> tuple[int, str]:
    """The epoch that ends it, and why; 0 if none does."""
    for epoch, cost in enumerate(costs, 1):
        stopping.is_better(epoch, cost)
        if ending := stopping.ending_reason(epoch, Metrics(cost=cost)):
            return epoch, ending
    return 0, ""


@given(st.lists(st.floats(0, 10), min_size=1), st.integers(1, 4), st.floats(0, 1))
def test_patience_ends_with_the_first_run_of_epochs_without_improvement(
    costs: list[float], patience: int, improvement: float
) -> None:
    """So many epochs in a row that are not better than the best one before them, by as much as is asked for."""
    rules = StoppingRules(epochs=10**6, patience=patience, minimum_improvement=improvement)
    best, waited, expected = costs[0], 0, 0
    for epoch, cost in enumerate(costs[1:], 2):
        best, waited = (cost, 0) if cost < best - improvement else (best, waited + 1)
        if waited == patience:
            expected = epoch
            break
    assert _enter(Stopping(rules), costs)[0] == expected


def test_patience_says_what_it_waited_for() -> None:
    """Cost and number of the best epoch, and how long."""
    stopping = Stopping(StoppingRules(epochs=30, patience=2))
    assert _enter(stopping, [0.5, 0.25, 0.25, 0.3]) == (
        4, "the validation cost was not better than 0.25 (epoch 2) for 2 epochs: stopped after epoch 4",
    )  # fmt: skip
    stopping = Stopping(StoppingRules(epochs=30, patience=1))
    assert "for 1 epoch:" in _enter(stopping, [0.5, 0.6])[1]


@given(st.lists(st.floats(0, 10), min_size=2), st.integers(1, 4), st.data())
def test_a_later_attempt_goes_on_counting(costs: list[float], patience: int, data: st.DataObject) -> None:
    """Patience needs the best epoch and nothing else of the past."""
    rules, cut = StoppingRules(epochs=10**6, patience=patience), data.draw(st.integers(1, len(costs) - 1))
    whole, first = Stopping(rules), Stopping(rules)
    ended, ending = _enter(whole, costs)
    if _enter(first, costs[:cut])[0]:
        return
    second = Stopping(rules, first.best)
    for epoch in range(cut + 1, (ended or len(costs)) + 1):
        second.is_better(epoch, costs[epoch - 1])
    assert second.best == whole.best
    assert second.ending_reason(ended, Metrics(cost=costs[ended - 1])) == ending if ended else not ending


def test_the_best_epoch_is_only_looked_for_when_somebody_asks() -> None:
    """Without patience and without best weights there is none."""
    stopping = Stopping(StoppingRules(epochs=3))
    assert not stopping.is_better(1, 0.5)
    assert stopping.best is None
    stopping = Stopping(StoppingRules(epochs=3, keep_best=True))
    assert stopping.is_better(1, 0.5)
    assert not stopping.is_better(2, 0.5)
    assert stopping.best == ps_pb.BestEpoch(epoch=1, validation_cost=0.5)


@pytest.mark.parametrize(
    ("patience", "given_keep", "keeps"), [(0, None, False), (3, None, True), (3, False, False), (0, True, True)]
)
def test_with_patience_the_best_weights_are_kept_unless_somebody_says_no(
    patience: int, given_keep: bool | None, keeps: bool
) -> None:
    """Also where the spec does not say it."""
    job = ps_pb.Assignment()
    if patience:
        job.spec.training.stopping.patience = patience
    if given_keep is not None:
        job.spec.training.stopping.keep_best = given_keep
    assert stopping_rules(job).keep_best == keeps


# -- in a training -----------------------------------------------------------------------------------------------------


@pytest.fixture
def job(make_job: MakeJob) -> ps_pb.Assignment:
    """Twelve epochs of four steps; the validation rows are learned, and then unlearned."""
    job = make_job()
    job.spec.training.epochs = 12
    return job


def _cost(epoch: ps_pb.EpochEnd, *, validated: bool = True) -> float:
    return (epoch.progress.validation if validated else epoch.progress.training).cost


def _require_prefix(stopped: Any, undisturbed: Any, epochs: int) -> None:
    """All that the shorter run told is the beginning of what the longer one told, and the weights are those of then."""
    assert stopped.told == undisturbed.told[: len(stopped.told)]
    assert len(stopped.epochs()) == epochs
    assert (
        hashlib.sha256(stopped.coordinator.shard.parameters).hexdigest()
        == undisturbed.epochs()[epochs - 1].weights_sha256
    )


@pytest.mark.parametrize("validated", [True, False], ids=["validation", "no validation"])
def test_a_target_cost_ends_the_first_epoch_that_reaches_it(
    job: ps_pb.Assignment, begin: Begin, validated: bool
) -> None:
    """On the validation rows if there are some, else on the statistics of the training."""
    if not validated:
        job.ClearField("validation")
    undisturbed = begin(job).finish()
    costs = [_cost(epoch, validated=validated) for epoch in undisturbed.epochs()]
    job.spec.training.stopping.target_cost = target = costs[4]
    expected = next(number for number, cost in enumerate(costs, 1) if cost <= target)
    stopped = begin(job).finish()
    _require_prefix(stopped, undisturbed, expected)
    assert stopped.coordinator.ending == f"the target cost {target:g} was reached after epoch {expected}"


@pytest.mark.parametrize("validated", [True, False], ids=["validation", "no validation"])
def test_a_target_accuracy_ends_the_first_epoch_that_reaches_it(
    job: ps_pb.Assignment, begin: Begin, validated: bool
) -> None:
    """At least this share of the rows."""
    if not validated:
        job.ClearField("validation")
    undisturbed = begin(job).finish()
    rows = "validation" if validated else "training"
    accuracies = [getattr(epoch.progress, rows).accuracy for epoch in undisturbed.epochs()]
    job.spec.training.stopping.target_accuracy = target = accuracies[3]
    expected = next(number for number, accuracy in enumerate(accuracies, 1) if accuracy >= target)
    stopped = begin(job).finish()
    _require_prefix(stopped, undisturbed, expected)
    assert stopped.coordinator.ending == f"the target accuracy {target:g} was reached after epoch {expected}"


@pytest.mark.parametrize("keep_best", [None, True, False])
def test_patience_leaves_the_best_weights_if_they_are_kept(
    job: ps_pb.Assignment, begin: Begin, keep_best: bool | None
) -> None:
    """Those of the best epoch, else the last ones; either way nothing is different until then."""
    undisturbed = begin(job).finish()
    job.spec.training.stopping.minimum_improvement = 10.0  # more than any epoch after the first one brings
    job.spec.training.stopping.patience = 2
    if keep_best is not None:
        job.spec.training.stopping.keep_best = keep_best
    stopped = begin(job).finish()
    _require_prefix(stopped, undisturbed, 3)
    left = 3 if keep_best is False else 1
    assert (
        hashlib.sha256(stopped.coordinator.shard.weights.result).hexdigest()
        == undisturbed.epochs()[left - 1].weights_sha256
    )
    assert (stopped.coordinator.snapshot().best is None) == (keep_best is False)
    cost = undisturbed.epochs()[0].progress.validation.cost
    assert stopped.coordinator.ending == (
        f"the validation cost was not better than {cost:.6g} (epoch 1) for 2 epochs: stopped after epoch 3"
    )


def test_the_best_weights_are_those_of_the_best_epoch(job: ps_pb.Assignment, begin: Begin) -> None:
    """Wherever in the job it is."""
    job.spec.training.learning_rate = 8.0  # so that the cost goes up and down
    undisturbed = begin(job).finish()
    costs = [_cost(epoch) for epoch in undisturbed.epochs()]
    job.spec.training.stopping.keep_best = True
    run = begin(job).finish()
    best = costs.index(min(costs))
    assert run.told == undisturbed.told
    assert hashlib.sha256(run.coordinator.shard.weights.result).hexdigest() == undisturbed.epochs()[best].weights_sha256


def _limit_steps(job: ps_pb.Assignment, step: int, _: float) -> str:
    job.last_step = step
    return f"stopped at step {step}, the last one that was asked for"


def _limit_seconds(job: ps_pb.Assignment, step: int, seconds: float) -> str:
    job.spec.limits.wall_time_seconds = seconds
    return f"stopped at step {step} after {seconds:g} s (limits.wall_time_seconds)"


@pytest.mark.parametrize("validated", [True, False], ids=["validation", "no validation"])
@pytest.mark.parametrize("limit", [_limit_seconds, _limit_steps])
@pytest.mark.parametrize("step", [1, 4, 6])
def test_a_limit_ends_with_a_last_evaluation(
    make_job: MakeJob,
    begin: Begin,
    validated: bool,
    limit: Callable[[ps_pb.Assignment, int, float], str],
    step: int,
) -> None:
    """In mid-epoch the present weights are evaluated once; at an epoch's end they are anyway; all else is the same."""
    job = make_job()
    if not validated:
        job.ClearField("validation")
    undisturbed = begin(job)
    while undisturbed.coordinator.version < step:
        undisturbed.make_round()
    sentence = limit(job, step, undisturbed.coordinator.snapshot().state.seconds)
    stopped = begin(job).finish()
    assert stopped.coordinator.ending == sentence
    assert stopped.told[: len(undisturbed.told)] == undisturbed.told
    assert stopped.coordinator.shard.parameters.tobytes() == undisturbed.coordinator.shard.parameters.tobytes()
    assert stopped.coordinator.version == step
    assert stopped.coordinator.position.evaluated == validated
    assert stopped.coordinator.progress().HasField("validation") == validated
    assert stopped.coordinator.rounds == step + validated * (1 + step // 5)
    assert len(stopped.epochs()) == step // 4


def test_a_last_evaluation_may_be_the_best_one(make_job: MakeJob, begin: Begin) -> None:
    """The weights that a limit leaves are the result if they are the best."""
    job = make_job()
    job.spec.training.stopping.keep_best = True
    job.last_step = 6
    stopped = begin(job).finish().coordinator
    assert stopped.snapshot().state.best.epoch == 2
    assert stopped.shard.weights.result.tobytes() == stopped.shard.parameters.tobytes()


def test_a_job_that_comes_to_its_last_step_is_done_whatever_limits_it_has(make_job: MakeJob, begin: Begin) -> None:
    """Only a target that is reached says more."""
    job = make_job()
    job.last_step = 8
    assert begin(job).finish().coordinator.ending == "all 2 epochs are done"
    job.spec.training.epochs, job.last_step = 1, 0
    assert begin(job).finish().coordinator.ending == "the only epoch is done"
