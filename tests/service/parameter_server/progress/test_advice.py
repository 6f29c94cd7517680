"""What is said of numbers that are not finite: the data where they are at fault, the training where it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.parameter_server.progress.advice import advice
from workers import from_spec
from workers.transport.tickets import Ticket, TicketKind

MakeJob = Callable[..., ps_pb.Assignment]
Begin = Callable[[ps_pb.Assignment], Any]

FIRST, LATER = (Ticket(step, TicketKind.GRADIENT, 0) for step in (0, 1))


def _spoil(job: ps_pb.Assignment, value: float) -> None:
    """Writes a value into row 17, feature 3 of the train data set."""
    path = Path(job.train.directory) / "features.npy"
    features = np.load(path)
    features[17, 3] = value
    np.save(path, features)


def test_a_job_that_fails_at_its_first_step_names_the_number_in_the_data(make_job: MakeJob, begin: Begin) -> None:
    """And not the learning rate, which has not been used yet."""
    job = make_job(micro_batches=1)
    job.spec.model.dtype, job.spec.training.batch_size = spec_pb.D_TYPE_FLOAT32, 50
    _spoil(job, 1e300)
    coordinator = begin(job, rejected=True).coordinator
    assert coordinator.failure.startswith(
        "the cost or the gradient of micro-batch 0 of step 0 in epoch 1 is not finite: "
    )
    assert "feature 3 of row 17 (both counted from 0) is 1e+300" in coordinator.failure
    assert "learning_rate" not in coordinator.failure
    assert coordinator.diverged


@pytest.mark.parametrize("ticket", [FIRST, LATER])
def test_rows_that_cannot_be_read_are_no_reason_to_say_nothing(
    make_job: MakeJob, ticket: Ticket, caplog: pytest.LogCaptureFixture
) -> None:
    """At the first step the data are still to be looked at; later the training is at fault."""
    job = make_job()
    (Path(job.train.directory) / "features.npy").unlink()
    explained = advice(job).explain(ticket, from_spec.first_parameters(job.spec))
    assert ("too large" in explained) is (ticket is FIRST)
    assert bool(explained) is (ticket is FIRST)
    assert "cannot be read" in caplog.text


@pytest.mark.parametrize(("scaling", "words"), [("NONE", ("below 0.5", "data.scaling")), ("STANDARD", ("below 0.5",))])
def test_the_remedy_names_what_is_not_done_already(make_job: MakeJob, scaling: str, words: tuple[str, ...]) -> None:
    """Who scales features is not told to."""
    job = make_job()
    job.spec.data.scaling = spec_pb.Scaling.Value(f"SCALING_{scaling}")
    remedy = advice(job).remedy
    assert [word for word in ("below 0.5", "data.scaling", "targets") if word in remedy] == list(words)


def test_the_remedy_names_large_targets(make_job: MakeJob) -> None:
    """Values far from what a network begins with are the usual reason."""
    job = make_job()
    job.train.dataset.classes, job.train.dataset.target_columns = 0, 1
    job.train.dataset.target_minimum, job.train.dataset.target_maximum = -2e6, 1e6
    assert "a larger unit for the targets, which go up to 2e+06" in advice(job).remedy
    job.train.dataset.target_minimum, job.train.dataset.target_maximum = -2, 1
    assert "targets" not in advice(job).remedy
