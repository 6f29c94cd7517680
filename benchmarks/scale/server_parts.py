"""The parameter server's work, measured on its own state machine with results that are made up."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.scale.echo import VALUE
from benchmarks.scale.forms import NUMBER_BYTES
from benchmarks.scale.processes import started
from benchmarks.scale.quantities import Curve
from benchmarks.scale.quiet import quiet
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.checkpoints.image import Snapshot
from service.parameter_server.progress.advice import Advice
from service.parameter_server.progress.stopping import StoppingRules
from service.parameter_server.scheduling.policies import Sync
from service.parameter_server.training import Training
from workers.mathematics.optimizers import optimizer
from workers.plan import Plan
from workers.transport.shared_memory import SharedMemory
from workers.transport.tickets import Result, Ticket

__all__ = ["VectorCurves", "drive", "report_per_worker_s", "vector_curves", "vector_rates"]

Vector = NDArray[np.floating]
VectorCurves = dict[str, Curve]

# With four workers a step has four inspections, two additions in the tree and one in the update.
_WORKERS = 4
_SIZES = (10**5, 10**6, 10**7)
# Of gradients, over all steps with vectors of one size.
_ALL_BYTES = 3_000_000_000
_LEAST_STEPS = 12
_FEW, _MANY = 100, 1000
_MANY_STEPS = 20


def drive(
    weights: Vector, gradients: Sequence[Vector], steps: int, before: Callable[[], None] | None = None
) -> dict[str, float]:
    """Takes a training through its steps, with one worker for each gradient, and plain gradient descent.

    Args:
        weights: The parameter vector, shape (size,).
        gradients: Each of shape (size,); not written to.
        steps: How many; the first one warms up.
        before: Called before the results of each step are taken.

    Returns:
        Seconds of a step, by the activities of the parameter server.
    """
    training = _training(weights, len(gradients), steps)
    lent = [gradient.view() for gradient in gradients]
    for worker, gradient in enumerate(lent):
        gradient.flags.writeable = False
        training.join(str(worker))
    tickets = _deal(training)
    laps: list[dict[str, float]] = []
    with threadpool_limits(1):
        for _ in range(steps):
            if before:
                before()
            training.stopwatch.lap("waiting")
            begun = dict(training.stopwatch.seconds)
            for worker, gradient in enumerate(lent):
                result = Result(tickets[str(worker)], training.version, 0.0, 1, 0, gradient)
                training.take(str(worker), 1, result)
            tickets = _deal(training)
            laps.append({name: seconds - begun[name] for name, seconds in training.stopwatch.seconds.items()})
    return {name: quiet([lap[name] for lap in laps[1:]]) for name in laps[0]}


def report_per_worker_s() -> float:
    """What each further worker adds to the cost of every report, in seconds: there is more to look through."""

    def report_s(workers: int) -> float:
        vectors = np.zeros((workers + 1, 1), np.float32)
        return sum(drive(vectors[0], list(vectors[1:]), _MANY_STEPS).values()) / workers

    return max(0.0, report_s(_MANY) - report_s(_FEW)) / (_MANY - _FEW)


def vector_curves(log: IO[str]) -> VectorCurves:
    """Seconds per byte of inspecting, reducing, updating and reading; the names are those of `Parts`.

    All of it is done with vectors that another process has just written, as in a real step with shared memory.

    Args:
        log: For what that process says on stderr.
    """
    vectors = np.zeros((_WORKERS + 1, 1), np.float32)
    fixed = drive(vectors[0], list(vectors[1:]), 200)
    sizes = [NUMBER_BYTES * size for size in _SIZES]
    steps = [max(_LEAST_STEPS, _ALL_BYTES // (_WORKERS * count)) for count in sizes]
    rates = [vector_rates(size, number, fixed, log) for size, number in zip(_SIZES, steps, strict=True)]
    return {name: Curve(tuple(map(float, sizes)), tuple(rate[name] for rate in rates)) for name in rates[0]}


def vector_rates(size: int, steps: int, fixed: dict[str, float], log: IO[str]) -> dict[str, float]:
    """Seconds per byte with vectors of so many numbers; `fixed` is what a step takes with vectors of one."""
    count = NUMBER_BYTES * size
    weights, *gradients = [SharedMemory.create("scale", count, others_may_write=True) for _ in range(_WORKERS + 1)]
    reading: list[float] = []
    with _other_process(weights, gradients, size, log) as write:
        step = drive(
            weights.vector(np.float32, size),
            [gradient.vector(np.float32, size) for gradient in gradients],
            steps,
            lambda: reading.append(write()),
        )
    seconds = {name: step[name] - fixed[name] for name in ("inspecting", "reducing", "updating")}
    return {
        "inspect": seconds["inspecting"] / (_WORKERS * count),
        "reduce": seconds["reducing"] / ((_WORKERS - 2) * count),
        "update": seconds["updating"] / count,
        "read": quiet(reading[1:]) / count,
    }


@contextmanager
def _other_process(
    weights: SharedMemory, gradients: Sequence[SharedMemory], size: int, log: IO[str]
) -> Iterator[Callable[[], float]]:
    """A process that, each time it is asked, writes the gradients, and tells how long reading the weights took."""
    files = [weights.fileno(), *(gradient.fileno() for gradient in gradients)]
    role = ["regions", str(files[0]), ",".join(map(str, files[1:])), str(size)]
    with started(role, log, files) as process:
        assert process.stdin
        assert process.stdout
        asked, answered = process.stdin, process.stdout

        def write() -> float:
            asked.write("\n")
            asked.flush()
            return float(answered.readline())

        yield write


def _training(weights: Vector, workers: int, steps: int) -> Training:
    """With one row for each worker in each step."""
    return Training(
        Plan(rows=workers * (steps + 1), batch_size=workers, micro_batches=workers, epochs=1, seed=0),
        Sync(),
        optimizer("sgd", VALUE),
        Snapshot(ps_pb.TrainingState(), weights),
        [0],
        StoppingRules(epochs=1),
        attempt=1,
        learning_rate=VALUE,
        labelled=True,
        advice=Advice(""),
        clock=time.perf_counter,
    )


def _deal(training: Training) -> dict[str, Ticket]:
    """One ticket for each worker, as the engine does it after the last result of a step."""
    tickets = {worker: tickets[0] for worker, tickets in training.deal().items()}
    training.stopwatch.lap("dealing")
    training.book()
    return tickets
