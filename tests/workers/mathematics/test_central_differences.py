"""The proof of back-propagation: ∇ equals central differences of the cost."""

import pytest

from workers.mathematics.activations import ACTIVATIONS
from workers.mathematics.costs import COSTS, valid_pair
from workers.mathematics.inner_terms import TERMS, InnerTerm
from workers.mathematics.network import Network

BOUND = 1e-7
INNER = [name for name, activation in ACTIVATIONS.items() if not activation.couples_nodes]
PAIRS = [(cost, output) for cost in COSTS for output in ACTIVATIONS if valid_pair(cost, output)]


def _fits(term, activation):
    return ACTIVATIONS[activation].range.within(TERMS[term].domain)


def _terms_for(activation):
    return [(), *((InnerTerm(1, term, 0.8, target=0.3),) for term in TERMS if _fits(term, activation))]


@pytest.mark.parametrize(("cost", "output"), PAIRS)
@pytest.mark.parametrize("inner", INNER)
def test_every_activation_cost_and_inner_term(inner, cost, output, make_case, directional_error):
    """∇ is the derivative of the cost for each activation, cost, output and inner term, with and without bias."""
    for terms in _terms_for(inner):
        for bias in (True, False):
            network = Network((2, 3, 2), (inner, output), cost, bias=bias, huber_delta=0.7, inner_terms=terms)
            assert directional_error(make_case(network, samples=3)) <= BOUND, (terms, bias)


@pytest.mark.parametrize(
    ("term", "cost", "output"), [(term, *pair) for pair in PAIRS for term in TERMS if _fits(term, pair[1])]
)
def test_inner_terms_on_the_output_layer(term, cost, output, make_case, central_difference_error):
    """A term on the output layer composes with the cost there, whether its form is cancelled or generic."""
    for nodes in ((), (2, 0)):
        network = Network((3, 4, 3), ("tanh", output), cost, inner_terms=(InnerTerm(2, term, 0.6, nodes),))
        assert central_difference_error(make_case(network)) <= BOUND


@pytest.mark.parametrize(
    ("term", "nodes"),
    [
        (term, nodes)
        for term, form in TERMS.items()
        for nodes in ((1,), (0, 1), (3, 1), (0, 2, 3, 4))
        if len(nodes) >= form.minimum_nodes
    ],
)
def test_inner_terms_on_a_cluster(term, nodes, make_case, central_difference_error):
    """A term on some nodes of an inner layer has the right derivative, whichever nodes they are."""
    network = Network((3, 5, 2), ("sigmoid", "softmax"), "log_loss", inner_terms=(InnerTerm(1, term, 1.3, nodes),))
    assert central_difference_error(make_case(network)) <= BOUND


@pytest.mark.parametrize("bias", [True, False])
def test_several_terms_on_several_layers(bias, make_case, central_difference_error):
    """Terms add up, on several layers and on overlapping sets of nodes of one."""
    terms = (
        InnerTerm(1, "balance", 0.5, (0, 2, 4)),
        InnerTerm(1, "squared_activity", 0.1),
        InnerTerm(2, "sparsity", 0.3, (1, 3), target=0.2),
        InnerTerm(2, "absolute_activity", 0.2, (3, 0)),
        InnerTerm(3, "balance", 0.4),
    )
    network = Network((4, 5, 4, 3), ("gelu", "sigmoid", "identity"), "mean_squared_error", bias, inner_terms=terms)
    assert central_difference_error(make_case(network)) <= BOUND


@pytest.mark.parametrize("layers", [(3, 2), (3, 1), (1, 1, 1), (2, 3, 4, 3, 2, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_any_depth_and_width(layers, bias, make_case, central_difference_error):
    """∇ is right from one layer of weights to five, and with single nodes."""
    activations = ("tanh",) * (len(layers) - 2) + ("sigmoid",)
    assert central_difference_error(make_case(Network(layers, activations, "log_loss", bias))) <= BOUND


@pytest.mark.parametrize("layers", [(3, 4, 3), (3, 4, 1)])
@pytest.mark.parametrize(("cost", "output"), [pair for pair in PAIRS if pair[1] != "softmax"])
def test_class_labels(layers, cost, output, make_case, central_difference_error):
    """∇ is right for class labels, on one output node and on several."""
    network = Network(layers, ("tanh", output), cost)
    assert central_difference_error(make_case(network, seed=2, labels=True)) <= BOUND
