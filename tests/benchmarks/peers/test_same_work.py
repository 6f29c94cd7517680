"""The rivals do the same work."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.peers import numpy_single, ray_actors, scikit_learn, shared_all_reduce
from benchmarks.peers.task import Task


def test_costs_fall_epoch_by_epoch(task: Task) -> None:
    """The rival by hand learns."""
    measurement = numpy_single.train(task)
    assert measurement.costs == sorted(measurement.costs, reverse=True)
    assert len(measurement.samples_per_second) == len(measurement.costs) == 3


def test_scikit_learn_finds_the_costs_of_numpy(task: Task) -> None:
    """Same first weights, same rows in every step, same cost."""
    assert scikit_learn.train(task).costs == pytest.approx(numpy_single.train(task).costs, rel=1e-5)


def test_torch_finds_the_costs_of_numpy(task: Task) -> None:
    """Same first weights, same rows in every step, same cost."""
    pytest.importorskip("torch")
    from benchmarks.peers import torch_single  # noqa: PLC0415 (only where torch is)

    assert torch_single.train(task).costs == pytest.approx(numpy_single.train(task).costs, rel=1e-5)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_actors_find_the_costs_of_numpy(task: Task, workers: int) -> None:
    """However many of them share a mini-batch; here without Ray between them."""
    parted = Task(task.spec, task.folder, task.rows, processes=workers)
    server = ray_actors.ParameterServer(parted)
    actors = [ray_actors.Worker(parted, rank) for rank in range(workers)]
    parameters, costs = task.first_parameters(), []
    for _ in range(3):
        for _ in range(task.plan().steps_per_epoch):
            parameters = server.update(*(actor.gradient(parameters) for actor in actors)).copy()
        costs.append(sum(actor.take_cost() for actor in actors) / task.rows)
    assert costs == pytest.approx(numpy_single.train(task).costs, rel=1e-5)


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
@pytest.mark.parametrize("most_whole_bytes", [0, 1_000_000], ids=["slices", "whole"])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_the_shared_all_reduce_finds_the_costs_of_numpy(
    task: Task, processes: int, most_whole_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many ranks share a mini-batch, also the last one of an epoch, which has fewer rows; in both ways."""
    monkeypatch.setattr(shared_all_reduce, "_MOST_WHOLE_BYTES", most_whole_bytes)
    parted = Task(task.spec, task.folder, task.rows, processes=processes)
    assert shared_all_reduce.train(parted).costs == pytest.approx(numpy_single.train(task).costs, rel=1e-5)


def test_the_shared_all_reduce_asks_for_a_compiler(task: Task, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where there is none, the error says so."""
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BenchmarkError, match="needs a C compiler: none of cc, gcc, clang is here"):
        shared_all_reduce.train(task)


def test_the_parts_of_ddp_cover_each_row_once(task: Task) -> None:
    """The ranks of a step share its rows, and the cost of a part weighs what its samples are of the whole."""
    pytest.importorskip("torch")
    from benchmarks.peers.torch_network import network, train_epochs  # noqa: PLC0415 (only where torch is)

    still = Task(task.spec, task.folder, task.rows, processes=2)
    still.spec.training.learning_rate = 0  # or the ranks would part without DDP between them
    summed = np.sum([train_epochs(still, network(still), rank)[1] for rank in range(2)], axis=0)
    assert summed / task.rows == pytest.approx(numpy_single.train(still).costs, rel=1e-5)
