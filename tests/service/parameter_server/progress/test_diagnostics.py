"""Trainings that do not go well are warned of once, at the same step whatever is lost, and healthy ones are not."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nablad.v1 import datasets_pb2 as datasets_pb
from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.parameter_server.progress.advice import Advice, Baseline, advice
from service.parameter_server.progress.closed_rounds import ClosedRounds
from service.parameter_server.progress.diagnostics import TrainingDiagnostics
from service.parameter_server.shard.norms import Norms
from workers.mathematics.arrays import Scratch
from workers.mathematics.costs import cost_function
from workers.mathematics.sums import SampleSums
from workers.plan import Plan
from workers.transport.tickets import TicketKind

MakeJob = Callable[..., ps_pb.Assignment]
Begin = Callable[[ps_pb.Assignment], Any]
Resume = Callable[..., ps_pb.Assignment]

EXPLODED, VANISHED = jobs_pb.WARNING_KIND_COST_EXPLODED, jobs_pb.WARNING_KIND_GRADIENT_VANISHED
NOTHING_LEARNED = jobs_pb.WARNING_KIND_NOTHING_LEARNED


def _warnings(told: list[ps_pb.TrainingEvent]) -> list[jobs_pb.JobWarning]:
    return [event.warning for event in told if event.HasField("warning")]


# -- in a training -----------------------------------------------------------------------------------------------------


def _explode(job: ps_pb.Assignment) -> None:
    """A squared error without anything that holds the outputs, and steps that are too long."""
    job.spec.cost.function = spec_pb.COST_FUNCTION_MEAN_SQUARED_ERROR
    job.spec.model.activation[:] = [spec_pb.ACTIVATION_IDENTITY]
    job.spec.model.output_activation = spec_pb.ACTIVATION_IDENTITY
    job.spec.training.learning_rate = 0.8


def _die(job: ps_pb.Assignment) -> None:
    """The first steps throw all relus to the side where nothing comes through."""
    job.spec.model.activation[:] = [spec_pb.ACTIVATION_RELU]
    job.spec.training.learning_rate = 1e3
    job.spec.training.epochs = 6


def _saturate(job: ps_pb.Assignment) -> None:
    """Sigmoids that are driven to 0 and 1 by features of any size, under a cost that does not bring them back."""
    job.spec.cost.function = spec_pb.COST_FUNCTION_MEAN_SQUARED_ERROR
    job.spec.training.learning_rate = 1e6
    job.spec.training.epochs = 6


ILL = {"exploding": (_explode, EXPLODED), "dead": (_die, VANISHED), "saturated": (_saturate, VANISHED)}


@pytest.fixture(params=ILL)
def ill(request: pytest.FixtureRequest, make_job: MakeJob) -> tuple[ps_pb.Assignment, jobs_pb.WarningKind.ValueType]:
    """A job that goes wrong without leaving the numbers, and how."""
    spoil, kind = ILL[request.param]
    job = make_job()
    spoil(job)
    return job, kind


def test_a_training_that_goes_wrong_is_warned_of_once(
    ill: tuple[ps_pb.Assignment, jobs_pb.WarningKind.ValueType], begin: Begin
) -> None:
    """At the end of an epoch, with what to do; it ends like any other."""
    job, kind = ill
    run = begin(job).finish()
    assert run.coordinator.ending
    (warning,) = (warning for warning in _warnings(run.told) if warning.kind == kind)
    assert warning.step % 4 == 0
    assert "training.learning_rate below" in warning.message
    before = run.told[: [event.warning for event in run.told].index(warning)]
    assert before[-1].epoch_end.progress.step == warning.step or before[-1].HasField("warning")


def test_warnings_are_the_same_from_every_checkpoint_on(
    ill: tuple[ps_pb.Assignment, jobs_pb.WarningKind.ValueType], begin: Begin, resume: Resume
) -> None:
    """Those that were told before it are not told again, and none is lost."""
    job, _ = ill
    undisturbed, walk = begin(job).finish(), begin(job)
    while not walk.coordinator.over:
        walk.make_round()
        resumed = begin(resume(job, walk.coordinator.snapshot())).finish()
        assert _warnings(walk.told) + _warnings(resumed.told) == _warnings(undisturbed.told)
        assert resumed.image() == undisturbed.image()


@pytest.mark.parametrize("activation", ["SIGMOID", "RELU", "TANH", "LEAKY_RELU"])
@pytest.mark.parametrize("optimizer", ["SGD", "ADAM"])
def test_a_healthy_training_is_not_warned_of(make_job: MakeJob, begin: Begin, activation: str, optimizer: str) -> None:
    """Whatever it is made of, and also when there is nothing left to learn."""
    job = make_job()
    job.spec.model.activation[:] = [spec_pb.Activation.Value(f"ACTIVATION_{activation}")]
    job.spec.training.optimizer.name = spec_pb.Optimizer.Value(f"OPTIMIZER_{optimizer}")
    job.spec.training.learning_rate = 0.05
    job.spec.training.epochs = 30
    assert _warnings(begin(job).finish().told) == []


def test_a_checkpoint_of_an_older_release_is_not_compared_with_its_middle(
    make_job: MakeJob, begin: Begin, resume: Resume
) -> None:
    """Where the beginnings were not kept, a cost is not said to have grown."""
    job = make_job()
    _explode(job)
    run = begin(job)
    run.make_round()
    snapshot = run.coordinator.snapshot()
    snapshot.state.ClearField("diagnostics")
    assert _warnings(begin(resume(job, snapshot)).finish().told) == []


# -- by itself ---------------------------------------------------------------------------------------------------------


class Patient:
    """TrainingDiagnostics of a plan, fed with sums."""

    def __init__(self, plan: Plan, layers: int = 2, baseline: Baseline | None = None) -> None:
        self._plan = plan
        self._diagnostics = TrainingDiagnostics(plan, layers, ps_pb.TrainingState(), Advice("do something", baseline))
        self._diagnostics.set_first_weights_norm(1.0)
        self._step = 0

    def make_step(self, cost: float, *norms: float) -> None:
        """A step of four samples with this mean cost; its norms are looked at if the plan says so."""
        measured = {0: Norms(math.hypot(*norms), list(norms))} if norms else {}
        sums = SampleSums(4 * cost, 4)
        closed = ClosedRounds(
            TicketKind.GRADIENT, self._plan.epoch(self._step), self._step, [sums], [1.0], {}, measured
        )
        self._diagnostics.record_steps(closed)
        self._step += 1

    def warnings(
        self, cost: float, validation: float | None = None, weights_norm: float = 1.0, *, at_end: bool = False
    ) -> list[jobs_pb.WarningKind.ValueType]:
        """Kinds of the new ones."""
        found = self._diagnostics.warnings(self._step, 1, cost, validation, lambda: weights_norm, at_end=at_end)
        return [warning.kind for warning in found]


PLAN = Plan(rows=20, batch_size=4, micro_batches=1, epochs=10, seed=1)
LONG = Plan(rows=12, batch_size=4, micro_batches=1, epochs=10_000, seed=1)


@pytest.mark.parametrize(
    ("cost", "validation", "weights_norm", "warned"),
    [
        (99.0, None, 1e9, False),
        (101.0, None, 1e9, True),
        (101.0, None, 9.0, False),
        (1.0, 101.0, 11.0, True),
        (1.0, 99.0, 11.0, False),
        (1e300, 1e300, float("inf"), True),
    ],
)
def test_a_cost_has_exploded_when_the_weights_have_grown_as_well(
    cost: float, validation: float | None, weights_norm: float, warned: bool
) -> None:
    """Rare large targets make a cost grow, a long training the weights; only both together are an explosion."""
    patient = Patient(PLAN)
    for step_cost in (0.5, 1.5, 1.0, 1.0):
        patient.make_step(step_cost, 1.0, 1.0)
    patient.make_step(77.0, 1.0, 1.0)  # comes too late to be one of the first ones
    assert patient.warnings(cost, validation, weights_norm) == [EXPLODED] * warned
    assert patient.warnings(cost, validation, weights_norm) == []


@pytest.mark.parametrize(("silent", "warned"), [(4, False), (5, True)])
def test_a_gradient_has_vanished_when_no_step_of_an_epoch_has_one(silent: int, warned: bool) -> None:
    """One layer without is enough; a mini-batch without may be chance."""
    patient = Patient(PLAN)
    patient.make_step(1.0, 1.0, 1.0)
    for _ in range(silent):
        patient.make_step(1.0, 0.0, 1.0)
    assert patient.warnings(1.0) == [VANISHED] * warned


def test_a_step_with_a_gradient_begins_the_count_anew() -> None:
    """However small it is beside those of other layers."""
    patient = Patient(PLAN)
    for _ in range(3):
        for norm in (0.0, 0.0, 0.0, 0.0, 1e-15):
            patient.make_step(1.0, norm, 1.0)
    assert patient.warnings(1.0) == []


def test_where_not_every_step_is_checked_more_checks_must_agree() -> None:
    """A tenth of the mini-batches with a gradient is enough to be seen."""
    patient = Patient(LONG)
    assert LONG.sampling_interval > 1
    checks = 0
    while checks < 60:
        assert patient.warnings(1.0) == []
        checks += LONG.is_checked(patient._step)
        patient.make_step(1.0, 0.0, 0.0)
    assert patient.warnings(1.0) == [VANISHED]


@pytest.mark.parametrize("cost", [0.0, 1e-9])
def test_who_has_learned_everything_needs_no_gradient(cost: float) -> None:
    """Where the cost has all but gone, its gradient may."""
    patient = Patient(PLAN)
    patient.make_step(1.0, 1.0, 1.0)
    for _ in range(30):
        patient.make_step(cost, 0.0, 0.0)
    assert patient.warnings(cost) == []


def test_nothing_was_learned_when_a_constant_would_do_better() -> None:
    """Known at the end only: until then it may come."""
    patient = Patient(PLAN, baseline=Baseline(5.0, 2.0))
    patient.make_step(3.0, 1.0, 1.0)
    assert patient.warnings(3.0) == []
    assert patient.warnings(2.0, at_end=True) == []
    assert patient.warnings(2.1, at_end=True) == [NOTHING_LEARNED]


# -- what a constant would cost ----------------------------------------------------------------------------------------


def _assignment(cost: str, targets: np.ndarray) -> ps_pb.Assignment:
    rows, columns = targets.shape
    dataset = datasets_pb.Dataset(
        rows=rows, target_columns=columns, target_minimum=targets.min(), target_maximum=targets.max()
    )
    model = spec_pb.ModelSpec(layers=[1, columns], output_activation=spec_pb.ACTIVATION_IDENTITY)
    spec = spec_pb.JobSpec(
        model=model, cost=spec_pb.CostSpec(function=spec_pb.CostFunction.Value(f"COST_FUNCTION_{cost}"))
    )
    return ps_pb.Assignment(spec=spec, train=ps_pb.DataSource(dataset=dataset))


def _each(cost: str, answer: float, targets: np.ndarray) -> Iterator[float]:
    for target in targets.ravel():
        a, y, out, *scratch = np.full((6, 1, 1), target)
        a.fill(answer)
        cost_function(cost.lower()).value(a, y, out, Scratch(*scratch))
        yield out.item()


@pytest.mark.parametrize("cost", ["MEAN_SQUARED_ERROR", "MEAN_ABSOLUTE_ERROR", "HUBER"])
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9), st.integers(1, 3))
def test_always_answering_the_middle_costs_no_more_than_is_said(cost: str, values: list[float], columns: int) -> None:
    """For whatever targets lie between the smallest and the largest one."""
    targets = np.array(values * columns).reshape(-1, columns)
    baseline = advice(_assignment(cost, targets)).baseline
    assert baseline is not None
    costs = list(_each(cost, baseline.answer, targets))
    assert sum(costs) / len(targets) <= baseline.cost * (1 + 1e-9) + 1e-9


def test_of_labels_and_of_further_costs_nothing_is_said() -> None:
    """What a constant would cost is known for distances of values only."""
    job = _assignment("MEAN_SQUARED_ERROR", np.array([[0.0], [1.0]]))
    assert advice(job).baseline == Baseline(0.5, 0.125)
    labelled, inner, poisson = (ps_pb.Assignment(), ps_pb.Assignment(), ps_pb.Assignment())
    for other in (labelled, inner, poisson):
        other.CopyFrom(job)
    labelled.train.dataset.ClearField("target_minimum")
    inner.spec.cost.inner.add(layer=1, weight=1.0)
    poisson.spec.cost.function = spec_pb.COST_FUNCTION_POISSON
    assert [advice(other).baseline for other in (labelled, inner, poisson)] == [None] * 3
