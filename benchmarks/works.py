"""The works that are measured: one row each."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from nablad.jobspec import complete, load
from nablad.v1.job_spec_pb2 import JobSpec
from workers.mathematics.parameters import ParameterLayout

__all__ = ["JOB_FILE", "MESSAGES", "PAPER_100", "PAPER_500", "RAY_TRAIN", "WIDE", "WORKERS", "WORKS", "Work", "quick"]

JOB_FILE = Path(__file__).with_name("mnist.yaml")

# Two workers, in the service as in every rival that has more than one process; `service-1` alone has one.
WORKERS = 2


@dataclass(frozen=True)
class Work:
    """A training that several contestants do.

    Attributes:
        name: For the command line and the results file.
        layers: Nodes of L(0)…L(E).
        batch_size: Rows of a step, over all processes.
        learning_rate: Small enough that no output reaches the ends of the sigmoid, where float32 knows no more costs.
        rows: The first of MNIST's rows for training.
        epochs: The first of which warms up.
        contestants: Their names, in the order of their turns.
    """

    name: str
    layers: tuple[int, ...]
    batch_size: int
    learning_rate: float
    rows: int
    epochs: int
    contestants: tuple[str, ...]

    @property
    def title(self) -> str:
        """Title of the work in a report."""
        return f"{'-'.join(map(str, self.layers))}, batch {self.batch_size}"

    @property
    def weights_bytes(self) -> int:
        """Size of all weights and biases in float32, and of their gradient."""
        return 4 * ParameterLayout(self.layers, bias=True).size

    def without(self, names: Collection[str]) -> Self:
        """Returns the same work for those contestants that are not named."""
        return replace(self, contestants=tuple(name for name in self.contestants if name not in names))

    def spec(self, epochs: int | None = None) -> JobSpec:
        """The service's job, completed. Without validation, so that the seconds are those of steps alone.

        Args:
            epochs: None: as many as the work has.
        """
        spec = load(JOB_FILE)
        spec.model.layers[:] = self.layers
        spec.data.train = f"mnist-{self.rows}"
        spec.data.validation = ""
        spec.training.batch_size = self.batch_size
        spec.training.learning_rate = self.learning_rate
        spec.training.epochs = epochs or self.epochs
        spec.distribution.workers = spec.distribution.micro_batches = WORKERS
        return complete(spec)


_TORCH = ("torch-1", "torch-2", "torch-ddp")
_BY_HAND = ("numpy", "blas-limit", "shared-all-reduce")
_ALL = (*_BY_HAND, *_TORCH, "ray-actors", "scikit-learn", "service")

PAPER_500 = Work("paper-500", (784, 100, 50, 10), 500, 0.5, 60_000, 5, (*_ALL, "service-1", "service-inline"))
PAPER_100 = Work("paper-100", (784, 100, 50, 10), 100, 0.5, 30_000, 5, (*_ALL, "service-1"))
# The network and batch size of Ray Train's own published comparison.
RAY_TRAIN = Work("ray-train-64", (784, 512, 512, 10), 64, 0.05, 9_600, 4, (*_BY_HAND, *_TORCH, "ray-actors", "service"))
WIDE = Work("wide-500", (784, 1024, 1024, 10), 500, 0.02, 12_000, 4, _ALL)
# 8 rows for each worker, so that messages outweigh the arithmetic.
MESSAGES = Work(
    "messages",
    (784, 1024, 1024, 10),
    16,
    0.02,
    1_600,
    4,
    ("numpy", "loopback-limit", "shared-all-reduce", "service", "service-inline"),
)

WORKS = (PAPER_500, PAPER_100, RAY_TRAIN, WIDE, MESSAGES)


# What `quick` leaves of a work.
_QUICK_STEPS = 5
_QUICK_EPOCHS = 2


def quick(works: Sequence[Work]) -> list[Work]:
    """Few steps of those works that bring a contestant who is in none before."""
    seen: set[str] = set()
    kept: list[Work] = []
    for work in works:
        if not seen.issuperset(work.contestants):
            seen.update(work.contestants)
            kept.append(replace(work, rows=_QUICK_STEPS * work.batch_size, epochs=_QUICK_EPOCHS))
    return kept
