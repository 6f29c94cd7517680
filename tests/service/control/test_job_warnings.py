"""Warnings about accepted jobs."""

from typing import Any

import pytest

from nablad.v1 import cluster_pb2 as cluster_pb
from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from service.control.job_warnings import job_warnings
from service.stores.job_states import ENDED, QUEUED, TRANSITIONS

TWO_CPUS = [cluster_pb.Node(cpus=2, free_cpus=0)]


def _job(workers: int, micro_batches: int, batch_size: int = 100, **what: Any) -> jobs_pb.Job:
    spec = spec_pb.JobSpec(
        training=spec_pb.TrainingSpec(batch_size=batch_size),
        distribution=spec_pb.DistributionSpec(workers=workers, micro_batches=micro_batches, cpus_per_worker=1),
    )
    return jobs_pb.Job(**({"job_id": "a", "spec": spec, "state": QUEUED} | what))


@pytest.mark.parametrize(
    ("workers", "micro_batches", "batch_size", "words"),
    [
        (1, 1, 100, ()),
        (2, 2, 100, ()),
        (2, 4, 500, ()),
        (4, 2, 100, ("2 of 4 workers have nothing to do", "ask for 2", "distribution.micro_batches 4")),
        (2, 1, 50, ("1 of 2 workers has nothing to do", "is one part", "distribution.micro_batches 2")),
        (8, 4, 5, ("4 of 8 workers have", "a training.batch_size of at least 8 and distribution.micro_batches 8")),
    ],
)
def test_workers_without_work_are_counted_with_what_to_set(
    workers: int, micro_batches: int, batch_size: int, words: tuple[str, ...]
) -> None:
    """More workers than parts of a mini-batch: so many are idle, and this field is to be changed."""
    found = job_warnings(_job(workers, micro_batches, batch_size), None)
    assert len(found) == bool(words)
    for warning in found:
        assert warning.field == "distribution.workers"
        assert all(word in warning.message for word in words)


@pytest.mark.parametrize("state", TRANSITIONS)
def test_only_a_job_that_waits_is_warned_of_a_small_cluster(state: jobs_pb.JobState.ValueType) -> None:
    """Others have their CPUs, or want none; one that was only checked is warned, too."""
    assert bool(job_warnings(_job(4, 4, state=state), TWO_CPUS)) is (state == QUEUED)


def test_a_job_that_was_only_checked_is_warned_like_one_that_waits() -> None:
    """Before it has an id, the command that helps has a placeholder for it."""
    (warning,) = job_warnings(_job(64, 64, job_id="", state=jobs_pb.JOB_STATE_UNSPECIFIED), TWO_CPUS)
    assert "`nabla job scale ID 2`" in warning.message


def test_a_small_cluster_is_no_matter_for_a_job_that_has_begun() -> None:
    """It goes on with as many workers as there is room for."""
    assert job_warnings(_job(4, 4, attempt=1), TWO_CPUS) == []


def test_where_the_nodes_are_not_known_nobody_is_warned_of_them() -> None:
    """Ray may be away for a moment."""
    assert job_warnings(_job(64, 64), None) == []


@pytest.mark.parametrize("state", ENDED)
def test_a_job_that_has_ended_is_warned_of_nothing(state: jobs_pb.JobState.ValueType) -> None:
    """Nothing of it can be changed any more."""
    assert job_warnings(_job(64, 2, state=state), TWO_CPUS) == []


def test_both_warnings_come_together() -> None:
    """Who asks for 64 workers on 2 CPUs, with 2 parts, is told both."""
    assert len(job_warnings(_job(64, 2), TWO_CPUS)) == 2
