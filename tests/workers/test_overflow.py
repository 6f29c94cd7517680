"""Costs and gradients that are infinite from the start: the number in the data that makes them so is named."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nablad.jobspec import complete, parse
from nablad.v1 import datasets_pb2 as datasets_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.datasets import StagedFile, fit_scaling, store_dataset
from workers import from_spec
from workers.computation import Computation
from workers.overflow import find_overflow
from workers.transport.tickets import Ticket, TicketKind

ROWS = 20
FIRST = Ticket(0, TicketKind.GRADIENT, 0)

MakeJob = Callable[..., ps_pb.Assignment]


@pytest.fixture
def make_job(tmp_path: Path) -> MakeJob:
    """A job with three features and one target value; all rows are in one mini-batch, and the same are validated."""

    def make(x: np.ndarray, y: np.ndarray, job_file: str = "") -> ps_pb.Assignment:
        file, directory = tmp_path / "d.npz", tmp_path / "d"
        np.savez(file, x=x, y=y)
        stored = store_dataset([StagedFile(file.name, file)], datasets_pb.DataFiles(), directory)
        source = ps_pb.DataSource(dataset=datasets_pb.Dataset(name="d", **asdict(stored)), directory=str(directory))
        given = f"data: {{train: d}}\nmodel: {{layers: [3, 4, auto]}}\ntraining: {{batch_size: {ROWS}}}\n"
        spec, violations = parse(job_file or given)
        assert not violations
        spec = complete(spec, source.dataset)
        scaling = fit_scaling(spec.data.scaling, directory)
        return ps_pb.Assignment(spec=spec, train=source, validation=source, scaling=scaling)

    return make


def _data() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    return generator.normal(size=(ROWS, 3)), generator.normal(size=ROWS)


def _is_finite(job: ps_pb.Assignment, ticket: Ticket, weights: np.ndarray) -> bool:
    result = Computation(job).answer(ticket, weights, 0, np.empty_like(weights))
    return bool(np.isfinite(result.sums.cost_sum) and (result.gradient is None or np.isfinite(result.gradient).all()))


def _found(job: ps_pb.Assignment, ticket: Ticket = FIRST) -> str:
    weights = from_spec.first_parameters(job.spec)
    assert not _is_finite(job, ticket, weights)
    return find_overflow(job, ticket, weights)


JOB = "data: {{train: d{data}}}\nmodel: {{layers: [3, 4, auto]{model}}}\ntraining: {{batch_size: 20}}\n{more}"


@pytest.mark.parametrize("value", [1e30, -1e30])
@pytest.mark.parametrize("kind", [TicketKind.GRADIENT, TicketKind.EVALUATION])
def test_a_target_whose_cost_overflows_is_named(make_job: MakeJob, value: float, kind: TicketKind) -> None:
    """The first row of the data set that does, whatever the order of the epoch; a float64 would hold it."""
    x, y = _data()
    y[7] = y[13] = value
    sentence = _found(make_job(x, y), Ticket(int(kind == TicketKind.EVALUATION), kind, 0))
    assert sentence.startswith(f"in the data set 'd', target 0 of row 7 (both counted from 0) is {value:g}, whose cost")
    assert "give targets in a larger unit, or model.dtype: float64" in sentence


def test_a_target_beyond_the_type_is_named(make_job: MakeJob) -> None:
    """As it is in the data set, and not as infinity."""
    x, y = _data()
    y[3] = 1e300
    assert "target 0 of row 3 (both counted from 0) is 1e+300, which float32 cannot hold" in _found(make_job(x, y))


@pytest.mark.parametrize(
    ("value", "job_file", "words"),
    [
        (1e300, "", "which float32 cannot hold"),
        (3e38, "", "whose cost or gradient is more than float32 can hold"),
        (1e200, JOB.format(data="", model=", dtype: float64", more=""), "whose cost or gradient is more than float64"),
    ],
)
def test_a_feature_that_overflows_is_named(make_job: MakeJob, value: float, job_file: str, words: str) -> None:
    """With its column, and with scaling as a remedy; a wider type only where there is one."""
    x, y = _data()
    x[11, 2] = value
    sentence = _found(make_job(x, y, job_file))
    assert f"feature 2 of row 11 (both counted from 0) is {value:g}, {words}" in sentence
    assert "data.scaling" in sentence
    assert ("model.dtype: float64" in sentence) is (not job_file)


def test_weights_that_are_too_large_are_not_blamed_on_the_data(make_job: MakeJob) -> None:
    """Where features and targets are moderate, the first weights are at fault."""
    x, y = _data()
    job = make_job(x, y, JOB.format(data=", scaling: standard", model="", more=""))
    weights = from_spec.first_parameters(job.spec) * np.float32(1e25)
    assert not _is_finite(job, FIRST, weights)
    assert "model.initialisation_scale" in find_overflow(job, FIRST, weights)


def test_rows_that_are_only_too_much_together_are_told_by_the_one_that_tips(make_job: MakeJob) -> None:
    """Each row's gradient is finite, their sum is not; the first rows of the data set that reach it are counted."""
    x, y = _data()
    x[:] = 0
    x[:, 0] = 1
    y[:] = 9e37
    job = make_job(x, y, JOB.format(data="", model="", more="cost: {function: mean_absolute_error}"))
    weights = from_spec.first_parameters(job.spec)
    weights[-5:-1] = 5e37  # of the output, so that what comes back is as large
    assert not _is_finite(job, FIRST, weights)
    for row in range(ROWS):
        alone = np.empty_like(weights)
        from_spec.back_propagation(job.spec).gradient(
            weights, np.float32(x[row : row + 1]), np.float32([[y[row]]]), alone
        )
        assert np.isfinite(alone).all()
    assert find_overflow(job, FIRST, weights).startswith("in the data set 'd', target 0 of row")


@pytest.mark.parametrize("more", ["", "scaling: standard"])
def test_a_training_that_has_diverged_is_not_blamed_on_the_data(make_job: MakeJob, more: str) -> None:
    """What is finite with the first weights has not made the present ones infinite by itself."""
    job = make_job(*_data(), JOB.format(data=f", {more}" if more else "", model="", more=""))
    weights = from_spec.first_parameters(job.spec) * np.float32(1e30)
    later = Ticket(1, TicketKind.GRADIENT, 0)
    job.spec.training.epochs = 2
    assert not _is_finite(job, later, weights)
    assert find_overflow(job, later, weights) == ""


def test_a_row_that_only_comes_later_is_blamed_when_it_comes(make_job: MakeJob) -> None:
    """The weights may have been trained well until then."""
    x, y = _data()
    y[5] = 1e30
    job = make_job(x, y)
    job.spec.training.batch_size, job.spec.distribution.micro_batches = 1, 1
    plan = from_spec.plan(job)
    step = next(step for step in range(ROWS) if plan.micro_batch(step, 0)[0] == 5)
    assert step > 0
    assert "target 0 of row 5 " in _found(job, Ticket(step, TicketKind.GRADIENT, 0))


def test_of_a_warm_start_only_the_beginning_is_known(make_job: MakeJob) -> None:
    """Its first weights are those of another job: at step 0 they are at hand, later they are not."""
    x, y = _data()
    y[5] = 1e30
    job = make_job(x, y)
    job.spec.training.warm_start.model = "another"
    job.spec.training.epochs = 2
    assert "row 5" in _found(job)
    assert _found(job, Ticket(1, TicketKind.GRADIENT, 0)) == ""


def test_rows_that_are_gone_cannot_be_blamed(make_job: MakeJob, tmp_path: Path) -> None:
    """Whoever asks has to say something else then."""
    job: Any = make_job(*_data())
    (tmp_path / "d" / "features.npy").unlink()
    with pytest.raises(FileNotFoundError):
        find_overflow(job, FIRST, from_spec.first_parameters(job.spec))
