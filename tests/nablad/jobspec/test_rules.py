"""The rules between fields."""

import pytest

from nablad.jobspec import check, complete, parse
from nablad.jobspec.rules import RULES

DATA = "data: {train: d}\n"
VALIDATED = "data: {train: d, validation: v}\nmodel: {layers: [4, 2]}\n"


def said(text: str) -> list[str]:
    spec, found = parse(text if text.startswith("data") else DATA + text)
    return [str(violation) for violation in check(spec, unread=found).violations]


BROKEN = {
    "auto_only_at_the_ends": (
        "model: {layers: [4, auto, 2]}",
        "model.layers[1]: got 0 (auto); only the first and the last layer follow from the data set; "
        "give a number of nodes",
    ),
    "parameters_fit_memory": (
        "model: {layers: [1000000, 1000, 2], bias: false}",
        "model.layers: got 1000002000 weights of 4 bytes each, 4000008000 bytes; allowed: at most 2147483648 bytes; "
        "use fewer nodes",
    ),
    "activations_fit_layers": (
        "model: {layers: [4, 3, 3, 3, 2], activation: [relu, tanh]}",
        "model.activation: got 2 activations; allowed with 3 inner layers: one for all, one for each, or 4 while "
        "output_activation is left out, the last for the output",
    ),
    "softmax_only_at_the_output": (
        "model: {layers: [4, 3, 3, 2], activation: softmax}",
        "model.activation: got softmax for the inner layer L(1); it is for the output only: use output_activation",
    ),
    "classes_share_two_outputs": (
        "model: {layers: [4, 1], output_activation: softmax}",
        "model.layers[1]: got 1 output node, but softmax and categorical_cross_entropy need at least 2; use sigmoid "
        "with log_loss for one",
    ),
    "cost_fits_output": (
        "model: {layers: [4, 2], output_activation: identity}\ncost: {function: log_loss}",
        "cost.function: log_loss needs outputs in (0, 1), but identity gives any number; use sigmoid or softmax, or "
        "another cost function",
    ),
    "layer_exists": (
        "model: {layers: [4, 3, 2]}\ncost: {inner: {layer: 3, term: balance, weight: 1}}",
        "cost.inner[0].layer: got 3; allowed: 1 to 2, the last layer of this network",
    ),
    "nodes_exist": (
        "model: {layers: [4, 3, 2]}\ncost: {inner: {layer: 1, nodes: [0, 3, 9], term: balance, weight: 1}}",
        "cost.inner[0].nodes: got 3, 9; allowed: 0 to 2, the nodes of layer L(1)",
    ),
    "nodes_are_a_set": (
        "model: {layers: [4, 3, 2]}\ncost: {inner: {layer: 1, nodes: [0, 1, 0], term: balance, weight: 1}}",
        "cost.inner[0].nodes: got 0 more than once; give each node once",
    ),
    "balance_has_a_cluster": (
        "model: {layers: [4, 3, 2]}\ncost: {inner: {layer: 1, nodes: 2, term: balance, weight: 1}}",
        "cost.inner[0].nodes: got 1 node; balance compares nodes with each other: at least 2 are needed",
    ),
    "sparsity_has_a_mean_to_compare": (
        "model: {layers: [4, 3, 2]}\ncost: {inner: {layer: 1, term: sparsity, weight: 1}}",
        "cost.inner[0].term: got sparsity, which needs activities in (0, 1), but the activation of layer L(1) is relu; "
        "use sigmoid there, or another term",
    ),
    "stopping_has_an_effect": (
        "model: {layers: [4, 2]}\ntraining: {stopping: {}}",
        "training.stopping: there is nothing in it that stops the training or keeps its best weights; give "
        "target_cost, target_accuracy, patience or keep_best, or leave it out",
    ),
    "best_epoch_is_validated": (
        "model: {layers: [4, 2]}\ntraining: {stopping: {patience: 5}}",
        "training.stopping.patience: got 5, but there is no validation cost to look at; give data.validation, or leave "
        "patience out",
    ),
    "warm_start_has_one_source": (
        "model: {layers: [4, 2]}\ntraining: {warm_start: {model: a, checkpoint_of: b}}",
        "training.warm_start: got both model and checkpoint_of; the first weights come from one: give only that",
    ),
    "nothing_is_ignored": (
        "model: {layers: [4, 2]}\ntraining: {optimizer: {momentum: 0.5}}",
        "training.optimizer.momentum: got 0.5, but it is only for momentum or nesterov, and name is sgd",
    ),
    "micro_batches_have_rows": (
        "model: {layers: [4, 2]}\ntraining: {batch_size: 3}\ndistribution: {micro_batches: 4}",
        "distribution.micro_batches: got 4; allowed: at most training.batch_size, which is 3",
    ),
    "native_steps_need_shared_memory": (
        "model: {layers: [4, 2]}\ndistribution: {step_core: native, transport: inline}",
        "distribution.step_core: got native, which needs shared memory, but transport is inline; take auto for one of "
        "them",
    ),
    "native_steps_have_room": (
        "model: {layers: [4, 2]}\ntraining: {batch_size: 200}\n"
        "distribution: {step_core: native, micro_batches: 129, workers: 2}",
        "distribution.step_core: got native, which has room for 64 results of a worker in each step, but there are 129 "
        "micro_batches for 2 workers; use fewer micro_batches, more workers, or take auto",
    ),
    "steps_need_a_micro_batch": (
        "model: {layers: [4, 2]}\ndistribution: {policy: {name: backup, spare_micro_batches: 2}}",
        "distribution.policy.spare_micro_batches: got 2; allowed: fewer than distribution.micro_batches, which is 2; "
        "with more micro-batches, such as one for each worker, less of a step is missing",
    ),
    "native_steps_are_sync": (
        "model: {layers: [4, 2]}\ndistribution: {policy: backup, step_core: native}",
        "distribution.step_core: got native, which is for the policy sync only, and distribution.policy is backup; "
        "use auto",
    ),
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_each_rule_has_its_sentence(rule):
    """A spec that breaks one rule is answered with that rule's sentence and no other."""
    text, sentence = BROKEN[rule.__name__]
    assert said(text) == [sentence]
    assert list(rule(complete(parse(DATA + text)[0])))


@pytest.mark.parametrize(
    "text",
    [
        "model: {layers: [4, 2]}",
        "model: {layers: [4, 2], activation: softmax}",
        "model: {layers: [4, 2], activation: relu, output_activation: softmax}",
        "model: {layers: [4, 3, 2], activation: relu}",
        "model: {layers: [4, 3, 2], activation: [relu, softmax]}",
        "model: {layers: [4, 3, 3, 2], activation: [relu, tanh]}",
        "model: {layers: [auto, 3, auto]}\ncost: {inner: {layer: 2, nodes: [900], term: squared_activity, weight: 1}}",
        "model: {layers: [4, 1]}\ncost: {function: log_loss}",
        "model: {layers: [4, 3, 2]}\ncost: {inner: {layer: 2, term: sparsity, weight: 1}}",
        "model: {layers: [4, 3, 2], activation: sigmoid}\ncost: {inner: {layer: 1, term: sparsity, weight: 1}}",
        "model: {layers: [4, 2]}\ncost: {function: huber, huber_delta: 2}",
        "model: {layers: [4, 2]}\ntraining: {optimizer: {name: nesterov, momentum: 0.5}}",
        "model: {layers: [4, 2]}\ntraining: {batch_size: 3}\ndistribution: {workers: 9}",
        "model: {layers: [4, 2]}\ndistribution: {workers: 9, micro_batches: 2}",
        "model: {layers: [4, 2]}\ndistribution: {policy: backup}",
        "model: {layers: [4, 2]}\ndistribution: {micro_batches: 3, policy: {name: backup, spare_micro_batches: 2}}",
        "model: {layers: [536, 1000000], bias: false}",
        "model: {layers: [4, 2]}\ntraining: {stopping: {target_cost: 0.5, target_accuracy: 0.5, keep_best: false}}",
        "model: {layers: [4, 2]}\ntraining: {warm_start: {model: a}}",
        f"{VALIDATED}training: {{stopping: {{patience: 5, minimum_improvement: 0.1}}}}",
        f"{VALIDATED}training: {{stopping: {{keep_best: true, minimum_improvement: 0.1}}}}",
    ],
)
def test_what_is_legal_is_not_refused(text):
    """Specs at the edge of the rules break none of them."""
    assert said(text) == []


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("model: {layers: [4, 2], activation: [relu, tanh]}", "model.activation"),
        ("model: {layers: [4, 3, 2], activation: [relu, tanh], output_activation: tanh}", "model.activation"),
        ("model: {layers: [4, 1]}\ncost: {function: categorical_cross_entropy}", "model.layers[1]"),
        ("model: {layers: [4, 3, 2], activation: [relu, relu]}\ncost: {function: poisson}", "cost.function"),
        ("model: {layers: [4, 2]}\ncost: {huber_delta: 1}", "cost.huber_delta"),
        ("model: {layers: [4, 2]}\ntraining: {optimizer: {name: sgd, eps: 0.1}}", "training.optimizer.eps"),
        ("model: {layers: [4, 1, 2]}\ncost: {inner: {layer: 1, term: balance, weight: 1}}", "cost.inner[0].nodes"),
        (
            "model: {layers: [4, 2]}\ncost: {inner: {layer: 1, term: balance, weight: 1, target: 0.1}}",
            "cost.inner[0].target",
        ),
        (
            "model: {layers: [4, 2]}\ncost: {function: huber, inner: {layer: 1, term: sparsity, weight: 1}}",
            "cost.inner[0].term",
        ),
        ("model: {layers: [4, 2]}\ntraining: {stopping: {keep_best: false}}", "training.stopping"),
        ("model: {layers: [4, 2]}\ntraining: {stopping: {keep_best: true}}", "training.stopping.keep_best"),
        (
            "model: {layers: [4, 2]}\ntraining: {stopping: {patience: 5, minimum_improvement: 0.1, keep_best: true}}",
            "training.stopping.patience",
        ),
        (f"{VALIDATED}training: {{stopping: {{minimum_improvement: 0}}}}", "training.stopping.minimum_improvement"),
        (
            f"{VALIDATED}training: {{stopping: {{target_cost: 1, keep_best: false, minimum_improvement: 0.1}}}}",
            "training.stopping.minimum_improvement",
        ),
        ("model: {layers: [4, 2]}\ntraining: {warm_start: {}}", "training.warm_start"),
        (
            "model: {layers: [4, 2]}\ntraining: {warm_start: {model: '-', checkpoint_of: b}}",
            "training.warm_start.model",
        ),
        (
            "model: {layers: [4, 2]}\ndistribution: {policy: {spare_micro_batches: 1}}",
            "distribution.policy.spare_micro_batches",
        ),
        (
            "model: {layers: [4, 2]}\ntraining: {batch_size: 9}\ndistribution: {policy: backup}",
            "distribution.policy.spare_micro_batches",
        ),
        ("model: {layers: [536, 1000000]}", "model.layers"),
        ("model: {layers: [500, 1000000], bias: false, dtype: float64}", "model.layers"),
    ],
)
def test_what_is_illegal_is_refused(text, field):
    """Specs just beyond the edge of the rules break exactly one of them."""
    (violation,) = said(text)
    assert violation.startswith(f"{field}: ")


def test_many_nodes_are_named_briefly():
    """A message about a thousand nodes stays one line."""
    term = f"{{layer: 1, nodes: {list(range(2, 1000))}, term: balance, weight: 1}}"
    (violation,) = said(f"model: {{layers: [4, 2]}}\ncost: {{inner: {term}}}")
    assert "got 2, 3, 4, 5, 6 and 993 more; allowed: 0 to 1" in violation
