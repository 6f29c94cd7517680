"""Specs are checked beside the event loop."""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nablad.jobspec.fields import constraint_of
from nablad.v1 import datasets_pb2 as datasets_pb
from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb
from service.control import submission as submission_module
from service.control.submission import Submission
from service.control.warm_start import WarmStarts
from service.datasets import DatasetError
from service.datasets.limits import MAXIMUM_COLUMNS
from service.errors import Reason, ServiceError
from service.events.publisher import EventPublisher
from service.storage.data_directory import DataDirectory
from service.stores.catalogues import DatasetCatalogue, ModelCatalogue
from service.stores.database import Database
from service.stores.job_states import RUNNING, STARTING, SUCCEEDED
from service.stores.jobs import JobStore

_SECONDS = 60


@pytest.fixture
def datasets(database: Database) -> DatasetCatalogue:
    """One data set, called rows."""
    catalogue = DatasetCatalogue(database)
    catalogue.add(datasets_pb.Dataset(name="rows", rows=100, features=4, classes=2, sha256="1"))
    return catalogue


@pytest.fixture
def submission(database: Database, jobs: JobStore, datasets: DatasetCatalogue) -> Submission:
    """Without a data directory, which only warm starts need."""
    nothing: Any = None
    return Submission(
        nothing, jobs, EventPublisher(jobs), datasets, WarmStarts(nothing, jobs, ModelCatalogue(database))
    )


def _run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, _SECONDS))


def _spec(nodes: int = 0) -> spec_pb.JobSpec:
    spec = spec_pb.JobSpec(name="a", data=spec_pb.DataSpec(train="rows"))
    spec.model.layers[:] = [4, max(nodes, 3), 2]
    spec.training.epochs = 1
    if nodes:
        spec.cost.inner.add(layer=1, term=spec_pb.TERM_SQUARED_ACTIVITY, weight=0.1).nodes.extend(range(nodes))
    return spec


@pytest.mark.parametrize("nodes", [0, 100_000])
def test_the_loop_checks_no_spec(submission: Submission, monkeypatch: pytest.MonkeyPatch, nodes: int) -> None:
    """Neither a small one nor a large one: its thread is for what is short."""
    threads, check = [], submission_module.check

    def note(*arguments: Any) -> Any:
        threads.append(threading.current_thread())
        return check(*arguments)

    monkeypatch.setattr(submission_module, "check", note)

    async def work() -> None:
        completed = await submission.validate_spec(_spec(nodes))
        assert completed.training.batch_size
        broken = _spec(nodes)
        broken.data.train = "none"
        broken.training.epochs = 0
        with pytest.raises(ServiceError, match="breaks") as refused:
            await submission.validate_spec(broken)
        assert {"data.train", "training.epochs"} <= {violation.field for violation in refused.value.violations}

    _run(work())
    assert len(threads) == 2
    assert threading.main_thread() not in threads


def test_a_small_spec_does_not_wait_for_a_large_one(submission: Submission, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the check of the large one takes."""
    small_is_done, check = threading.Event(), submission_module.check

    def wait_if_large(spec: spec_pb.JobSpec, *others: Any) -> Any:
        if spec.cost.inner:
            assert small_is_done.wait(_SECONDS)
        return check(spec, *others)

    monkeypatch.setattr(submission_module, "check", wait_if_large)

    async def work() -> None:
        large = [asyncio.ensure_future(submission.validate_spec(_spec(100_000))) for _ in range(3)]
        await submission.validate_spec(_spec())
        assert not any(check.done() for check in large)
        small_is_done.set()
        await asyncio.gather(*large)

    _run(work())


def test_data_sets_that_change_meanwhile_are_looked_at_again(
    submission: Submission, datasets: DatasetCatalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job is not queued with a data set that was deleted while its spec was being checked."""
    check = submission_module.check

    async def work() -> None:
        loop = asyncio.get_running_loop()

        def delete_first(*arguments: Any) -> Any:
            monkeypatch.setattr(submission_module, "check", check)
            asyncio.run_coroutine_threadsafe(_delete(datasets), loop).result(_SECONDS)
            return check(*arguments)

        monkeypatch.setattr(submission_module, "check", delete_first)
        with pytest.raises(ServiceError) as refused:
            await submission.validate_spec(_spec())
        assert [violation.field for violation in refused.value.violations] == ["data.train"]

    _run(work())


async def _delete(datasets: DatasetCatalogue) -> None:
    datasets.delete("rows")


async def test_features_that_cannot_be_scaled_are_not_called_damaged(
    database: Database, jobs: JobStore, datasets: DatasetCatalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warm start finds out when it is submitted; nothing is gone, and no backup helps."""

    def refuse(*_: Any) -> None:
        raise DatasetError("Feature 0 cannot be scaled")

    monkeypatch.setattr("service.control.submission.make_assignment", refuse)
    with closing(DataDirectory(tmp_path / "data")) as directory:
        submission = Submission(
            directory, jobs, EventPublisher(jobs), datasets, WarmStarts(directory, jobs, ModelCatalogue(database))
        )
        spec = _spec()
        spec.training.warm_start.model = "a-1"
        with pytest.raises(ServiceError, match="cannot be scaled") as refused:
            await submission.submit_job(spec, "")
    assert refused.value.reason == Reason.INVALID_DATA


def test_a_data_set_fixes_only_layers_that_are_allowed() -> None:
    """A data set may have as many features and classes as a layer may have nodes."""
    layers = constraint_of(spec_pb.ModelSpec.DESCRIPTOR.fields_by_name["layers"])
    assert layers.maximum == MAXIMUM_COLUMNS


def test_only_a_job_with_an_exact_policy_is_verified(submission: Submission, jobs: JobStore) -> None:
    """A second run with backup would end with other weights, and say nothing."""

    async def work() -> None:
        for policy in (spec_pb.POLICY_SYNC, spec_pb.POLICY_BACKUP):
            spec = _spec()
            spec.distribution.policy.name, spec.distribution.micro_batches = policy, 2
            job = jobs.create(await submission.validate_spec(spec), "")
            for state in (STARTING, RUNNING, SUCCEEDED):
                jobs.move(job.job_id, state, "because")
            jobs.save_receipt(jobs_pb.Receipt(job_id=job.job_id, train_sha256="1"))
            if policy == spec_pb.POLICY_SYNC:
                assert (await submission.submit_verification(job.job_id, "")).verifies == job.job_id
                continue
            with pytest.raises(ServiceError, match="with the policy backup its weights depend on which") as refused:
                await submission.submit_verification(job.job_id, "")
            assert refused.value.reason == Reason.WRONG_STATE

    _run(work())
