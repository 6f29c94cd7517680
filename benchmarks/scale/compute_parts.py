"""A worker's work, measured in this process with one BLAS thread: gradients, and the reading of rows."""

import tempfile
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
from sklearn.linear_model import LinearRegression
from threadpoolctl import threadpool_limits

from benchmarks.scale import synthetic
from benchmarks.scale.forms import Form
from benchmarks.scale.quantities import Computing
from benchmarks.scale.quiet import repeated
from workers.mathematics.back_propagation import BackPropagation
from workers.mathematics.network import Network
from workers.rows import Rows

__all__ = ["computing", "fit", "gather_s"]

# Small and large, at few and many samples, so that each of the four terms is most of the time somewhere.
_HIDDEN = (32, 128, 512, 1024, 2048)
_SAMPLES = (16, 64, 250, 500)
_CASE_SECONDS = 0.3
_ROWS = 60_000
_GATHERED = 250

Case = tuple[Form, int, float]  # with its samples, and its seconds


def computing() -> Computing:
    """What a gradient costs: measured for several forms and numbers of samples."""
    with threadpool_limits(1):
        return fit([(form, samples, _gradient_s(form, samples)) for form in _forms() for samples in _SAMPLES])


def fit(cases: Sequence[Case]) -> Computing:
    """The four costs, none below 0, whose sums come nearest to what was measured: least squares of relative errors."""
    seconds = np.array([taken for _, _, taken in cases])
    terms = np.array([[1, n * form.flops, n * form.nodes, form.weights] for form, n, _ in cases])
    relative = terms / seconds[:, np.newaxis]
    scale = relative.max(axis=0)  # else the solver takes the smallest costs for 0
    solver = LinearRegression(positive=True, fit_intercept=False)
    costs = solver.fit(relative / scale, np.ones(len(cases))).coef_ / scale
    call_s, flop_s, node_sample_s, weight_s = map(float, costs)
    return Computing(call_s, flop_s, node_sample_s, weight_s, float(np.abs(relative @ costs - 1).max()))


def gather_s() -> float:
    """A row of 784 pixels, of as many rows as MNIST has, in seconds."""
    with tempfile.TemporaryDirectory(prefix="nablad-scale-") as name:
        job = synthetic.spec((784, 1), _GATHERED, 1, 1, "shared")
        assignment = synthetic.assignment(job, _ROWS, Path(name))
        rows = Rows(assignment.train, assignment.scaling, np.float32)
        order = cycle(np.random.default_rng(0).permutation(_ROWS).reshape(-1, _GATHERED))
        return repeated(lambda: rows.take(next(order)), seconds=0.2) / _GATHERED


def _forms() -> list[Form]:
    return [Form((784, h, h, 10)) for h in _HIDDEN]


def _gradient_s(form: Form, samples: int) -> float:
    """The gradient of so many samples, in seconds."""
    network = Network(form.layers, ("sigmoid",) * (len(form.layers) - 1), "log_loss", bias=True)
    back_propagation = BackPropagation(network, np.float32)
    generator = np.random.default_rng(0)
    weights = generator.normal(0, 0.01, form.weights).astype(np.float32)
    x = generator.random((samples, form.layers[0]), np.float32)
    labels = generator.integers(0, form.layers[-1], samples)
    gradient = np.empty_like(weights)
    return repeated(lambda: back_propagation.gradient(weights, x, labels, gradient), _CASE_SECONDS)
