"""Rivals run in processes of their own."""

import pytest

from benchmarks.contestants import Contestant
from benchmarks.errors import PeerError
from benchmarks.peer_process import run_peer
from benchmarks.peers import numpy_single
from benchmarks.peers.task import Task


def test_a_rival_gives_its_measurement(task: Task) -> None:
    """What it finds in its process is what it finds in ours."""
    run = run_peer(Contestant("n", "numpy", "numpy_single"), task.spec, task.folder, task.rows)
    assert run.costs == numpy_single.train(task).costs


def test_a_rival_that_fails_is_named_with_its_last_words(task: Task) -> None:
    """The error says who it was, and why."""
    with pytest.raises(PeerError, match=r"(?s)Nobody ended with 1\. .*No module named 'benchmarks\.peers\.nobody'"):
        run_peer(Contestant("x", "Nobody", "nobody"), task.spec, task.folder, task.rows)
