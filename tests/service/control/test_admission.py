"""Which queued job starts next."""

import itertools
from collections.abc import Sequence

import hypothesis.strategies as st
from hypothesis import given

from nablad.v1 import cluster_pb2 as cluster_pb
from service.control.admission import Admission
from service.stores.jobs import QueuedJob

_PATIENCE = 60.0


def _job(job_id: str, workers: int = 1, cpus: int = 1) -> QueuedJob:
    return QueuedJob(job_id, number=0, priority=0, workers=workers, cpus_per_worker=cpus, retry_time=0.0, queued_time=0)


def _nodes(*nodes: tuple[int, int]) -> list[cluster_pb.Node]:
    """Nodes of so many CPUs, so many of them free."""
    return [cluster_pb.Node(cpus=cpus, free_cpus=free) for cpus, free in nodes]


def _started(admission: Admission, waiting: Sequence[QueuedJob], nodes: list[cluster_pb.Node], now: float = 0.0) -> str:
    decision = admission.choose_next_job(waiting, nodes, now)
    return decision.job.job_id if decision.job else ""


def test_the_first_that_fits_starts() -> None:
    """In the order of the queue, whatever else would fit."""
    assert _started(Admission(), [_job("a", 2), _job("b", 1)], _nodes((4, 4))) == "a"


def test_a_small_job_passes_one_that_has_to_wait() -> None:
    """The big one is told what it waits for."""
    decision = Admission().choose_next_job([_job("big", 4), _job("small", 1)], _nodes((4, 2)), 0.0)
    assert decision.job is not None
    assert decision.job.job_id == "small"
    assert decision.reasons == {"big": "waits for free CPUs, for 4 workers with 1 CPU each"}


def test_nobody_passes_one_that_has_waited_long() -> None:
    """From then on CPUs stay free until it starts."""
    admission, queue = Admission(_PATIENCE), [_job("big", 4), _job("small", 1)]
    assert _started(admission, queue, _nodes((4, 2)), now=0.0) == "small"
    assert _started(admission, queue, _nodes((4, 2)), now=_PATIENCE - 1) == "small"
    assert _started(admission, queue, _nodes((4, 3)), now=_PATIENCE) == ""
    assert _started(admission, queue, _nodes((4, 4)), now=_PATIENCE + 1) == "big"


def test_the_wait_is_not_forgotten_when_an_earlier_job_starts() -> None:
    """Jobs that go before it do not begin its patience anew."""
    admission = Admission(_PATIENCE)
    big, small = _job("big", 4), _job("small", 1)
    assert _started(admission, [big, small], _nodes((4, 2)), now=0.0) == "small"
    assert _started(admission, [_job("urgent"), big, small], _nodes((4, 2)), now=_PATIENCE / 2) == "urgent"
    assert _started(admission, [big, small], _nodes((4, 2)), now=_PATIENCE) == ""


def test_a_job_for_which_the_cluster_is_too_small_is_in_nobodys_way() -> None:
    """However long it has waited, and it is told so."""
    admission, queue = Admission(_PATIENCE), [_job("giant", 9), _job("small", 1)]
    for now in (0.0, 10 * _PATIENCE):
        decision = admission.choose_next_job(queue, _nodes((4, 4), (4, 4)), now)
        assert decision.job is not None
        assert decision.job.job_id == "small"
    assert decision.reasons["giant"] == (
        "needs 9 workers with 1 CPU each, but the cluster has room for 8: it waits until there are more CPUs "
        "(more nodes, or `nablad serve --cpus`), or until `nabla job scale giant 8` lets it start with fewer workers"
    )


def test_workers_need_their_cpus_on_one_node() -> None:
    """Two nodes with a free CPU each hold no worker of two."""
    assert _started(Admission(), [_job("a", 1, cpus=2)], _nodes((2, 1), (2, 1))) == ""
    assert _started(Admission(), [_job("a", 2, cpus=2)], _nodes((4, 2), (2, 2))) == "a"


def test_a_job_whose_pause_is_not_over_does_not_start() -> None:
    """Nor does it keep others from starting."""
    queue = [_job("lost"), _job("next")]
    for held, started in (({"lost"}, "next"), (set(), "lost")):
        decision = Admission().choose_next_job(queue, _nodes((4, 4)), 0.0, held)
        assert decision.job is not None
        assert decision.job.job_id == started


@given(st.lists(st.integers(1, 6), min_size=1, max_size=8), st.integers(1, 6))
def test_every_job_starts_in_the_end(sizes: list[int], cpus: int) -> None:
    """If those that run end one by one, all that fit into the cluster have started after a while."""
    admission = Admission(_PATIENCE)
    waiting = [_job(str(number), size) for number, size in enumerate(sizes) if size <= cpus]
    running: list[QueuedJob] = []
    for now in itertools.count():
        if not waiting:
            return
        assert now < 10 * len(sizes)
        free = cpus - sum(job.workers for job in running)
        if job := admission.choose_next_job(waiting, _nodes((cpus, free)), now * _PATIENCE / 2).job:
            assert job.workers <= free
            waiting.remove(job)
            running.append(job)
        elif running:
            running.pop(0)


def test_a_job_that_has_begun_goes_on_with_the_workers_that_there_is_room_for() -> None:
    """It may have been scaled beyond the cluster, or the cluster have shrunk."""
    begun = QueuedJob(
        "begun", number=0, priority=0, workers=8, cpus_per_worker=1, retry_time=0.0, queued_time=0, attempt=1
    )
    decision = Admission().choose_next_job([begun], _nodes((2, 2)), 0.0)
    assert (decision.job, decision.workers) == (begun, 2)
    assert Admission().choose_next_job([begun], _nodes((2, 1)), 0.0).reasons == {
        "begun": "waits for free CPUs, for 2 workers with 1 CPU each"
    }
    assert "it waits until there are" in Admission().choose_next_job([begun], [], 0.0).reasons["begun"]
