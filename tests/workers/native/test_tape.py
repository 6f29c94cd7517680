"""Tapes: what was recorded once does the same again, to the last bit, or is not used."""

from itertools import product
from typing import Any

import numpy as np
import pytest

from workers.mathematics.activations import ACTIVATIONS
from workers.mathematics.back_propagation import BackPropagation
from workers.mathematics.costs import COSTS
from workers.mathematics.inner_terms import InnerTerm
from workers.mathematics.network import Network
from workers.mathematics.parameters import ParameterLayout
from workers.native import tape
from workers.native.library import native_library
from workers.native.tape import record_tape

pytestmark = pytest.mark.skipif(native_library() is None, reason="there is no native library")


def _networks() -> list[Network]:
    """Every activation in hidden layers, and every valid pair of cost and output activation."""
    hidden = [name for name in ACTIVATIONS if not ACTIVATIONS[name].couples_nodes]
    networks = [Network((9, 6, 5, 3), (name, name, "sigmoid"), "log_loss") for name in hidden]
    for output, cost in product(ACTIVATIONS, COSTS):
        try:
            networks.append(Network((9, 5, 3), ("tanh", output), cost))
        except ValueError:
            continue  # no valid pair
    return networks


@pytest.mark.parametrize("network", _networks(), ids=lambda net: f"{'-'.join(net.activations)}, {net.cost}")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_recorded_gradient_has_the_same_bits(network: Network, dtype: str) -> None:
    """Whatever weights, rows and targets follow, for odd and even numbers of samples, and one alone."""
    generator, size = np.random.default_rng(0), ParameterLayout(network.layers, bias=True).size
    for samples in (1, 2, 7, 52):
        plain, recorded = BackPropagation(network, np.dtype(dtype)), _recording(network, dtype)
        weights, out, again = (np.zeros(size, dtype) for _ in range(3))
        x = np.zeros((samples, 9), dtype)
        for scale in (0.3, 1.0, 1e3):
            weights[:], x[:] = generator.normal(0, scale, size), generator.random((samples, 9))
            labels = generator.integers(0, 3, samples)
            with np.errstate(all="ignore"):
                expected, sums = plain.gradient(weights, x, labels, out), recorded.gradient(weights, x, labels, again)
            assert again.tobytes() == out.tobytes()
            assert repr(sums) == repr(expected)  # also where the cost is not a number
        assert all(parts is not None for parts, _ in recorded._recorded.values())


@pytest.mark.parametrize("bias", [True, False])
def test_values_and_networks_without_biases_are_recorded_too(bias: bool) -> None:
    """Values as targets, one output node, no bias."""
    network = Network((4, 3, 1), ("relu", "identity"), "mean_squared_error", bias=bias)
    plain, recorded = BackPropagation(network, np.dtype("float64")), _recording(network, "float64")
    generator, size = np.random.default_rng(1), ParameterLayout(network.layers, bias).size
    weights, x, targets = generator.normal(size=size), generator.random((5, 4)), generator.normal(size=(5, 1))
    out, again = np.empty(size), np.empty(size)
    for _ in range(3):
        assert plain.gradient(weights, x, targets, out) == recorded.gradient(weights, x, targets, again)
        assert again.tobytes() == out.tobytes()
        weights += 0.1


def test_new_arrays_are_recorded_anew() -> None:
    """A tape belongs to its arrays; few are kept, and none is played for others that lie where those were."""
    network = Network((4, 3, 2), ("sigmoid", "sigmoid"), "log_loss")
    plain, recorded = BackPropagation(network, np.dtype("float32")), _recording(network, "float32")
    generator, size = np.random.default_rng(2), ParameterLayout(network.layers, bias=True).size
    for _ in range(50):
        weights, x = generator.normal(size=size).astype("float32"), generator.random((5, 4)).astype("float32")
        out, again = np.empty_like(weights), np.empty_like(weights)
        labels = generator.integers(0, 2, 5)
        assert plain.gradient(weights, x, labels, out) == recorded.gradient(weights, x, labels, again)
        assert again.tobytes() == out.tobytes()
    assert len(recorded._recorded) <= 16


def test_costs_of_inner_terms_are_not_recorded() -> None:
    """They are numbers, and a tape has only arrays: such a network is computed as without tapes."""
    term = InnerTerm(1, "squared_activity", 0.3)
    network = Network((4, 3, 2), ("sigmoid", "sigmoid"), "log_loss", inner_terms=(term,))
    recorded = _recording(network, "float64")
    weights = np.ones(ParameterLayout(network.layers, bias=True).size)
    recorded.gradient(weights, np.ones((5, 4)), np.zeros(5, int), np.empty_like(weights))
    assert recorded._recorded == {}


def _allocate(a: np.ndarray, b: np.ndarray) -> None:
    np.copyto(b, a + 1)


def _convert(a: np.ndarray, b: np.ndarray) -> None:
    np.add(a.astype(np.float32), 1, out=b, casting="unsafe")


def _other_function(a: np.ndarray, b: np.ndarray) -> None:
    b[...] = np.where(a > 0, a, 0)


def _reduce_all(a: np.ndarray, b: np.ndarray) -> None:
    np.add.reduce(a, axis=None, out=b[0, 0, ...])


@pytest.mark.parametrize("function", [_allocate, _convert, _other_function, _reduce_all])
def test_what_no_tape_can_play_is_no_tape(function: Any) -> None:
    """The caller then goes on as without tapes."""
    a, b = np.ones((2, 3)), np.zeros((2, 3))
    assert record_tape(lambda stand_in: function(stand_in(a), stand_in(b)), [b]) is None


def test_a_tape_with_other_bits_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    """It is compared with numpy before it is used, and a difference is said."""
    b = np.zeros(3)

    def function(stand_in: Any) -> None:
        np.add(stand_in(b), 1, out=stand_in(b))  # twice is not the same as once

    assert record_tape(function, [b]) is None
    assert "other bits" in caplog.text


def test_an_unknown_build_of_numpy_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where ufuncs do not begin as numpy's headers say, nothing is read from them."""
    a, b = np.ones(3), np.zeros(3)
    tape._loop.cache_clear()
    monkeypatch.setattr(tape._UFunc, "from_address", lambda _: tape._UFunc())
    assert record_tape(lambda stand_in: np.negative(stand_in(a), out=stand_in(b)), [b]) is None
    tape._loop.cache_clear()


def _recording(network: Network, dtype: str) -> BackPropagation:
    return BackPropagation(network, np.dtype(dtype), record_tape)
