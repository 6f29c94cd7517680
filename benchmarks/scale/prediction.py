"""What the model says of workers and weights that nobody has at hand. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.scale.forms import Form
from benchmarks.scale.model import Step, needed_memory, step
from benchmarks.scale.quantities import Link, Parts, host_link, network_link
from benchmarks.scale.simulation import simulate
from benchmarks.scale.stages import Work

__all__ = [
    "BATCH_SIZE",
    "HOST_MEMORY_BYTES",
    "MANY",
    "MOST_WORKERS",
    "SAMPLES",
    "SHOWN_WORKERS",
    "SIZES",
    "Limit",
    "Simulated",
    "Strong",
    "fits",
    "fixed_batch",
    "least_shards",
    "limits",
    "links",
    "most_workers",
    "simulated",
]

SIZES = (10**5, 10**6, 10**7, 10**8, 10**9)
"""Weights."""

SAMPLES = 256
"""Of each worker, where a mini-batch grows with the workers."""

BATCH_SIZE = 8192
"""Where it does not."""

SHOWN_WORKERS = (1, 10, 100, 1000)
MANY = (100, 1000)
MOST_WORKERS = 1000

HOST_MEMORY_BYTES = 256e9
"""Of a host. Stated, not measured."""

_ENOUGH = 0.5


@dataclass(frozen=True)
class Limit:
    """How far a network of one size goes over one link, with a fixed number of samples for each worker.

    Attributes:
        form: Of the network.
        gradient_s: Seconds that a worker computes in a step.
        steps: Predicted, by the number of workers, with one parameter server.
        most_workers: That compute for at least half of their time, with one parameter server; 0 if not even one does,
            MOST_WORKERS if as many do.
        bottleneck: What they wait for, where there is one more.
        memory_workers: The most that one parameter server has the memory for.
        shards: The fewest parameter servers with which so many workers compute for at least half of their time; None if
            no number of them will do.
        lacking: Of those workers for whom none will do, what it is: "memory", or else "messages": their number.
    """

    form: Form
    gradient_s: float
    steps: dict[int, Step]
    most_workers: int
    bottleneck: str
    memory_workers: int
    shards: dict[int, int | None]
    lacking: dict[int, str]


@dataclass(frozen=True)
class Strong:
    """How much faster a mini-batch of a fixed size is with more workers.

    Attributes:
        form: Of the network.
        speedup: By the number of workers, relative to one.
        best_workers: With which a step is the shortest.
        best_speedup: With these.
    """

    form: Form
    speedup: dict[int, float]
    best_workers: int
    best_speedup: float


@dataclass(frozen=True)
class Simulated:
    """A step by the formulas and by the simulation, with a fixed number of samples for each worker.

    Attributes:
        form: Of the network.
        workers: W.
        formula: The step by the formulas.
        simulated_s: Its seconds by the simulation.
    """

    form: Form
    workers: int
    formula: Step
    simulated_s: float

    @property
    def difference(self) -> float:
        """Of the formulas from the simulation, relative."""
        return self.formula.seconds / self.simulated_s - 1


def links(parts: Parts) -> list[Link]:
    """One host that is as large as is wanted, and hosts with one CPU for each worker."""
    return [host_link(parts, "shared"), network_link(25), network_link(10)]


def limits(parts: Parts, link: Link, samples: float = SAMPLES, sizes: Sequence[int] = SIZES) -> list[Limit]:
    """For each size."""
    return [_limit(Form.of_size(size), samples, parts, link) for size in sizes]


def fixed_batch(parts: Parts, link: Link) -> list[Strong]:
    """For each size, with one parameter server."""
    return [_strong(Form.of_size(size), parts, link) for size in SIZES]


def simulated(parts: Parts, link: Link) -> list[Simulated]:
    """For sizes and numbers of workers that do not take long to simulate."""
    works = [Work(Form.of_size(size), SAMPLES, workers) for size in SIZES[:-1] for workers in SHOWN_WORKERS[:-1]]
    return [Simulated(work.form, work.workers, step(work, parts, link), simulate(work, parts, link)) for work in works]


def most_workers(form: Form, samples: float, parts: Parts, link: Link) -> int:
    """The most that compute for at least half of their time, up to MOST_WORKERS; efficiency only falls with more."""
    low, high = 0, MOST_WORKERS
    while low < high:
        middle = (low + high + 1) // 2
        if step(Work(form, samples, middle), parts, link).efficiency >= _ENOUGH:
            low = middle
        else:
            high = middle - 1
    return low


def least_shards(form: Form, samples: float, workers: int, parts: Parts, link: Link) -> int | None:
    """The fewest with which the workers compute for at least half of their time, and that have the memory for them.

    More shards than workers relieve nobody: each worker then waits for its own network.
    """
    for shards in range(1, workers + 1):
        work = Work(form, samples, workers, shards)
        if fits(work, link) and step(work, parts, link).efficiency >= _ENOUGH:
            return shards
    return None


def fits(work: Work, link: Link) -> bool:
    """Whether a parameter server's host has the memory."""
    return needed_memory(work, link) <= HOST_MEMORY_BYTES


def _limit(form: Form, samples: float, parts: Parts, link: Link) -> Limit:
    most = most_workers(form, samples, parts, link)
    shards = {workers: least_shards(form, samples, workers, parts, link) for workers in MANY}
    return Limit(
        form=form,
        gradient_s=parts.computing.seconds(form, samples),
        steps={workers: step(Work(form, samples, workers), parts, link) for workers in SHOWN_WORKERS},
        most_workers=most,
        bottleneck=step(Work(form, samples, most + 1), parts, link).bottleneck,
        memory_workers=int(HOST_MEMORY_BYTES // form.vector_bytes) - 1,
        shards=shards,
        lacking={
            workers: "messages" if fits(Work(form, samples, workers, workers), link) else "memory"
            for workers, least in shards.items()
            if least is None
        },
    )


def _strong(form: Form, parts: Parts, link: Link) -> Strong:
    def seconds(workers: int) -> float:
        return step(Work(form, BATCH_SIZE / workers, workers), parts, link).seconds

    best = min(range(1, MOST_WORKERS + 1), key=seconds)
    speedup = {workers: seconds(1) / seconds(workers) for workers in SHOWN_WORKERS}
    return Strong(form, speedup, best, seconds(1) / seconds(best))
