"""The rules between fields, each a function that says what breaks it.

They look at the spec as it would be trained: completed as far as that is possible without a data set.
"""

from collections.abc import Iterator
from itertools import pairwise

from nablad.jobspec.applicability import APPLIES_WITH, applies
from nablad.jobspec.fields import is_given, walk
from nablad.jobspec.findings import Finding, Rule
from nablad.jobspec.inner_rules import INNER_RULES
from nablad.jobspec.names import shown
from nablad.jobspec.outputs import ALLOWED_OUTPUTS, misfit, output_allowed
from nablad.jobspec.training_rules import TRAINING_RULES
from nablad.v1 import job_spec_pb2 as v1
from nablad.v1.job_spec_pb2 import JobSpec

__all__ = ["MAXIMUM_PARAMETER_BYTES", "RULES"]

MAXIMUM_PARAMETER_BYTES = 2**31
"""The most that the parameter vector may have: its processes and the service hold it several times in memory."""


def auto_only_at_the_ends(spec: JobSpec) -> Iterator[Finding]:
    """A data set fixes the nodes of the first and the last layer only."""
    for index, nodes in enumerate(spec.model.layers[1:-1], start=1):
        if nodes == 0:
            message = "got 0 (auto); only the first and the last layer follow from the data set; give a number of nodes"
            yield Finding(f"model.layers[{index}]", message)


def parameters_fit_memory(spec: JobSpec) -> Iterator[Finding]:
    """The parameter vector W(0), b(0), W(1), b(1)… has a largest size."""
    layers, number_bytes = spec.model.layers, 8 if spec.model.dtype == v1.D_TYPE_FLOAT64 else 4
    parameters = sum((source + spec.model.bias) * target for source, target in pairwise(layers))
    if 0 not in layers and parameters * number_bytes > MAXIMUM_PARAMETER_BYTES:
        message = (
            f"got {parameters} weights of {number_bytes} bytes each, {parameters * number_bytes} bytes; "
            f"allowed: at most {MAXIMUM_PARAMETER_BYTES} bytes; use fewer nodes"
        )
        yield Finding("model.layers", message, ("model.bias", "model.dtype"))


def activations_fit_layers(spec: JobSpec) -> Iterator[Finding]:
    """One activation for all inner layers, one for each, or one for each layer of weights."""
    last_layer, got = len(spec.model.layers) - 1, len(spec.model.activation)
    if last_layer < 1 or got == last_layer - 1:
        return
    message = (
        f"got {got} activations; allowed with {last_layer - 1} inner layers: one for all, one for each, or "
        f"{last_layer} while output_activation is left out, the last for the output"
    )
    yield Finding("model.activation", message, ("model.layers", "model.output_activation"))


def softmax_only_at_the_output(spec: JobSpec) -> Iterator[Finding]:
    """Softmax couples the nodes of its layer, which only the output layer provides for."""
    if v1.ACTIVATION_SOFTMAX in spec.model.activation:
        layer = list(spec.model.activation).index(v1.ACTIVATION_SOFTMAX) + 1
        message = f"got softmax for the inner layer L({layer}); it is for the output only: use output_activation"
        yield Finding("model.activation", message, ("model.layers", "model.output_activation"))


def classes_share_two_outputs(spec: JobSpec) -> Iterator[Finding]:
    """Softmax of a single node is always 1, and categorical cross-entropy has no word for "not this class"."""
    layers, wanting = spec.model.layers, []
    if spec.model.output_activation == v1.ACTIVATION_SOFTMAX:
        wanting.append("softmax")
    if spec.cost.function == v1.COST_FUNCTION_CATEGORICAL_CROSS_ENTROPY:
        wanting.append("categorical_cross_entropy")
    if wanting and len(layers) > 1 and layers[-1] == 1:
        message = f"got 1 output node, but {' and '.join(wanting)} need at least 2; use sigmoid with log_loss for one"
        reads = ("model.output_activation", "model.activation", "cost.function")
        yield Finding(f"model.layers[{len(layers) - 1}]", message, reads)


def cost_fits_output(spec: JobSpec) -> Iterator[Finding]:
    """The cost function is defined for everything that the output activation gives."""
    cost, output = spec.cost.function, spec.model.output_activation
    if cost in ALLOWED_OUTPUTS and output and not output_allowed(cost, output):
        yield Finding("cost.function", misfit(cost, output), ("model.output_activation", "model.activation"))


def nothing_is_ignored(spec: JobSpec) -> Iterator[Finding]:
    """A field that would have no effect is not given."""
    for message, field, path in walk(spec):
        if not is_given(message, field) or applies(message, field):
            continue
        condition = APPLIES_WITH[field.full_name]
        text = f"got {shown(getattr(message, field.name))}, but {condition.refusal(message)}"
        yield Finding(path, text, tuple(f"{path.rpartition('.')[0]}.{name}" for name in condition.reads))


def micro_batches_have_rows(spec: JobSpec) -> Iterator[Finding]:
    """Each part of a mini-batch has at least one row."""
    got, rows = spec.distribution.micro_batches, spec.training.batch_size
    if got > rows:
        message = f"got {got}; allowed: at most training.batch_size, which is {rows}"
        yield Finding("distribution.micro_batches", message, ("training.batch_size",))


RULES: tuple[Rule, ...] = (
    auto_only_at_the_ends,
    parameters_fit_memory,
    activations_fit_layers,
    softmax_only_at_the_output,
    classes_share_two_outputs,
    cost_fits_output,
    *INNER_RULES,
    *TRAINING_RULES,
    nothing_is_ignored,
    micro_batches_have_rows,
)
