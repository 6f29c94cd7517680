"""Rules between fields, each a function that yields its violations.

They read the completed spec: what would be trained.
"""

from collections.abc import Iterator
from itertools import pairwise

from nablad.jobspec.conditional_fields import nothing_is_ignored
from nablad.jobspec.inner_rules import INNER_RULES
from nablad.jobspec.outputs import ALLOWED_OUTPUTS, misfit, output_allowed
from nablad.jobspec.violations import Rule, RuleViolation
from nablad.v1 import job_spec_pb2 as v1
from nablad.v1.job_spec_pb2 import JobSpec

__all__ = ["MAXIMUM_PARAMETER_BYTES", "RULES"]

MAXIMUM_PARAMETER_BYTES = 2**31
"""Largest parameter vector, in bytes: parameter server, workers and service hold several copies in memory."""

# As _MOST_SLOTS of service/parameter_server/process.py.
_SHARED_RESULTS = 64
_STOPPING = "training.stopping"
_WARM_START = "training.warm_start"
# minimum_improvement alone has no effect either, but `nothing_is_ignored` reports it at its own field.
_WITH_AN_EFFECT = frozenset({"target_cost", "target_accuracy", "patience", "minimum_improvement"})


def auto_only_at_the_ends(spec: JobSpec) -> Iterator[RuleViolation]:
    """A data set fixes the nodes of the first and the last layer only."""
    for index, nodes in enumerate(spec.model.layers[1:-1], start=1):
        if nodes == 0:
            message = "got 0 (auto); only the first and the last layer follow from the data set; give a number of nodes"
            yield RuleViolation(f"model.layers[{index}]", message)


def parameters_fit_memory(spec: JobSpec) -> Iterator[RuleViolation]:
    """The parameter vector W(0), b(0), W(1), b(1)… is not larger than allowed."""
    layers, number_bytes = spec.model.layers, 8 if spec.model.dtype == v1.D_TYPE_FLOAT64 else 4
    parameters = sum((source + spec.model.bias) * target for source, target in pairwise(layers))
    if 0 not in layers and parameters * number_bytes > MAXIMUM_PARAMETER_BYTES:
        message = (
            f"got {parameters} weights of {number_bytes} bytes each, {parameters * number_bytes} bytes; "
            f"allowed: at most {MAXIMUM_PARAMETER_BYTES} bytes; use fewer nodes"
        )
        yield RuleViolation("model.layers", message, ("model.bias", "model.dtype"))


def activations_fit_layers(spec: JobSpec) -> Iterator[RuleViolation]:
    """One activation for all inner layers, one for each, or one for each layer of weights."""
    last_layer, got = len(spec.model.layers) - 1, len(spec.model.activation)
    if last_layer < 1 or got == last_layer - 1:
        return
    message = (
        f"got {got} activations; allowed with {last_layer - 1} inner layers: one for all, one for each, or "
        f"{last_layer} while output_activation is left out, the last for the output"
    )
    yield RuleViolation("model.activation", message, ("model.layers", "model.output_activation"))


def softmax_only_at_the_output(spec: JobSpec) -> Iterator[RuleViolation]:
    """Softmax is for the output layer only, because it couples the nodes of its layer."""
    if v1.ACTIVATION_SOFTMAX in spec.model.activation:
        layer = list(spec.model.activation).index(v1.ACTIVATION_SOFTMAX) + 1
        message = f"got softmax for the inner layer L({layer}); it is for the output only: use output_activation"
        yield RuleViolation("model.activation", message, ("model.layers", "model.output_activation"))


def classes_share_two_outputs(spec: JobSpec) -> Iterator[RuleViolation]:
    """Softmax and categorical cross-entropy need two output nodes: softmax of a single one is always 1."""
    layers, wanting = spec.model.layers, []
    if spec.model.output_activation == v1.ACTIVATION_SOFTMAX:
        wanting.append("softmax")
    if spec.cost.function == v1.COST_FUNCTION_CATEGORICAL_CROSS_ENTROPY:
        wanting.append("categorical_cross_entropy")
    if wanting and len(layers) > 1 and layers[-1] == 1:
        message = f"got 1 output node, but {' and '.join(wanting)} need at least 2; use sigmoid with log_loss for one"
        reads = ("model.output_activation", "model.activation", "cost.function")
        yield RuleViolation(f"model.layers[{len(layers) - 1}]", message, reads)


def cost_fits_output(spec: JobSpec) -> Iterator[RuleViolation]:
    """The cost function is defined for everything that the output activation gives."""
    cost, output = spec.cost.function, spec.model.output_activation
    if cost in ALLOWED_OUTPUTS and output and not output_allowed(cost, output):
        yield RuleViolation("cost.function", misfit(cost, output), ("model.output_activation", "model.activation"))


def stopping_has_an_effect(spec: JobSpec) -> Iterator[RuleViolation]:
    """A stopping section stops the training or chooses the weights that are kept."""
    stopping = spec.training.stopping
    given = {field.name for field, _ in stopping.ListFields()}
    if spec.training.HasField("stopping") and not stopping.keep_best and given.isdisjoint(_WITH_AN_EFFECT):
        message = (
            "there is nothing in it that stops the training or keeps its best weights; give target_cost, "
            "target_accuracy, patience or keep_best, or leave it out"
        )
        yield RuleViolation(_STOPPING, message)


def best_epoch_is_validated(spec: JobSpec) -> Iterator[RuleViolation]:
    """The best epoch is chosen by its validation cost, so there are validation rows."""
    stopping = spec.training.stopping
    if spec.data.validation or not (stopping.HasField("patience") or stopping.keep_best):
        return
    # Beside patience, keep_best is true by default: its author may have given only patience.
    name, got = ("patience", str(stopping.patience)) if stopping.HasField("patience") else ("keep_best", "true")
    message = f"got {got}, but there is no validation cost to look at; give data.validation, or leave {name} out"
    yield RuleViolation(f"{_STOPPING}.{name}", message, ("data.validation",))


def warm_start_has_one_source(spec: JobSpec) -> Iterator[RuleViolation]:
    """A warm start takes its weights from one source."""
    if not spec.training.HasField("warm_start"):
        return
    model, job = spec.training.warm_start.model, spec.training.warm_start.checkpoint_of
    if model and job:
        yield RuleViolation(
            _WARM_START, "got both model and checkpoint_of; the first weights come from one: give only that"
        )
    elif not model and not job:
        message = "got neither model nor checkpoint_of; give one of them, or leave it out to draw the first weights"
        yield RuleViolation(_WARM_START, message)


def micro_batches_have_rows(spec: JobSpec) -> Iterator[RuleViolation]:
    """Each part of a mini-batch has at least one row."""
    got, rows = spec.distribution.micro_batches, spec.training.batch_size
    if got > rows:
        message = f"got {got}; allowed: at most training.batch_size, which is {rows}"
        yield RuleViolation("distribution.micro_batches", message, ("training.batch_size",))


def native_steps_need_shared_memory(spec: JobSpec) -> Iterator[RuleViolation]:
    """The native step core reads gradients from memory that it shares with each worker."""
    distribution = spec.distribution
    if distribution.step_core == v1.STEP_CORE_NATIVE and distribution.transport == v1.TRANSPORT_INLINE:
        message = "got native, which needs shared memory, but transport is inline; take auto for one of them"
        yield RuleViolation("distribution.step_core", message, ("distribution.transport",))


def native_steps_have_room(spec: JobSpec) -> Iterator[RuleViolation]:
    """Each worker shares memory for so many results of a step, and no more."""
    distribution = spec.distribution
    parts, workers = distribution.micro_batches, distribution.workers
    if distribution.step_core == v1.STEP_CORE_NATIVE and parts > workers * _SHARED_RESULTS:
        message = (
            f"got native, which has room for {_SHARED_RESULTS} results of a worker in each step, but there are {parts} "
            f"micro_batches for {workers} workers; use fewer micro_batches, more workers, or take auto"
        )
        reads = ("distribution.micro_batches", "distribution.workers", "training.batch_size")
        yield RuleViolation("distribution.step_core", message, reads)


def steps_need_a_micro_batch(spec: JobSpec) -> Iterator[RuleViolation]:
    """A step that waits for no micro-batch at all would apply nothing."""
    distribution = spec.distribution
    got, parts = distribution.policy.spare_micro_batches, distribution.micro_batches
    if distribution.policy.name == v1.POLICY_BACKUP and parts <= got:
        message = (
            f"got {got}; allowed: fewer than distribution.micro_batches, which is {parts}; with more micro-batches, "
            "such as one for each worker, less of a step is missing"
        )
        reads = ("distribution.policy.name", "distribution.micro_batches", "training.batch_size")
        yield RuleViolation("distribution.policy.spare_micro_batches", message, reads)


def native_steps_are_sync(spec: JobSpec) -> Iterator[RuleViolation]:
    """The native step core waits for every micro-batch."""
    distribution = spec.distribution
    if distribution.step_core == v1.STEP_CORE_NATIVE and distribution.policy.name == v1.POLICY_BACKUP:
        message = "got native, which is for the policy sync only, and distribution.policy is backup; use auto"
        yield RuleViolation("distribution.step_core", message, ("distribution.policy.name",))


RULES: tuple[Rule, ...] = (
    auto_only_at_the_ends,
    parameters_fit_memory,
    activations_fit_layers,
    softmax_only_at_the_output,
    classes_share_two_outputs,
    cost_fits_output,
    *INNER_RULES,
    stopping_has_an_effect,
    best_epoch_is_validated,
    warm_start_has_one_source,
    nothing_is_ignored,
    micro_batches_have_rows,
    native_steps_need_shared_memory,
    native_steps_have_room,
    steps_need_a_micro_batch,
    native_steps_are_sync,
)
