"""The same training as one would write it by hand: one process, numpy, one BLAS thread.

Same first weights, same rows in every step, same cost, same counts; but a mini-batch is one piece, and there is no
service. One row per sample and float32 throughout, as is usual by hand.
"""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.figures import Epoch
from nablad.v1.job_spec_pb2 import JobSpec
from workers import build
from workers.mathematics.parameters import ParameterLayout
from workers.plan import Plan

__all__ = ["train"]

Floats = NDArray[np.floating[Any]]

_PER_GREY_VALUE = np.float32(1 / 255)


def train(images: NDArray[np.uint8], labels: NDArray[np.uint8], spec: JobSpec) -> list[Epoch]:
    """Trains a network of sigmoids with log loss and plain gradient descent.

    Args:
        images: (rows, nodes of L(0)), grey values 0…255.
        labels: (rows,).
        spec: Completed; layers, epochs, batch size, learning rate, seed and initialisation are taken from it.

    Returns:
        The figures of every epoch.
    """
    training = spec.training
    plan = Plan(len(images), training.batch_size, 1, training.epochs, training.seed)
    views = ParameterLayout(tuple(spec.model.layers), bias=True).views(build.first_parameters(spec))
    weights = [(W, b) for W, b in views if b is not None]
    with threadpool_limits(1), np.errstate(over="ignore"):  # 1 / (1 + inf) is the right 0
        return [_epoch(weights, images, labels, plan, epoch, training.learning_rate) for epoch in range(plan.epochs)]


def _epoch(
    weights: list[tuple[Floats, Floats]],
    images: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    plan: Plan,
    epoch: int,
    learning_rate: float,
) -> Epoch:
    one_hot = np.eye(len(weights[-1][1]), dtype=np.float32)
    cost, correct, begun_s = 0.0, 0, time.perf_counter()
    for step in range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch):
        rows = plan.micro_batch(step, 0)
        x = images.take(rows, axis=0) * _PER_GREY_VALUE
        step_cost, step_correct = _step(weights, x, one_hot[labels[rows]], learning_rate)
        cost += step_cost
        correct += step_correct
    seconds = time.perf_counter() - begun_s
    return Epoch(cost / plan.rows, correct / plan.rows, plan.rows / seconds)


def _step(weights: list[tuple[Floats, Floats]], x: Floats, y: Floats, learning_rate: float) -> tuple[float, int]:
    """One update; the sums of cost and right answers before it. x (samples, features), y (samples, outputs)."""
    a = [x]
    for W, b in weights:
        z = a[-1] @ W.T
        z += b
        a.append(1 / (1 + np.exp(-z)))
    # -[y log a + (1 - y) log(1 - a)], from z so that no logarithm of 0 comes up.
    cost = float((np.logaddexp(0, z) - y * z).sum(dtype=np.float64))
    correct = int((a[-1].argmax(axis=1) == y.argmax(axis=1)).sum())
    delta = a[-1] - y
    for number in reversed(range(len(weights))):
        W, b = weights[number]
        W_gradient, b_gradient = delta.T @ a[number], delta.sum(axis=0)
        if number:
            delta = (delta @ W) * (a[number] * (1 - a[number]))
        W -= (learning_rate / len(x)) * W_gradient
        b -= (learning_rate / len(x)) * b_gradient
    return cost, correct
