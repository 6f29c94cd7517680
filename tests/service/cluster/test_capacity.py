"""Capacity of the cluster, and sentences about jobs that ask for more."""

import asyncio

import pytest

from nablad.v1 import cluster_pb2 as cluster_pb
from service.cluster.capacity import NodeCache, explain_shortage, list_nodes_within
from service.cluster.errors import ClusterLostError


class Cluster:
    """Cluster that answers when the test says so, or raises an error."""

    def __init__(self) -> None:
        self.questions = 0
        self.may_answer = asyncio.Event()
        self.lost = False

    async def list_nodes(self) -> list[cluster_pb.Node]:
        self.questions += 1
        if self.lost:
            raise ClusterLostError("Ray is away")
        await self.may_answer.wait()
        return [cluster_pb.Node(cpus=2, free_cpus=1)]

    async def reserve_cpus(self, workers: int, cpus_per_worker: int) -> None:
        raise AssertionError("these tests start no job")


def _nodes(*cpus: int) -> list[cluster_pb.Node]:
    return [cluster_pb.Node(cpus=each) for each in cpus]


@pytest.mark.parametrize(
    ("workers", "cpus_per_worker", "cpus", "words"),
    [
        (2, 1, (2,), ()),
        (2, 2, (2, 3), ()),
        (64, 1, (2,), ("needs 64 workers with 1 CPU each", "room for 2", "`nabla job scale a 2`")),
        (3, 2, (3, 3), ("needs 3 workers with 2 CPUs each", "room for 2", "`nabla job scale a 2`")),
        (1, 8, (4, 2), ("needs 1 worker with 8 CPUs", "more than 4", "a smaller distribution.cpus_per_worker")),
        (1, 1, (), ("needs 1 worker with 1 CPU", "no CPUs", "nablad serve --cpus")),
        (1, 1, (0,), ("no CPUs", "nablad serve --cpus")),
    ],
)
def test_the_explanation_of_a_shortage_says_what_to_do(
    workers: int, cpus_per_worker: int, cpus: tuple[int, ...], words: tuple[str, ...]
) -> None:
    """It says what is needed, what there is, and which command or field helps; it is empty where there is room."""
    sentence = explain_shortage(workers, cpus_per_worker, _nodes(*cpus), "a")
    assert bool(sentence) is bool(words)
    assert all(word in sentence for word in words)


async def test_calls_within_a_second_share_one_answer() -> None:
    """Later calls get a new answer; a cancelled call does not cancel the others."""
    cluster, now = Cluster(), 0.0
    known = NodeCache(cluster, lambda: now)
    asking = [asyncio.create_task(known.get_nodes()) for _ in range(100)]
    asking[0].cancel()
    cluster.may_answer.set()
    answers = await asyncio.gather(*asking[1:])
    assert all(answer == [cluster_pb.Node(cpus=2, free_cpus=1)] for answer in answers)
    now = 0.9
    await known.get_nodes()
    assert cluster.questions == 1
    now = 1.1
    await known.get_nodes()
    assert cluster.questions == 2


async def test_the_nodes_of_a_cluster_that_is_away_are_not_known() -> None:
    """They are requested again later."""
    cluster, now = Cluster(), 0.0
    cluster.lost = True
    known = NodeCache(cluster, lambda: now)
    assert await known.get_nodes() is None
    cluster.lost, now = False, 1.1
    cluster.may_answer.set()
    assert await known.get_nodes() == [cluster_pb.Node(cpus=2, free_cpus=1)]


async def test_a_cluster_that_hangs_is_given_up() -> None:
    """Its nodes are not known after the given time."""
    assert (await list_nodes_within(Cluster(), 0.0)) is None
