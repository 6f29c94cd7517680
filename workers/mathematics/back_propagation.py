"""Error back-propagation, for all samples of a micro-batch at once.

Sums over samples are not divided here: the optimizer divides once per mini-batch (the 1/n of equation 83).
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, TypeAlias

import numpy as np

from workers.mathematics.activations import ACTIVATIONS
from workers.mathematics.arrays import Array, clip_inside, total
from workers.mathematics.costs import CANCELLED_FORMS, cost_function
from workers.mathematics.inner_terms import BoundTerm
from workers.mathematics.network import Network
from workers.mathematics.parameters import ParameterLayout, View
from workers.mathematics.sums import SampleSums
from workers.mathematics.workspace import Given, Workspace

# Numbers of samples whose buffers are kept: the parts of full and of last mini-batches, in training and evaluation.
_KEPT_WORKSPACES = 8
# Parameter vectors whose views are kept, because every step passes the same weights and the same gradients.
_KEPT_VECTORS = 4
# Combinations of arrays that recorded parts are kept for.
_KEPT_RECORDINGS = 16


Play: TypeAlias = Callable[[], None]
# Takes a function of stand-ins of arrays and the arrays that it writes; returns what does the same to the same arrays.
Record: TypeAlias = Callable[[Callable[[Callable[[Array], Array]], None], Sequence[Array]], Play | None]
_Parts: TypeAlias = tuple[Play, Play]


class BackPropagation:
    """Computes costs and gradients of a network; a pure function of its arguments, apart from the buffers it reuses.

    The same arguments give the same bits. Keeps references to the parameter vectors of the last calls. Not
    thread-safe.

    Attributes:
        layout: Layout of the parameter vectors.
    """

    def __init__(
        self, network: Network, dtype: np.dtype[Any] | type[np.floating[Any]], record: Record | None = None
    ) -> None:
        """Prepares a network.

        Args:
            network: The network and its cost.
            dtype: Type of all numbers.
            record: Records parts of `gradient` that consist of array operations alone, to do them faster.
        """
        self.layout = ParameterLayout(network.layers, network.bias)
        self._network = network
        self._dtype = np.dtype(dtype)
        self._activations = dict(enumerate((ACTIVATIONS[name] for name in network.activations), start=1))
        self._cost = cost_function(network.cost, network.huber_delta)
        self._cancelled = CANCELLED_FORMS.get((network.cost, network.activations[-1]))
        self._terms = {
            layer: [BoundTerm(term, network.layers[layer]) for term in network.inner_terms if term.layer == layer]
            for layer in self._activations
        }
        self._workspaces = lru_cache(_KEPT_WORKSPACES)(partial(Workspace, network, self._dtype))  # by number of samples
        self._known_views: dict[int, tuple[Array, list[View]]] = {}  # by identity of the vector
        # Costs of inner terms are numbers, which a recorded part cannot return.
        self._record = None if any(self._terms.values()) else record
        self._recorded: dict[tuple[int, ...], tuple[_Parts | None, tuple[Array, ...]]] = {}  # by identity of the arrays

    def gradient(
        self, parameters: Array, x: Array, targets: Given, out: Array, layer_done: Callable[[int], None] | None = None
    ) -> SampleSums:
        """Computes the gradient ∇ = ∂Λ/∂(W, b), summed over the samples.

        Args:
            parameters: Vector of the layout.
            x: A(0)ᵀ: one row per sample, (samples, features), C-contiguous for speed. May have no samples.
            targets: Class labels, integers (samples,); or values, floating-point (samples, output nodes).
            out: Vector of the layout; the gradient is written over all of it.
            layer_done: Called with N, from E−1 down to 0, as soon as ∇(N), of W(N) and b(N), is written to ``out``;
                the layers before it are computed afterwards.

        Raises:
            ValueError: An array has another shape or dtype than stated above.
        """
        work = self._workspace(x)
        if self._record and not layer_done and (recorded := self._recorded_parts(parameters, x, targets, out, work)):
            forward, backward = recorded
            work.targets.load(targets)
            forward()
            correct = work.targets.count_right(work.a[self._network.output_layer])
            backward()
            return SampleSums(total(work.cost, work.wide), len(x), correct)
        weights, gradient = self._views(parameters), self._views(out)
        cost, correct = self._forward_to_cost(weights, x, targets, work)
        for term_cost in self._backward(weights, gradient, x, work, layer_done):
            cost += term_cost
        return SampleSums(cost, len(x), correct)

    def evaluate(self, parameters: Array | list[View], x: Array, targets: Given) -> SampleSums:
        """Computes the sums of `gradient` alone; takes the same arguments, or views instead of the parameter vector."""
        work = self._workspace(x)
        cost, correct = self._forward_to_cost(self._views(parameters), x, targets, work)
        for layer in range(self._network.output_layer, 0, -1):
            cost += sum(term.cost(work.a[layer], work.scratch[layer], work.wide) for term in self._terms[layer])
        return SampleSums(cost, len(x), correct)

    def outputs(self, parameters: Array | list[View], x: Array) -> Array:
        """Returns A(E), (output nodes, samples): a buffer, valid until the next call; arguments as for `evaluate`."""
        work = self._workspace(x)
        self._forward_to_z(self._views(parameters), x, work)
        self._activate(self._network.output_layer, work)
        return work.a[self._network.output_layer]

    def _forward_to_z(self, weights: list[View], x: Array, work: Workspace) -> None:
        """Computes Z(N+1) = W(N) ⊙ A(N) + b(N), A = φ(Z) (equations 9, 13), up to Z(E)."""
        source: Array = x.T
        for layer, (W, b) in enumerate(weights, start=1):
            z, spare = work.z[layer], work.scratch[layer].spare
            np.matmul(W, source, out=z)
            if b is not None:
                np.copyto(spare, b[:, np.newaxis])
                np.add(z, spare, out=z)
            if layer < self._network.output_layer:
                self._activate(layer, work)
                source = work.a[layer]

    def _activate(self, layer: int, work: Workspace) -> None:
        self._activations[layer].apply(work.z[layer], work.a[layer], work.scratch[layer])

    def _forward_to_cost(self, weights: list[View], x: Array, targets: Given, work: Workspace) -> tuple[float, int]:
        """Computes A(E); returns the cost sum of the output layer and the number of samples classified correctly."""
        work.targets.load(targets)
        self._forward(weights, x, work)
        correct = work.targets.count_right(work.a[self._network.output_layer])
        self._generic_cost(work)
        return total(work.cost, work.wide), correct

    def _forward(self, weights: list[View], x: Array, work: Workspace) -> None:
        """Computes A(E), and λ if it has a form through z."""
        last = self._network.output_layer
        self._forward_to_z(weights, x, work)
        if self._cancelled:  # reads Z(E), which A(E) may overwrite
            self._cancelled.value(work.z[last], work.targets.y, work.cost, work.scratch[last])
        self._activate(last, work)

    def _generic_cost(self, work: Workspace) -> None:
        """Computes λ through A(E), unless it has a form through z."""
        last = self._network.output_layer
        if not self._cancelled:
            clip_inside(work.a[last], self._cost.domain, self._dtype)
            self._cost.value(work.a[last], work.targets.y, work.cost, work.scratch[last])

    def _backward(
        self,
        weights: list[View],
        gradient: list[View],
        x: Array,
        work: Workspace,
        layer_done: Callable[[int], None] | None = None,
    ) -> list[float]:
        """Computes ∇ from the last layer on; returns the costs of the inner terms by layer."""
        costs = [self._output_delta(work)]
        for layer in range(self._network.output_layer, 0, -1):
            self._layer_gradient(gradient[layer - 1], layer, x, work)
            if layer_done:
                layer_done(layer - 1)
            if layer > 1:
                costs.append(self._inner_delta(weights[layer - 1][0], layer - 1, work))
        return costs

    def _recorded_parts(
        self, parameters: Array, x: Array, targets: Given, out: Array, work: Workspace
    ) -> _Parts | None:
        """Returns `_forward`, and `_generic_cost` with `_backward`, as they were recorded for just these arrays."""
        key = id(parameters), id(x), id(out)
        if key not in self._recorded:
            if len(self._recorded) == _KEPT_RECORDINGS:
                del self._recorded[next(iter(self._recorded))]
            work.targets.load(targets)
            self._recorded[key] = self._record_parts(parameters, x, out, work), (parameters, x, out)
        return self._recorded[key][0]

    def _record_parts(self, parameters: Array, x: Array, out: Array, work: Workspace) -> _Parts | None:
        record, weights, gradient = self._record, self._views(parameters), self._views(out)
        if record is None:
            return None

        def forward(stand_in: Callable[[Array], Array]) -> None:
            self._forward(_mapped(weights, stand_in), stand_in(x), work.mapped(stand_in))

        def backward(stand_in: Callable[[Array], Array]) -> None:
            mapped = work.mapped(stand_in)
            self._generic_cost(mapped)
            self._backward(_mapped(weights, stand_in), _mapped(gradient, stand_in), stand_in(x), mapped)

        play_forward = record(forward, [work.a[self._network.output_layer], work.cost])
        play_backward = record(backward, [out, work.cost])
        return (play_forward, play_backward) if play_forward and play_backward else None

    def _output_delta(self, work: Workspace) -> float:
        """Computes δ(E) = outδ * D(E) (equations 84–88), or its cancelled form; returns the cost of the inner terms."""
        last = self._network.output_layer
        delta, a, scratch = work.delta[last], work.a[last], work.scratch[last]
        if not self._cancelled:
            self._cost.derivative(a, work.targets.y, delta, scratch)
            return self._add_terms_and_go_back(last, work)
        if not self._terms[last]:
            self._cancelled.delta(a, work.targets.y, delta, scratch)
            return 0.0
        delta.fill(0)
        cost = self._add_terms_and_go_back(last, work)
        self._cancelled.delta(a, work.targets.y, work.cost, scratch)  # work.cost is free: λ has been added up
        np.add(delta, work.cost, out=delta)
        return cost

    def _inner_delta(self, W: Array, layer: int, work: Workspace) -> float:
        """Computes δ(N) = [W(N)ᵀ ⊙ δ(N+1) + ∂λ/∂a of inner terms] * D(N) (equation 92); returns the terms' cost."""
        np.matmul(W.T, work.delta[layer + 1], out=work.delta[layer])
        return self._add_terms_and_go_back(layer, work)

    def _add_terms_and_go_back(self, layer: int, work: Workspace) -> float:
        delta, a, scratch = work.delta[layer], work.a[layer], work.scratch[layer]
        cost = 0.0
        for term in self._terms[layer]:
            cost += term.add_derivative(delta, a, scratch, work.wide)
        activation = self._activations[layer]
        activation.back(delta, work.z[layer] if activation.keeps_z else a, scratch)
        return cost

    def _layer_gradient(self, gradient: View, layer: int, x: Array, work: Workspace) -> None:
        """Computes ∇(N−1) = δ(N) ⊙ A(N−1)ᵀ (equations 89, 93); that of the bias is δ(N), summed over the samples."""
        nabla, bias = gradient
        np.matmul(work.delta[layer], x if layer == 1 else work.a[layer - 1].T, out=nabla)
        if bias is not None:
            np.add.reduce(work.delta[layer], axis=1, out=bias)

    def _views(self, vector: Array | list[View]) -> list[View]:
        """Returns W(N) and b(N) in a parameter vector, at index N."""
        if isinstance(vector, list):
            return vector
        known = self._known_views.get(id(vector))
        if known:
            return known[1]
        if vector.dtype != self._dtype:
            raise ValueError(f"A parameter vector of this network must be {self._dtype}, not {vector.dtype}.")
        views = self.layout.views(vector)
        if len(self._known_views) == _KEPT_VECTORS:
            del self._known_views[next(iter(self._known_views))]
        self._known_views[id(vector)] = vector, views
        return views

    def _workspace(self, x: Array) -> Workspace:
        """Returns the buffers for the number of samples of x."""
        features = self._network.layers[0]
        if x.ndim != 2 or x.shape[1] != features or x.dtype != self._dtype:
            raise ValueError(
                f"x must be {self._dtype} of shape (samples, {features}), not {x.dtype} of shape {x.shape}."
            )
        return self._workspaces(len(x))


def _mapped(views: list[View], function: Callable[[Array], Array]) -> list[View]:
    return [(function(W), None if b is None else function(b)) for W, b in views]
