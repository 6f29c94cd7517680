"""Task of a contestant, written to a file for the process that does it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from google.protobuf import json_format
from numpy.typing import NDArray

from nablad.v1.job_spec_pb2 import JobSpec
from workers import from_spec
from workers.mathematics.parameters import ParameterLayout
from workers.plan import Plan

__all__ = ["Floats", "Layer", "Task"]

Floats = NDArray[np.floating[Any]]
Layer = tuple[Floats, Floats]  # W(N) (nodes of L(N+1), nodes of L(N)), b(N) (nodes of L(N+1),)


@dataclass(frozen=True)
class Task:
    """The training that all contestants do.

    Attributes:
        spec: The service's job, completed: sigmoid everywhere, log loss, plain gradient descent, float32.
        folder: Holds images.npy (rows, nodes of L(0)), grey values 0…255, and labels.npy (rows,).
        rows: Of the data set.
        processes: That train at the same time, where a contestant trains in several.
        threads: Of the BLAS in each of them.
    """

    spec: JobSpec
    folder: Path
    rows: int
    processes: int = 1
    threads: int = 1

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads the file that `write` wrote."""
        fields = json.loads(path.read_text(encoding="utf-8"))
        spec = json_format.ParseDict(fields.pop("spec"), JobSpec())
        return cls(spec, Path(fields.pop("folder")), **fields)

    def write(self, path: Path) -> None:
        """Writes the task as JSON."""
        fields = {
            "spec": json_format.MessageToDict(self.spec),
            "folder": str(self.folder),
            "rows": self.rows,
            "processes": self.processes,
            "threads": self.threads,
        }
        path.write_text(json.dumps(fields), encoding="utf-8")

    @property
    def layers(self) -> tuple[int, ...]:
        """Nodes of L(0)…L(E)."""
        return tuple(self.spec.model.layers)

    @property
    def learning_rate(self) -> float:
        """The ε of the paper."""
        return self.spec.training.learning_rate

    def plan(self, parts: int = 1) -> Plan:
        """The rows of every step, in as many parts as there are to be: the service's own plan."""
        training = self.spec.training
        return Plan(self.rows, training.batch_size, parts, training.epochs, training.seed)

    def images(self) -> NDArray[np.uint8]:
        """(rows, nodes of L(0)), grey values 0…255."""
        images: NDArray[np.uint8] = np.load(self.folder / "images.npy")
        return images

    def labels(self) -> NDArray[np.uint8]:
        """(rows,)."""
        labels: NDArray[np.uint8] = np.load(self.folder / "labels.npy")
        return labels

    def first_parameters(self) -> Floats:
        """The service's first weights and biases as one vector (size,)."""
        return from_spec.first_parameters(self.spec)

    def views(self, vector: Floats) -> list[Layer]:
        """Weights and biases, or their gradients, as views into such a vector."""
        return [(W, b) for W, b in ParameterLayout(self.layers, bias=True).views(vector) if b is not None]
