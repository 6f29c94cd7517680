"""The rival by hand does the work that it is compared for."""

import numpy as np
import pytest

from benchmarks.plain_numpy import train
from nablad.spec import complete, parse
from workers import build
from workers.plan import Plan

JOB_FILE = """
data: {train: random}
model:
  {layers: [12, 9, 7, 4], activation: sigmoid, output_activation: sigmoid, initialisation_scale: 4}
cost: {function: log_loss}
training: {epochs: 5, batch_size: 32, learning_rate: 1.0, seed: 3}
"""


def test_plain_numpy_trains_as_the_mathematics_does() -> None:
    """Cost and accuracy of every epoch are those of the project's back-propagation, up to float32's rounding."""
    spec = complete(parse(JOB_FILE)[0])
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (150, 12), np.uint8)
    labels = (images[:, :4].argmax(axis=1)).astype(np.uint8)
    plan = Plan(len(images), 32, 1, 5, 3)
    back_propagation, rule = build.back_propagation(spec), build.update_rule(spec)
    parameters = build.first_parameters(spec)
    gradient, state = np.empty_like(parameters), rule.init(parameters)
    for epoch, by_hand in enumerate(train(images, labels, spec)):
        cost = correct = 0.0
        for step in range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch):
            rows = plan.micro_batch(step, 0)
            x = images[rows].astype(np.float32) / np.float32(255)
            sums = back_propagation.gradient(parameters, x, labels[rows].astype(np.int64), gradient)
            gradient /= np.float32(len(rows))
            state = rule.update(parameters, gradient, state)
            cost += sums.cost
            correct += sums.correct
        assert by_hand.cost == pytest.approx(cost / len(images), rel=1e-5)
        assert by_hand.accuracy == correct / len(images)
