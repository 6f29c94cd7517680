"""Norms by layer: what numpy gives for each layer's slice, wherever the blocks of the update are cut."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from nablad.v1 import parameter_server_pb2 as ps_pb
from service.checkpoints.image import Snapshot
from service.parameter_server.coordinator import Coordinator
from service.parameter_server.shard.norms import Norms
from service.parameter_server.shard.weights import _BLOCK, Weights
from workers.mathematics.optimizers import Optimizer, optimizer
from workers.mathematics.parameters import ParameterLayout
from workers.plan import Plan
from workers.transport.tickets import Result, Ticket

LAYERS = {
    "one layer": (3, 2),
    "several in a block": (784, 100, 50, 10),
    "a border in each of several blocks": (700, 500, 300, 10),
    "a layer over several blocks": (10, 600, 600, 3),
}
NAMES = ("sgd", "adam")


def _update(layout: ParameterLayout, dtype: str, name: str, **looks: bool) -> tuple[Norms | None, np.ndarray, Weights]:
    """An update with a gradient of two addends: its norms, the sum of the samples' gradients, the weights after it."""
    generator = np.random.default_rng(layout.size)
    start, *addends = (generator.normal(size=layout.size).astype(dtype) for _ in range(3))
    weights = Weights(optimizer(name, 0.25), Snapshot(ps_pb.TrainingState(), start), layout.starts, keep_best=False)
    norms = weights.update((addends[0], addends[1]), 8, **looks)
    return norms, addends[0] + addends[1], weights


def _by_layer(layout: ParameterLayout, vector: np.ndarray) -> list[float]:
    edges = pairwise([*layout.starts, layout.size])
    return [float(np.linalg.norm(vector[begin:end].astype(np.float64))) for begin, end in edges]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layers", LAYERS)
def test_norms_are_those_of_each_layers_slice(layers: str, dtype: str, bias: bool) -> None:
    """Of W(N) with b(N): of the mean gradient as it was, and of the weights as they are after the update."""
    layout = ParameterLayout(LAYERS[layers], bias)
    norms, total, weights = _update(layout, dtype, "sgd", with_norms=True, with_weight_norms=True)
    assert norms is not None
    assert norms.gradients == pytest.approx(_by_layer(layout, total / 8), rel=1e-5)
    assert norms.weights == pytest.approx(_by_layer(layout, weights.parameters), rel=1e-5)


@pytest.mark.parametrize("layers", LAYERS)
def test_the_global_norm_is_the_root_of_the_layers_squares(layers: str) -> None:
    """To the last bits."""
    layout = ParameterLayout(LAYERS[layers], bias=True)
    norms, _, _ = _update(layout, "float32", "sgd", with_norms=True)
    assert norms is not None
    assert norms.gradient == pytest.approx(math.hypot(*norms.gradients), rel=1e-14)
    assert not norms.weights


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layers", LAYERS)
def test_a_look_changes_no_bit(layers: str, name: str) -> None:
    """Neither of the weights, nor of the gradient's norms when the weights are looked at too."""
    layout = ParameterLayout(LAYERS[layers], bias=True)
    unseen, _, plain = _update(layout, "float32", name)
    gradient_only, _, seen = _update(layout, "float32", name, with_norms=True)
    both, _, seen_twice = _update(layout, "float32", name, with_norms=True, with_weight_norms=True)
    assert unseen is None
    assert plain.parameters.tobytes() == seen.parameters.tobytes() == seen_twice.parameters.tobytes()
    assert gradient_only is not None
    assert both is not None
    assert (gradient_only.gradient, gradient_only.gradients) == (both.gradient, both.gradients)


def test_squares_that_are_too_large_give_an_infinite_norm() -> None:
    """A training that diverges is ended for that, with advice, and not for an error in a figure."""
    layout = ParameterLayout((1, 1, 1), bias=False)
    start = Snapshot(ps_pb.TrainingState(), np.zeros(2))
    weights = Weights(optimizer("sgd", 1.0), start, layout.starts, keep_best=False)
    norms = weights.update((np.full(2, 1.2e154),), 1, with_norms=True)
    assert norms is not None
    assert norms.gradient == math.inf
    assert norms.gradients == pytest.approx([1.2e154, 1.2e154])


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "adam"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_buffers_change_no_bit(name: str, dtype: str) -> None:
    """Version v is in buffer v % 2, whatever the first one is, and every version is that of an update in place."""
    size, generator = 2 * _BLOCK + 77, np.random.default_rng(1)
    start = generator.normal(size=size).astype(dtype)
    gradients = [generator.normal(size=size).astype(dtype) for _ in range(4)]
    for first in (6, 7):
        in_place = Weights(optimizer(name, 0.25), _at(first, start.copy()), (0,), keep_best=False)
        versions = [np.full(size, np.nan, dtype), np.full(size, np.nan, dtype)]
        versions[first % 2][:] = start
        beside = Weights(
            optimizer(name, 0.25), _at(first, versions[first % 2]), (0,), keep_best=False, versions=versions
        )
        for version, gradient in enumerate(gradients, start=first + 1):
            norms = [
                weights.update((gradient,), 8, with_norms=True, with_weight_norms=True)
                for weights in (in_place, beside)
            ]
            assert beside.parameters is versions[version % 2]
            assert beside.parameters.tobytes() == in_place.parameters.tobytes()
            assert norms[0].weights == norms[1].weights
            assert beside.digest() == in_place.digest()


def test_a_version_stays_whole_while_the_next_one_is_written() -> None:
    """A reader that looks after each block of an update sees the version that it reads, with no number of another one.

    The version before that one is torn meanwhile: results of it must not count.
    """
    size, seen = 2 * _BLOCK + 77, []
    versions = [np.zeros(size), np.full(size, -1.0)]

    def count_up(_: tuple[float, ...], w: np.ndarray, g: np.ndarray) -> None:
        np.add(w, g, out=w)
        seen.append([set(buffer.tolist()) for buffer in versions])

    rule = Optimizer("count up", lambda _: 1.0, lambda *_: (), count_up, moments=0)
    weights = Weights(rule, _at(0, versions[0]), (0,), keep_best=False, versions=versions)
    for version in range(4):
        seen.clear()
        weights.update((np.ones(size),), 1)
        read, written = version % 2, (version + 1) % 2
        assert [looks[read] for looks in seen] == [{version}] * 3
        assert [looks[written] for looks in seen] == [{version - 1, version + 1}] * 2 + [{version + 1}]


def _at(version: int, parameters: np.ndarray) -> Snapshot:
    return Snapshot(ps_pb.TrainingState(step=version, optimizer_updates=version), parameters)


def test_layers_are_told_with_the_norm_that_goes_into_the_history(
    make_coordinator: Callable[..., Coordinator], answer: Callable[..., Result]
) -> None:
    """One entry for each, from the first step on; none before."""
    plan = Plan(rows=4, batch_size=4, micro_batches=1, epochs=1, seed=1)
    coordinator = make_coordinator(plan, 6, layer_starts=[0, 4])
    assert not _layers(coordinator)
    coordinator.add_worker("w")
    assert coordinator.accept_result("w", 2, answer(coordinator, coordinator.deal_tickets()["w"][0], plan)) is None
    coordinator.record_rounds()
    first, second = _layers(coordinator)
    gradient = answer(coordinator, Ticket(0, 1, 0), plan).gradient
    assert gradient is not None
    assert [first.gradient_norm, second.gradient_norm] == pytest.approx(
        [np.linalg.norm(gradient[:4]) / 4, np.linalg.norm(gradient[4:]) / 4]
    )
    assert [first.weight_norm, second.weight_norm] == pytest.approx(
        [np.linalg.norm(coordinator.shard.parameters[:4]), np.linalg.norm(coordinator.shard.parameters[4:])]
    )
    assert coordinator.progress().gradient_norm == pytest.approx(math.hypot(first.gradient_norm, second.gradient_norm))


def _layers(coordinator: Coordinator) -> list[ps_pb.LayerStatistics]:
    statistics = ps_pb.AttemptStatistics()
    coordinator.steps.write_to(statistics)
    return list(statistics.layers)
