"""Rules between a spec and its data sets."""

import math
from collections.abc import Iterator, Mapping

from nablad.errors import Violation
from nablad.jobspec.names import name_of
from nablad.jobspec.violations import sort
from nablad.v1 import job_spec_pb2 as v1
from nablad.v1.datasets_pb2 import Dataset
from nablad.v1.job_spec_pb2 import JobSpec

__all__ = ["data_violations"]


def data_violations(spec: JobSpec, train: Dataset, validation: Dataset | None = None) -> list[Violation]:
    """Returns what is wrong with a spec for its data sets.

    A validation set with fewer rows than there are micro-batches is no violation.

    Args:
        spec: A spec that is completed for `train`.
        train: The data set that `spec.data.train` names.
        validation: The data set that `spec.data.validation` names, if any.

    Returns:
        All violations in the order of the contract's fields.
    """
    found = [*_input(spec, train), *_output(spec, train), *_cost(spec, train), *_rows(spec, train)]
    found += _stopping(spec, train)
    found += _targets(spec, train, "data.train")
    if validation is not None:
        found += _targets(spec, validation, "data.validation")
        found += [Violation("data.validation", message) for message in _differences(train, validation)]
    return sort(found)


def _input(spec: JobSpec, train: Dataset) -> Iterator[Violation]:
    """L(0) has one node for each feature."""
    if spec.model.layers and spec.model.layers[0] != train.features:
        got = spec.model.layers[0]
        message = f"got {got}; allowed: {train.features}, the features of data set {train.name}, or auto"
        yield Violation("model.layers[0]", message)


def _output(spec: JobSpec, train: Dataset) -> Iterator[Violation]:
    """L(E) has one node for each class or value; for two classes, one node is enough."""
    layers = spec.model.layers
    needed = train.classes or train.target_columns
    if len(layers) < 2 or layers[-1] == needed or (train.classes == 2 and layers[-1] == 1):
        return
    what = "classes" if train.classes else "target columns"
    one = "1 or " if train.classes == 2 else ""
    message = f"got {layers[-1]}; allowed: {one}{needed}, the {what} of data set {train.name}, or auto"
    yield Violation(f"model.layers[{len(layers) - 1}]", message)


def _cost(spec: JobSpec, train: Dataset) -> Iterator[Violation]:
    """Categorical cross-entropy is for class labels, because it reads targets as probabilities of classes."""
    if spec.cost.function == v1.COST_FUNCTION_CATEGORICAL_CROSS_ENTROPY and not train.classes:
        message = (
            f"got categorical_cross_entropy, which is for class labels, but data set {train.name} has values as its "
            "targets; use mean_squared_error, or add the data set with target_kind labels"
        )
        yield Violation("cost.function", message)


# Lowest and highest target of each cost function that is not defined for every value.
_TARGETS: Mapping[v1.CostFunction.ValueType, tuple[float, float]] = {
    v1.COST_FUNCTION_LOG_LOSS: (0, 1),
    v1.COST_FUNCTION_POISSON: (0, math.inf),
}


def _targets(spec: JobSpec, dataset: Dataset, field: str) -> Iterator[Violation]:
    """Target values lie where the cost function is defined; class labels always do."""
    low, high = _TARGETS.get(spec.cost.function, (-math.inf, math.inf))
    if not dataset.HasField("target_minimum") or low <= dataset.target_minimum <= dataset.target_maximum <= high:
        return
    allowed = f"from {low:g} to {high:g}" if math.isfinite(high) else f"not below {low:g}"
    message = (
        f"the targets of data set {dataset.name} go from {dataset.target_minimum:g} to {dataset.target_maximum:g}, but "
        f"{name_of(v1.CostFunction.DESCRIPTOR, spec.cost.function)} needs targets {allowed}"
    )
    yield Violation(field, message)


def _rows(spec: JobSpec, train: Dataset) -> Iterator[Violation]:
    """Each part of a mini-batch has at least one row; a mini-batch has at most all rows."""
    got = spec.distribution.micro_batches
    if got > train.rows:
        message = f"got {got}; allowed: at most {train.rows}, the rows of data set {train.name}"
        yield Violation("distribution.micro_batches", message)


def _stopping(spec: JobSpec, train: Dataset) -> Iterator[Violation]:
    """A target accuracy needs class labels: accuracy is the share of labels that were predicted right."""
    stopping = spec.training.stopping
    if stopping.HasField("target_accuracy") and not train.classes:
        message = (
            f"got {stopping.target_accuracy:g}, but there is an accuracy only for class labels, and data set "
            f"{train.name} has values as its targets; use target_cost"
        )
        yield Violation("training.stopping.target_accuracy", message)


def _differences(train: Dataset, validation: Dataset) -> Iterator[str]:
    """Yields the differences between the data sets that make a validation meaningless."""
    if validation.features != train.features:
        yield f"{validation.name} has {validation.features} features, but {train.name} has {train.features}"
    if bool(validation.classes) != bool(train.classes):
        kinds = {True: "class labels", False: "values"}
        of_validation, of_train = kinds[validation.classes > 0], kinds[train.classes > 0]
        yield f"{validation.name} has {of_validation} as its targets, but {train.name} has {of_train}"
    elif validation.classes > train.classes:
        yield f"{validation.name} has {validation.classes} classes, but {train.name} has {train.classes}"
    elif validation.target_columns != train.target_columns:
        columns = f"{validation.target_columns} target columns"
        yield f"{validation.name} has {columns}, but {train.name} has {train.target_columns}"
