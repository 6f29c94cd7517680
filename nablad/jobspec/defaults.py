"""Defaults: what is filled in where the author of a spec left a field out."""

from collections.abc import Mapping

from nablad.jobspec.conditional_fields import applies
from nablad.jobspec.fields import is_given, walk
from nablad.jobspec.outputs import cost_for, output_for
from nablad.jobspec.text import set_default
from nablad.v1 import job_spec_pb2 as v1
from nablad.v1.datasets_pb2 import Dataset
from nablad.v1.job_spec_pb2 import CostSpec, Initialisation, JobSpec, ModelSpec, Optimizer

__all__ = ["complete", "default_micro_batches"]

_LEARNING_RATE: Mapping[Optimizer.ValueType, float] = {
    v1.OPTIMIZER_SGD: 0.1,
    v1.OPTIMIZER_MOMENTUM: 0.01,
    v1.OPTIMIZER_NESTEROV: 0.01,
    v1.OPTIMIZER_ADAM: 0.001,
}

_INITIALISATION_SCALE: Mapping[Initialisation.ValueType, float] = {
    v1.INITIALISATION_GLOROT_UNIFORM: 1.0,
    v1.INITIALISATION_GLOROT_NORMAL: 1.0,
    v1.INITIALISATION_HE_UNIFORM: 1.0,
    v1.INITIALISATION_HE_NORMAL: 1.0,
    v1.INITIALISATION_UNIFORM: 0.05,
    v1.INITIALISATION_NORMAL: 0.05,
}

# A smaller part of a mini-batch is hardly worth its message.
_LEAST_ROWS_OF_A_HALF = 32


def complete(spec: JobSpec, train: Dataset | None = None) -> JobSpec:
    """Returns the spec with every default filled in. Completing it again changes nothing.

    Given fields are not changed, with one exception: activations are written out, one for each inner layer and the
    output's in its own field. Fields that do not apply (momentum of sgd) stay left out. A spec that breaks rules is
    completed as far as possible. Stopping and warm start have no default: left out, they stay so.

    Args:
        spec: The spec as its author wrote it; it is not changed.
        train: The data set that `spec.data.train` names. Without it, fields that depend on the data stay left out:
            layers given as 0, and output activation and cost function where only the targets decide on them.
    """
    completed = JobSpec()
    completed.CopyFrom(spec)
    completed.cost.SetInParent()
    completed.training.optimizer.SetInParent()
    completed.distribution.policy.SetInParent()
    completed.limits.SetInParent()
    completed.checkpoints.SetInParent()
    if completed.HasField("model"):
        _fill_layers(completed.model, train)
        _write_out_activations(completed.model)
        _choose_output_and_cost(completed.model, completed.cost, train)
    _fill_declared(completed)
    _fill_dependent(completed, train)
    return completed


def _fill_layers(model: ModelSpec, train: Dataset | None) -> None:
    """Replaces 0 nodes in the first and the last layer by what the data set fixes."""
    if train is None or len(model.layers) < 2:
        return
    model.layers[0] = model.layers[0] or train.features
    model.layers[-1] = model.layers[-1] or train.classes or train.target_columns


def _write_out_activations(model: ModelSpec) -> None:
    """Writes out one activation for each inner layer L(1)…L(E-1), and the output's in its own field.

    A number of activations that does not fit the layers stays as it is.
    """
    last_layer = len(model.layers) - 1  # E
    if last_layer < 1:
        return
    if not model.output_activation and len(model.activation) == last_layer:
        model.output_activation = model.activation.pop()
    if not model.activation:
        set_default(model, ModelSpec.DESCRIPTOR.fields_by_name["activation"])
    if len(model.activation) == 1:
        model.activation[:] = [model.activation[0]] * (last_layer - 1)


def _choose_output_and_cost(model: ModelSpec, cost: CostSpec, train: Dataset | None) -> None:
    """Chooses the one that goes with the other where one is given, else both by the targets."""
    if cost.function and not model.output_activation:
        model.output_activation = output_for(cost.function)
    if not cost.function and not model.output_activation and train is not None:
        model.output_activation = _output_for_targets(model, train)
    if not cost.function and model.output_activation:
        cost.function = cost_for(model.output_activation, labels=None if train is None else train.classes > 0)


def _output_for_targets(model: ModelSpec, train: Dataset) -> v1.Activation.ValueType:
    """Returns sigmoid for one node between two classes, softmax for more of them, identity for values."""
    if not train.classes:
        return v1.ACTIVATION_IDENTITY
    one_node = len(model.layers) > 0 and model.layers[-1] == 1
    return v1.ACTIVATION_SIGMOID if one_node else v1.ACTIVATION_SOFTMAX


def _fill_declared(spec: JobSpec) -> None:
    """Fills in the defaults that the contract declares, wherever the field applies and is not a list."""
    for message, field, _ in walk(spec):
        if not field.is_repeated and not is_given(message, field) and applies(message, field):
            set_default(message, field)


def _fill_dependent(spec: JobSpec, train: Dataset | None) -> None:
    """Fills in the defaults that follow from other fields."""
    model, training, distribution = spec.model, spec.training, spec.distribution
    if spec.HasField("model") and not model.HasField("initialisation_scale"):
        scale = _INITIALISATION_SCALE.get(model.initialisation)
        if scale is not None:
            model.initialisation_scale = scale
    if not training.HasField("learning_rate"):
        learning_rate = _LEARNING_RATE.get(training.optimizer.name)
        if learning_rate is not None:
            training.learning_rate = learning_rate
    if training.HasField("stopping") and not training.stopping.HasField("keep_best"):
        training.stopping.keep_best = training.stopping.HasField("patience")
    if not distribution.HasField("micro_batches"):
        rows = training.batch_size if train is None else min(training.batch_size, train.rows)
        distribution.micro_batches = default_micro_batches(rows)


def default_micro_batches(rows: int) -> int:
    """Returns the default number of micro-batches.

    It follows from the rows alone, because how a mini-batch is cut decides the last bits of the result: a number that
    followed the workers would change the result with them. Two workers need two parts. Each further part adds a
    message and an addition of the whole gradient to a step. Measured with two workers, 4 parts cost 13 to 46 % of the
    speed of 2 (`benchmarks/results/micro_batches.md`), so authors with more workers ask for more parts.

    Args:
        rows: Rows of one mini-batch.
    """
    return 2 if rows >= 2 * _LEAST_ROWS_OF_A_HALF else 1
