"""scikit-learn's MLPClassifier. One-hot targets make it use sigmoids and log loss for its outputs, too."""

import time

import numpy as np
from numpy.typing import NDArray
from sklearn.neural_network import MLPClassifier

from benchmarks.figures import Measurement
from benchmarks.peers.task import Task

__all__ = ["train"]


def train(task: Task) -> Measurement:
    """Trains in this process: an epoch is one ``partial_fit`` of the rows in the order of its plan."""
    images = task.images().astype(np.float32) / np.float32(255)
    one_hot = np.eye(task.layers[-1], dtype=np.int64)[task.labels()]
    plan, classifier = task.plan(), _classifier(task, images[:1], one_hot[:1])
    measurement = Measurement([], [])
    for epoch in range(plan.epochs):
        begun_s = time.perf_counter()
        steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
        order = np.concatenate([plan.micro_batch(step, 0) for step in steps])
        classifier.partial_fit(images.take(order, axis=0), one_hot.take(order, axis=0))
        measurement.samples_per_second.append(task.rows / (time.perf_counter() - begun_s))
        measurement.costs.append(float(classifier.loss_))
    return measurement


def _classifier(task: Task, x: NDArray[np.float32], y: NDArray[np.int64]) -> MLPClassifier:
    """One with the first weights of the task; a first call with some row makes its arrays."""
    classifier = MLPClassifier(
        hidden_layer_sizes=task.layers[1:-1],
        activation="logistic",
        solver="sgd",
        alpha=0.0,
        batch_size=1,
        learning_rate_init=task.learning_rate,
        momentum=0.0,
        nesterovs_momentum=False,
        shuffle=False,
    )
    classifier.partial_fit(x, y, classes=range(task.layers[-1]))
    classifier.set_params(batch_size=min(task.spec.training.batch_size, task.rows))
    for number, (weights, bias) in enumerate(task.views(task.first_parameters())):
        classifier.coefs_[number][...] = weights.T
        classifier.intercepts_[number][...] = bias
    return classifier
