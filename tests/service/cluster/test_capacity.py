"""The capacity of the cluster, and who is told of it."""

import asyncio

import pytest

from nablad.v1 import cluster_pb2 as cluster_pb
from service.cluster.capacity import KnownNodes, look_up_nodes, shortage
from service.cluster.errors import ClusterLostError


class Cluster:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.questions = 0
        self.may_answer = asyncio.Event()
        self.lost = False

    async def nodes(self) -> list[cluster_pb.Node]:
        self.questions += 1
        if self.lost:
            raise ClusterLostError("Ray is away")
        await self.may_answer.wait()
        return [cluster_pb.Node(cpus=2, free_cpus=1)]

    async def reserve(self, workers: int, cpus_per_worker: int) -> None:
        raise AssertionError("nobody starts jobs in these tests")


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
def test_who_asks_for_more_than_there_is_learns_what_to_do(
    workers: int, cpus_per_worker: int, cpus: tuple[int, ...], words: tuple[str, ...]
) -> None:
    """What is needed, what there is, and the command or the field that helps; nothing where there is room."""
    sentence = shortage(workers, cpus_per_worker, _nodes(*cpus), "a")
    assert bool(sentence) is bool(words)
    assert all(word in sentence for word in words)


async def test_many_who_ask_at_once_cost_one_question() -> None:
    """And so do those that come shortly after; later ones get a new answer."""
    cluster, now = Cluster(), 0.0
    known = KnownNodes(cluster, lambda: now)
    asking = [asyncio.create_task(known.get()) for _ in range(100)]
    asking[0].cancel()
    cluster.may_answer.set()
    answers = await asyncio.gather(*asking[1:])
    assert all(answer == [cluster_pb.Node(cpus=2, free_cpus=1)] for answer in answers)
    now = 0.9
    await known.get()
    assert cluster.questions == 1
    now = 1.1
    await known.get()
    assert cluster.questions == 2


async def test_nobody_waits_for_a_cluster_that_is_away() -> None:
    """Its nodes are just not known, and are asked for again later."""
    cluster, now = Cluster(), 0.0
    cluster.lost = True
    known = KnownNodes(cluster, lambda: now)
    assert await known.get() is None
    cluster.lost, now = False, 1.1
    cluster.may_answer.set()
    assert await known.get() == [cluster_pb.Node(cpus=2, free_cpus=1)]


async def test_a_cluster_that_hangs_is_not_waited_for() -> None:
    """After the time that was given, its nodes are not known."""
    assert (await look_up_nodes(Cluster(), 0.0)) is None
