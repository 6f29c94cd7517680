"""The constraints that the contract declares."""

import math
from collections.abc import Callable, Iterator

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from nablad.jobspec import check, complete, parse
from nablad.jobspec.fields import constraint_of, walk
from nablad.v1 import job_spec_pb2 as v1
from nablad.v1.constraints_pb2 import Constraint
from nablad.v1.job_spec_pb2 import JobSpec


def example() -> JobSpec:
    """A spec without violations in which every message of the contract stands."""
    spec, found = parse("""
        data: {train: digits, validation: digits-held-out}
        model: {layers: [64, 30, 10], activation: sigmoid}
        cost: {inner: [{layer: 1, term: sparsity, weight: 0.1}]}
        training: {optimizer: {name: adam}, stopping: {patience: 5}, warm_start: {model: digits-1f}}
        distribution: {policy: backup}
        limits: {}
        checkpoints: {}
    """)
    assert check(spec, unread=found).violations == []
    return spec


Break = Callable[[Message, FieldDescriptor, Constraint], None]


def put(message: Message, field: FieldDescriptor, value: object) -> None:
    if field.is_repeated:
        getattr(message, field.name).append(value)
    else:
        setattr(message, field.name, value)


def shorten(message: Message, field: FieldDescriptor, constraint: Constraint) -> None:
    del getattr(message, field.name)[constraint.minimum_items - 1 :]


def lengthen(message: Message, field: FieldDescriptor, constraint: Constraint) -> None:
    elements = getattr(message, field.name)
    elements.extend([elements[0] if elements else 0] * (constraint.maximum_items + 1))


def is_whole(field: FieldDescriptor) -> bool:
    return field.cpp_type != FieldDescriptor.CPPTYPE_DOUBLE


BREAKS: dict[str, Break] = {
    "minimum": lambda m, f, c: put(m, f, int(c.minimum) - 1 if is_whole(f) else math.nextafter(c.minimum, -1)),
    "maximum": lambda m, f, c: put(m, f, int(c.maximum) + 1 if is_whole(f) else math.nextafter(c.maximum, math.inf)),
    "above": lambda m, f, c: put(m, f, c.above),
    "below": lambda m, f, c: put(m, f, c.below),
    "pattern": lambda m, f, _: put(m, f, "-not a name"),
    "required": lambda m, f, _: m.ClearField(f.name),
    "minimum_items": shorten,
    "maximum_items": lengthen,
}
"""How to break each kind of constraint."""

OTHERS = {"default", "alias", "pattern_description", "shorthand"}
"""What a constraint says beside the limits."""


def declared() -> Iterator[tuple[str, str]]:
    """The path of every field of the contract with every kind of constraint that it has."""
    for _, field, path in walk(example()):
        for kind, _ in constraint_of(field).ListFields():
            yield path, kind.name


def broken(path: str, kind: str) -> JobSpec:
    spec = example()
    message, field = next((message, field) for message, field, other in walk(spec) if other == path)
    BREAKS[kind](message, field, constraint_of(field))
    return spec


@pytest.mark.parametrize(("path", "kind"), [pair for pair in declared() if pair[1] not in OTHERS])
def test_every_declared_constraint_can_be_broken(path, kind):
    """A value just beyond each limit is a violation of that field."""
    assert any(violation.field.startswith(path) for violation in check(broken(path, kind)).violations)


def test_the_example_reaches_every_field_of_the_contract():
    """No message of the contract is missing above, so that no constraint is."""
    reached = {field.containing_type.name for _, field, _ in walk(example())}
    assert reached == set(v1.DESCRIPTOR.message_types_by_name)


@pytest.mark.parametrize("path", [path for path, kind in declared() if kind == "default"])
def test_every_declared_default_is_allowed(path):
    """A default reads as a value of its field's type and keeps the field's own limits."""
    spec = example()
    message, field = next((message, field) for message, field, other in walk(spec) if other == path)
    message.ClearField(field.name)
    assert [violation for violation in check(complete(spec)).violations if violation.field.startswith(path)] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.training.MergeFrom(v1.TrainingSpec(epochs=0)), "training.epochs: got 0; allowed: 1 to 1000000"),
        (lambda s: s.model.layers.append(2000000), "model.layers[3]: got 2000000; allowed: 0 to 1000000"),
        (lambda s: s.ClearField("data"), "data: has to be given"),
        (
            lambda s: s.cost.inner.add(layer=1, weight=1),
            "cost.inner[1].term: has to be given; allowed: absolute_activity",
        ),
        (lambda s: s.cost.inner.add(term=1, weight=1), "cost.inner[1].layer: has to be given; allowed: 1 to 100"),
        (lambda s: setattr(s.cost.inner[0], "target", 1), "target: got 1.0; allowed: more than 0, less than 1"),
        (lambda s: setattr(s.cost.inner[0], "weight", math.nan), "weight: got NaN; allowed: more than 0"),
        (lambda s: setattr(s.training, "learning_rate", math.inf), "got Infinity; allowed: more than 0, at most 1000"),
        (lambda s: setattr(s.training.optimizer, "beta1", 1), "beta1: got 1.0; allowed: at least 0, less than 1"),
        (lambda s: setattr(s.model, "dtype", 77), "model.dtype: got 77; allowed: float32, float64"),
        (lambda s: s.model.activation.append(0), "model.activation[1]: got unspecified; allowed: elu,"),
        (lambda s: setattr(s.data, "train", "a\nb"), 'data.train: got "a\\nb"; allowed: the name of a data set:'),
        (lambda s: s.model.layers.extend([1] * 98), "model.layers: got 101 elements; allowed: at most 100"),
        (lambda s: s.cost.inner.extend([v1.InnerTerm()] * 100), "cost.inner: got 101 elements; allowed: at most 100"),
    ],
)
def test_a_violation_says_what_came_and_what_is_allowed(change, message):
    """Each broken constraint is one violation with its path, also in a message that no job file could give."""
    spec = example()
    change(spec)
    (violation,) = check(spec).violations
    assert message in str(violation)


def test_everything_that_is_missing_is_named():
    """An empty spec lacks its two required parts."""
    assert [violation.field for violation in check(JobSpec()).violations] == ["data", "model"]


def test_violations_come_in_the_order_of_the_fields():
    """Declared constraints and rules between fields are sorted together."""
    spec = example()
    spec.distribution.MergeFrom(v1.DistributionSpec(workers=0, micro_batches=200))
    spec.training.optimizer.momentum = 0.5
    spec.cost.huber_delta = 1
    spec.name = "!"
    fields = [violation.field for violation in check(spec).violations]
    assert fields == [
        "name",
        "cost.huber_delta",
        "training.optimizer.momentum",
        "distribution.workers",
        "distribution.micro_batches",
    ]
