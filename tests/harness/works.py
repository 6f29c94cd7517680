"""Which jobs are disturbed: small ones on the digits, drawn from a seed."""

import random
from dataclasses import dataclass
from pathlib import Path

import nablad.demo
from nablad.jobspec import parse
from nablad.v1.job_spec_pb2 import JobSpec
from tests.harness import HarnessError

__all__ = ["DATASETS", "MOST_WORKERS", "Arithmetic", "Work", "bystander", "draw_work"]

_DEMO = Path(nablad.demo.__file__).parent
DATASETS = {name: _DEMO / f"{name}.npz" for name in ("digits-train", "digits-validation")}
_ROWS = 1437
MOST_WORKERS = 3
# Long enough for a fault in the middle, short enough for hundreds of them.
_STEPS = 3000
_LEARNING_RATES = {"sgd": 0.5, "momentum": 0.05, "nesterov": 0.05, "adam": 0.003}
_JOB_FILE = """
name: {name}
data: {{train: digits-train, validation: digits-validation, scaling: standard}}
model: {{layers: [64, 40, 10], activation: sigmoid, output_activation: sigmoid}}
cost: {{function: log_loss}}
training:
  {{epochs: {epochs}, batch_size: {batch_size}, learning_rate: {learning_rate}, seed: 11,
    optimizer: {{name: {optimizer}}}{stopping}}}
distribution: {{workers: {workers}, micro_batches: {micro_batches}, transport: {transport}}}
checkpoints: {{{checkpoints}}}
limits: {{attempts: 5}}
"""


@dataclass(frozen=True)
class Arithmetic:
    """Part of a work that decides the result of a job.

    Attributes:
        optimizer: Its name.
        batch_size: Rows of a step.
    """

    optimizer: str
    batch_size: int

    @property
    def epochs(self) -> int:
        """Number of epochs that makes about the same number of steps."""
        return round(_STEPS / self.steps_per_epoch)

    @property
    def steps_per_epoch(self) -> int:
        """The last of which takes what is left."""
        return -(-_ROWS // self.batch_size)

    @property
    def steps(self) -> int:
        """Number of steps of the whole job."""
        return self.epochs * self.steps_per_epoch


@dataclass(frozen=True)
class Work:
    """A job.

    Attributes:
        arithmetic: Decides the result; nothing else does.
        workers: How many there are at first.
        transport: How weights and gradients travel.
        checkpoints: When they are taken, as a job file says it.
    """

    arithmetic: Arithmetic
    workers: int = 1
    transport: str = "auto"
    checkpoints: str = "every_seconds: 30"

    def spec(self, name: str) -> JobSpec:
        """The job's."""
        arithmetic = self.arithmetic
        return _spec(
            name=name,
            epochs=arithmetic.epochs,
            batch_size=arithmetic.batch_size,
            learning_rate=_LEARNING_RATES[arithmetic.optimizer],
            optimizer=arithmetic.optimizer,
            # The best weights go through checkpoints as the moments do.
            stopping=", stopping: {keep_best: true}" if arithmetic.batch_size % 2 == 0 else "",
            workers=self.workers,
            micro_batches=4,
            transport=self.transport,
            checkpoints=self.checkpoints,
        )


def draw_work(draw: random.Random) -> Work:
    """Any of them."""
    arithmetic = Arithmetic(draw.choice(list(_LEARNING_RATES)), draw.choice((45, 80)))
    checkpoints = draw.choice((f"every_epochs: {draw.randint(3, 12)}", f"every_seconds: {draw.uniform(0.1, 0.4):.2f}"))
    return Work(
        arithmetic, draw.randint(1, MOST_WORKERS), draw.choice(("shared", "inline", "auto")), checkpoints=checkpoints
    )


def bystander() -> JobSpec:
    """A job that runs for as long as one likes, with one worker, and never takes a checkpoint."""
    return _spec(
        name="bystander",
        epochs=1_000_000,
        batch_size=50,
        learning_rate=0.001,
        optimizer="sgd",
        stopping="",
        workers=1,
        micro_batches=1,
        transport="shared",
        checkpoints="every_seconds: 1000000",
    )


def _spec(**fields: object) -> JobSpec:
    spec, violations = parse(_JOB_FILE.format(**fields))
    if violations:
        raise HarnessError(f"The job should break no rule, but: {violations[0]}")
    return spec
