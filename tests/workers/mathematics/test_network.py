import pytest

from workers.mathematics.inner_terms import InnerTerm
from workers.mathematics.network import Network

VALID = {"layers": (4, 3, 2), "activations": ("relu", "sigmoid"), "cost": "log_loss"}


def _term(**changes):
    return {"inner_terms": (InnerTerm(**({"layer": 2, "term": "squared_activity", "weight": 0.1} | changes)),)}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"layers": (4,), "activations": ()}, "at least two layers"),
        ({"layers": (4, 0, 2)}, "at least one node each"),
        ({"activations": ("relu",)}, "3 layers need 2 activations, .* but 1 came"),
        ({"activations": ("rleu", "sigmoid")}, "'rleu' is unknown; known are sigmoid, tanh"),
        ({"activations": ("softmax", "sigmoid")}, r"output layer only, but L\(1\) has it"),
        ({"layers": (4, 3, 1), "activations": ("relu", "softmax")}, "single output node is always 1; take sigmoid"),
        ({"cost": "los"}, "'los' is unknown; known are log_loss"),
        ({"activations": ("relu", "identity")}, "not finite for every output of identity; it goes with sigmoid, soft"),
        ({"activations": ("relu", "relu"), "cost": "poisson"}, "it goes with sigmoid, softplus, softmax"),
        ({"huber_delta": 0.0}, "huber_delta must be a number above 0, not 0.0"),
        ({"huber_delta": float("nan")}, "huber_delta must be a number above 0"),
        (_term(term="sparse"), "inner term 0: 'sparse' is unknown; known are squared_activity"),
        (_term(layer=0), r"inner term 0 sits on L\(0\), but layers go from 1 to 2"),
        (_term(layer=3), r"sits on L\(3\)"),
        (_term(weight=0.0), "needs a weight above 0, not 0.0"),
        (_term(weight=float("inf")), "needs a weight above 0"),
        (_term(nodes=(0, 2)), r"names node 2, but L\(2\) has nodes 0 to 1"),
        (_term(nodes=(-1,)), "names node -1"),
        (_term(nodes=(1, 1)), "names a node twice"),
        (_term(term="balance", nodes=(1,)), "balance, needs at least 2 nodes"),
        (_term(term="sparsity", layer=1), r"between 0 and 1, as sigmoid and softmax .* but L\(1\) has relu"),
        (_term(term="sparsity", target=1.0), "needs a target above 0 and below 1, not 1.0"),
    ],
)
def test_invalid_networks_are_refused(change, sentence):
    """Parts that do not fit together are rejected with a sentence that says what is wrong and what would be right."""
    with pytest.raises(ValueError, match=sentence):
        Network(**(VALID | change))


@pytest.mark.parametrize(
    "change",
    [{}, {"layers": (1, 1), "activations": ("sigmoid",)}, _term(term="sparsity"), _term(term="balance", nodes=(1, 0))],
)
def test_valid_networks_are_taken(change):
    """What fits together is a network, with E counted from its layers."""
    network = Network(**(VALID | change))
    assert network.output_layer == len(network.layers) - 1


def test_balance_needs_two_nodes_in_the_layer():
    """Balance over all nodes is rejected on a layer with a single one."""
    with pytest.raises(ValueError, match="at least 2 nodes"):
        Network((4, 1), ("sigmoid",), "log_loss", inner_terms=(InnerTerm(1, "balance", 0.1),))
