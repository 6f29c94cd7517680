"""From a spec to the mathematics: nothing is lost or changed on the way."""

import numpy as np
import pytest

from nablad.files import CHUNK_BYTES
from nablad.jobspec import ALLOWED_OUTPUTS, complete, name_of, parse
from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from workers import from_spec
from workers.mathematics.activations import ACTIVATIONS
from workers.mathematics.costs import COSTS, valid_pair
from workers.mathematics.initialisations import INITIALISATIONS
from workers.mathematics.inner_terms import TERMS

COST, ACTIVATION = spec_pb.CostFunction.DESCRIPTOR, spec_pb.Activation.DESCRIPTOR


def _spec(text: str) -> spec_pb.JobSpec:
    spec, violations = parse(text)
    assert not violations
    return complete(spec)


def test_contract_and_mathematics_know_the_same_names() -> None:
    """What a spec can ask for exists, and what exists can be asked for."""
    for enum, table in (
        (COST, COSTS),
        (ACTIVATION, ACTIVATIONS),
        (spec_pb.Initialisation.DESCRIPTOR, INITIALISATIONS),
        (spec_pb.Term.DESCRIPTOR, TERMS),
    ):
        assert {name_of(enum, value.number) for value in enum.values if value.number} == set(table)


@pytest.mark.parametrize("cost", [value.number for value in COST.values if value.number])
def test_a_spec_may_pair_what_the_mathematics_can_pair(cost: spec_pb.CostFunction.ValueType) -> None:
    """The contract's table of outputs for each cost is the mathematics' rule of ranges and domains."""
    allowed = {name_of(ACTIVATION, output) for output in ALLOWED_OUTPUTS[cost]}
    assert allowed == {output for output in ACTIVATIONS if valid_pair(name_of(COST, cost), output)}


def test_every_field_of_a_spec_reaches_the_network() -> None:
    """Layers, activations, cost, bias and inner terms are those of the spec."""
    network = from_spec.network(
        _spec("""
        data: {train: d}
        model: {layers: [4, 3, 3, 2], activation: [tanh, sigmoid], output_activation: identity, bias: false}
        cost:
          function: huber
          huber_delta: 0.5
          inner: [{layer: 2, nodes: [0, 2], term: sparsity, target: 0.1, weight: 0.25}]
        """)
    )
    assert (network.layers, network.activations) == ((4, 3, 3, 2), ("tanh", "sigmoid", "identity"))
    assert (network.cost, network.huber_delta, network.bias) == ("huber", 0.5, False)
    (term,) = network.inner_terms
    assert (term.layer, term.nodes, term.term, term.target, term.weight) == (2, (0, 2), "sparsity", 0.1, 0.25)


def test_the_gradient_of_a_spec_with_inner_terms_is_the_slope_of_its_cost() -> None:
    """Costs on two inner layers, one on a cluster of nodes: central differences agree to 1e-7."""
    spec = _spec("""
        data: {train: d}
        model: {layers: [5, 6, 4, 3], activation: sigmoid, output_activation: sigmoid, dtype: float64}
        cost:
          function: log_loss
          inner:
            - {layer: 1, nodes: [0, 2, 3], term: sparsity, target: 0.1, weight: 0.3}
            - {layer: 2, term: squared_activity, weight: 0.2}
        training: {seed: 5}
        """)
    back_propagation, parameters = from_spec.back_propagation(spec), from_spec.first_parameters(spec)
    generator = np.random.default_rng(1)
    x, labels = generator.normal(size=(7, 5)), generator.integers(0, 3, 7)
    gradient = np.empty_like(parameters)
    back_propagation.gradient(parameters, x, labels, gradient)
    step = 1e-5
    slopes = []
    for number in range(parameters.size):
        moved = [parameters.copy(), parameters.copy()]
        moved[0][number] += step
        moved[1][number] -= step
        costs = [back_propagation.evaluate(each, x, labels).cost_sum for each in moved]
        slopes.append((costs[0] - costs[1]) / (2 * step))
    assert np.linalg.norm(slopes - gradient) <= 1e-7 * np.linalg.norm(gradient)


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "adam"])
def test_an_optimizer_is_built_with_its_own_parameters(name: str) -> None:
    """A completed spec leaves out what the optimizer does not have, and the rule is that of the mathematics."""
    spec = _spec(f"data: {{train: d}}\nmodel: {{layers: [2, 2]}}\ntraining: {{optimizer: {{name: {name}}}}}")
    rule, parameters = from_spec.update_rule(spec), np.ones(3)
    rule.update(parameters, [(slice(None), np.ones(3))], 1, rule.init(parameters))
    assert (parameters < 1).all()


@pytest.mark.parametrize("name", sorted(INITIALISATIONS))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_first_weights_have_the_spec_s_type_and_size(name: str, dtype: str) -> None:
    """One vector of all weights and biases."""
    spec = _spec(f"data: {{train: d}}\nmodel: {{layers: [4, 3, 2], initialisation: {name}, dtype: {dtype}}}")
    parameters = from_spec.first_parameters(spec)
    assert parameters.dtype == from_spec.dtype(spec) == dtype
    assert parameters.size == 4 * 3 + 3 + 3 * 2 + 2


def test_messages_have_room_for_the_assignment_and_for_a_chunk_of_weights() -> None:
    """Whichever is larger: the scaling of very many features, or a chunk, however many weights there are."""
    small = ps_pb.Assignment(spec=_spec("data: {train: d}\nmodel: {layers: [1000, 2000, 1000]}"))
    figures = [1.0] * (CHUNK_BYTES // 8)
    wide = ps_pb.Assignment(spec=small.spec, scaling=ps_pb.FeatureScaling(shift=figures, factor=figures))
    assert from_spec.message_bytes(small) == CHUNK_BYTES
    assert from_spec.message_bytes(wide) == wide.ByteSize() > 2 * CHUNK_BYTES
